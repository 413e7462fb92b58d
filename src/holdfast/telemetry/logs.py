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
from typing import Any, Literal, TextIO, cast

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from holdfast.events import Event, ModelFinished, ToolFinished, TurnEnded, TurnIds, TurnStarted, TurnSuspended
from holdfast.telemetry.catalogue_events import MOVES
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
    shared: list[Processor] = [
        merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
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


def set_log_level(level: Level) -> None:
    """From now on, write lines from this severity on; other libraries' from ``warning`` on at most."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    logging.getLogger().setLevel(max(number, logging.WARNING))


def log_level() -> str:
    """The severity from which on lines are written."""
    return str(logging.getLevelName(logger.get_effective_level())).lower()


def log_turns(ids: TurnIds, event: Event) -> None:
    """An observer: writes what an operator wants to know about a turn."""
    write = _WRITERS.get(type(event))
    if write is not None:
        write(ids, event)


def _turn_started(ids: TurnIds, _event: TurnStarted) -> None:
    bind_contextvars(**ids._asdict())
    logger.info("agent_start")


def _model_finished(_ids: TurnIds, event: ModelFinished) -> None:
    if event.status != "ok":
        logger.warning("model_call", **_facts(event, "call", "provider", "model", "status", "duration_s", "error"))
    elif logger.is_enabled_for(logging.DEBUG):  # It seldom is: to gather the facts costs more than to ask.
        logger.debug("model_call", **_facts(event, "call", "provider", "model", "duration_s", "output_tokens"))


def _tool_finished(_ids: TurnIds, event: ToolFinished) -> None:
    if event.status != "ok":
        logger.warning("tool_call", **_facts(event, "tool", "call_id", "status", "duration_s", "error"))
    elif logger.is_enabled_for(logging.DEBUG):
        logger.debug("tool_call", **_facts(event, "tool", "call_id", "duration_s"))


def _turn_ended(_ids: TurnIds, event: TurnEnded) -> None:
    facts = _facts(event, "outcome", "duration_s", "error") | msgspec.structs.asdict(event.usage)
    (logger.info if event.outcome == "success" else logger.warning)("agent_complete", **facts)


def _turn_suspended(_ids: TurnIds, event: TurnSuspended) -> None:
    logger.warning("turn_suspended", **_facts(event, "because", "unit"))


_WRITERS: Mapping[type[Event], Callable[[TurnIds, Any], None]] = {
    TurnStarted: _turn_started,
    ModelFinished: _model_finished,
    ToolFinished: _tool_finished,
    TurnEnded: _turn_ended,
    TurnSuspended: _turn_suspended,
}


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


def _facts(event: Event, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(event, name)) is not None}


def _json_line(_logger: object, _method: str, line: EventDict) -> str:
    line = {**{name: line.pop(name, None) for name in ("ts", "level", "event")}, **line}
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
