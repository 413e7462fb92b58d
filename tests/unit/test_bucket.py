"""At most so many units in a time, exactly, and waiting in order."""

import asyncio
from contextlib import suppress

import pytest

from holdfast.clock import NS
from holdfast.resilience.bucket import NEVER, Bucket, Needs, Quota, Refusal, take_all
from holdfast.resilience.keys import per
from holdfast.resilience.rate_queue import RateQueue, RateRefused
from holdfast.testing import VirtualLoop, loop_clock


def spent(quota: Quota, now: int = 0) -> Bucket:
    limit = Bucket("spent", quota)
    limit.charge(now, quota.burst)
    return limit


# Decisions


def test_no_fraction_is_lost_however_often_it_is_asked() -> None:
    limit, taken = spent(Quota(3, 7, 2)), 0
    for now in range(1, 7_001):
        taken += not limit.take(now)
    assert taken == 3_000


def test_a_steady_80_percent_is_never_refused() -> None:
    limit = spent(per.second(1_000, burst=1))
    assert all(limit.take(n * 1_250_000) == 0 for n in range(1, 10_000))


def test_the_wait_is_to_the_next_unit_and_not_the_whole_interval() -> None:
    limit = spent(per.minute(60))
    assert limit.check(0) == NS
    assert limit.check(NS // 4) == NS * 3 // 4
    assert limit.check(0, 10) == 10 * NS


def test_one_unit_in_two_seconds_is_a_rate() -> None:
    limit = Bucket("slow", Quota(1, 2 * NS, 1))
    assert [limit.take(0), limit.take(0), limit.take(2 * NS - 1), limit.take(2 * NS)] == [0, 2 * NS, 1, 0]


def test_a_rate_of_nothing_is_not_made() -> None:
    for quota in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match=r"quota\.\w+ must be >= 1, got 0"):
            Quota(*quota)
    with pytest.raises(ValueError, match="cost must be >= 0, got -1"):
        Bucket("tokens", per.second(1)).take(0, -1)


def test_more_than_the_burst_never_fits() -> None:
    limit = Bucket("tokens", per.second(5))
    assert limit.take(0, 6) == NEVER
    assert limit.free(0) == 5


def test_less_than_nothing_is_not_taken() -> None:
    limit = Bucket("tokens", per.second(5))
    assert limit.take(0, 3) == 0
    with pytest.raises(ValueError, match="cost must be >= 0"):
        take_all(0, ((limit, -1),))
    assert limit.free(0) == 2


def test_a_user_over_the_own_limit_takes_nothing_from_everybody() -> None:
    everybody, user = Bucket("everybody", per.second(100)), Bucket("user", per.second(1))
    needs = ((everybody, 1), (user, 1))
    assert take_all(0, needs) is None
    for _ in range(50):
        assert take_all(0, needs) == Refusal(user, NS)
    assert everybody.free(0) == 99


def test_requests_and_tokens_are_taken_together_or_not_at_all() -> None:
    requests, tokens = Bucket("requests", per.minute(10)), Bucket("tokens", per.minute(1_000))
    assert take_all(0, ((requests, 1), (tokens, 900))) is None
    assert take_all(0, ((requests, 1), (tokens, 900))) == Refusal(tokens, 48 * NS)
    assert take_all(0, ((requests, 1), (tokens, 1_001))) == Refusal(tokens, NEVER)
    assert (requests.free(0), tokens.free(0)) == (9, 100)


def test_one_limit_under_two_keys_is_asked_for_the_sum() -> None:
    shared = Bucket("overflow", per.second(10))
    assert take_all(0, ((shared, 6), (shared, 6))) == Refusal(shared, NEVER)
    assert take_all(0, ((shared, 4), (shared, 5))) is None
    assert shared.free(0) == 1


def test_after_a_gate_one_comes_at_the_moment_and_the_rest_at_the_rate() -> None:
    limit = Bucket("requests", per.second(10))
    limit.gate(60 * NS)
    assert limit.check(0) == 60 * NS
    assert limit.take(60 * NS) == 0
    assert limit.check(60 * NS) == NS // 10


def test_a_refund_does_not_lift_a_gate() -> None:
    limit = Bucket("requests", per.second(10))
    for _ in range(10):
        limit.take(0)
    limit.gate(60 * NS)
    limit.refund(10)
    assert limit.check(0) == 60 * NS


def test_what_the_server_says_only_tightens() -> None:
    limit = Bucket("tokens", per.second(10))
    limit.observe(0, 50, 0)
    assert limit.free(0) == 10
    limit.observe(0, 4, NS)
    assert limit.free(0) == 4
    limit.observe(0, 9, NS)
    assert limit.free(0) == 4
    limit.observe(0, 0, NS // 2)
    assert limit.free(0) == 0
    limit.observe(0, 0, 5 * NS)
    assert limit.free(5 * NS - 1) == 9
    assert limit.free(5 * NS) == 10


def test_units_used_beyond_the_estimate_are_owed() -> None:
    limit = Bucket("tokens", per.second(10))
    limit.take(0, 10)
    limit.charge(NS, 20)  # an idle limit owes from now on, not from when it was last used
    assert limit.free(NS) == -10
    assert limit.check(NS, 1) == NS * 11 // 10


def test_a_new_quota_keeps_the_debt_in_units_and_the_gate_in_time() -> None:
    limit = Bucket("requests", per.second(10))
    limit.take(0, 8)
    limit.reconfigure(0, per.second(20))
    assert limit.free(0) == 12
    limit.reconfigure(0, per.minute(5))
    assert limit.free(0) == 0  # at most the burst is owed
    limit.gate(90 * NS)
    limit.reconfigure(NS, per.second(1_000))
    assert limit.check(NS) == 89 * NS
    assert limit.check(90 * NS) == 0


def test_a_limit_that_is_full_can_be_forgotten() -> None:
    limit = Bucket("requests", per.second(1))
    assert limit.quiescent(0)
    limit.take(0)
    assert not limit.quiescent(NS - 1)
    assert limit.quiescent(NS)


# Waiting


async def came_at(queue: RateQueue, needs: Needs, max_wait_s: float | None = None) -> float:
    await queue.take(needs, max_wait_s)
    return asyncio.get_running_loop().time()


async def test_waiters_come_in_order_at_the_rate_and_not_together() -> None:
    limit = Bucket("requests", per.second(10))
    queue = RateQueue(loop_clock(), 100)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(came_at(queue, ((limit, 1),))) for _ in range(30)]
    assert [round(task.result(), 6) for task in tasks] == [max(0, n - 9) / 10 for n in range(30)]
    assert queue.queued(limit) == 0


async def test_a_greedy_client_gets_the_burst_and_the_rate() -> None:
    limit = Bucket("requests", per.second(7, burst=3))
    queue, got = RateQueue(loop_clock(), 10), 0
    with suppress(TimeoutError):
        async with asyncio.timeout(100.001):
            while True:
                await queue.take(((limit, 1),), None)
                got += 1
    assert got == 703


async def test_a_wait_that_is_known_to_be_too_long_is_refused_at_once_with_its_length() -> None:
    limit = Bucket("requests", per.second(1))
    queue = RateQueue(loop_clock(), 10)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(came_at(queue, ((limit, 1),))) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(RateRefused, match="requests: wait") as refused:
            await queue.take(((limit, 1),), 3.9)
        assert refused.value.retry_after_ns == 4 * NS
        last = group.create_task(came_at(queue, ((limit, 1),), 4))  # just as long as it takes
    assert [task.result() for task in [*tasks, last]] == [0, 1, 2, 3, 4]


async def test_a_full_queue_and_an_impossible_cost_are_refused_at_once() -> None:
    limit = Bucket("tokens", per.second(2))
    queue = RateQueue(loop_clock(), 1)
    async with asyncio.TaskGroup() as group:
        group.create_task(queue.take(((limit, 2),), None))
        group.create_task(queue.take(((limit, 2),), None))
        await asyncio.sleep(0)
        with pytest.raises(RateRefused, match="full") as full:
            await queue.take(((limit, 1),), None)
        with pytest.raises(RateRefused, match="never") as never:
            await queue.take(((limit, 3),), None)
    assert (full.value.retry_after_ns, never.value.retry_after_ns) == (NS * 3 // 2, None)


async def test_a_large_cost_is_not_overtaken() -> None:
    limit = Bucket("tokens", per.second(10))
    queue = RateQueue(loop_clock(), 10)
    await queue.take(((limit, 10),), 0)
    async with asyncio.TaskGroup() as group:
        large = group.create_task(came_at(queue, ((limit, 10),)))
        await asyncio.sleep(0.5)
        assert queue.take_nowait(((limit, 1),)) == Refusal(limit, NS * 6 // 10)
        small = group.create_task(came_at(queue, ((limit, 1),)))
    assert [large.result(), small.result()] == pytest.approx([1, 1.1])


async def test_who_waits_for_one_limit_holds_nothing_of_the_other() -> None:
    requests, tokens = Bucket("requests", per.second(2)), Bucket("tokens", per.second(10))
    queue = RateQueue(loop_clock(), 10)
    await queue.take(((requests, 1), (tokens, 10)), 0)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(came_at(queue, ((requests, 1), (tokens, 10))))
        await asyncio.sleep(0)
        assert (queue.queued(requests), queue.queued(tokens)) == (0, 1)
        await queue.take(((requests, 1),), 0)
    assert waiting.result() == 1


async def test_a_waiter_moves_to_the_limit_that_blocks_it_now() -> None:
    requests, tokens = Bucket("requests", per.second(1)), Bucket("tokens", per.second(10))
    queue = RateQueue(loop_clock(), 10)
    await queue.take(((requests, 1), (tokens, 10)), 0)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(came_at(queue, ((requests, 1), (tokens, 5))))
        await asyncio.sleep(0)
        assert queue.queued(requests) == 1
        tokens.gate(3 * NS)
        await asyncio.sleep(1.5)
        assert (queue.queued(requests), queue.queued(tokens), requests.free(3 * NS // 2)) == (0, 1, 1)
    assert waiting.result() == pytest.approx(3.4)


async def test_a_gate_that_comes_while_waiting_does_not_stretch_the_wait() -> None:
    limit = spent(per.second(1))
    queue = RateQueue(loop_clock(), 10)
    asyncio.get_running_loop().call_later(0.5, limit.gate, 60 * NS)
    with pytest.raises(RateRefused) as refused:
        await queue.take(((limit, 1),), 5)
    assert asyncio.get_running_loop().time() == 5
    assert (refused.value.why, refused.value.retry_after_ns) == ("timeout", 55 * NS)
    assert queue.queued(limit) == 0


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_waiter_takes_nothing(granted: bool, times: int) -> None:  # noqa: FBT001 - a column
    limit = Bucket("tokens", per.second(10))
    queue = RateQueue(loop_clock(), 10)
    await queue.take(((limit, 10),), 0)
    async with asyncio.TaskGroup() as group:
        head = group.create_task(came_at(queue, ((limit, 10),)))
        behind = group.create_task(came_at(queue, ((limit, 5),)))
        await asyncio.sleep(0)

        def strike() -> None:
            """In the very step of the loop that grants, before the task runs."""
            queue.changed(limit)
            assert queue.queued(limit) == (1 if granted else 2)
            for _ in range(times):
                head.cancel()

        asyncio.get_running_loop().call_at(1 if granted else 0.25, strike)
    assert head.cancelled()
    assert behind.result() == pytest.approx(1 if granted else 0.5)
    assert limit.free(round(behind.result() * NS)) == (5 if granted else 0)


def test_a_loop_that_ends_with_waiters_keeps_none() -> None:
    limit = spent(per.second(1))
    queues = []

    async def main() -> None:
        queues.append(RateQueue(loop_clock(), 10))
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(queues[0].take(((limit, 1),), None))
            asyncio.get_running_loop().call_later(0.5, asyncio.get_running_loop().stop)

    runner = asyncio.Runner(loop_factory=VirtualLoop)
    with suppress(RuntimeError):
        runner.run(main())
    runner.close()
    assert queues[0].queued(limit) == 0


async def test_a_refund_and_a_better_quota_are_heard_by_who_waits() -> None:
    limit = Bucket("tokens", per.second(10))
    queue = RateQueue(loop_clock(), 10)
    await queue.take(((limit, 10),), 0)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(came_at(queue, ((limit, 8),)))
        second = group.create_task(came_at(queue, ((limit, 10),)))
        await asyncio.sleep(0.25)
        queue.refund(((limit, 6),))
        limit.reconfigure(NS // 4, per.second(1_000))
        queue.changed(limit)
    assert (first.result(), second.result()) == (0.25, 0.25)


async def test_a_quota_below_the_cost_ends_the_wait() -> None:
    limit = spent(per.second(10))
    queue = RateQueue(loop_clock(), 10)

    def shrink() -> None:
        limit.reconfigure(0, per.second(5))
        queue.changed(limit)

    asyncio.get_running_loop().call_soon(shrink)
    with pytest.raises(RateRefused, match="never"):
        await queue.take(((limit, 8),), None)
    assert queue.queued(limit) == 0
