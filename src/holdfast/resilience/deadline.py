"""
Deadlines: one point in time that everything inside inherits.

Nesting only shortens. An inner limit that is no shorter than what is left does nothing: the outer one fires, at its own
level and with its own error, so that a turn that ran out of time is never mistaken for a call that was slow.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple

from holdfast.clock import NS, Clock
from holdfast.errors import TimedOut

_GRACE_NS = NS
"""How long after the deadline a task that its end did not reach may still run."""


class _Deadline(NamedTuple):
    """A point in time on the clock, the timer that fires then, the task it stops, and the error it stops it with."""

    at: int
    timer: asyncio.Timeout
    task: asyncio.Task[Any] | None
    error: Callable[[], TimedOut]

    def left_ns(self, now: int) -> int:
        left = self.at - now
        # A loop's timer may fire early, uvloop's by a millisecond; then the deadline has passed all the same.
        return min(left, 0) if self.timer.expired() else left


_ambient: ContextVar[_Deadline | None] = ContextVar("holdfast_deadline", default=None)


def remaining_s(clock: Clock) -> float | None:
    """Seconds left until the innermost deadline; 0 or less once it passed, None where there is none."""
    deadline = _ambient.get()
    return None if deadline is None else deadline.left_ns(clock.now()) / NS


class within:  # noqa: N801 - reads as a word: `async with within(clock, 30, error)`
    """
    Run the block for at most ``seconds``, or for what is left of the deadline around it if that is less.

    Args:
        clock: The clock deadlines are kept on.
        seconds: How long the block may take; 0 or less refuses it at once.
        error: Makes the error to raise. The block was cancelled where it stood.

    Raises:
        TimedOut: whatever ``error`` makes. Before the block where no time was left: nothing was started. Where it was
            the deadline around it that had passed, that one's error.
    """

    __slots__ = ("_clock", "_error", "_outer", "_seconds", "_timer")

    def __init__(self, clock: Clock, seconds: float, error: Callable[[], TimedOut]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._error = error
        self._outer: _Deadline | None = None
        self._timer: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        now, task = self._clock.now(), asyncio.current_task()
        outer = self._outer = _ambient.get()
        if outer is not None and outer.left_ns(now) <= 0:
            raise outer.error()
        mine = now + round(self._seconds * NS)
        if mine <= now:
            raise self._error()
        if outer is None or mine < outer.at:
            self._timer = asyncio.timeout((mine - now) / NS)
            _ambient.set(_Deadline(mine, self._timer, task, self._error))
        elif outer.task is not task:
            # The deadline stops its own task, which may have left this one behind: shielded, or awaited by nobody.
            self._timer = asyncio.timeout((max(mine, outer.at + _GRACE_NS) - now) / NS)
        else:
            return
        await self._timer.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            return
        _ambient.set(self._outer)
        try:
            await self._timer.__aexit__(kind, error, trace)
        except TimeoutError as expired:
            raise self._error() from expired
