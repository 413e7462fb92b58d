"""A limit is the exact token bucket in every history, and no cancellation anywhere leaves a trace in a queue."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import NS
from holdfast.resilience.bucket import NEVER, Bucket, Quota, take_all
from holdfast.resilience.keys import per
from holdfast.resilience.rate_queue import RateQueue, RateRefused
from holdfast.testing import VirtualLoop, loop_clock

quotas = st.builds(Quota, st.integers(1, 9), st.integers(1, 40), st.integers(1, 12))


class Exact:
    """The token bucket in exact fractions, with the line that a server's word draws above it."""

    def __init__(self, quota: Quota) -> None:
        self.rate = Fraction(quota.num, quota.den_ns)
        self.burst = quota.burst
        self.level = Fraction(quota.burst)
        self.now = 0
        self.said: list[tuple[Fraction, int]] = []

    def cap(self) -> Fraction:
        lines = [level + (self.now - at) * self.rate for level, at in self.said]
        return min([Fraction(self.burst), *lines])

    def move(self, now: int) -> None:
        self.level = min(Fraction(self.burst), self.level + (now - self.now) * self.rate)
        self.now = now

    def hear(self, level: Fraction, at: int) -> None:
        self.said.append((level, at))
        self.level = min(self.level, self.cap())


operations = st.lists(
    st.tuples(
        st.sampled_from([*["take"] * 6, "refund", "charge", "gate", "observe"]),
        st.integers(0, 13),
        st.sampled_from([0, 0, 1, 2, 3, 7, 50]),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(quotas, operations)
def test_a_limit_is_the_exact_token_bucket(quota: Quota, told: list[tuple[str, int, int]]) -> None:
    """G1, G2, G3, whatever was charged, refunded and heard from the server before."""
    limit, bucket, now = Bucket("real", quota), Exact(quota), 0
    for name, number, later in told:
        now += later
        bucket.move(now)
        if name == "take":
            free = limit.free(now)
            wait = limit.check(now, number)
            assert limit.take(now, number) == wait
            assert (wait == 0) == (bucket.level >= number)
            if wait == 0:
                bucket.level -= number
            else:
                assert limit.free(now) == free
                assert (wait == NEVER) == (number > quota.burst)
                if wait != NEVER:
                    missing = number - bucket.level
                    assert (wait - 1) * bucket.rate < missing <= wait * bucket.rate
                    assert limit.check(now + wait, number) == 0
                    assert limit.check(now + wait - 1, number) == 1
        elif name == "refund":
            limit.refund(number)
            bucket.level = min(bucket.level + number, bucket.cap())
        elif name == "charge":
            limit.charge(now, number)
            bucket.level -= number
        elif name == "gate":
            limit.gate(now + number)
            bucket.hear(Fraction(1), now + number)
        else:
            remaining = number % (quota.burst + 2)
            limit.observe(now, remaining, now + 40 * later)
            bucket.hear(Fraction(remaining), now)
            if not remaining:
                bucket.hear(Fraction(quota.burst), now + 40 * later)
        assert limit.free(now) == bucket.level // 1


@settings(max_examples=100, deadline=None)
@given(quotas, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=50))
def test_no_stretch_of_time_admits_more_than_the_burst_and_the_rate(quota: Quota, asks: list[tuple[int, int]]) -> None:
    """G4."""
    limit, now = Bucket("real", quota), 0
    taken: list[tuple[int, int]] = []
    for later, cost in asks:
        now += later
        if not limit.take(now, cost):
            taken.append((now, cost))
    for first, (start, _) in enumerate(taken):
        total = 0
        for at, cost in taken[first:]:
            total += cost
            assert total * quota.den_ns <= quota.burst * quota.den_ns + (at - start) * quota.num


@settings(max_examples=100, deadline=None)
@given(
    st.lists(quotas, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 12), min_size=4, max_size=4)), max_size=30),
)
def test_several_limits_are_taken_together_or_not_at_all(kinds: list[Quota], asks: list[tuple[int, list[int]]]) -> None:
    """G2 and G5."""
    limits, now = [Bucket(str(n), quota) for n, quota in enumerate(kinds)], 0
    for later, costs in asks:
        now += later
        needs = tuple(zip(limits, costs, strict=False))
        free = [limit.free(now) for limit in limits]
        waits = [limit.check(now, cost) for limit, cost in needs]
        refusal = take_all(now, needs)
        if refusal is None:
            assert not any(waits)
            assert [limit.free(now) for limit in limits] == [was - cost for was, cost in zip(free, costs, strict=False)]
            continue
        assert [limit.free(now) for limit in limits] == free
        assert refusal.wait_ns == (NEVER if NEVER in waits else max(waits))
        assert refusal.limit is limits[waits.index(refusal.wait_ns)]


@settings(max_examples=100, deadline=None)
@given(quotas, quotas, st.integers(0, 12), st.integers(0, 30))
def test_a_new_quota_owes_what_the_old_one_did(old: Quota, new: Quota, spent: int, now: int) -> None:
    limit = Bucket("real", old)
    limit.take(0, spent)
    owed = max(Fraction(0), min(spent, old.burst + 1) - now * Fraction(old.num, old.den_ns))
    if spent > old.burst:
        owed = Fraction(0)
    limit.reconfigure(now, new)
    due = min(owed, Fraction(new.burst)) * Fraction(new.den_ns, new.num)
    assert limit.quiescent(now + -(-due.numerator // due.denominator))
    assert not due or not limit.quiescent(now + -(-due.numerator // due.denominator) - 1)


# The queue


class Shuffled(VirtualLoop):
    """Runs what is ready in another order at each step."""

    def __init__(self, seed: int) -> None:
        self._order = random.Random(seed)
        super().__init__()

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]  # asyncio's own, which its stubs leave out
        self._order.shuffle(ready)
        super()._run_once()  # type: ignore[misc]  # asyncio's own, which its stubs leave out


CALLERS = [(0, 1, 9), (0, 1, 9), (0, 1, 4), (0.5, 2, 1), (0.5, 1, 6), (1, 0, 10), (1, 1, 1)]
"""When each comes, and what it takes of requests and tokens."""


class Scenario:
    """Seven callers at two limits; ``strike`` is called often, and in the very tick of most grants."""

    def __init__(self, strike: Callable[[asyncio.Task[None]], None]) -> None:
        self.requests, self.tokens = Bucket("requests", per.second(2)), Bucket("tokens", per.second(10))
        self.clock = loop_clock()
        self.queue = RateQueue(self.clock, 5)
        self.strike = strike
        self.got: list[tuple[int, int]] = []

    async def call(self, number: int) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        at, requests, tokens = CALLERS[number]
        for tick in range(80):
            loop.call_at(tick / 20, self.strike, task)
        await asyncio.sleep(at)
        try:
            await self.queue.take(((self.requests, requests), (self.tokens, tokens)), 3.5)
        except RateRefused:
            return
        self.got.append((self.clock.now(), number))

    async def main(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(len(CALLERS)):
                group.create_task(self.call(number))
        assert self.queue.queued(self.requests) == self.queue.queued(self.tokens) == 0
        now = self.clock.now()
        for limit, which in ((self.requests, 1), (self.tokens, 2)):
            never_came = Bucket("twin", Quota(limit._num, limit._den, limit._burst))
            for at, number in self.got:
                assert never_came.take(at, int(CALLERS[number][which])) == 0  # G1
            snow = now * limit._num
            assert max(limit._tat, snow) == max(never_came._tat, snow)  # G7


def play(nth: int, times: int, seed: int) -> int:
    struck = 0

    def strike(task: asyncio.Task[None]) -> None:
        nonlocal struck
        struck += 1
        if struck == nth:
            for _ in range(times):
                task.cancel()

    async def main() -> None:
        await Scenario(strike).main()

    with asyncio.Runner(loop_factory=lambda: Shuffled(seed)) as runner:
        runner.run(main())
    return struck


@pytest.mark.parametrize(("times", "seed"), [(1, 0), (2, 1)])
def test_a_cancellation_anywhere_leaves_nothing_behind(times: int, seed: int) -> None:
    strikes = play(0, times, seed)
    assert strikes > 100
    for nth in range(1, strikes + 1):
        play(nth, times, seed)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10), st.integers(0, 20)), max_size=8),
    st.integers(0, 1),
    st.integers(0, 99),
)
def test_waiters_that_are_all_cancelled_never_were(wanted: list[tuple[int, int, int]], extra: int, seed: int) -> None:
    """G7: the limits are as if only the first had come."""

    async def main() -> None:
        clock, loop = loop_clock(), asyncio.get_running_loop()
        limits = Bucket("requests", per.second(2)), Bucket("tokens", per.second(10))
        twins = Bucket("requests", per.second(2)), Bucket("tokens", per.second(10))
        queue = RateQueue(clock, 10)
        await queue.take(tuple(zip(limits, (2, 10), strict=True)), 0)
        take_all(0, tuple(zip(twins, (2, 10), strict=True)))
        tasks = [
            loop.create_task(queue.take(tuple(zip(limits, (a, b), strict=True)), None)) for a, b, _ in wanted if a or b
        ]
        await asyncio.sleep(0)
        left = [task for task in tasks if not task.done()]

        def strike() -> None:
            queue.changed(*limits)
            for task in left:
                for _ in range(1 + extra):
                    task.cancel()

        # Before the first could be granted, or in the very tick of the grant and before its task runs.
        loop.call_later(0.1 if extra else 0.05, strike)
        await asyncio.wait(left) if left else None
        await asyncio.sleep(0.5)
        granted = [n for n, task in enumerate(tasks) if not task.cancelled()]
        assert granted == []
        assert [limit.free(clock.now()) for limit in limits] == [limit.free(clock.now()) for limit in twins]
        assert [queue.queued(limit) for limit in limits] == [0, 0]

    with asyncio.Runner(loop_factory=lambda: Shuffled(seed)) as runner:
        runner.run(main())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 10)), max_size=12))
def test_a_queue_keeps_the_order_of_arrival_and_the_time_it_told(asks: list[tuple[int, int]]) -> None:
    """G3 and G6: with one limit, each comes after the one before, at the exact moment that was predicted."""

    async def main() -> None:
        clock, limit = loop_clock(), Bucket("tokens", per.second(10))
        queue, order = RateQueue(clock, 100), []

        async def call(number: int, cost: int, told: int) -> None:
            await queue.take(((limit, cost),), None)
            order.append(number)
            assert abs(clock.now() - told) <= NS // 10**6

        async with asyncio.TaskGroup() as group:
            for number, (later, cost) in enumerate(asks):
                await asyncio.sleep(later / 10 + 0.01)
                refused = None
                try:
                    if queue.queued(limit) or limit.check(clock.now(), cost):
                        await queue.take(((limit, cost),), 0)
                except RateRefused as error:
                    refused = error.retry_after_ns
                group.create_task(call(number, cost, clock.now() + (refused or 0)))
                await asyncio.sleep(0)
        assert order == sorted(order)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
