"""
Hedging: a call that is slow is made once more, and whichever answers first is taken.

::

    made ── nearly all others had answered by now ──▶ made once more ──▶ the first answer is taken
      └──────────────── still running ───────────────────────────────▶ cancelled, and tidies up by itself

It shortens the longest waits and costs further calls, so that the budget that bears retries bears these too.
"""

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from holdfast.clock import NS
from holdfast.resilience.classify import Failure, FailureClass
from holdfast.resilience.deadline import remaining_s, within
from holdfast.resilience.guards import NOT_RUN, OK, Attempt, Ending, Surroundings
from holdfast.resilience.keys import Call, per
from holdfast.resilience.passage import Passage
from holdfast.resilience.retrier import Retrier
from holdfast.resilience.retry import Budget, RetryBudget
from holdfast.resilience.table import KeyTable

T = TypeVar("T")
Fn = Callable[[], Awaitable[T]]

_REMEMBERED = 100
_ENOUGH = 20
_OLD_NS = 3_600 * NS
_LOST = Ending(Failure(FailureClass.CANCELLED, None, retryable=False, harmless=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """
    When a call that may be repeated is made once more, while it still runs.

    Attributes:
        after_s: Seconds it has run by then, > 0; None for the time in which 95 of 100 calls of its target are answered,
            as far as that is known: see ``Pace``.
        max: How many times more, at least 1; each as long after the one before.
        min_after_s: Seconds that a time found out is at least, > 0.
        max_after_s: Seconds that it is at most.
        grace_s: Seconds that an attempt which lost may take to end, > 0. Then it is cancelled again, and told of.
        budget: How many hedges each target bears; in a pipeline that retries, the budget of its retries is used.
    """

    after_s: float | None = None
    max: int = 1
    min_after_s: float = 0.05
    max_after_s: float = 30.0
    grace_s: float = 5.0
    budget: Budget = Budget()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        for name in ("after_s", "min_after_s", "grace_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"hedge.{name} must be > 0, got {value}")
        if self.max < 1:
            raise ValueError(f"hedge.max must be at least 1, got {self.max}")
        if not self.max_after_s >= self.min_after_s:
            raise ValueError(f"hedge.max_after_s must be >= min_after_s, got {self.max_after_s}")


class Pace:
    """How long a target takes to answer: the times of its last hundred calls. After an hour without one, unknown."""

    __slots__ = ("_latest_ns", "_ordered", "_times")

    def __init__(self) -> None:
        self._times: deque[int] = deque()
        self._ordered: list[int] = []
        self._latest_ns = 0

    def add(self, lasted_ns: int, now: int) -> None:
        """A call was answered after so long, or had not been by then."""
        if self.quiescent(now):
            self._times.clear()
            self._ordered.clear()
        if len(self._times) == _REMEMBERED:
            del self._ordered[bisect_left(self._ordered, self._times.popleft())]
        self._times.append(lasted_ns)
        insort(self._ordered, lasted_ns)
        self._latest_ns = now

    def p95_ns(self, now: int) -> int | None:
        """The time that 95 in 100 calls stay within; None before 20 calls."""
        if len(self._ordered) < _ENOUGH or self.quiescent(now):
            return None
        return self._ordered[-(-95 * len(self._ordered) // 100) - 1]

    def quiescent(self, now: int) -> bool:
        """Whether it knows no more than a new one."""
        return not self._times or now - self._latest_ns > _OLD_NS


class _Racer(Generic[T]):
    """One attempt in a race: the first, or a hedge."""

    __slots__ = ("lost", "passage", "ran", "task")

    task: asyncio.Task[T]

    def __init__(self, passage: Passage) -> None:
        self.passage = passage
        self.ran = self.lost = False

    @property
    def answered(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def final(self) -> bool:
        """Whether it failed in a way that another attempt would fail too."""
        failure = self.passage.failure
        return self.task.done() and not self.answered and (failure is None or not failure.retryable)


class Hedger:
    """
    The hedges of one pipeline.

    Args:
        policy: When.
        around: The pipeline.
        passage: Makes an attempt, at a call with this number.
        limit: Makes the time limit of an attempt; None where there is none.
        once: Makes one attempt, in the caller's own task.
        retrier: The pipeline's, whose budgets bear the hedges too; None where there is none.
    """

    def __init__(
        self,
        policy: Hedge,
        around: Surroundings,
        passage: Callable[[Call, int, int], Passage],
        limit: Callable[[], within | None],
        once: Callable[[Passage, Fn[Any]], Awaitable[Any]],
        retrier: Retrier | None,
    ) -> None:
        self._around = around
        self._policy = policy
        self._passage = passage
        self._limit = limit
        self._once = once
        self._own_budgets = retrier is None
        self._budgets = (
            KeyTable[RetryBudget](self._budget, RetryBudget.quiescent, around.max_keys)
            if retrier is None
            else retrier._budgets  # noqa: SLF001 - what a target bears is one budget, whatever it is spent on
        )
        self._paces = KeyTable[Pace](lambda _key: Pace(), Pace.quiescent, around.max_keys)
        self._losers: dict[asyncio.Task[Any], asyncio.TimerHandle] = {}

    async def run(self, attempt: Passage, fn: Fn[T]) -> T:
        """Make one attempt, and hedges of it where the call may be repeated and it is known when."""
        call, now = attempt.call, self._around.clock.now()
        if self._own_budgets:
            self._budgets.get(per.target(call), now).deposit(now)
        after_ns = self._after_ns(call, now)
        if call.repeatable and after_ns is not None:
            return await self._race(attempt, fn, after_ns)
        answer: T = await self._once(attempt, fn)
        self._learn(attempt)
        return answer

    def reconfigure(self, policy: Hedge) -> None:
        """Use other settings from the next attempt on. Budgets that exist keep their own size and level."""
        self._policy = policy

    async def wait_losers(self) -> None:
        """Wait until those that lost have ended, but for no longer than their grace."""
        if self._losers:
            await asyncio.wait(self._losers, timeout=self._policy.grace_s)

    async def _race(self, attempt: Passage, fn: Fn[T], after_ns: int) -> T:
        await attempt.enter()
        racers = [self._start(attempt, fn)]
        winner = final = None
        chances = self._policy.max
        due = attempt.sent_ns
        try:
            while True:
                winner = next((racer for racer in racers if racer.answered), None)
                if winner is not None:
                    self._won(winner, attempt, hedged=winner is not racers[0])
                    return winner.task.result()
                final = next((racer for racer in racers if racer.final), None)
                if final is not None:
                    attempt.failure = final.passage.failure
                    return final.task.result()
                running = [racer.task for racer in racers if not racer.task.done()]
                if not running:
                    return _all_failed(racers)
                wait_s = (due + after_ns - self._around.clock.now()) / NS if chances else None
                ended, _ = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if not ended:
                    chances, due = chances - 1, due + after_ns
                    racers += self._hedge(attempt, fn, after_ns)
        finally:
            for racer in racers:
                if racer is not winner:
                    racer.lost = bool(winner or final)  # Else the caller was stopped: that is judged like any failure.
                    self._let_go(racer, hedged=len(racers) > 1)

    def _hedge(self, attempt: Attempt, fn: Fn[T], after_ns: int) -> list[_Racer[T]]:
        """One more attempt, if there is time, every guard lets it in at once and the budget pays; else none."""
        clock, left_s = self._around.clock, remaining_s(self._around.clock)
        if left_s is not None and left_s <= 0:
            return []
        passage = self._passage(attempt.call, attempt.id, attempt.number)
        if not passage.enter_nowait():
            return []
        if not self._budgets.get(per.target(attempt.call), clock.now()).withdraw(clock.now()):
            passage.leave(NOT_RUN)
            return []
        self._around.tell("hedge.started", "target", attempt.id, attempt.number, after_s=after_ns / NS)
        return [self._start(passage, fn)]

    def _start(self, passage: Passage, fn: Fn[T]) -> _Racer[T]:
        racer = _Racer[T](passage)
        # Not in a group: who loses may take a while to end, and the answer does not wait for that.
        racer.task = asyncio.get_running_loop().create_task(self._run(racer, fn))
        return racer

    async def _run(self, racer: _Racer[T], fn: Fn[T]) -> T:
        racer.ran = True
        try:
            limit = self._limit()
            if limit is None:
                answer = await fn()
            else:
                async with limit:
                    answer = await fn()
        except BaseException as error:
            if racer.lost:  # What it says now, it says because it was stopped.
                racer.passage.leave(_LOST)
            else:
                racer.passage.failed(error)
            raise
        racer.passage.leave(_LOST if racer.lost else OK)
        return answer

    def _won(self, winner: _Racer[T], attempt: Attempt, *, hedged: bool) -> None:
        if hedged:
            self._around.tell("hedge.won", "target", attempt.id, attempt.number, lasted_s=self._lasted_s(winner))
        if attempt.failure is None:
            # Also where a hedge won. Were its short time learned instead, hedges would come earlier and earlier.
            self._learn(attempt)

    def _let_go(self, racer: _Racer[T], *, hedged: bool) -> None:
        """Stop an attempt that nobody waits for any more; it is kept until it has ended."""
        if not racer.ran:
            racer.passage.leave(NOT_RUN)
        if racer.task.done():
            if racer.answered and hedged:
                self._wasted(racer)
            return
        racer.task.cancel()
        self._losers[racer.task] = racer.task.get_loop().call_later(self._policy.grace_s, self._overdue, racer)
        racer.task.add_done_callback(partial(self._gone, racer, hedged))

    def _gone(self, racer: _Racer[T], hedged: bool, task: asyncio.Task[T]) -> None:  # noqa: FBT001 - bound by partial
        self._losers.pop(task).cancel()
        if not task.cancelled():
            task.exception()  # Asked for, so that the loop does not report it: nobody else will.
        if hedged:
            self._wasted(racer)

    def _overdue(self, racer: _Racer[T]) -> None:
        attempt = racer.passage
        racer.task.cancel()
        self._around.tell("hedge.stuck", "target", attempt.id, attempt.number, lasted_s=self._lasted_s(racer))

    def _wasted(self, racer: _Racer[T]) -> None:
        attempt, lasted_s = racer.passage, self._lasted_s(racer)
        tell = self._around.tell
        tell("hedge.wasted", "target", attempt.id, attempt.number, lasted_s=lasted_s, may_be_billed=racer.ran)

    def _lasted_s(self, racer: _Racer[T]) -> float:
        return (self._around.clock.now() - racer.passage.sent_ns) / NS

    def _after_ns(self, call: Call, now: int) -> int | None:
        policy = self._policy
        if policy.after_s is not None:
            return round(policy.after_s * NS)
        p95_ns = self._paces.get(per.target(call), now).p95_ns(now)
        if p95_ns is None:
            return None
        return round(min(max(p95_ns, policy.min_after_s * NS), policy.max_after_s * NS))

    def _learn(self, attempt: Attempt) -> None:
        if self._policy.after_s is None:
            now = self._around.clock.now()
            self._paces.get(per.target(attempt.call), now).add(now - attempt.sent_ns, now)

    def _budget(self, _key: Hashable) -> RetryBudget:
        return RetryBudget(self._policy.budget, self._around.clock.now())


def _all_failed(racers: list[_Racer[T]]) -> T:
    """Raise the first attempt's error, which says that the hedges failed too."""
    first, *hedges = racers
    for hedge in hedges:
        failure = hedge.passage.failure
        if failure is not None and (error := first.task.exception()) is not None:
            error.add_note(f"a hedge of it failed too: {failure.kind.value}")
    return first.task.result()
