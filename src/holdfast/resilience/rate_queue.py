"""
Waiting for several limits at once: first come first served at each, and one timer for each queue's head.

    arrives ── fits ──> GRANTED ── the task runs ──> has them
       │                 ^   └ cancelled: refunded, and the queues drained
       └ does not ──> WAITING ── cancelled, out of time: removed
                       └ another limit blocks now: to the end of that one's queue
"""

import asyncio
from collections import deque
from typing import Literal

from holdfast.clock import NS, Clock
from holdfast.resilience.bucket import NEVER, Bucket, Needs, Refusal, merged, take_all, worst

_TICK_NS = 1_000
"""The shortest timer: below it, a loop's floating-point time may not move."""


class RateRefused(Exception):
    """
    Nothing was taken from any limit.

    Attributes:
        limit: The limit that refused.
        why: ``wait`` where the wait would be longer than allowed, ``full`` where the queue had no place, ``timeout``
            where the limits were tightened while the caller waited, ``never`` where the cost is above the burst.
        retry_after_ns: The wait as it stands, with everybody in the queue before; None for never.
    """

    def __init__(self, refusal: Refusal, why: Literal["wait", "full", "timeout", "never"]) -> None:
        super().__init__(f"{refusal.limit.name}: {why}")
        self.limit = refusal.limit
        self.why = why
        self.retry_after_ns = None if refusal.wait_ns == NEVER else refusal.wait_ns


class _Waiter(asyncio.Future[RateRefused | None]):
    """Somebody in a queue: None once everything was taken for it. A cancellation is heard at once."""

    def __init__(self, queue: "RateQueue", needs: Needs, due: int | None) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.queue, self.needs, self.due = queue, tuple(needs), due
        self.timer: asyncio.TimerHandle | None = None
        self.limit: Bucket | None = None

    def cancel(self, msg: object = None) -> bool:
        if stopped := super().cancel(msg):
            self.queue.forget(self)
        return stopped


class _Line:
    """The queue of one limit: who stands in it, the units of that limit they want, and the one timer for its head."""

    __slots__ = ("due", "loop", "timer", "units", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop  # Not the running one: a loop that ends cancels its tasks when it has stopped.
        self.waiters: deque[_Waiter] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.units = self.due = 0


class RateQueue:
    """
    Waits for several limits at once, first come first served at each. It belongs to one event loop.

    Attributes:
        lines: Who waits, by what for; empty where nobody does.

    Args:
        clock: Where the time comes from.
        max_queue: Callers that may wait for one limit; 0: nobody waits. Who is moved from another queue is let in.

    Attributes:
        max_queue: As given; may be set. Those who wait already stay.
    """

    def __init__(self, clock: Clock, max_queue: int) -> None:
        if max_queue < 0:
            raise ValueError(f"rate.max_queue must be >= 0, got {max_queue}")
        self._clock = clock
        self.max_queue = max_queue
        self.lines: dict[Bucket, _Line] = {}

    def queued(self, limit: Bucket) -> int:
        """Callers that wait for this limit."""
        line = self.lines.get(limit)
        return 0 if line is None else len(line.waiters)

    def take_nowait(self, needs: Needs) -> Refusal | None:
        """Take everything now and return None, or nothing and say which limit refused. Overtakes nobody who waits."""
        return self._try(self._clock.now(), merged(needs))

    async def take(self, needs: Needs, max_wait_s: float | None) -> None:
        """
        Take everything, after waiting for at most ``max_wait_s`` seconds; 0 never waits, None waits for ever.

        Raises:
            RateRefused: at once where the wait is known to be too long, or later where it became so. Nothing was taken.
        """
        now, needs = self._clock.now(), merged(needs)
        refusal = self._try(now, needs)
        if refusal is None:
            return
        if refusal.wait_ns == NEVER:
            raise RateRefused(refusal, "never")
        due = None if max_wait_s is None else now + round(max_wait_s * NS)
        if due is not None and now + refusal.wait_ns > due:
            raise RateRefused(refusal, "wait")
        if self.queued(refusal.limit) >= self.max_queue:
            raise RateRefused(refusal, "full")
        waiter = _Waiter(self, needs, due)
        self._stand(waiter, refusal, now)
        self._watch(waiter, now)
        try:
            refused = await waiter
        except BaseException:
            # Cancelled, or the coroutine was closed: with everything taken already, or still in a queue.
            if not waiter.cancel() and not waiter.cancelled() and waiter.result() is None:
                self.refund(waiter.needs)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
        if refused is not None:
            raise refused

    def refund(self, needs: Needs) -> None:
        """Give back what was taken and not used, and let in whom that helps."""
        for limit, cost in needs:
            limit.refund(cost)
        self.changed(*(limit for limit, _ in needs))

    def changed(self, *limits: Bucket) -> None:
        """Look again at the queues of limits that were refunded or reconfigured elsewhere."""
        now = self._clock.now()
        for limit in limits:
            self._drain(limit, now)

    def forget(self, waiter: _Waiter) -> None:
        """Take a waiter out of its queue; who comes after it may fit sooner."""
        limit = waiter.limit
        if limit is not None:
            self._step_out(waiter, limit)
            self.changed(limit)

    def _try(self, now: int, needs: Needs) -> Refusal | None:
        if self.lines:
            for limit, _ in needs:
                self._drain(limit, now)
            if refusal := worst(now, needs, self._ahead(needs)):
                return refusal
        return take_all(now, needs)

    def _ahead(self, needs: Needs) -> dict[Bucket, int]:
        return {limit: self.lines[limit].units for limit, _ in needs if limit in self.lines}

    def _stand(self, waiter: _Waiter, refusal: Refusal, now: int) -> None:
        limit = refusal.limit
        line = self.lines.setdefault(limit, _Line(waiter.get_loop()))
        line.waiters.append(waiter)
        line.units += dict(waiter.needs)[limit]
        waiter.limit = limit
        if len(line.waiters) == 1:
            self._arm(line, limit, now, refusal.wait_ns)

    def _step_out(self, waiter: _Waiter, limit: Bucket) -> None:
        line = self.lines[limit]
        line.waiters.remove(waiter)
        line.units -= dict(waiter.needs)[limit]
        waiter.limit = None

    def _drain(self, limit: Bucket, now: int) -> None:
        """Grant the head while it fits in all its limits; where another one blocks it, it goes to stand there."""
        line = self.lines.get(limit)
        if line is None:
            return
        while line.waiters:
            head = line.waiters[0]
            refusal = take_all(now, head.needs)
            if refusal is not None and refusal.limit is limit and refusal.wait_ns != NEVER:
                self._arm(line, limit, now, refusal.wait_ns)
                return
            self._step_out(head, limit)
            if refusal is None:
                head.set_result(None)
            elif refusal.wait_ns == NEVER:
                head.set_result(RateRefused(refusal, "never"))
            else:
                self._stand(head, refusal, now)
        if line.timer is not None:
            line.timer.cancel()
        del self.lines[limit]

    def _arm(self, line: _Line, limit: Bucket, now: int, wait_ns: int) -> None:
        if line.timer is not None:
            if line.due == now + wait_ns:
                return
            line.timer.cancel()
        line.due = now + wait_ns
        line.timer = line.loop.call_later(max(wait_ns, _TICK_NS) / NS, self._ring, line, limit)

    def _ring(self, line: _Line, limit: Bucket) -> None:
        line.timer = None
        self._drain(limit, self._clock.now())

    def _watch(self, waiter: _Waiter, now: int) -> None:
        """Look at the waiter again when its time is up, and again if the loop was early."""
        if waiter.due is not None:
            left = max(waiter.due - now, _TICK_NS)
            waiter.timer = waiter.get_loop().call_later(left / NS, self._expire, waiter)

    def _expire(self, waiter: _Waiter) -> None:
        now = self._clock.now()
        if waiter.due is not None and now < waiter.due:
            self._watch(waiter, now)
            return
        if waiter.limit is not None:
            self._drain(waiter.limit, now)  # Whoever was promised this very moment gets it.
        limit = waiter.limit
        if limit is not None:
            self.forget(waiter)
            refusal = worst(now, waiter.needs, self._ahead(waiter.needs)) or Refusal(limit, 0)
            waiter.set_result(RateRefused(refusal, "timeout"))
