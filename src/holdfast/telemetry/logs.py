"""
Logs: one line an event, key-values and not sentences, and never what people or models wrote.

Every line carries what is bound in the context it was written in: request, session, turn and trace ids, and the agent.
Secrets are taken out of it last, whoever wrote it. On a terminal lines are coloured text, elsewhere JSON.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, copy_context
from functools import lru_cache
from typing import Any, Literal, TextIO, cast

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from holdfast.clock import Clock, iso
from holdfast.events import (
    Event,
    ModelFinished,
    MonitorActed,
    MonitorDetected,
    StateChanged,
    Takers,
    ToolFinished,
    TurnEnded,
    TurnIds,
    TurnStarted,
    TurnSuspended,
    Usage,
)
from holdfast.telemetry.catalogue_events import MOVES
from holdfast.telemetry.catalogue_logs import AGENT_COMPLETE
from holdfast.telemetry.catalogue_monitor import CRITICAL_STATE
from holdfast.telemetry.redact import Redactor
from holdfast.telemetry.spec import TelemetrySpec

_ours = structlog.get_logger("holdfast")
_standard = structlog.wrap_logger(
    logging.getLogger("holdfast"),
    wrapper_class=structlog.stdlib.BoundLogger,
    processors=[structlog.stdlib.filter_by_level, merge_contextvars, structlog.stdlib.render_to_log_kwargs],
)


class _Logger:
    """
    Where our lines go: to structlog, where ``configure_logs`` or the program has configured it.

    In a program that has not, they go to the standard logger ``holdfast``, and are its own to show.
    """

    def __init__(self) -> None:
        self._config: dict[str, Any] = {}
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        if not structlog.is_configured():
            return getattr(_standard, name)
        config = structlog.get_config()
        if config != self._config:  # To make one costs more than most lines, which are below the level.
            self._config, self._made = config, _ours.bind()
        return getattr(self._made, name)


logger = cast("FilteringBoundLogger", _Logger())

_encode = msgspec.json.Encoder(enc_hook=str).encode

_level: int | None = None
_USAGE = tuple(field.name for field in AGENT_COMPLETE.fields if field.name in Usage.__struct_fields__)
_DETECTED = tuple(field.name for field in CRITICAL_STATE.fields)
_LEVELS = {"warn": "warning", "exception": "error"}


Level = Literal["debug", "info", "warning", "error"]

_TALKATIVE = ("opentelemetry.baggage.propagation", "opentelemetry.trace.span")
"""Loggers that warn of malformed headers, with a line for each: callers could fill the log."""


def configure_logs(spec: TelemetrySpec, stream: TextIO | None = None, secrets: Iterable[str] = ()) -> None:
    """
    Send every log line, other libraries' too, to ``stream`` (standard error by default) as ``spec`` says.

    Args:
        spec: From which level on, and in which form.
        stream: Where to.
        secrets: What no line may hold, besides whatever looks like a key.
    """
    out = stream or sys.stderr
    pretty = spec.log_format == "pretty" or (spec.log_format == "auto" and out.isatty())
    wall_ns = Clock().wall_ns

    def begin(_logger: object, method: str, line: EventDict) -> EventDict:
        """What every line begins with, and then what is bound where it was written; its own facts come last."""
        head: EventDict = {"ts": iso(wall_ns(), micros=True), "level": _LEVELS.get(method, method), "event": None}
        for variable, value in copy_context().items():
            key = _bound_key(variable)
            if key is not None and value is not ... and key not in head:
                head[key] = value
        return {**head, **line}

    shared: list[Processor] = [begin]
    written: Callable[..., str] = structlog.dev.ConsoleRenderer(colors=out.isatty()) if pretty else _json_line
    redact = Redactor(secrets)

    def render(writer: object, method: str, line: EventDict) -> str:
        return redact(written(writer, method, line))

    structlog.configure(
        processors=[*shared, render],
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _without_texts, render],
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    set_log_level(spec.log_level)


@lru_cache(maxsize=1024)
def _bound_key(variable: ContextVar[Any]) -> str | None:
    """What structlog has bound by this variable; None where it is somebody else's."""
    prefix = structlog.contextvars.STRUCTLOG_KEY_PREFIX
    return variable.name.removeprefix(prefix) if variable.name.startswith(prefix) else None


def set_log_level(level: Level) -> None:
    """From now on, write lines from this severity on; other libraries' from ``warning`` on at most."""
    global _level  # noqa: PLW0603 - as structlog's own, it is the process's
    _level = number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(max(number, logging.WARNING))


def _in_detail() -> bool:
    """Whether calls that went well are told: as we were told, or as the program has configured structlog."""
    if _level is None or not structlog.is_configured():
        return logger.is_enabled_for(logging.DEBUG)
    return _level <= logging.DEBUG


def log_level() -> str:
    """The severity from which on lines are written."""
    return str(logging.getLevelName(logger.get_effective_level())).lower()


def log_turns(ids: TurnIds, event: Event) -> None:
    """An observer: writes what an operator wants to know about a turn."""
    write = TURN_LINES.get(type(event))
    if write is not None:
        write(ids, event)


def _turn_started(ids: TurnIds, _event: TurnStarted) -> None:
    bind_contextvars(**ids._asdict())
    logger.info("agent_start")


def _model_finished(_ids: TurnIds, event: ModelFinished) -> None:
    if event.status != "ok":
        logger.warning("model_call", **_facts(event, "call", "provider", "model", "status", "duration_s", "error"))
    elif _in_detail():  # It seldom is: to gather the facts costs more than to ask.
        logger.debug("model_call", **_facts(event, "call", "provider", "model", "duration_s", "output_tokens"))


def _tool_finished(_ids: TurnIds, event: ToolFinished) -> None:
    if event.status != "ok":
        logger.warning("tool_call", **_facts(event, "tool", "call_id", "status", "duration_s", "error"))
    elif _in_detail():
        logger.debug("tool_call", **_facts(event, "tool", "call_id", "duration_s"))


def _turn_ended(_ids: TurnIds, event: TurnEnded) -> None:
    facts = _facts(event, "outcome", "duration_s", "error") | _facts(event.usage, *_USAGE)
    (logger.info if event.outcome == "success" else logger.warning)("agent_complete", **facts)


def _monitor_detected(_ids: TurnIds, event: MonitorDetected) -> None:
    logger.warning("critical_state", **_facts(event, *_DETECTED))


def _monitor_acted(_ids: TurnIds, event: MonitorActed) -> None:
    logger.warning("protocol_activation", **_facts(event, "protocol", "state", "rule", "step", "tool"))
    if event.protocol == "stop_partial":
        logger.critical("circuit_breaker_trip", **_facts(event, "state", "rule", "step"))


def _state_changed(_ids: TurnIds, event: StateChanged) -> None:
    logger.info("state_transition", was=event.was, state=event.state)


def _turn_suspended(_ids: TurnIds, event: TurnSuspended) -> None:
    logger.warning("turn_suspended", **_facts(event, "because", "unit"))


TURN_LINES: Takers = {
    TurnStarted: _turn_started,
    ModelFinished: _model_finished,
    ToolFinished: _tool_finished,
    MonitorDetected: _monitor_detected,
    MonitorActed: _monitor_acted,
    StateChanged: _state_changed,
    TurnEnded: _turn_ended,
    TurnSuspended: _turn_suspended,
}
"""The same, by event."""


def log_notice(name: str, pipeline: str, key_class: str, facts: Mapping[str, object]) -> None:
    """What a policy did: its moves as warnings, and single refusals, waits and retries for those who look closely."""
    write = logger.warning if name in MOVES else logger.debug
    told = {key: value for key, value in facts.items() if value is not None}
    write(name.replace(".", "_"), pipeline=pipeline, key_class=key_class, **told)


def log_failure(error: BaseException) -> None:
    """
    Where in the code a turn failed: the kind of error and its last lines, and no text, which may quote messages.

    At level ``debug`` the traceback is added, texts included.
    """
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)[-3:]
    where = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    logger.warning("turn_failed", error=type(error).__name__, cause=type(cause).__name__, where=where)
    logger.debug("turn_failed_traceback", traceback="".join(traceback.format_exception(cause)))


def _facts(event: Event | Usage, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(event, name)) is not None}


def _json_line(_logger: object, _method: str, line: EventDict) -> str:
    try:
        return _encode(line).decode()
    except UnicodeEncodeError:  # Half a surrogate pair, as in the name of a file: ASCII can tell of it.
        return json.dumps(line, default=str)


def _without_texts(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Another library's traceback, and the lines after its first one, may quote messages: leave them out."""
    error = line.pop("exc_info", None)
    line.pop("stack_info", None)
    line["event"] = line["event"].partition("\n")[0]
    kind = error[0] if isinstance(error, tuple) else None
    return line if kind is None else {**line, "error": kind.__name__}
