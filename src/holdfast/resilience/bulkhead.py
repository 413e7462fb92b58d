"""The bulkhead: so many calls at a time, a few more in the queue, and a limit that may find itself."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.clock import NS
from holdfast.errors import QueueFull
from holdfast.resilience.aimd import Aimd
from holdfast.resilience.circuit import Circuit, State, Why
from holdfast.resilience.compartment import BulkheadRefused, BulkheadStats, Compartment
from holdfast.resilience.deadline import remaining_s
from holdfast.resilience.guards import WAIT, Attempt, Ending, Mode, Surroundings, Waits
from holdfast.resilience.keys import Key, key_class
from holdfast.resilience.table import KeyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """
    A limit that a bulkhead finds by itself: see ``Aimd``.

    Attributes:
        start: Limit to begin with.
        min: Least limit, at least 1.
        max: Greatest limit.
    """

    start: int = 8
    min: int = 1
    max: int = 64

    def __post_init__(self) -> None:
        Aimd(self.min, self.max, self.start)


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """
    A bulkhead in a pipeline.

    Attributes:
        limit: Calls at a time, at least 1, or how to find out.
        queue: Calls that may wait; 0: nobody waits.
        max_wait_s: Seconds a call may wait.
        key: Whose calls are counted together; None for everybody's.
        mode: ``observe`` lets everybody in, and tells whom it would have refused or made wait.
    """

    limit: int | Adaptive
    queue: int = 100
    max_wait_s: float = 10.0
    key: Key | None = None
    mode: Mode = "enforce"

    def __post_init__(self) -> None:
        Compartment(self.start, self.queue)
        if self.max_wait_s < 0:
            raise ValueError(f"bulkhead.max_wait_s must be >= 0, got {self.max_wait_s}")

    @property
    def start(self) -> int:
        """The limit to begin with."""
        return self.limit.start if isinstance(self.limit, Adaptive) else self.limit


class BulkheadView(NamedTuple):
    """A bulkhead as an operator sees it: its name, the kind of its key, and what it is doing."""

    name: str
    key_class: str
    stats: BulkheadStats


class _Kept(Compartment):
    __slots__ = ("aimd", "name")

    def __init__(self, name: str, policy: Bulkhead, aimd: Aimd | None) -> None:
        super().__init__(policy.start, policy.queue)
        self.name = name
        self.aimd = aimd


Token = _Kept | None
"""What an attempt is inside of; None where it was only observed."""


class BulkheadGuard:
    """The bulkhead of one pipeline."""

    member = "bulkhead"

    def __init__(self, policy: Bulkhead, around: Surroundings) -> None:
        self._around = around
        self._policy = policy
        self._table = KeyTable[_Kept](self._make, self._quiescent, around.max_keys)

    def enter(self, attempt: Attempt, now: int) -> Token | Waits:
        """Enter if there is room."""
        key_of = self._policy.key
        key = None if key_of is None else key_of(attempt.call)
        kept = self._table.live.get(key) or self._table.get(key, now)
        return kept if kept.try_enter() else WAIT

    async def wait(self, attempt: Attempt) -> Token:
        """Wait in the queue, for as long as the policy and the deadline allow."""
        policy, clock = self._policy, self._around.clock
        began, left_s = clock.now(), remaining_s(clock)
        kept = self._table.get(None if policy.key is None else policy.key(attempt.call), began)
        wait_s = policy.max_wait_s if left_s is None else min(policy.max_wait_s, max(0.0, left_s))
        try:
            await kept.enter(0.0 if policy.mode == "observe" else wait_s)
        except BulkheadRefused as refused:
            self._refuse(attempt, kept, refused)
            return None
        waited_s = (clock.now() - began) / NS
        self._around.tell(
            "bulkhead.queued",
            key_class(policy.key),
            attempt.id,
            attempt.number,
            bulkhead=kept.name,
            waited_s=waited_s,
        )
        return kept

    def stands(self, attempt: Attempt, token: Token) -> bool:
        """A place is kept until it is left."""
        del attempt, token
        return True

    def leave(self, attempt: Attempt, token: Token, ending: Ending, now: int) -> None:
        """Free the place, and let the limit learn from how it went."""
        if token is None:
            return
        in_use, aimd = token.in_use, token.aimd
        token.free()
        if aimd is None or ending.load == "none":
            return
        fine = ending.load == "ok"
        limit = aimd.succeeded(in_use) if fine else aimd.overloaded(now, attempt.sent_ns)
        self._resize(token, token.limit, limit, "succeeded" if fine else "overloaded")

    def moved(self, key: Hashable, circuit: Circuit, was: State, state: State, why: Why, now: int) -> None:  # noqa: ARG002 - what breakers tell
        """A circuit moved: where it closed after a break, the limit of its key begins at the floor again."""
        kept = self._table.find(key)
        if why == "probes_ok" and kept is not None and kept.aimd is not None:
            self._resize(kept, kept.limit, kept.aimd.restart(now), "slow_start")

    def reconfigure(self, policy: Bulkhead) -> None:
        """Go on with other limits. One that finds itself begins where it is, within the new bounds."""
        self._policy = policy
        for _, kept in self._table.entries():
            limit = policy.limit
            if isinstance(limit, int):
                kept.aimd = None
            elif kept.aimd is None:
                start = min(max(kept.limit, limit.min), limit.max)
                kept.aimd = Aimd(limit.min, limit.max, start)
            else:
                kept.aimd.reconfigure(limit.min, limit.max)
            kept.reconfigure(policy.start if kept.aimd is None else kept.aimd.limit, policy.queue)

    def views(self) -> Iterator[BulkheadView]:
        """Every bulkhead there is, as an operator sees it."""
        for _, kept in self._table.entries():
            yield BulkheadView(kept.name, key_class(self._policy.key), kept.stats)

    def _resize(self, kept: _Kept, was: int, limit: int, why: str) -> None:
        if limit != was:
            kept.resize(limit)
            self._around.tell(
                "adaptive.moved", key_class(self._policy.key), bulkhead=kept.name, was=was, limit=limit, reason=why
            )

    def _refuse(self, attempt: Attempt, kept: _Kept, refused: BulkheadRefused) -> None:
        observed = self._policy.mode == "observe"
        kind = key_class(self._policy.key)
        self._around.tell(
            "bulkhead.refused",
            kind,
            attempt.id,
            attempt.number,
            bulkhead=kept.name,
            reason=refused.why,
            observed=observed,
        )
        if observed:
            return
        stats = kept.stats
        raise QueueFull(
            f"{kept.name} is full: {stats.in_use} running, {stats.queued} waiting of at most {stats.max_queue}"
            if refused.why == "full"
            else f"{kept.name} is full: no place came free in time",
            retry_after_s=1.0,
            guard=self.member,
            key_class=kind,
            reason=refused.why,
        )

    def _make(self, key: Hashable) -> _Kept:
        policy = self._policy
        name = self._around.name if key is None or key == "" else f"{self._around.name}:{key}"
        adaptive = policy.limit if isinstance(policy.limit, Adaptive) else None
        aimd = None if adaptive is None else Aimd(adaptive.min, adaptive.max, adaptive.start)
        return _Kept(name, policy, aimd)

    def _quiescent(self, kept: _Kept, _now: int) -> bool:
        """Nobody is inside, and nothing was learned: a new one would do the same."""
        learned = kept.aimd is not None and kept.aimd.limit != self._policy.start
        return kept.quiescent and not learned
