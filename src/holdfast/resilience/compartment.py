"""
At most so many at a time: a freed permit goes to whoever has waited longest, by the hand of the one who leaves.

    WAITING ── granted ──> GRANTED ── its task runs ──> RUNNING ── leave ──> gone
       │                      │
       └ cancelled, timeout   └ cancelled: the permit goes to the next

The permit is the waiter's own from the moment of the grant, before its task has run. So a newcomer cannot take it in
between, and a cancellation in between gives it back.
"""

import asyncio
from collections import deque
from typing import Literal, NamedTuple

Why = Literal["full", "timeout"]


class BulkheadRefused(Exception):
    """
    Nobody was let in, and nothing was kept.

    Attributes:
        why: ``full`` where the queue had no place, ``timeout`` where no permit came free in time.
        retry_after_ns: Always None: when somebody will leave is not known.
    """

    retry_after_ns: None = None

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


class BulkheadStats(NamedTuple):
    """
    What a bulkhead is doing, and what it has done.

    Attributes:
        in_use: Permits held, those granted to a waiter that has not run yet among them.
        queued: Callers waiting for a permit.
        limit: Most permits that are granted. After it was lowered, ``in_use`` may be above it for a while.
        max_queue: Most callers that may wait.
        refused: Callers refused since the start, for either reason.
        waited: Callers that got in after waiting.
    """

    in_use: int
    queued: int
    limit: int
    max_queue: int
    refused: int
    waited: int


class Permit:
    """A place inside a bulkhead, until it is left."""

    __slots__ = ("_inside",)

    def __init__(self, inside: "Compartment") -> None:
        self._inside: Compartment | None = inside


class _Waiter(asyncio.Future[bool]):
    """
    Somebody in the queue: True once granted, False once out of time.

    A cancellation is heard at once, not when the task runs next: until then the waiter would hold a place in the queue
    that a newcomer is entitled to.
    """

    def __init__(self, queue: deque["_Waiter"], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._queue = queue

    def cancel(self, msg: object = None) -> bool:
        stopped = super().cancel(msg)
        if stopped:
            self._queue.remove(self)
        return stopped

    def give_up(self) -> None:
        if not self.done():
            self._queue.remove(self)
            self.set_result(False)


class Compartment:
    """
    Lets at most ``limit`` in at a time; up to ``max_queue`` more wait, in order of arrival.

    It belongs to one event loop. Nothing here awaits but ``enter``, and nothing that frees a permit does.

    Args:
        limit: Permits, at least 1.
        max_queue: Callers that may wait; 0 means that nobody waits.

    Attributes:
        in_use: Permits held.
    """

    __slots__ = ("_limit", "_max_queue", "_queue", "_refused", "_waited", "in_use")

    def __init__(self, limit: int, max_queue: int) -> None:
        if max_queue < 0:
            raise ValueError(f"bulkhead.max_queue must be >= 0, got {max_queue}")
        self._max_queue = max_queue
        self._queue: deque[_Waiter] = deque()
        self.in_use = self._refused = self._waited = 0
        self._limit = 0
        self.resize(limit)

    @property
    def stats(self) -> BulkheadStats:
        """What it is doing now, and has done since it was made."""
        return BulkheadStats(self.in_use, len(self._queue), self._limit, self._max_queue, self._refused, self._waited)

    @property
    def limit(self) -> int:
        """Most permits that are granted."""
        return self._limit

    @property
    def quiescent(self) -> bool:
        """Nobody is inside and nobody waits: to forget this bulkhead would change nothing but its counts."""
        return not self.in_use and not self._queue

    def try_enter(self) -> bool:
        """
        Enter if there is room, without a permit: whoever is let in calls ``free``, exactly once.

        Where there is none, False, and no refusal is counted. Room is only while nobody waits.
        """
        if self.in_use >= self._limit:
            return False
        self.in_use += 1
        return True

    def free(self) -> None:
        """Leave without a permit. Never awaits, never raises."""
        self.in_use -= 1
        if self._queue:
            self._drain()

    def enter_nowait(self) -> Permit:
        """
        Enter if there is room.

        Raises:
            BulkheadRefused: ``full``; nothing was changed.
        """
        if self.in_use >= self._limit:
            self._refused += 1
            raise BulkheadRefused("full")
        self.in_use += 1
        return Permit(self)

    async def enter(self, max_wait_s: float | None) -> Permit:
        """
        Enter, after waiting for at most ``max_wait_s`` seconds; 0 or less never waits, None waits for ever.

        Raises:
            BulkheadRefused: ``full`` at once, or ``timeout``. No permit is held.
        """
        if self.in_use < self._limit:
            self.in_use += 1
            return Permit(self)
        if len(self._queue) >= self._max_queue or (max_wait_s is not None and max_wait_s <= 0):
            self._refused += 1
            raise BulkheadRefused("full" if len(self._queue) >= self._max_queue else "timeout")
        if not await self._turn(max_wait_s):
            self._refused += 1
            raise BulkheadRefused("timeout")
        self._waited += 1
        return Permit(self)

    async def _turn(self, max_wait_s: float | None) -> bool:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(self._queue, loop)
        self._queue.append(waiter)
        timer = None if max_wait_s is None else loop.call_later(max_wait_s, waiter.give_up)
        try:
            return await waiter
        except BaseException:
            # Cancelled, or the coroutine was closed: with a permit already granted, or still in the queue.
            if not waiter.cancel() and not waiter.cancelled() and waiter.result():
                self.free()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self, permit: Permit) -> None:
        """Give the permit back. Never awaits, never raises; a second time, or to another bulkhead, does nothing."""
        if permit._inside is self:  # noqa: SLF001 - a permit is opaque to everybody else
            permit._inside = None  # noqa: SLF001 - a permit is opaque to everybody else
            self.free()

    def resize(self, limit: int) -> None:
        """
        Let ``limit`` in from now on, at least 1. More lets waiters in at once; fewer waits until enough have left.

        Raises:
            ValueError: for a limit below 1; nothing was changed.
        """
        if limit < 1:
            raise ValueError(f"bulkhead.limit must be >= 1, got {limit}")
        self._limit = limit
        self._drain()

    def reconfigure(self, limit: int, max_queue: int) -> None:
        """Resize, and let ``max_queue`` wait from now on; those who wait already stay."""
        self._max_queue = max_queue
        self.resize(limit)

    def _drain(self) -> None:
        while self._queue and self.in_use < self._limit:
            self.in_use += 1
            self._queue.popleft().set_result(True)
