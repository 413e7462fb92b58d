"""
Trace events: what happened in each turn, one JSON object a line, in a file that is rotated by size.

    {"ts", "event", "trace_id", "session_id", "turn_id", "metadata"}

Lines are made and written by a thread of its own, at most a second after their events: whoever emits one waits for no
disk, and many in a row take half the time that each takes alone. What people or models wrote is left out unless it is
asked for.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import msgspec
from structlog.contextvars import get_contextvars

from holdfast.clock import Clock, iso
from holdfast.events import (
    Event,
    FallbackUsed,
    ModelFinished,
    MonitorActed,
    MonitorDetected,
    MonitorEnded,
    StateChanged,
    Takers,
    ToolFinished,
    TurnEnded,
    TurnIds,
    TurnStarted,
    TurnSuspended,
    Usage,
)
from holdfast.telemetry import catalogue_events as catalogue
from holdfast.telemetry import catalogue_monitor as monitor
from holdfast.telemetry.logs import logger
from holdfast.telemetry.terms import TraceEvent

FLUSH_S = 0.5
"""Seconds that lines are gathered before they are written together."""

CLOSE_S = 1.0
"""Seconds that the last lines have to be written when the process stops."""

MOST_LINES = 50_000
"""Lines that wait to be written; further ones are dropped and counted."""

LINES_AT_ONCE = 64
"""Lines that are encoded in a row: the thread holds Python's lock meanwhile, and lets it go to write them."""

_encode = msgspec.json.Encoder(enc_hook=str).encode

Line = Callable[[], bytes]
"""Makes one line, its line break included."""


class _Kind(NamedTuple):
    """The name of an event, and its fields: those that hold no content, and those that do."""

    name: str
    plain: tuple[str, ...]
    texts: tuple[str, ...]


def _kind(event: type[Event], entry: TraceEvent) -> tuple[type[Event], _Kind]:
    has = event.__struct_fields__
    plain = tuple(field.name for field in entry.fields if not field.content and field.name in has)
    return event, _Kind(entry.name, plain, tuple(field.name for field in entry.fields if field.content))


_KINDS = dict(
    (
        _kind(TurnStarted, catalogue.TURN_STARTED),
        _kind(ModelFinished, catalogue.MODEL_CALL),
        _kind(ToolFinished, catalogue.TOOL_CALL),
        _kind(FallbackUsed, catalogue.FALLBACK_USED),
        _kind(TurnEnded, catalogue.TURN_ENDED),
        _kind(TurnSuspended, catalogue.TURN_SUSPENDED),
        _kind(MonitorDetected, monitor.MONITOR_DETECTED),
        _kind(MonitorActed, monitor.MONITOR_ACTED),
        _kind(StateChanged, monitor.MONITOR_STATE),
        _kind(MonitorEnded, monitor.MONITOR_ENDED),
    )
)


_USAGE = tuple(field.name for field in catalogue.TURN_ENDED.fields if field.name in Usage.__struct_fields__)


class _Told(msgspec.Struct, frozen=True, gc=False):
    """An event of a turn, and when it was."""

    kind: _Kind
    wall_ns: int
    ids: TurnIds
    event: Event
    content: Callable[[str], str] | None

    def __call__(self) -> bytes:
        """Its line."""
        (name, plain, texts), ids, event = self.kind, self.ids, self.event
        told: dict[str, object] = {"agent": ids.agent}
        if isinstance(event, TurnEnded):
            told |= {field: getattr(event.usage, field) for field in _USAGE}
        for field in plain:
            value = getattr(event, field)
            if value is not None:
                told[field] = value
        if self.content is not None:
            for field in texts:
                if text := getattr(event, field):
                    told[field] = self.content(text)
        return _line(name, self.wall_ns, ids.trace_id, ids.session_id, ids.turn_id, told)


class TraceEvents:
    """
    Makes lines of events.

    Args:
        write: Takes each line.
        clock: Says when it was.
        content: What texts of people, models and tools go through; None leaves them out.

    Attributes:
        by_event: The observer below, by event.
    """

    def __init__(
        self, write: Callable[[Line], None], clock: Clock, content: Callable[[str], str] | None = None
    ) -> None:
        self._write = write
        self._clock = clock
        self._content = content
        self.by_event: Takers = {event: partial(self._tell, kind) for event, kind in _KINDS.items()}

    def observe(self, ids: TurnIds, event: Event) -> None:
        """An observer: one line for each event that the catalogue has."""
        take = self.by_event.get(type(event))
        if take is not None:
            take(ids, event)

    def _tell(self, kind: _Kind, ids: TurnIds, event: Event) -> None:
        self._write(_Told(kind, self._clock.wall_ns(), ids, event, self._content))

    def notice(self, name: str, pipeline: str, key_class: str, facts: Mapping[str, object]) -> None:
        """A policy's move, if the catalogue has it; of the turn that it happened in, if it was in one."""
        if name in catalogue.MOVES:
            around = get_contextvars()
            trace_id, session_id, turn_id = (str(around.get(key, "")) for key in ("trace_id", "session_id", "turn_id"))
            known = {key: value for key, value in facts.items() if value is not None}
            told = {"pipeline": pipeline, "key_class": key_class, **known}
            self._write(partial(_line, name, self._clock.wall_ns(), trace_id, session_id, turn_id, told))


def _line(event: str, wall_ns: int, trace_id: str, session_id: str, turn_id: str, told: Mapping[str, object]) -> bytes:
    line = {
        "ts": iso(wall_ns),
        "event": event,
        "trace_id": trace_id,
        "session_id": session_id,
        "turn_id": turn_id,
        "metadata": told,
    }
    return _encode(line) + b"\n"


class LineFile:
    """
    Appends lines to a file, from a thread of its own, and rotates it by size.

    Args:
        path: The file; its folder is made if missing. ``path.1`` is the one before, and so on.
        max_bytes: Size from which on a new file is begun.
        files: Earlier files that are kept.
        written: Told how many lines were written.
        dropped: Told how many lines were not, and why: ``queue_full``, ``unencodable``, ``write_failed``, ``shutdown``.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        files: int,
        written: Callable[[int], None],
        dropped: Callable[[str, int], None],
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._written = written
        self._dropped = dropped
        self._lines: deque[Line] = deque()
        self._more = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: FileIO | None = None
        self._failing = False

    def open(self) -> None:
        """Begin to write. Lines that are given before are dropped."""
        self._closing.clear()
        self._thread = threading.Thread(target=self._work, name="holdfast-trace-events", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        """Take one line. Never waits."""
        if self._thread is None or len(self._lines) >= MOST_LINES:
            self._dropped("queue_full" if self._thread else "shutdown", 1)
            return
        self._lines.append(line)
        if not self._more.is_set():
            self._more.set()

    def close(self) -> None:
        """Write what is left, within ``CLOSE_S``."""
        thread = self._thread
        if thread is None:
            return
        self._closing.set()
        self._more.set()
        thread.join(CLOSE_S)
        self._thread = None
        if left := len(self._lines):
            self._lines.clear()
            self._dropped("shutdown", left)

    def _work(self) -> None:
        while not self._closing.is_set() or self._lines:
            self._more.wait()
            self._closing.wait(FLUSH_S)
            self._more.clear()
            while lines := self._made():
                self._append(lines)
        with suppress(OSError):
            self._close()

    def _made(self) -> list[bytes]:
        """The next lines; none when there are no more."""
        made: list[bytes] = []
        while self._lines and len(made) < LINES_AT_ONCE:
            try:
                made.append(self._lines.popleft()())
            except Exception:  # noqa: BLE001 - one that cannot be told must not keep the others from being so
                self._dropped("unencodable", 1)
        return made

    def _append(self, lines: list[bytes]) -> None:
        try:
            file = self._opened()
            if file.seekable() and file.tell() >= self._max_bytes:  # A pipe, such as /dev/stdout, is not.
                self._rotate()
                file = self._opened()
            left = memoryview(b"".join(lines))
            while left:  # The system may take less at a time.
                left = left[file.write(left) :]
        except OSError as error:
            self._dropped("write_failed", len(lines))
            if not self._failing:
                logger.warning("trace_events_lost", path=str(self._path), error=error.strerror or type(error).__name__)
            self._failing = True
            with suppress(OSError):
                self._close()
        else:
            self._failing = False
            self._written(len(lines))

    def _opened(self) -> FileIO:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(self._path, "a")
            if self._file.seekable() and self._file.tell() and not self._ends_a_line():
                self._file.write(b"\n")  # The process before was stopped in the middle of its last one.
        return self._file

    def _ends_a_line(self) -> bool:
        with self._path.open("rb") as before:
            before.seek(-1, os.SEEK_END)
            return before.read() == b"\n"

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _rotate(self) -> None:
        self._close()
        for number in range(self._files, 1, -1):
            earlier = self._numbered(number - 1)
            if earlier.exists():
                earlier.replace(self._numbered(number))
        if self._files:
            self._path.replace(self._numbered(1))
        else:
            self._path.unlink()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
