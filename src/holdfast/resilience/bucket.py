"""
At most so many units in a time, exactly, over several limits at once.

A limit is one integer: when it will be full again, in nanoseconds times the units of its rate, so that nothing is
rounded away. ``Bucket`` and ``take_all`` decide and are told the time; ``rate_queue`` waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

NEVER = -1
"""The wait for more units than a limit ever holds."""


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


class Bucket:
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

    @property
    def burst(self) -> int:
        """Units held when nothing was taken for long."""
        return self._burst

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

    def holds(self, now: int, cost: int) -> bool:
        """Whether ``cost`` units fit now, which ``check`` says with the wait."""
        snow, tat = now * self._num, self._tat
        return cost >= 0 and max(snow, tat) + cost * self._den - self._room <= snow

    def try_take(self, now: int, cost: int) -> bool:
        """Take ``cost`` units if they fit now; if not, nothing is changed."""
        snow, tat = now * self._num, self._tat
        if tat < snow:  # Not `max`: to call it would take as long as all the rest.
            tat = snow
        tat += cost * self._den
        if tat - self._room > snow or cost < 0:
            return False
        self._tat = tat
        return True

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


Needs = Sequence[tuple[Bucket, int]]
"""What one call takes: units of several limits, together or not at all."""


class Refusal(NamedTuple):
    """The limit that makes a caller wait longest, and the exact wait in nanoseconds, or ``NEVER``."""

    limit: Bucket
    wait_ns: int


def take_all(now: int, needs: Needs) -> Refusal | None:
    """Take everything in ``needs``, or nothing and say which limit refused. All are checked before any is written."""
    return take_distinct(now, merged(needs))


def take_distinct(now: int, needs: Needs) -> Refusal | None:
    """The same for needs of which no two are of one bucket."""
    return None if try_distinct(now, needs) else worst(now, needs, {})


def try_distinct(now: int, needs: Needs) -> bool:
    """The same, where nobody asks which limit refused."""
    if len(needs) == 1:
        [(limit, cost)] = needs
        return limit.try_take(now, cost)
    for limit, cost in needs:
        if not limit.holds(now, cost):
            return False
    for limit, cost in needs:
        limit._spend(now, cost)  # noqa: SLF001 - the same module: what was checked is written
    return True


def merged(needs: Needs) -> Needs:
    """Add up what is asked of one limit, which two keys may share: each part could fit where the sum does not."""
    if len(needs) < 2 or len({limit for limit, _ in needs}) == len(needs):
        return needs
    total: dict[Bucket, int] = {}
    for limit, cost in needs:
        _whole(cost)
        total[limit] = total.get(limit, 0) + cost
    return tuple(total.items())


def worst(now: int, needs: Needs, ahead: Mapping[Bucket, int]) -> Refusal | None:
    """The limit that makes one wait longest, with ``ahead`` units of each wanted before; None where all of it fits."""
    slowest: Bucket | None = None
    longest = 0
    for limit, cost in needs:
        wait = limit.check(now, cost, ahead.get(limit, 0))
        if wait == NEVER:
            return Refusal(limit, NEVER)
        if wait > longest:
            slowest, longest = limit, wait
    return None if slowest is None else Refusal(slowest, longest)
