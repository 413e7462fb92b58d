"""
Who is let in when more come than can be served: the important first, and the others told so at once.

    arrives ── room ──────────────────────────────> RUNNING ── leave ──> gone
       │                                               ^
       ├ too many ──> refused                          └ its task runs
       └ else ──> WAITING ── a permit came free ──> GRANTED ── cancelled: the permit goes to the next
                     ├ out of time, cancelled ──> gone
                     └ had to make way ──> refused

Two rules say when there are too many. At arrival: a share of the newcomers is refused that grows from none to all while
those inside and waiting go from two to three times the limit, the lowest class first. At service, as CoDel has it
(RFC 8289): where for a whole interval nobody's wait was short, the queue does not empty by itself. From then on the
newest is served first, for it can still be in time, and each service sends one waiter of the lowest class away.

A higher class is never sent away while a lower one waits; and after it was, none of a lower class is admitted in the
same tick of the loop. Who was admitted earlier in the tick stays.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from math import isfinite
from typing import Literal, NamedTuple

from holdfast.clock import NS, Clock

Why = Literal["full", "load", "shed", "deadline"]


class Priority(IntEnum):
    """How much it matters that somebody is served; the lower the number, the more."""

    INTERACTIVE = 0
    AGENT_STEP = 1
    BATCH = 2


_LOWEST = Priority.BATCH


class ShedRefused(Exception):
    """
    Nobody was let in, and nothing was kept.

    Attributes:
        why: ``full`` where there was no room and the caller would not wait, ``load`` where too many were there already,
            ``shed`` where the caller waited and had to make way, ``deadline`` where it could not start in time.
        retry_after_ns: About how long the queue of this moment takes to be served: its length times the recent mean
            time of a service, divided by the limit; at least a second, and a second before anybody was served.
    """

    def __init__(self, why: Why, retry_after_ns: int) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after_ns = retry_after_ns


class ShedStats(NamedTuple):
    """
    What a shedder is doing, and what it has done.

    Attributes:
        in_use: Permits held, those granted to a waiter that has not run yet among them.
        queued: Callers waiting for a permit.
        limit: Most permits that are granted. After it was lowered, ``in_use`` may be above it for a while.
        overloaded: The newest is served first, and each service sends a waiter away.
        refused: Callers refused since the start, for whatever reason, one count for each ``Priority``.
        waited: Callers that got in after waiting.
    """

    in_use: int
    queued: int
    limit: int
    overloaded: bool
    refused: tuple[int, ...]
    waited: int


class Permit:
    """A place inside, until it is left."""

    __slots__ = ("_inside", "_since")

    def __init__(self, inside: "Shedder", since: int) -> None:
        self._inside: Shedder | None = inside
        self._since = since


class _Waiter(asyncio.Future[ShedRefused | None]):
    """Somebody in the queue: None once granted, or why not. A cancellation is heard at once."""

    def __init__(self, shedder: "Shedder", priority: Priority, now: int, left_s: float | None) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.shedder, self.priority, self.since = shedder, priority, now
        self.due = None if left_s is None else now + round(left_s * NS)

    def cancel(self, msg: object = None) -> bool:
        if stopped := super().cancel(msg):
            self.shedder.forget(self)
        return stopped


class Shedder:
    """
    Lets at most ``limit`` in at a time; up to twice as many more wait, the highest class first.

    It belongs to one event loop. Nothing here awaits but ``enter``, and nothing that frees a permit does.

    Args:
        limit: Permits, at least 1.
        clock: Where the time comes from.
        chance: Draws from [0, 1), for who is refused at arrival; a ``random.Random``'s ``random``.
        target_s: Seconds of waiting that are short, > 0. Far below the time between two services, most waits are long.
        interval_s: Seconds for which no wait was short before the queue counts as overloaded, > 0.

    Raises:
        ValueError: a value is out of its range.
    """

    __slots__ = (
        "_barred",
        "_chance",
        "_clock",
        "_in_use",
        "_interval",
        "_limit",
        "_lines",
        "_long_since",
        "_mean",
        "_overloaded",
        "_refused",
        "_target",
        "_waited",
    )

    def __init__(
        self,
        limit: int,
        clock: Clock,
        chance: Callable[[], float],
        *,
        target_s: float = 0.1,
        interval_s: float = 0.1,
    ) -> None:
        for name, value in (("target_s", target_s), ("interval_s", interval_s)):
            if not (isfinite(value) and value > 0):
                raise ValueError(f"shed.{name} must be > 0, got {value}")
        self._clock, self._chance = clock, chance
        self._target, self._interval = round(target_s * NS), round(interval_s * NS)
        # One line for each class, in order of arrival; ordered so that anybody can step out of it at no cost.
        self._lines: tuple[OrderedDict[_Waiter, None], ...] = tuple(OrderedDict() for _ in Priority)
        self._in_use = self._waited = self._limit = self._mean = 0
        self._refused = [0 for _ in Priority]
        self._long_since: int | None = None
        self._overloaded = False
        self._barred = _LOWEST
        self.resize(limit)

    @property
    def stats(self) -> ShedStats:
        """What it is doing now, and has done since it was made."""
        return ShedStats(
            self._in_use, self._queued(), self._limit, self._overloaded, tuple(self._refused), self._waited
        )

    @property
    def saturated(self) -> bool:
        """Whether so many are inside and wait that nobody else may wait, of whatever class."""
        return self._in_use + self._queued() >= 3 * self._limit

    @property
    def quiescent(self) -> bool:
        """Nobody is inside and nobody waits: to forget this shedder would change nothing but counts and estimates."""
        return not self._in_use  # Nobody waits where there is room.

    def enter_nowait(self, priority: Priority) -> Permit:
        """
        Enter if there is room.

        Raises:
            ShedRefused: ``full``; or ``load``, where a higher class was sent away in this tick. Nothing was changed.
        """
        if priority > self._barred:
            raise self._refusal(priority, "load")
        # Where there is room nobody waits: whatever frees a permit drains the queue first.
        if self._in_use >= self._limit:
            raise self._refusal(priority, "full")
        self._in_use += 1
        return Permit(self, self._clock.now())

    async def enter(self, priority: Priority, left_s: float | None) -> Permit:
        """
        Enter, after waiting for less than ``left_s`` seconds; 0 or less is too late already, None waits for ever.

        Raises:
            ShedRefused: ``deadline``, ``load`` or ``shed``. No permit is held. At arrival it is raised at once.
        """
        now = self._clock.now()
        if left_s is not None and left_s <= 0:
            raise self._refusal(priority, "deadline")
        if priority > self._barred:
            raise self._refusal(priority, "load")
        if self._in_use < self._limit:
            self._in_use += 1
            return Permit(self, now)
        if self._too_many(priority):
            self._make_way(priority)
        waiter = _Waiter(self, priority, now, left_s)
        self._lines[priority][waiter] = None
        timer = None if left_s is None else waiter.get_loop().call_later(left_s, self._send_away, waiter, "deadline")
        try:
            refused = await waiter
        except BaseException:
            # Cancelled, or the coroutine was closed: with a permit already granted, or still in the queue.
            if not waiter.cancel() and not waiter.cancelled() and waiter.result() is None:
                self._free()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if refused is not None:
            raise refused
        self._waited += 1
        return Permit(self, self._clock.now())

    def leave(self, permit: Permit) -> None:
        """Give the permit back. Never awaits, never raises; a second time, or to another shedder, does nothing."""
        if permit._inside is self:  # noqa: SLF001 - a permit is opaque to everybody else
            permit._inside = None  # noqa: SLF001 - a permit is opaque to everybody else
            took = self._clock.now() - permit._since  # noqa: SLF001 - a permit is opaque to everybody else
            self._mean += (took - self._mean) // 8 if self._mean else took
            self._free()

    def resize(self, limit: int) -> None:
        """
        Let ``limit`` in from now on, at least 1. More lets waiters in at once; fewer waits until enough have left.

        Raises:
            ValueError: for a limit below 1; nothing was changed.
        """
        if limit < 1:
            raise ValueError(f"shed.limit must be >= 1, got {limit}")
        self._limit = limit
        self._drain()

    def forget(self, waiter: _Waiter) -> None:
        """Take a waiter out of its line."""
        del self._lines[waiter.priority][waiter]

    def _queued(self) -> int:
        return sum(map(len, self._lines))

    def _too_many(self, priority: Priority) -> bool:
        """Each class has a third of the way from two to three times the limit: none refused before it, all after."""
        beyond = self._in_use + self._queued() - 2 * self._limit
        return self._chance() * self._limit < 3 * beyond - (_LOWEST - priority) * self._limit

    def _make_way(self, newcomer: Priority) -> None:
        """Send somebody of a lower class away, or else the newcomer."""
        last = self._last()
        if last is not None and last.priority > newcomer:
            self._send_away(last, "shed")
        else:
            self._bar(newcomer, asyncio.get_running_loop())
            raise self._refusal(newcomer, "load")

    def _send_away(self, waiter: _Waiter, why: Why) -> None:
        if not waiter.done():
            self.forget(waiter)
            waiter.set_result(self._refusal(waiter.priority, why))
            if why == "shed":
                self._bar(waiter.priority, waiter.get_loop())

    def _refusal(self, priority: Priority, why: Why) -> ShedRefused:
        self._refused[priority] += 1
        return ShedRefused(why, max(NS, self._queued() * self._mean // self._limit))

    def _bar(self, priority: Priority, loop: asyncio.AbstractEventLoop) -> None:
        if priority < self._barred:
            if self._barred == _LOWEST:
                loop.call_soon(self._unbar)
            self._barred = priority

    def _unbar(self) -> None:
        self._barred = _LOWEST

    def _next(self) -> _Waiter | None:
        """Who is served next."""
        for line in self._lines:
            if line:
                return next(reversed(line) if self._overloaded else iter(line))
        return None

    def _last(self) -> _Waiter | None:
        """Who would be served last."""
        for line in reversed(self._lines):
            if line:
                return next(iter(line) if self._overloaded else reversed(line))
        return None

    def _judge(self, now: int) -> None:
        """A permit is free: see for how long the wait has not been short. One that waits alone is no queue."""
        if self._queued() > 1 and now - min(next(iter(line)).since for line in self._lines if line) > self._target:
            if self._long_since is None:
                self._long_since = now
            self._overloaded = now - self._long_since >= self._interval
        else:
            self._long_since = None
            self._overloaded = False

    def _free(self) -> None:
        self._in_use -= 1
        self._drain()

    def _drain(self) -> None:
        now = self._clock.now()
        while self._in_use < self._limit:
            self._judge(now)
            waiter = self._next()
            if waiter is None:
                return
            if waiter.due is not None and waiter.due <= now:
                self._send_away(waiter, "deadline")
                continue
            self.forget(waiter)
            self._in_use += 1
            waiter.set_result(None)
            if self._overloaded and (last := self._last()) is not None:
                self._send_away(last, "shed")
