"""
A call that answers little by little.

::

    open ─▶ first part ─▶ part ─▶ … ─▶ end
    └── may be made again ──┘└── never: the reader has seen some of it ──┘
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, nullcontext, suppress
from inspect import isawaitable
from typing import Any, NamedTuple, TypeVar

from holdfast.clock import NS, Clock
from holdfast.errors import AttemptTimedOut, DeadlineExceeded, HoldfastError, StreamBroken
from holdfast.resilience.classify import Failure, FailureClass
from holdfast.resilience.deadline import within
from holdfast.resilience.guards import OK, Attempt, Ending
from holdfast.resilience.keys import Call
from holdfast.resilience.passage import Passage
from holdfast.resilience.retrier import recall
from holdfast.resilience.timeout import Timeout

T = TypeVar("T")

_END = object()
_LEAST_S = 0.001
_READER_LEFT = Ending(Failure(FailureClass.CANCELLED, None, retryable=False, harmless=False))


class Streaming(NamedTuple):
    """
    What streaming a call takes.

    Attributes:
        name: Of the pipeline.
        clock: Where the time comes from.
        limits: Of each attempt.
        call: What it is about.
        id: Its number among the pipeline's calls.
        passage: Makes the way of an attempt.
        again: Whether an attempt that ended with an error is made again, after the wait for it.
        late: Makes the error for a phase that took too long.
        until: When the deadline of all attempts passes, on the clock; None where there is none.
        past: Makes the error for that.
    """

    name: str
    clock: Clock
    limits: Timeout
    call: Call
    id: int
    passage: Callable[[Call, int, int], Passage]
    again: Callable[[Attempt, BaseException], Awaitable[bool]]
    late: Callable[[str, float], AttemptTimedOut]
    until: int | None
    past: Callable[[], DeadlineExceeded]

    def in_time(self) -> within | nullcontext[None]:
        """
        What is left of the deadline.

        Held while something is waited for, and never while a part is yielded: the reader's own time is not ours to cut.
        """
        if self.until is None:
            return nullcontext()
        return within(self.clock, (self.until - self.clock.now()) / NS, self.past)


async def stream(how: Streaming, open: Callable[[], Any]) -> AsyncGenerator[Any, None]:  # noqa: A002 - it does
    """
    Yield what ``open()`` gives: an async iterator, also one that has to be awaited or entered first.

    Until the first part has come a failure is an ordinary attempt's. Afterwards nothing is made again.

    Raises:
        StreamBroken: it failed after its first part.
        Exception: whatever the last attempt raised before its first part.
    """
    source = _Source(how)
    async with how.in_time():
        passage, part = await _begun(how, source, open)
    try:
        parts = 0
        while part is not _END:
            yield part
            parts += 1
            async with how.in_time():
                part = await _next(how, source, passage, parts)
    except BaseException as error:
        passage.leave(_READER_LEFT)  # Which does nothing where it has left already.
        await source.drop(error)
        raise
    passage.leave(OK)
    await source.close(None)


async def around(outer: Passage, how: Streaming, open: Callable[[], Any]) -> AsyncGenerator[Any, None]:  # noqa: A002 - it does
    """The same, inside guards that stand around all attempts."""
    async with aclosing(stream(how, open)) as parts:
        async with how.in_time():
            await outer.enter()
        try:
            async for part in parts:
                outer.arrived()
                yield part
        except BaseException as error:
            outer.failed(error)
            raise
        outer.leave(OK)


async def _begun(how: Streaming, source: "_Source", open: Callable[[], Any]) -> tuple[Passage, object]:  # noqa: A002 - it does
    """Make attempts until the first part of one has come."""
    number = 1
    notes: list[str] = []
    while True:
        passage = how.passage(how.call, how.id, number)
        try:
            await passage.enter()
            part = await source.open(open)
        except BaseException as error:
            passage.failed(error)
            await source.drop(error)
            if not await how.again(passage, error):
                recall(error, notes)
                raise
            notes.append(error.__notes__[-1])
        else:
            passage.arrived()
            return passage, part
        number += 1


async def _next(how: Streaming, source: "_Source", passage: Passage, parts: int) -> object:
    try:
        return await source.next()
    except BaseException as error:
        passage.failed(error)
        if isinstance(error, HoldfastError) or not isinstance(error, Exception):
            raise
        raise StreamBroken(f"a stream of {how.name} broke after {parts} parts") from error


class _Source:
    """Where the parts come from, waited for no longer than the limits allow."""

    _parts: AsyncIterator[Any]

    def __init__(self, how: Streaming) -> None:
        self._how = how
        self._stack = AsyncExitStack()
        self._waited_ns = 0

    async def open(self, open: Callable[[], Any]) -> object:  # noqa: A002 - it does
        """Open it anew, and return its first part."""
        limits = self._how.limits
        self._stack, self._waited_ns = AsyncExitStack(), 0
        self._parts = await self._wait("connect", limits.connect, lambda: self._opened(open))
        return await self._wait("first", limits.first, lambda: anext(self._parts, _END))

    async def next(self) -> object:
        """The next part, or ``_END``."""
        return await self._wait("idle", self._how.limits.idle, lambda: anext(self._parts, _END))

    async def close(self, error: BaseException | None) -> None:
        """Close what was opened, and tell it what went wrong."""
        if error is None:
            await self._stack.aclose()
        else:
            await self._stack.__aexit__(type(error), error, error.__traceback__)

    async def drop(self, error: BaseException) -> None:
        """Close it after it failed, or was left: nobody wants to hear what it says to that."""
        with suppress(Exception):
            await self.close(error)

    async def _opened(self, open: Callable[[], Any]) -> AsyncIterator[Any]:  # noqa: A002 - it does
        found = open()
        if isawaitable(found):
            found = await found
        entered = hasattr(found, "__aenter__")
        if entered:
            found = await self._stack.enter_async_context(found)
        parts: AsyncIterator[Any] = aiter(found)
        if hasattr(parts, "aclose") and (isinstance(parts, AsyncGenerator) or not entered):
            self._stack.push_async_callback(parts.aclose)
        return parts

    async def _wait(self, phase: str, limit_s: float | None, wanted: Callable[[], Awaitable[T]]) -> T:
        how, total_s, told_s = self._how, self._how.limits.total, limit_s
        if total_s is not None:
            left_s = max(total_s - self._waited_ns / NS, _LEAST_S)
            if limit_s is None or left_s < limit_s:
                phase, limit_s, told_s = "total", left_s, total_s
        if limit_s is None or told_s is None:
            return await wanted()
        began, told = how.clock.now(), told_s
        try:
            async with within(how.clock, limit_s, lambda: how.late(phase, told)):
                return await wanted()
        finally:
            self._waited_ns += how.clock.now() - began
