"""A ``Share`` of rate limits in one process: pipelines that are given the same one act as so many processes."""

import asyncio
from collections.abc import Sequence

from holdfast.clock import Clock
from holdfast.resilience.bucket import NEVER, Bucket, take_all
from holdfast.resilience.share import SharedNeed, ShareUnavailable


class BucketShare:
    """
    Keeps limits in buckets, and answers as late, or not at all, as a test wants.

    Args:
        clock: Where the time comes from.
        replicas: Processes it says there are.

    Attributes:
        replicas: As given; may be set.
        latency_s: Seconds that an answer takes; the units are taken when half of them have passed. 0 is no wait.
        timeout_s: Seconds after which whoever has no answer is told so.
        away: Whether it answers nobody, and hears of no charge and no refund.
        mute: Whether it does what it is asked for and does not answer.
        asked: How often it was asked for units.
        buckets: Of each key.
    """

    def __init__(self, clock: Clock, replicas: int = 1) -> None:
        self._clock = clock
        self.replicas = replicas
        self.latency_s = 0.0
        self.timeout_s = 0.25
        self.away = self.mute = False
        self.asked = 0
        self.buckets: dict[str, Bucket] = {}

    async def take(self, needs: Sequence[SharedNeed]) -> tuple[int, int | None] | None:
        """Take everything or nothing; see ``Share``."""
        self.asked += 1
        if self.latency_s:
            await asyncio.sleep(self.latency_s / 2)
        away = self.away
        refusal = None if away else take_all(self._clock.now(), [(self._bucket(need), need.cost) for need in needs])
        if away or self.mute:
            await asyncio.sleep(self.timeout_s - self.latency_s / 2)
            raise ShareUnavailable("there was no answer")
        if self.latency_s:
            await asyncio.sleep(self.latency_s / 2)
        if refusal is None:
            return None
        at = next(at for at, need in enumerate(needs) if self._bucket(need) is refusal.limit)
        return at, None if refusal.wait_ns == NEVER else refusal.wait_ns

    def refund(self, needs: Sequence[SharedNeed]) -> None:
        """Give back what was not used, at once."""
        for need in () if self.away else needs:
            self._bucket(need).refund(need.cost)

    def charge(self, needs: Sequence[SharedNeed]) -> None:
        """Take what was used already, at once."""
        for need in () if self.away else needs:
            self._bucket(need).charge(self._clock.now(), need.cost)

    def free(self, key: str) -> int:
        """Units left of the only limit whose key contains ``key``."""
        [bucket] = [bucket for name, bucket in self.buckets.items() if key in name]
        return bucket.free(self._clock.now())

    def _bucket(self, need: SharedNeed) -> Bucket:
        return self.buckets.setdefault(need.key, Bucket(need.name, need.quota))
