"""
Deadlines: one point in time that everything inside inherits.

Nesting only shortens. An inner limit that is no shorter than what is left does nothing: the outer one fires, at its own
level and with its own error, so that a turn that ran out of time is never mistaken for a call that was slow.
"""

from asyncio import Task, current_task, get_running_loop
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from holdfast.clock import NS, Clock
from holdfast.errors import TimedOut
from holdfast.resilience.wheel import Fuse, Wheel

_GRACE_NS = NS
"""How long after the deadline a task that its end did not reach may still run."""


def remaining_s(clock: Clock) -> float | None:
    """Seconds left until the innermost deadline; 0 or less once it passed, None where there is none."""
    deadline = _ambient.get()
    return None if deadline is None else (deadline.at - clock.now()) / NS


def check_deadline(now: int) -> None:
    """Raise the error of the innermost deadline if it has passed."""
    deadline = _ambient.get()
    if deadline is not None and deadline.at <= now:
        raise deadline.error()


class Span(Fuse):
    """
    A time limit in force, around a block in one task.

    Attributes:
        at: When the time is over, on the clock.
        error: Makes the error to raise.
        outer: The one around it.
    """

    __slots__ = ("at", "error", "outer")

    at: int
    error: Callable[[], TimedOut]
    outer: "Span | None"

    def end(self, error: BaseException | None) -> TimedOut | None:
        """
        The block has ended, with ``error`` or None, and in its own task.

        Returns:
            What is to be raised from ``error``, where it was this limit that stopped the block; else None.
        """
        _ambient.set(self.outer)
        return self.error() if self.out(error) else None


class TimeLimit:
    """
    A time limit for many blocks, each from ``begin`` to its span's ``end``. For a single one there is ``within``.

    Args:
        clock: The clock deadlines are kept on.
        seconds: How long each block may take; 0 or less refuses it at once.
        error: Makes the error to raise. The block was cancelled where it stood.
    """

    __slots__ = ("_clock", "_error", "_ns", "_wheel")

    def __init__(self, clock: Clock, seconds: float, error: Callable[[], TimedOut]) -> None:
        self._clock = clock
        self._ns = round(seconds * NS)
        self._error = error
        self._wheel: Wheel | None = None

    def begin(self, now: int) -> Span | None:
        """
        A block begins in the running task, at ``now``; None where the deadline around it is what stops it.

        Raises:
            TimedOut: no time was left, of this limit or, with that one's error, of the deadline around it.
        """
        wheel = self._wheel
        task = None if wheel is None else current_task(wheel.loop)
        if wheel is None or task is None:
            wheel, task = self._here()
        outer = _ambient.get()
        if outer is not None and outer.at <= now:
            raise outer.error()
        at = now + self._ns
        if at <= now:
            raise self._error()
        span = Span()
        span.at = at
        span.error = self._error
        span.outer = outer
        if outer is None or at < outer.at:
            _ambient.set(span)
        elif outer.task is task:
            return None
        else:
            # The deadline stops its own task, which may have left this one behind: shielded, or awaited by nobody.
            at = max(at, outer.at + _GRACE_NS)
        wheel.light(task, at, span)
        return span

    def _here(self) -> tuple[Wheel, Task[Any]]:
        """The running loop's wheel, which is kept for the next time, and the running task."""
        wheel = self._wheel = Wheel.of(get_running_loop(), self._clock)
        task = current_task(wheel.loop)
        if task is None:
            raise RuntimeError("a time limit stops the task it is begun in, and this is none")
        return wheel, task


class within:  # noqa: N801 - reads as a word: `async with within(clock, 30, error)`
    """
    Run the block for at most ``seconds``, or for what is left of the deadline around it if that is less.

    The block is stopped at that time or up to 10 ms later, never before. ``with`` and ``async with`` do the same.

    Args:
        clock: The clock deadlines are kept on.
        seconds: How long the block may take; 0 or less refuses it at once.
        error: Makes the error to raise. The block was cancelled where it stood.

    Raises:
        TimedOut: whatever ``error`` makes. Before the block where no time was left: nothing was started. Where it was
            the deadline around it that had passed, that one's error.
    """

    __slots__ = ("_clock", "_limit", "_span")

    def __init__(self, clock: Clock, seconds: float, error: Callable[[], TimedOut]) -> None:
        self._clock = clock
        self._limit = TimeLimit(clock, seconds, error)
        self._span: Span | None = None

    def __enter__(self) -> None:
        self._span = self._limit.begin(self._clock.now())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span, self._span = self._span, None
        late = None if span is None else span.end(error)
        if late is not None:
            raise late from error

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


_ambient: ContextVar[Span | None] = ContextVar("holdfast_deadline", default=None)
