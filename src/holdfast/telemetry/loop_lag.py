"""
How late the event loop is: what one callback that takes long costs everything else in the process.

::

    the loop     ── tick ── tick ── tick ───────────────── tick ──     four a second; how late each came is observed
    a thread       look     look     look  look  look ▸ loop_blocked   once, with where the loop's thread is

The thread reads no clock: a process that was stopped as a whole, and goes on, was not blocked.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import FrameType

from holdfast.clock import NS, Clock
from holdfast.telemetry.logs import logger

EVERY_S = 0.25
_LOOKS = 4
"""How often the thread looks before it calls the loop blocked."""
_FRAMES = 8


class Heartbeat:
    """
    The beat of the loop it is started in.

    Args:
        clock: Where the time comes from.
        observe: Told with each beat how many seconds late it came.
        blocked_s: Seconds without a beat after which a line of the log says where the loop is held up; at least 0.5.
    """

    def __init__(self, clock: Clock, observe: Callable[[float], object], blocked_s: float) -> None:
        self._clock = clock
        self._observe = observe
        self._blocked_s = blocked_s
        self._beats = 0
        self._due: int | None = None
        self._late_s = self._worst_s = 0.0

    @property
    def late_s(self) -> float:
        """Seconds by which the loop was late at the last beat, or is now if that is more; 0 where it does not beat."""
        return self._late_s if self._due is None else max(self._late_s, (self._clock.now() - self._due) / NS)

    def worst_s(self) -> float:
        """The most seconds by which it was late since this was asked last."""
        worst_s, self._worst_s = max(self._worst_s, self.late_s), 0.0
        return worst_s

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat for the length of the block."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle
        ended = threading.Event()

        def begin() -> None:
            nonlocal timer
            self._due = self._clock.now() + round(EVERY_S * NS)
            timer = loop.call_later(EVERY_S, beat, self._due)

        def beat(due: int) -> None:
            self._beats += 1
            self._late_s = max(0, self._clock.now() - due) / NS
            self._worst_s = max(self._worst_s, self._late_s)
            self._observe(self._late_s)
            begin()

        begin()
        watching = threading.Thread(
            target=self._watch, args=(threading.get_ident(), ended), name="holdfast-loop", daemon=True
        )
        watching.start()
        try:
            yield
        finally:
            timer.cancel()
            self._due, self._late_s = None, 0.0
            ended.set()
            watching.join()

    def _watch(self, thread: int, ended: threading.Event) -> None:
        seen, unchanged = self._beats, 0
        while not ended.wait(self._blocked_s / _LOOKS):
            unchanged = unchanged + 1 if self._beats == seen else 0
            seen = self._beats
            if unchanged == _LOOKS:
                frame = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to another thread's stack
                logger.warning("loop_blocked", blocked_s=self._blocked_s, where=_where(frame))


def _where(frame: FrameType | None) -> str:
    """The innermost calls, and no values."""
    return " < ".join(
        f"{each.f_code.co_filename}:{each.f_lineno} {each.f_code.co_name}" for each in islice(_calls(frame), _FRAMES)
    )


def _calls(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
