"""Trace events: one JSON object a line, in a file that is rotated, written by a thread that nobody waits for."""

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from structlog.contextvars import bound_contextvars

from holdfast.clock import Clock
from holdfast.events import (
    CONTENT,
    EVERY_EVENT,
    Event,
    FallbackUsed,
    ModelFinished,
    ModelStarted,
    MonitorActed,
    MonitorDetected,
    MonitorEnded,
    StateChanged,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnIds,
    TurnStarted,
    TurnSuspended,
    Usage,
)
from holdfast.telemetry import catalogue_events, catalogue_monitor, jsonl
from holdfast.telemetry.jsonl import LineFile, TraceEvents
from holdfast.telemetry.terms import TraceEvent

IDS = TurnIds("talk", "c-1", "0af7651916cd43dd8448eb211c80319c", "bob")
MARKER = "S3CR3T"
NOON = Clock(lambda: 0, lambda: 1_769_860_800_123_000_000)
CATALOGUE = {
    entry.name: entry
    for part in (catalogue_events, catalogue_monitor)
    for entry in vars(part).values()
    if isinstance(entry, TraceEvent)
}

EVENTS: list[tuple[Event, str | None, dict[str, Any]]] = [
    (TurnStarted(**IDS._asdict()), "turn.started", {}),
    (ModelStarted(call=1, provider="sim", model="small"), None, {}),
    (TextDelta(text=MARKER), None, {}),
    (
        ModelFinished(
            call=1,
            provider="sim",
            model="small",
            status="ok",
            duration_s=1.5,
            first_token_s=0.5,
            input_tokens=7,
            output_tokens=3,
            cache_read_tokens=4,
            cache_write_tokens=2,
            reasoning_tokens=1,
            cost_nanos=8,
        ),
        "model.call",
        {
            "call": 1,
            "provider": "sim",
            "model": "small",
            "status": "ok",
            "duration_s": 1.5,
            "first_token_s": 0.5,
            "input_tokens": 7,
            "output_tokens": 3,
            "cache_read_tokens": 4,
            "cache_write_tokens": 2,
            "reasoning_tokens": 1,
            "cost_nanos": 8,
        },
    ),
    (FallbackUsed(via="large", because="overload"), "fallback.used", {"via": "large", "because": "overload"}),
    (ToolStarted(call_id="id", tool="search", args=msgspec.Raw(b'{"q":"S3CR3T"}')), None, {}),
    (
        ToolFinished(call_id="id", tool="search", status="error", duration_s=2, result=MARKER, error="tool_failed"),
        "tool.call",
        {"call_id": "id", "tool": "search", "status": "error", "duration_s": 2, "error": "tool_failed"},
    ),
    (
        TurnEnded(
            **IDS._asdict(),
            outcome="success",
            reply=MARKER,
            usage=Usage(model_calls=1, tool_calls=1, input_tokens=7, output_tokens=3, cost_nanos=9),
            duration_s=4,
        ),
        "turn.ended",
        {
            "outcome": "success",
            "duration_s": 4,
            "model_calls": 1,
            "tool_calls": 1,
            "input_tokens": 7,
            "output_tokens": 3,
            "cost_nanos": 9,
        },
    ),
    (
        TurnSuspended(**IDS._asdict(), because="outcome_unknown", unit="tool:id"),
        "turn.suspended",
        {"because": "outcome_unknown", "unit": "tool:id"},
    ),
    (
        MonitorDetected(
            state="deadlock",
            rule="rep",
            severity="stop",
            confidence=1.0,
            rung=2,
            opened=True,
            acts=True,
            step=3,
            steps=[1, 2, 3],
            count=3,
            detail="search called again, nothing new",
            hashes=["ab"],
            tokens=90,
        ),
        "monitor.detected",
        {
            "state": "deadlock",
            "rule": "rep",
            "severity": "stop",
            "confidence": 1.0,
            "rung": 2,
            "opened": True,
            "acts": True,
            "step": 3,
            "count": 3,
            "detail": "search called again, nothing new",
            "tokens": 90,
        },
    ),
    (
        MonitorActed(state="deadlock", rule="rep", protocol="nudge", step=3, tool="search", text=MARKER),
        "monitor.acted",
        {"state": "deadlock", "rule": "rep", "protocol": "nudge", "step": 3, "tool": "search"},
    ),
    (StateChanged(was="none", state="deadlock"), "monitor.state", {"was": "none", "state": "deadlock"}),
    (
        MonitorEnded(outcome="tripped", latched=True, report=msgspec.Raw(b'{"done":["S3CR3T"]}')),
        "monitor.ended",
        {"outcome": "tripped", "latched": True},
    ),
]


@pytest.mark.parametrize(("event", "name", "told"), EVENTS, ids=lambda value: getattr(value, "name", None))
def test_an_event_is_a_line_of_this_shape(event: Event, name: str | None, told: dict[str, Any]) -> None:
    lines: list[bytes] = []
    TraceEvents(lambda line: lines.append(line()), NOON).observe(IDS, event)
    if name is None:
        assert lines == []
        return
    [line] = lines
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert MARKER.encode() not in line
    record = json.loads(line)
    assert list(record) == ["ts", "event", "trace_id", "session_id", "turn_id", "metadata"]
    assert record == {
        "ts": "2026-01-31T12:00:00.123Z",
        "event": name,
        "trace_id": IDS.trace_id,
        "session_id": "talk",
        "turn_id": "c-1",
        "metadata": {"agent": "bob", **told},
    }
    assert set(record["metadata"]) <= {field.name for field in CATALOGUE[name].fields}


def test_every_event_was_thought_of() -> None:
    assert {type(event) for event, _, _ in EVENTS} == set(EVERY_EVENT)
    told = {name for _, name, _ in EVENTS if name}
    assert told | catalogue_events.MOVES == set(CATALOGUE)
    assert {field.name for entry in CATALOGUE.values() for field in entry.fields if field.content} <= CONTENT


def test_content_is_told_where_that_is_asked_for_and_without_secrets() -> None:
    lines: list[bytes] = []
    events = TraceEvents(lambda line: lines.append(line()), NOON, lambda text: text.replace(MARKER, "[redacted]") + "!")
    for event, _, _ in EVENTS:
        events.observe(IDS, event)
    told = {record["event"]: record["metadata"] for record in map(json.loads, lines)}
    assert (told["tool.call"]["result"], told["turn.ended"]["reply"]) == ("[redacted]!", "[redacted]!")
    assert MARKER.encode() not in b"".join(lines)


def test_what_a_policy_did_belongs_to_the_turn_it_happened_in() -> None:
    lines: list[bytes] = []
    events = TraceEvents(lambda line: lines.append(line()), NOON)
    facts = {"circuit": "model:x", "was": "closed", "state": "open", "reason": "failures", "retry_after_s": None}
    with bound_contextvars(**IDS._asdict()):
        events.notice("breaker.moved", "model", "target", facts)
        events.notice("rate.refused", "model", "target", {})  # There are many of these, when things go badly.
    events.notice("share.moved", "model", "all", {"was": "up", "state": "down"})
    inside, outside = map(json.loads, lines)
    assert (inside["event"], inside["trace_id"], inside["turn_id"]) == ("breaker.moved", IDS.trace_id, "c-1")
    assert inside["metadata"] == {
        "pipeline": "model",
        "key_class": "target",
        "circuit": "model:x",
        "was": "closed",
        "state": "open",
        "reason": "failures",
    }
    assert (outside["event"], outside["trace_id"], outside["session_id"]) == ("share.moved", "", "")


class Written:
    """A file, and what was counted of it."""

    def __init__(self, path: Path, *, max_bytes: int = 1_000_000, files: int = 2) -> None:
        self.path = path
        self.written = 0
        self.dropped: Counter[str] = Counter()
        self._more = threading.Condition()
        self.file = LineFile(path, max_bytes=max_bytes, files=files, written=self._count, dropped=self._drop)
        self.file.open()

    def _count(self, lines: int) -> None:
        with self._more:
            self.written += lines
            self._more.notify_all()

    def _drop(self, reason: str, lines: int) -> None:
        with self._more:
            self.dropped[reason] += lines
            self._more.notify_all()

    def write(self, line: bytes) -> None:
        self.file.write(lambda: line)

    def wait(self, lines: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self.written + self.dropped.total() >= lines, 20)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert jsonl.FLUSH_S <= 1
    monkeypatch.setattr(jsonl, "FLUSH_S", 0.01)
    return tmp_path / "logs" / "traces.jsonl"


def test_lines_are_written_soon_and_the_last_ones_when_it_is_closed(path: Path) -> None:
    written = Written(path)
    written.write(b"one\n")
    written.wait(1)
    assert path.read_bytes() == b"one\n"
    for _ in range(1_000):
        written.write(b"more\n")
    written.file.close()
    assert path.read_bytes() == b"one\n" + 1_000 * b"more\n"
    assert (written.written, written.dropped) == (1_001, {})


def test_lines_of_the_next_process_come_after_those_of_the_one_before(path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        written = Written(path)
        written.write(text)
        written.file.close()
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_line_that_was_cut_is_ended_first(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'one\n{"cut')
    written = Written(path)
    written.write(b"two\n")
    written.file.close()
    assert path.read_bytes() == b'one\n{"cut\ntwo\n'


def test_a_file_that_is_full_is_put_aside_and_so_many_are_kept(path: Path) -> None:
    written = Written(path, max_bytes=10, files=2)
    for number in range(5):
        written.write(b"number %d\n" % number)
        written.wait(number + 1)
    written.write(b"last\n")
    written.file.close()
    kept = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    assert kept == {
        "traces.jsonl": b"number 4\nlast\n",
        "traces.jsonl.1": b"number 2\nnumber 3\n",
        "traces.jsonl.2": b"number 0\nnumber 1\n",
    }


def test_without_earlier_files_a_full_one_begins_anew(path: Path) -> None:
    written = Written(path, max_bytes=5, files=0)
    written.write(b"number 1\n")
    written.wait(1)
    written.write(b"2\n")
    written.file.close()
    assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == {"traces.jsonl": b"2\n"}


def test_what_cannot_be_written_is_counted_and_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    structlog.reset_defaults()
    path.parent.mkdir()
    path.mkdir()  # A folder, where the file should be.
    written = Written(path)
    for number in range(3):
        written.write(b"lost\n")
        written.wait(number + 1)
    path.rmdir()
    written.write(b"kept\n")
    written.wait(4)
    path.unlink()
    written.file.close()
    assert (written.written, written.dropped) == (1, {"write_failed": 3})
    assert [record.message for record in caplog.records] == ["trace_events_lost"]


def test_lines_that_nobody_writes_are_bounded_and_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MOST_LINES", 10)
    written = Written(path)
    held = threading.Event()
    monkeypatch.setattr(written.file, "_append", lambda _lines: held.wait(20))  # A disk that hangs.
    written.write(b"hangs\n")
    while written.file._lines:
        pass
    for _ in range(13):
        written.write(b"line\n")
    assert written.dropped == {"queue_full": 3}
    monkeypatch.setattr(jsonl, "CLOSE_S", 0.01)
    written.file.close()
    assert written.dropped == {"queue_full": 3, "shutdown": 10}
    written.write(b"too late\n")
    assert written.dropped["shutdown"] == 11
    held.set()


def test_a_line_that_cannot_be_made_is_counted_and_the_others_are_written(path: Path) -> None:
    def broken() -> bytes:
        raise UnicodeError

    written = Written(path)
    written.write(b"one\n")
    written.file.write(broken)
    written.write(b"two\n")
    written.file.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert (written.written, written.dropped) == (2, {"unencodable": 1})


def test_the_file_may_be_a_pipe(path: Path) -> None:
    """As /dev/stdout is in a container."""
    path.parent.mkdir()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    written = Written(path, max_bytes=1)
    for number in range(2):
        written.write(b"line\n")
        written.wait(number + 1)
    written.file.close()
    assert os.read(reader, 100) == b"line\nline\n"
    os.close(reader)
    assert written.dropped == {}


def test_closing_twice_or_unopened_is_nothing(path: Path) -> None:
    written = Written(path)
    written.file.close()
    written.file.close()
    assert not path.exists()
