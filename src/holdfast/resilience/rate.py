"""
At most so many units in a time, exactly, over several limits at once.

A limit is one integer: when it will be full again, in nanoseconds times the units of its rate, so that nothing is
rounded away. ``Limit`` and ``take_all`` decide and are told the time; ``RateQueue`` waits.

    arrives ── fits ──> GRANTED ── the task runs ──> has them
       │                 ^   └ cancelled: refunded, and the queues drained
       └ does not ──> WAITING ── cancelled, out of time: removed
                       └ another limit blocks now: to the end of that one's queue
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from holdfast.clock import NS, Clock

NEVER = -1
"""The wait for more units than a limit ever holds."""

_TICK_NS = 1_000
"""The shortest timer: below it, a loop's floating-point time may not move."""


@dataclass(frozen=True, slots=True)
class Quota:
    """
    ``num`` units per ``den_ns`` nanoseconds.

    Attributes:
        num: Units, at least 1.
        den_ns: The time they come in, at least 1. One unit in two seconds is ``Quota(1, 2 * NS, 1)``.
        burst: Units held when nothing was taken for long, at least 1.
    """

    num: int
    den_ns: int
    burst: int

    def __post_init__(self) -> None:
        for name, value in (("num", self.num), ("den_ns", self.den_ns), ("burst", self.burst)):
            if value < 1:
                raise ValueError(f"quota.{name} must be >= 1, got {value}")


class per:  # noqa: N801 - reads as a word: `per.minute(60)`
    """Quotas in words. ``burst`` is ``n`` where it is not given."""

    @staticmethod
    def second(n: int, burst: int | None = None) -> Quota:
        """``n`` units in each second."""
        return Quota(n, NS, n if burst is None else burst)

    @staticmethod
    def minute(n: int, burst: int | None = None) -> Quota:
        """``n`` units in each minute."""
        return Quota(n, 60 * NS, n if burst is None else burst)


class Limit:
    """What is left of a quota, under a name that refusals tell. Times are nanoseconds of one clock, never negative."""

    __slots__ = ("_burst", "_den", "_floor", "_full_at", "_gate_at", "_num", "_room", "_tat", "name")

    def __init__(self, name: str, quota: Quota) -> None:
        self.name = name
        self._tat = 0
        # What the server said, which no refund goes below: as an integer like _tat, and as the moments it named.
        self._floor = self._gate_at = self._full_at = 0
        self._set(quota)

    def _set(self, quota: Quota) -> None:
        self._num, self._den, self._burst = quota.num, quota.den_ns, quota.burst
        self._room = quota.burst * quota.den_ns

    def free(self, now: int) -> int:
        """Whole units that could be taken now; negative where more was charged than there was."""
        return (self._room - max(0, self._tat - now * self._num)) // self._den

    def quiescent(self, now: int) -> bool:
        """It is full: to forget this limit would change nothing."""
        return self._tat <= now * self._num

    def check(self, now: int, cost: int = 1, ahead: int = 0) -> int:
        """The exact wait in nanoseconds until ``cost`` units fit behind ``ahead`` others: 0 for now, or ``NEVER``."""
        _whole(cost)
        snow, tat = now * self._num, self._tat
        excess = max(snow, tat) + (cost + ahead) * self._den - self._room - snow
        if cost > self._burst:
            return NEVER
        return max(0, -(-excess // self._num))

    def take(self, now: int, cost: int = 1) -> int:
        """Take ``cost`` units if they fit, and return 0; else change nothing and return the wait, or ``NEVER``."""
        wait = self.check(now, cost)
        if not wait:
            self._spend(now, cost)
        return wait

    def _spend(self, now: int, cost: int) -> None:
        snow, tat = now * self._num, self._tat
        self._tat = max(snow, tat) + cost * self._den

    def refund(self, cost: int = 1) -> None:
        """Give back ``cost`` units that were taken and not used. It never lifts what the server said."""
        _whole(cost)
        self._tat = max(self._tat - cost * self._den, self._floor)

    def charge(self, now: int, cost: int) -> None:
        """Take ``cost`` units that were used already, whether they fit or not. What is missing is waited for."""
        _whole(cost)
        self._spend(now, cost)

    def gate(self, at: int) -> None:
        """Admit nothing before ``at``, as the server asked. Then one unit is free, and the rest come at the rate."""
        self._gate_at = max(self._gate_at, at)
        self._tighten(at * self._num + self._room - self._den)

    def observe(self, now: int, remaining: int, reset_at: int) -> None:
        """Believe a server that says ``remaining`` units are left, all of them back at ``reset_at``, if it is less."""
        if remaining < self._burst:
            self._tighten(now * self._num + (self._burst - max(0, remaining)) * self._den)
        if remaining <= 0:
            self._full_at = max(self._full_at, reset_at)
            self._tighten(reset_at * self._num)

    def reconfigure(self, now: int, quota: Quota) -> None:
        """
        Go on with another quota, owing the same units, up to its burst. A moment the server named stays that moment.

        What is owed is rounded up to what the new rate can tell apart, by less than a nanosecond.
        """
        owed = max(0, self._tat - now * self._num)
        said = max(0, self._floor - now * self._num)
        old = self._den
        self._set(quota)
        snow = now * self._num
        self._tat = snow + min(-(-owed * self._den // old), self._room)
        self._floor = snow + min(-(-said * self._den // old), self._room) if said else 0
        if self._gate_at > now:
            self.gate(self._gate_at)
        self._tighten(self._full_at * self._num)

    def _tighten(self, tat: int) -> None:
        self._floor = max(self._floor, tat)
        self._tat = max(self._tat, tat)


def _whole(cost: int) -> None:
    if cost < 0:
        raise ValueError(f"cost must be >= 0, got {cost}")


Needs = Sequence[tuple[Limit, int]]
"""What one call takes: units of several limits, together or not at all."""


class Refusal(NamedTuple):
    """The limit that makes a caller wait longest, and the exact wait in nanoseconds, or ``NEVER``."""

    limit: Limit
    wait_ns: int


def take_all(now: int, needs: Needs) -> Refusal | None:
    """Take everything in ``needs``, or nothing and say which limit refused. All are checked before any is written."""
    needs = _merged(needs)
    worst = _worst(now, needs, {})
    if worst is None:
        for limit, cost in needs:
            limit._spend(now, cost)  # noqa: SLF001 - the same module: what was checked is written
    return worst


def _merged(needs: Needs) -> Needs:
    """Add up what is asked of one limit, which two keys may share: each part could fit where the sum does not."""
    if len(needs) < 2 or len({limit for limit, _ in needs}) == len(needs):
        return needs
    total: dict[Limit, int] = {}
    for limit, cost in needs:
        _whole(cost)
        total[limit] = total.get(limit, 0) + cost
    return tuple(total.items())


def _worst(now: int, needs: Needs, lines: "dict[Limit, _Line]") -> Refusal | None:
    worst: Limit | None = None
    longest = 0
    for limit, cost in needs:
        line = lines.get(limit)
        wait = limit.check(now, cost, line.units if line is not None else 0)
        if wait == NEVER:
            return Refusal(limit, NEVER)
        if wait > longest:
            worst, longest = limit, wait
    return None if worst is None else Refusal(worst, longest)


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
        self.limit: Limit | None = None

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

    Args:
        clock: Where the time comes from.
        max_queue: Callers that may wait for one limit; 0: nobody waits. Who is moved from another queue is let in.
    """

    def __init__(self, clock: Clock, max_queue: int) -> None:
        if max_queue < 0:
            raise ValueError(f"rate.max_queue must be >= 0, got {max_queue}")
        self._clock = clock
        self._max_queue = max_queue
        self._lines: dict[Limit, _Line] = {}

    def queued(self, limit: Limit) -> int:
        """Callers that wait for this limit."""
        line = self._lines.get(limit)
        return 0 if line is None else len(line.waiters)

    def take_nowait(self, needs: Needs) -> Refusal | None:
        """Take everything now and return None, or nothing and say which limit refused. Overtakes nobody who waits."""
        return self._try(self._clock.now(), _merged(needs))

    async def take(self, needs: Needs, max_wait_s: float | None) -> None:
        """
        Take everything, after waiting for at most ``max_wait_s`` seconds; 0 never waits, None waits for ever.

        Raises:
            RateRefused: at once where the wait is known to be too long, or later where it became so. Nothing was taken.
        """
        now, needs = self._clock.now(), _merged(needs)
        refusal = self._try(now, needs)
        if refusal is None:
            return
        if refusal.wait_ns == NEVER:
            raise RateRefused(refusal, "never")
        due = None if max_wait_s is None else now + round(max_wait_s * NS)
        if due is not None and now + refusal.wait_ns > due:
            raise RateRefused(refusal, "wait")
        if self.queued(refusal.limit) >= self._max_queue:
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

    def changed(self, *limits: Limit) -> None:
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
        if self._lines:
            for limit, _ in needs:
                self._drain(limit, now)
            if refusal := _worst(now, needs, self._lines):
                return refusal
        return take_all(now, needs)

    def _stand(self, waiter: _Waiter, refusal: Refusal, now: int) -> None:
        limit = refusal.limit
        line = self._lines.setdefault(limit, _Line(waiter.get_loop()))
        line.waiters.append(waiter)
        line.units += dict(waiter.needs)[limit]
        waiter.limit = limit
        if len(line.waiters) == 1:
            self._arm(line, limit, now, refusal.wait_ns)

    def _step_out(self, waiter: _Waiter, limit: Limit) -> None:
        line = self._lines[limit]
        line.waiters.remove(waiter)
        line.units -= dict(waiter.needs)[limit]
        waiter.limit = None

    def _drain(self, limit: Limit, now: int) -> None:
        """Grant the head while it fits in all its limits; where another one blocks it, it goes to stand there."""
        line = self._lines.get(limit)
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
        del self._lines[limit]

    def _arm(self, line: _Line, limit: Limit, now: int, wait_ns: int) -> None:
        if line.timer is not None:
            if line.due == now + wait_ns:
                return
            line.timer.cancel()
        line.due = now + wait_ns
        line.timer = line.loop.call_later(max(wait_ns, _TICK_NS) / NS, self._ring, line, limit)

    def _ring(self, line: _Line, limit: Limit) -> None:
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
            refusal = _worst(now, waiter.needs, self._lines) or Refusal(limit, 0)
            waiter.set_result(RateRefused(refusal, "timeout"))
