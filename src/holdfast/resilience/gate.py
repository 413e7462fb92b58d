"""
What happens after a target has said "too many": nothing before the time it named, and then slowly.

::

    429, retry-after 3 ──> shut ── 3 s ──> one call, then ``resume_per_s`` ── each second twice as many ──> open

Without it everybody who waited would come back in the same moment, and be told the same again.
"""

import asyncio
from collections.abc import Callable, Hashable

from holdfast.clock import NS, Clock
from holdfast.resilience.bucket import Bucket, Quota

LONGEST_S = 600.0
"""Seconds for which a target is believed at most."""

_DOUBLINGS = 7
_WIDE = Quota(NS, 1, NS)


class _Gate:
    __slots__ = ("bucket", "doublings", "timer", "until")

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.doublings = self.until = 0
        self.timer: asyncio.TimerHandle | None = None


class Gates:
    """
    The gates that are not open, by key. A key that was never told to wait takes no memory.

    Args:
        name: Of the buckets, which refusals tell.
        clock: Where the time comes from.
        resume_per_s: Calls in the first second after the named time, at least 1.
        changed: Called with a bucket that was tightened or widened, so that who waits for it is looked at again.

    Attributes:
        resume_per_s: As given; may be set, for gates that are shut from then on.
        live: The gates; empty as long as no target named a time.
    """

    __slots__ = ("_changed", "_clock", "_name", "live", "resume_per_s")

    def __init__(self, name: str, clock: Clock, resume_per_s: int, changed: Callable[[Bucket], None]) -> None:
        self._clock = clock
        self.resume_per_s = resume_per_s
        self._name = name
        self._changed = changed
        self.live: dict[Hashable, _Gate] = {}

    def __len__(self) -> int:
        """Gates that are not open."""
        return len(self.live)

    def bucket(self, key: Hashable) -> Bucket | None:
        """What a call for ``key`` takes one unit of; None where its gate is open."""
        gate = self.live.get(key)
        return None if gate is None else gate.bucket

    def closed(self, key: Hashable, now: int) -> bool:
        """Whether the time that was named for ``key`` has not come yet."""
        gate = self.live.get(key)
        return gate is not None and now < gate.until

    def shut(self, key: Hashable, seconds: float) -> None:
        """Let nobody through for so long, and then slowly. A gate that is shut for longer stays so."""
        now = self._clock.now()
        quota = Quota(self.resume_per_s, NS, self.resume_per_s)
        gate = self.live.get(key)
        if gate is None:
            gate = self.live[key] = _Gate(Bucket(self._name, quota))
        else:
            gate.bucket.reconfigure(now, quota)
        gate.doublings = 0
        gate.until = max(gate.until, now + round(min(seconds, LONGEST_S) * NS))
        gate.bucket.gate(gate.until)
        self._widen_later(key, gate, gate.bucket.check(now) / NS + 1)

    def _widen_later(self, key: Hashable, gate: _Gate, seconds: float) -> None:
        if gate.timer is not None:
            gate.timer.cancel()
        gate.timer = asyncio.get_running_loop().call_later(seconds, self._widen, key, gate)

    def _widen(self, key: Hashable, gate: _Gate) -> None:
        gate.doublings += 1
        done = gate.doublings > _DOUBLINGS
        rate = self.resume_per_s << gate.doublings
        gate.bucket.reconfigure(self._clock.now(), _WIDE if done else Quota(rate, NS, self.resume_per_s))
        if done:
            del self.live[key]
        else:
            self._widen_later(key, gate, 1.0)
        self._changed(gate.bucket)
