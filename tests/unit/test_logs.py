"""Logs: one line an event, joined by ids, and never what people or models wrote."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

import pytest
import structlog
from opentelemetry.sdk.resources import Resource
from structlog.contextvars import bound_contextvars

from holdfast.errors import AgentFailed, HoldfastError
from holdfast.events import ModelFinished, TextDelta, ToolFinished, TurnEnded, TurnIds, TurnStarted, Usage
from holdfast.guard import ModelKey
from holdfast.telemetry import (
    Metrics,
    TelemetrySpec,
    Tracing,
    configure_logs,
    log_failure,
    log_level,
    log_turns,
    logger,
    set_log_level,
)
from holdfast.telemetry.jsonl import TraceEvents
from holdfast.telemetry.own_span import OwnSpans
from holdfast.telemetry.trace import read_context
from holdfast.testing import loop_clock
from holdfast.turn import Reply, Turn

if TYPE_CHECKING:
    from tests.unit.house import House
else:
    from house import House  # pytest puts a test's folder on the path

IDS = TurnIds("talk", "c-1", "t" * 32, "assistant")
MARKER = "S3CR3T"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Logging is set up once a process: put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def logs(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "json", "pretty"] = "auto",
    out: io.StringIO | None = None,
) -> io.StringIO:
    stream = out or io.StringIO()
    configure_logs(TelemetrySpec(log_level=level, log_format=form), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_whatever_it_holds() -> None:
    out = logs()
    logger.info("event", text="two\nlines\r\n\u2028\0", odd=object(), number=2**70, half="\ud83d", nothing=None)
    (line,) = out.getvalue().rstrip("\n").split("\n")
    told = json.loads(line)
    assert list(told)[:3] == ["ts", "level", "event"]
    assert (told["level"], told["event"], told["number"], told["half"]) == ("info", "event", 2**70, "\ud83d")
    assert told["text"] == "two\nlines\r\n\u2028\0"
    assert told["ts"].endswith("Z")


def test_every_line_carries_the_ids_bound_around_it() -> None:
    out = logs()
    with bound_contextvars(request_id="r1", trace_id="t1"):
        logger.info("inside")
        logging.getLogger("other").warning("too")
    logger.info("outside")
    inside, too, outside = lines(out)
    for line in (inside, too):
        assert (line["request_id"], line["trace_id"]) == ("r1", "t1")
    assert "request_id" not in outside


@pytest.mark.parametrize(("level", "told"), [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")])
def test_what_is_below_the_level_is_not_written(level: Any, told: str) -> None:
    out = logs(level)
    for method in (logger.debug, logger.info, logger.warning, logger.error):
        method("event")
    assert "".join(line["level"][0] for line in lines(out)) == told


def test_other_libraries_are_heard_from_warnings_on_in_the_same_form() -> None:
    out = logs("debug")
    other = logging.getLogger("httpx")
    other.info("GET https://example/?q=private")
    other.warning("slow: %s s", 3)
    (line,) = lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("slow: 3 s", "warning", "httpx")
    assert "ts" in line


def test_other_libraries_keep_to_a_higher_level_too() -> None:
    out = logs("error")
    logging.getLogger("httpx").warning("slow")
    assert out.getvalue() == ""


def test_another_librarys_traceback_and_further_lines_are_left_out() -> None:
    """Asyncio's report of a task that failed unheard quotes the error on its second line."""
    out = logs()
    try:
        raise ValueError(MARKER)
    except ValueError as error:
        task = f"<Task finished exception={error!r}>"
        logging.getLogger("asyncio").exception("Task exception was never retrieved\nfuture: %s", task, stack_info=True)
    (line,) = lines(out)
    assert (line["event"], line["error"]) == ("Task exception was never retrieved", "ValueError")
    assert set(line) == {"ts", "level", "event", "logger", "error"}
    assert MARKER not in out.getvalue()


def test_on_a_terminal_lines_are_for_people_and_elsewhere_for_programs() -> None:
    for form, out, pretty in (
        ("auto", Terminal(), True),
        ("auto", io.StringIO(), False),
        ("json", Terminal(), False),
        ("pretty", io.StringIO(), True),
    ):
        logs(form=form, out=out)  # type: ignore[arg-type]  # a row of the table above
        logger.info("an_event", key="value")
        logging.getLogger("other").warning("another")
        assert "an_event" in out.getvalue()
        assert len(out.getvalue().splitlines()) == 2
        assert out.getvalue().startswith("{") != pretty
        assert ("\x1b[" in out.getvalue()) == (pretty and out.isatty())


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_no_line_holds_a_secret_whoever_wrote_it(form: Literal["json", "pretty"]) -> None:
    secret, key = 'pass"word of mine', "sk-ant-api03-" + "x1" * 20
    out = io.StringIO()
    configure_logs(TelemetrySpec(log_level="debug", log_format=form), out, [secret])
    with bound_contextvars(bound=key):
        logger.info("event", password=secret, nested={"deep": [secret, key]}, header=f"Bearer {key}")
    logging.getLogger("httpx").warning("cannot reach redis://:%s@cache with %s", "hunter22", key)
    try:
        raise ValueError(secret)
    except ValueError as error:
        log_failure(error)
    for told in (secret, json.dumps(secret)[1:-1], key, "hunter22"):
        assert told not in out.getvalue()
    assert out.getvalue().count("[redacted]") >= 7
    assert len(out.getvalue().splitlines()) >= 4
    if form == "json":
        assert lines(out)[0]["nested"] == {"deep": ["[redacted]", "[redacted]"]}


def test_the_level_can_be_changed_while_it_runs() -> None:
    out = logs("info")
    held = logger.debug
    for level, told in (("debug", "diwe"), ("error", "e"), ("info", "iwe")):
        set_log_level(level)  # type: ignore[arg-type]  # one of the levels
        assert log_level() == level
        before = len(lines(out))
        for method in ("debug", "info", "warning", "error"):
            getattr(logger, method)("event")
        assert "".join(line["level"][0] for line in lines(out)[before:]) == told
    held("what was taken from the logger before stays as it was")
    assert lines(out)[-1]["event"] == "event"


def test_other_libraries_keep_to_the_new_level_and_to_warnings_at_most() -> None:
    out = logs("error")
    set_log_level("debug")
    for method in ("info", "warning"):
        getattr(logging.getLogger("httpx"), method)(method)
    set_log_level("error")
    logging.getLogger("httpx").warning("later")
    assert [line["event"] for line in lines(out)] == ["warning"]


def test_callers_cannot_fill_the_log_with_headers() -> None:
    out = logs("debug")
    read_context(
        {"baggage": ",".join(["="] * 180), "traceparent": f"00-{'1' * 32}-{'1' * 16}-01", "tracestate": "?" * 500}
    )
    read_context({"baggage": "x" * 10_000})
    assert out.getvalue() == ""


def test_logging_can_be_set_up_again() -> None:
    first, second = logs(), logs()
    logger.info("event")
    logging.getLogger("other").warning("event")
    assert first.getvalue() == ""
    assert len(lines(second)) == 2


EVENTS = [
    (TurnStarted(**IDS._asdict()), "info", {"event": "agent_start"}),
    (
        ModelFinished(call=1, provider="sim", model="small", status="ok", duration_s=2, output_tokens=5),
        "debug",
        {"event": "model_call", "call": 1, "provider": "sim", "model": "small", "duration_s": 2, "output_tokens": 5},
    ),
    (
        ModelFinished(call=1, provider="sim", model="small", status="error", duration_s=2, error="model_unavailable"),
        "warning",
        {"event": "model_call", "status": "error", "error": "model_unavailable", "duration_s": 2},
    ),
    (
        ToolFinished(call_id="i", tool="search", status="ok", duration_s=1, result=MARKER),
        "debug",
        {"event": "tool_call", "tool": "search", "call_id": "i", "duration_s": 1},
    ),
    (
        ToolFinished(call_id="i", tool="search", status="timeout", duration_s=1, error="attempt_timed_out"),
        "warning",
        {"event": "tool_call", "tool": "search", "status": "timeout", "error": "attempt_timed_out"},
    ),
    (
        TurnEnded(**IDS._asdict(), outcome="success", reply=MARKER, usage=Usage(model_calls=2), duration_s=3),
        "info",
        {"event": "agent_complete", "outcome": "success", "model_calls": 2, "tool_calls": 0, "duration_s": 3},
    ),
    (
        TurnEnded(**IDS._asdict(), outcome="timeout", reply="", usage=Usage(), duration_s=3, error="deadline_exceeded"),
        "warning",
        {"event": "agent_complete", "outcome": "timeout", "error": "deadline_exceeded"},
    ),
]


@pytest.mark.parametrize(("event", "level", "facts"), EVENTS)
def test_an_event_is_told_with_its_facts_and_without_its_content(event: Any, level: str, facts: dict[str, Any]) -> None:
    out = logs("debug")
    log_turns(IDS, event)
    (line,) = lines(out)
    assert line["level"] == level
    assert line.items() >= facts.items()
    assert MARKER not in out.getvalue()


def test_what_is_said_on_the_way_is_not_told_at_all() -> None:
    out = logs("debug")
    log_turns(IDS, TextDelta(text=MARKER))
    assert out.getvalue() == ""


def test_from_its_start_on_a_turns_ids_are_on_every_line() -> None:
    out = logs()
    log_turns(IDS, TurnStarted(**IDS._asdict()))
    logger.info("later")
    assert all(line.items() >= IDS._asdict().items() for line in lines(out))
    assert len(lines(out)) == 2


def test_a_failure_is_told_by_kind_and_place_and_only_at_debug_by_text() -> None:
    for level, told in (("info", False), ("debug", True)):
        out = logs(level)  # type: ignore[arg-type]  # one of the levels
        try:
            fail()
        except AgentFailed as error:
            log_failure(error)
        failed = lines(out)[0]
        assert (failed["event"], failed["error"], failed["cause"]) == ("turn_failed", "AgentFailed", "ValueError")
        assert failed["where"].split(" < ")[0].endswith(" deeper")
        assert (MARKER in out.getvalue()) == told


def deeper() -> None:
    raise ValueError(MARKER)


def fail() -> None:
    try:
        deeper()
    except ValueError as error:
        raise AgentFailed(MARKER) from error


class Chatty:
    """An agent whose every word is the marker, and which logs and fails with it."""

    name = "chatty"

    def __init__(self, how: str) -> None:
        self._how = how

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def answer(self, current: Turn) -> Reply:
        async def call_model(attempt: Any) -> str:
            attempt.used(1, 1)
            if self._how == "model fails":
                raise ConnectionError(MARKER)
            return MARKER

        async def call_tool() -> str:
            if self._how == "tool fails":
                raise ValueError(MARKER)
            return MARKER

        said = await current.guard.model(ModelKey("sim", "small"), None, call_model)
        current.say(said)
        await current.guard.tool("search", {MARKER: MARKER, "message": current.message}, "id", call_tool)
        if self._how == "hangs":
            await asyncio.sleep(1_000)
        if self._how == "agent fails":
            raise ExceptionGroup(MARKER, [ValueError(MARKER)])
        if self._how == "fails with one of ours":
            raise AgentFailed(MARKER) from ValueError(MARKER)
        return Reply(MARKER, "plain", MARKER.encode(), 1)


@pytest.mark.parametrize(
    "how",
    ["succeeds", "model fails", "tool fails", "hangs", "agent fails", "fails with one of ours"],
)
async def test_no_content_is_in_any_line_nor_in_any_metric(how: str) -> None:
    """Message, reply, arguments, results and the texts of errors stay out; the turn is told all the same."""
    out, metrics = logs("info"), Metrics("0", ["chatty"])
    events: list[bytes] = []
    spans: list[str] = []
    clock = loop_clock()
    own = OwnSpans(
        clock,
        1,
        Resource({}),
        "0",
        begun=lambda _: None,
        ended=lambda span: spans.append(span.readable(None).to_json()),
    )
    tracing = Tracing(clock)
    tracing.start = own.start
    watch = [log_turns, metrics.observe, TraceEvents(lambda line: events.append(line()), clock).observe]
    house = House(turn_s=5, tracing=tracing, watch=watch)
    try:
        await house.ask(Chatty(how), MARKER, MARKER)
    except HoldfastError as error:
        assert how != "succeeds"
        log_failure(error)
    else:
        assert how == "succeeds"
    told = lines(out)
    assert [line["event"] for line in told if line["event"].startswith("agent_")] == ["agent_start", "agent_complete"]
    assert MARKER not in out.getvalue()
    assert MARKER.encode() not in metrics.page()[0]
    assert len(events) > 2
    assert MARKER.encode() not in b"".join(events)
    assert len(spans) > 1
    assert MARKER not in "".join(spans)


def test_in_a_program_that_has_not_configured_it_the_standard_logger_decides(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    structlog.reset_defaults()
    log_turns(IDS, TurnStarted(**IDS._asdict()))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    with caplog.at_level(logging.INFO, "holdfast"):
        log_turns(IDS, TurnStarted(**IDS._asdict()))
    [record] = caplog.records
    assert (record.message, record.__dict__["turn_id"]) == ("agent_start", IDS.turn_id)
