"""The rate limit: what a call needs of several limits, taken together or not at all, after waiting if need be."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from holdfast.clock import NS
from holdfast.errors import RateLimited
from holdfast.resilience.bucket import Bucket, Quota, try_distinct
from holdfast.resilience.classify import FailureClass
from holdfast.resilience.deadline import remaining_s
from holdfast.resilience.gate import Gates
from holdfast.resilience.guards import WAIT, Attempt, Ending, Mode, Surroundings, Waits
from holdfast.resilience.keys import Call, Key, key_class, per
from holdfast.resilience.rate_queue import RateQueue, RateRefused
from holdfast.resilience.share import Share
from holdfast.resilience.table import KeyTable

BY = " by "
"""Between what a bucket counts and whose it is, in its name."""


@dataclass(frozen=True, slots=True)
class Limit:
    """
    One limit of a ``Rate``.

    Attributes:
        name: What it counts: a call takes one unit, or what ``Call.costs`` says under this name.
        quota: How many units in what time, as ``per.minute(60)``.
        key: Whose units they are; None where everybody shares them.
        special: Keys that have quotas of their own.
    """

    name: str
    quota: Quota
    key: Key | None = None
    special: Mapping[Hashable, Quota] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, init=False)
class Rate:
    """
    Rate limits in a pipeline.

    Attributes:
        limits: Taken together or not at all. No two may have both name and key in common.
        max_wait_s: Seconds a call may wait for its turn; 0 refuses at once.
        max_queue: Calls that may wait for one limit.
        gate: For whom nothing is sent until the time a target named in a 429; None to leave that to retries.
        resume_per_s: Calls in the first second after that time, at least 1; twice as many in each further one.
        share: Where several processes keep the limits together; None for this process alone.
        mode: ``observe`` lets everybody through, and tells whom it would have refused or made wait.
    """

    limits: tuple[Limit, ...]
    max_wait_s: float
    max_queue: int
    gate: Key | None
    resume_per_s: int
    share: Share | None
    mode: Mode

    def __init__(
        self,
        *limits: Limit,
        max_wait_s: float = 20.0,
        max_queue: int = 1_000,
        gate: Key | None = per.target,
        resume_per_s: int = 20,
        share: Share | None = None,
        mode: Mode = "enforce",
    ) -> None:
        if len({(limit.name, limit.key) for limit in limits}) < len(limits):
            raise ValueError("rate.limits must differ in name or key")
        if share is not None and len({(limit.name, key_class(limit.key)) for limit in limits}) < len(limits):
            raise ValueError("rate.limits that are shared must differ in name, or in the name of their key")
        if max_wait_s < 0:
            raise ValueError(f"rate.max_wait_s must be >= 0, got {max_wait_s}")
        if resume_per_s < 1:
            raise ValueError(f"rate.resume_per_s must be >= 1, got {resume_per_s}")
        given = (limits, max_wait_s, max_queue, gate, resume_per_s, share, mode)
        for name, value in zip(self.__slots__, given, strict=True):
            object.__setattr__(self, name, value)


class LimitView(NamedTuple):
    """
    A limit as an operator sees it.

    Attributes:
        name: What it counts.
        key_class: What kind of key it is by.
        num, den_s, burst: The quota: ``num`` units in ``den_s`` seconds, and how many are saved up at most.
        keys: How many keys it is kept for.
        exhausted: For how many of them nothing is left now.
        queued: Calls that wait for it.
    """

    name: str
    key_class: str
    num: int
    den_s: float
    burst: int
    keys: int
    exhausted: int
    queued: int


class _Kept:
    """A limit and its buckets, with what every call looks at in reach."""

    __slots__ = ("key", "limit", "live", "name", "table")

    def __init__(self, limit: Limit, table: KeyTable[Bucket]) -> None:
        self.limit = limit
        self.table = table
        self.name = limit.name
        self.key = limit.key
        self.live = table.live


Taken = list[tuple[Bucket, int]]


class RateGuard:
    """The rate limits of one pipeline. What an attempt holds is the buckets it took from, and how much."""

    member = "rate"

    def __init__(self, policy: Rate, around: Surroundings) -> None:
        self._around = around
        self._policy = policy
        self._kept = tuple(_Kept(limit, self._table(at)) for at, limit in enumerate(policy.limits))
        self._queue = RateQueue(around.clock, policy.max_queue)
        self._gates = Gates(
            f"calls{BY}{key_class(policy.gate)}", around.clock, policy.resume_per_s, self._queue.changed
        )

    def enter(self, attempt: Attempt, now: int) -> Taken | Waits:
        """Take everything at once, if it fits and nobody waits before."""
        needs = self._needs(attempt.call, now)
        taken = self._queue.take_nowait(needs) is None if self._queue.lines else try_distinct(now, needs)
        return needs if taken else WAIT

    async def wait(self, attempt: Attempt) -> Any:
        """Wait in the queue of the limit that blocks, for as long as the policy and the deadline allow."""
        return await self._queue_for(attempt, self._needs(attempt.call, self._around.clock.now()))

    def stands(self, attempt: Attempt, token: Any) -> bool:
        """Whether the target has not asked to be left alone since; if so, the time it named has to come first."""
        del token
        key, now = self._policy.gate, self._around.clock.now()
        return key is None or self._policy.mode == "observe" or not self._gates.closed(key(attempt.call), now)

    def leave(self, attempt: Attempt, token: Taken, ending: Ending, now: int) -> None:  # noqa: ARG002 - what guards hear
        """Give back what an attempt that was never made has taken, and shut the gate where the target asked for it."""
        if not ending.ran:
            self._queue.refund(token)
        failure = ending.failure
        if failure is not None and failure.kind is FailureClass.RATE_LIMITED and failure.retry_after_s is not None:
            self._shut(attempt, failure.retry_after_s)

    def adjust(self, attempt: Attempt, token: Taken, used: Mapping[str, int]) -> None:
        """
        Say what was really used of limits, by their names: the rest is given back, or what is missing is owed.

        What is said later replaces what was said before.

        Raises:
            ValueError: no limit has this name; nothing was changed.
        """
        self._check_names(used)
        now, back = self._around.clock.now(), []
        for at, (kept, (bucket, cost)) in enumerate(zip(self._kept, token, strict=False)):
            extra = used.get(kept.limit.name, cost) - cost
            token[at] = bucket, cost + extra
            if extra > 0:
                # By key: a bucket that was full again may have been dropped since.
                _bucket(kept, attempt.call, now).charge(now, extra)
            elif extra < 0:
                back.append((bucket, -extra))
        self._queue.refund(back)

    def reconfigure(self, policy: Rate) -> None:
        """
        Go on with other quotas; what was taken stays taken.

        Raises:
            ValueError: the limits are others, by name or key, or kept elsewhere. Nothing was changed.
        """
        if [(new.name, new.key) for new in policy.limits] != [(old.limit.name, old.limit.key) for old in self._kept]:
            raise ValueError("rate.limits must keep their names and keys; make a new pipeline for others")
        if policy.share is not self._policy.share:
            raise ValueError("rate.share must stay the same; make a new pipeline for another")
        self._policy = policy
        self._queue.max_queue = policy.max_queue
        self._gates.resume_per_s = policy.resume_per_s
        self._kept = tuple(_Kept(new, old.table) for new, old in zip(policy.limits, self._kept, strict=True))
        self._requota()

    def views(self, now: int) -> Iterator[LimitView]:
        """Every limit, as an operator sees it."""
        for limit, table in self._limits():
            buckets = [bucket for _, bucket in table.entries()]
            yield LimitView(
                limit.name,
                key_class(limit.key),
                limit.quota.num,
                limit.quota.den_ns / NS,
                limit.quota.burst,
                len(buckets),
                sum(bucket.free(now) < 1 for bucket in buckets),
                sum(self._queue.queued(bucket) for bucket in buckets),
            )

    def _limits(self) -> Iterator[tuple[Limit, KeyTable[Bucket]]]:
        return ((kept.limit, kept.table) for kept in self._kept)

    def _quota(self, limit: Limit, key: Hashable) -> Quota:
        return limit.special.get(key, limit.quota)

    def _requota(self) -> None:
        now = self._around.clock.now()
        for limit, table in self._limits():
            for key, bucket in table.entries():
                bucket.reconfigure(now, self._quota(limit, key))
                self._queue.changed(bucket)

    def _needs(self, call: Call, now: int) -> Taken:
        costs, needs = call.costs, []
        for kept in self._kept:
            key_of = kept.key
            key = None if key_of is None else key_of(call)
            bucket = kept.live.get(key) or kept.table.get(key, now)
            needs.append((bucket, costs.get(kept.name, 1) if costs else 1))
        return needs + self._gate(call) if self._gates.live else needs

    def _gate(self, call: Call) -> Taken:
        key = self._policy.gate
        gate = None if key is None else self._gates.bucket(key(call))
        return [] if gate is None else [(gate, 1)]

    async def _queue_for(self, attempt: Attempt, needs: Taken) -> Taken:
        began = self._around.clock.now()
        try:
            await self._queue.take(needs, self._patience_s())
        except RateRefused as refused:
            self._refuse(attempt, refused.limit.name, refused.why, refused.retry_after_ns)
            return []
        waited_s = (self._around.clock.now() - began) / NS
        self._around.tell("rate.waited", "all", attempt.id, attempt.number, waited_s=waited_s)
        return needs

    def _patience_s(self) -> float:
        if self._policy.mode == "observe":
            return 0.0
        left_s = remaining_s(self._around.clock)
        return self._policy.max_wait_s if left_s is None else min(self._policy.max_wait_s, max(0.0, left_s))

    def _refuse(self, attempt: Attempt, name: str, why: str, wait_ns: int | None) -> None:
        """Refuse, or only tell that one would have."""
        observed = self._policy.mode == "observe"
        kind = name.rpartition(BY)[2]
        wait_s = None if wait_ns is None else wait_ns / NS
        self._around.tell(
            "rate.refused",
            kind,
            attempt.id,
            attempt.number,
            limit=name.rpartition(BY)[0],
            reason=why,
            retry_after_s=wait_s,
            observed=observed,
        )
        if observed:
            return
        again = "it asks for more than the limit ever holds" if wait_s is None else f"try again in {wait_s:.3g} s"
        raise RateLimited(
            f"the limit on {name} of {self._around.name} is used up: {again}",
            retry_after_s=wait_s,
            guard=self.member,
            key_class=kind,
            reason=why,
        )

    def _shut(self, attempt: Attempt, seconds: float) -> None:
        key = self._policy.gate
        if key is not None:
            self._gates.shut(key(attempt.call), seconds)
            self._around.tell("rate.gated", key_class(key), attempt.id, attempt.number, retry_after_s=seconds)

    def _check_names(self, used: Mapping[str, int]) -> None:
        if unknown := used.keys() - {kept.limit.name for kept in self._kept}:
            raise ValueError(f"no limit is called {', '.join(sorted(unknown))}")

    def _table(self, at: int) -> KeyTable[Bucket]:
        def make(key: Hashable) -> Bucket:
            limit = self._kept[at].limit
            return Bucket(f"{limit.name}{BY}{key_class(limit.key)}", self._quota(limit, key))

        def quiescent(bucket: Bucket, now: int) -> bool:
            # It is full before its queue's timer rings: who waits there would be let in beside those of a new one.
            return bucket.quiescent(now) and not self._queue.queued(bucket)

        return KeyTable(make, quiescent, self._around.max_keys)


def _bucket(kept: _Kept, call: Call, now: int) -> Bucket:
    return kept.table.get(None if kept.key is None else kept.key(call), now)
