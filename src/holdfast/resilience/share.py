"""
Rate limits that several processes keep together, and what is done while they cannot.

::

    ask the share ──> taken
      │ refused: wait in line here, then ask again
      └ no answer ──> this process's part of each limit, until the share answers again ──> the share hears what is owed

A circuit of its own says when a share that did not answer may be asked again. While it is away each process goes on
with its part of the limits: the burst and the rate, divided by the processes there are. Once it is back it is charged
for what was taken since it was last known to be away, and for what the part had not got back by then. So one absence
adds one burst to what the limit admits, ``2 * burst + rate * T``; and before some have heard that it is back, as much
as their parts give in those two or three seconds, which all then wait for.

A call that costs more than the part ever holds is let through when the part is full, and what is missing is owed. Where
there are more processes than the burst has units, each part holds one.
"""

from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from holdfast.resilience.bucket import NEVER, Bucket, Needs, Quota, take_distinct


class SharedNeed(NamedTuple):
    """
    So many units of a limit that several processes keep.

    Attributes:
        name: The limit's.
        key: Names whose units they are, among all limits of all pipelines.
        quota: The same in every process.
        cost: Units.
    """

    name: str
    key: str
    quota: Quota
    cost: int


class ShareUnavailable(Exception):
    """The share did not answer in time. Something may have been taken; it comes back at the limit's rate."""


class Probes(Protocol):
    """Where several processes keep the places for trying a target that has failed."""

    def probe(self, name: str, slots: int, lease_ns: int) -> Coroutine[Any, Any, str | None]:
        """
        A place to try ``name``, of ``slots`` among all processes, for ``lease_ns`` at most; None where all are taken.

        Raises:
            ShareUnavailable: there was no answer.
        """

    def release(self, name: str, probe: str) -> None:
        """Give a place back, soon. Never waits and never raises."""


class Share(Protocol):
    """Where limits are kept that several processes have in common."""

    @property
    def replicas(self) -> int:
        """Processes that were seen last, at least 1."""

    async def take(self, needs: Sequence[SharedNeed]) -> tuple[int, int | None] | None:
        """
        Take everything, and return None; or nothing, and return which of ``needs`` makes one wait longest, and for how
        many nanoseconds, None for ever.

        Raises:
            ShareUnavailable: it did not answer.
        """

    def refund(self, needs: Sequence[SharedNeed]) -> None:
        """Give back what was not used, soon. Never waits and never raises."""

    def charge(self, needs: Sequence[SharedNeed]) -> None:
        """Take what was used already, soon. Never waits and never raises."""


class Loans:
    """
    What this process took from its own part while the share was away, and is to charge it for once it is back.

    What the part had got back when the share was last known to be away is its own, and not to be charged.
    """

    def __init__(self) -> None:
        self._lent: dict[str, tuple[SharedNeed, Bucket]] = {}

    def __len__(self) -> int:
        """Limits of which something is owed, each key by itself."""
        return len(self._lent)

    def take(self, now: int, needs: Sequence[SharedNeed], part: Needs) -> tuple[int, int | None] | None:
        """Take ``needs`` from the buckets in ``part``, which stand in the same order; the answer is a share's."""
        bounded = [
            (bucket, min(need.cost, bucket.burst) if need.cost <= need.quota.burst else need.cost)
            for need, (bucket, _) in zip(needs, part, strict=True)
        ]
        refusal = take_distinct(now, bounded)
        if refusal is not None:
            at = next(at for at, (bucket, _) in enumerate(part) if bucket is refusal.limit)
            return at, None if refusal.wait_ns == NEVER else refusal.wait_ns
        for need, (bucket, taken) in zip(needs, bounded, strict=True):
            bucket.charge(now, need.cost - taken)
            self._add(need, bucket, need.cost)
        return None

    def change(self, need: SharedNeed, bucket: Bucket, units: int, now: int) -> bool:
        """Take more than ``need`` said, or give back where negative; False where it is not owed, or no more."""
        if need.key not in self._lent:
            return False
        if units < 0:
            bucket.refund(-units)
        else:
            bucket.charge(now, units)
        self._add(need, bucket, units)
        return True

    def away(self, now: int) -> None:
        """The share is known to be away now: forget what the parts have got back."""
        for key, (need, bucket) in list(self._lent.items()):
            owed = min(need.cost, bucket.burst - bucket.free(now))
            if owed > 0:
                self._lent[key] = need._replace(cost=owed), bucket
            else:
                del self._lent[key]

    def collect(self) -> list[SharedNeed]:
        """What is owed, which is so no longer: the parts are as full as if it had not been taken from them."""
        owed = []
        for need, bucket in self._lent.values():
            bucket.refund(need.cost)
            owed.append(need)
        self._lent.clear()
        return owed

    def _add(self, need: SharedNeed, bucket: Bucket, units: int) -> None:
        lent, _ = self._lent.get(need.key, (need._replace(cost=0), bucket))
        self._lent[need.key] = lent._replace(cost=max(0, lent.cost + units)), bucket
