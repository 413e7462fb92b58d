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
from holdfast.resilience.wheel import Fuse, Wheel

_GRACE_NS = NS
"""How long after the deadline a task that its end did not reach may still run."""


def remaining_s(clock: Clock) -> float | None:
    """Seconds left until the innermost deadline; 0 or less once it passed, None where there is none."""
    deadline = _ambient.get()
    return None if deadline is None else (deadline.at - clock.now()) / NS


class within:  # noqa: N801 - reads as a word: `async with within(clock, 30, error)`
    """
    Run the block for at most ``seconds``, or for what is left of the deadline around it if that is less.

    The block is stopped at that time or up to 10 ms later, never before. ``with`` and ``async with`` do the same.

    Args:
        clock: The clock deadlines are kept on.
        seconds: How long the block may take; 0 or less refuses it at once.
        error: Makes the error to raise. The block was cancelled where it stood.
        wheel: The running loop's, where somebody has it at hand; None, or another loop's, has it looked for.

    Raises:
        TimedOut: whatever ``error`` makes. Before the block where no time was left: nothing was started. Where it was
            the deadline around it that had passed, that one's error.

    Attributes:
        at: When the time is over, on the clock; 0 before the block was entered.
        error: Makes the error to raise.
        fuse: What stops the block; None where the deadline around it does, and outside the block.
    """

    __slots__ = ("_clock", "_outer", "_seconds", "_wheel", "at", "error", "fuse")

    def __init__(self, clock: Clock, seconds: float, error: Callable[[], TimedOut], wheel: Wheel | None = None) -> None:
        self._clock = clock
        self._wheel = wheel
        self._seconds = seconds
        self._outer: within | None = None
        self.at = 0
        self.error = error
        self.fuse: Fuse | None = None

    def __enter__(self) -> None:
        clock, wheel, outer = self._clock, self._wheel, _ambient.get()
        task = None if wheel is None else asyncio.current_task(wheel.loop)
        if wheel is None or task is None:
            wheel = Wheel.of(asyncio.get_running_loop(), clock)
            task = asyncio.current_task(wheel.loop)
        if task is None:
            raise RuntimeError("`within` stops the task it is entered in, and this is none")
        now = clock.now()
        if outer is not None and outer.at <= now:
            raise outer.error()
        at = self.at = now + round(self._seconds * NS)
        if at <= now:
            raise self.error()
        if outer is None or at < outer.at:
            _ambient.set(self)
        elif outer.fuse is not None and outer.fuse.task is task:
            return
        else:
            # The deadline stops its own task, which may have left this one behind: shielded, or awaited by nobody.
            at = max(at, outer.at + _GRACE_NS)
        self._outer = outer
        self.fuse = wheel.light(task, at)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fuse, self.fuse = self.fuse, None
        if fuse is None:
            return
        _ambient.set(self._outer)
        if fuse.out(error):
            raise self.error() from error

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


_ambient: ContextVar[within | None] = ContextVar("holdfast_deadline", default=None)
