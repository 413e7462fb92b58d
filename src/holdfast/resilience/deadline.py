"""
Deadlines: one point in time that everything inside inherits.

Nesting only shortens. An inner limit that is no shorter than what is left does nothing: the outer one fires, at its own
level and with its own error, so that a turn that ran out of time is never mistaken for a call that was slow.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType

from holdfast.clock import NS, Clock
from holdfast.errors import TimedOut

_ambient: ContextVar[int | None] = ContextVar("holdfast_deadline", default=None)


def remaining_s(clock: Clock) -> float | None:
    """Seconds left until the innermost deadline; 0 or less once it passed, None where there is none."""
    at = _ambient.get()
    return None if at is None else (at - clock.now()) / NS


class within:  # noqa: N801 - reads as a word: `async with within(clock, 30, error)`
    """
    Run the block for at most ``seconds``, or for what is left of the deadline around it if that is less.

    Args:
        clock: The clock deadlines are kept on.
        seconds: How long the block may take; 0 or less refuses it at once.
        error: Makes the error to raise. The block was cancelled where it stood.

    Raises:
        TimedOut: whatever ``error`` makes. Before the block where no time was left: nothing was started.
    """

    __slots__ = ("_clock", "_error", "_outer", "_seconds", "_timer")

    def __init__(self, clock: Clock, seconds: float, error: Callable[[], TimedOut]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._error = error
        self._outer: int | None = None
        self._timer: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        now = self._clock.now()
        mine = now + round(self._seconds * NS)
        self._outer = _ambient.get()
        if self._outer is not None and self._outer <= mine:
            return
        if mine <= now:
            raise self._error()
        self._timer = asyncio.timeout((mine - now) / NS)
        await self._timer.__aenter__()
        _ambient.set(mine)

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
