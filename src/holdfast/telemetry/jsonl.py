"""
Trace events: what happened in each turn, one JSON object a line, in a file that is rotated by size.

    {"ts", "event", "trace_id", "session_id", "turn_id", "metadata"}

A line is encoded when its event happens and written by a thread of its own, at most a second later: whoever emits an
event waits for no disk. What people or models wrote is left out unless it is asked for.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path

import msgspec
from structlog.contextvars import get_contextvars

from holdfast.clock import Clock, iso
from holdfast.events import (
    Event,
    FallbackUsed,
    ModelFinished,
    ToolFinished,
    TurnEnded,
    TurnIds,
    TurnStarted,
    TurnSuspended,
)
from holdfast.telemetry import catalogue_events as catalogue
from holdfast.telemetry.logs import logger
from holdfast.telemetry.terms import TraceEvent

FLUSH_S = 0.5
"""Seconds that lines are gathered before they are written together."""

CLOSE_S = 1.0
"""Seconds that the last lines have to be written when the process stops."""

MOST_LINES = 50_000
"""Lines that wait to be written; further ones are dropped and counted."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


def _fields(kind: TraceEvent) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The name of an event, and its fields: those that hold no content, and those that do."""
    plain = tuple(field.name for field in kind.fields if not field.content)
    return kind.name, plain, tuple(field.name for field in kind.fields if field.content)


_KINDS = {
    TurnStarted: _fields(catalogue.TURN_STARTED),
    ModelFinished: _fields(catalogue.MODEL_CALL),
    ToolFinished: _fields(catalogue.TOOL_CALL),
    FallbackUsed: _fields(catalogue.FALLBACK_USED),
    TurnEnded: _fields(catalogue.TURN_ENDED),
    TurnSuspended: _fields(catalogue.TURN_SUSPENDED),
}


class TraceEvents:
    """
    Makes lines of events.

    Args:
        write: Takes each line.
        clock: Says when it was.
        content: What texts of people, models and tools go through; None leaves them out.
    """

    def __init__(
        self, write: Callable[[bytes], None], clock: Clock, content: Callable[[str], str] | None = None
    ) -> None:
        self._write = write
        self._clock = clock
        self._content = content

    def observe(self, ids: TurnIds, event: Event) -> None:
        """An observer: one line for each event that the catalogue has."""
        kind = _KINDS.get(type(event))
        if kind is None:
            return
        told: dict[str, object] = {"agent": ids.agent}
        if isinstance(event, TurnEnded):
            told |= msgspec.structs.asdict(event.usage)
        name, plain, texts = kind
        for field in plain:
            value = getattr(event, field, None)
            if value is not None:
                told[field] = value
        if self._content is not None:
            for field in texts:
                if text := getattr(event, field):
                    told[field] = self._content(text)
        self._tell(name, ids.trace_id, ids.session_id, ids.turn_id, told)

    def notice(self, name: str, pipeline: str, key_class: str, facts: Mapping[str, object]) -> None:
        """A policy's move, if the catalogue has it; of the turn that it happened in, if it was in one."""
        if name in catalogue.MOVES:
            around = get_contextvars()
            trace_id, session_id, turn_id = (str(around.get(key, "")) for key in ("trace_id", "session_id", "turn_id"))
            known = {key: value for key, value in facts.items() if value is not None}
            self._tell(name, trace_id, session_id, turn_id, {"pipeline": pipeline, "key_class": key_class, **known})

    def _tell(self, event: str, trace_id: str, session_id: str, turn_id: str, told: Mapping[str, object]) -> None:
        line = {
            "ts": iso(self._clock.wall_ns()),
            "event": event,
            "trace_id": trace_id,
            "session_id": session_id,
            "turn_id": turn_id,
            "metadata": told,
        }
        self._write(_encode(line) + b"\n")


class LineFile:
    """
    Appends lines to a file, from a thread of its own, and rotates it by size.

    Args:
        path: The file; its folder is made if missing. ``path.1`` is the one before, and so on.
        max_bytes: Size from which on a new file is begun.
        files: Earlier files that are kept.
        written: Told how many lines were written.
        dropped: Told why, and how many lines, were not: ``queue_full``, ``write_failed``, ``shutdown``.
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
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
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

    def write(self, line: bytes) -> None:
        """Take one line, its line break included. Never waits."""
        with self._lock:
            taken = self._thread is not None and len(self._lines) < MOST_LINES
            if taken:
                self._lines.append(line)
        if not taken:
            self._dropped("queue_full" if self._thread else "shutdown", 1)
        elif not self._more.is_set():
            self._more.set()

    def close(self) -> None:
        """Write what is left, within ``CLOSE_S``."""
        thread = self._thread
        if thread is None:
            return
        self._closing.set()
        self._more.set()
        thread.join(CLOSE_S)
        with self._lock:
            self._thread = None
            left, self._lines = self._lines, []
        if left:
            self._dropped("shutdown", len(left))

    def _work(self) -> None:
        while not self._closing.is_set() or self._lines:
            self._more.wait()
            self._closing.wait(FLUSH_S)
            with self._lock:
                self._more.clear()
                lines, self._lines = self._lines, []
            if lines:
                self._append(lines)
        with suppress(OSError):
            self._close()

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
