"""At most so many at a time, and the permit goes from hand to hand."""

import asyncio
from contextlib import suppress

import pytest

from holdfast.resilience.compartment import BulkheadRefused, Compartment, Permit
from holdfast.testing import VirtualLoop


def full(bulkhead: Compartment) -> list[Permit]:
    return [bulkhead.enter_nowait() for _ in range(bulkhead.stats.limit)]


async def test_a_queue_of_0_refuses_nobody_for_whom_there_is_room() -> None:
    bulkhead = Compartment(2, 0)
    first = await bulkhead.enter(None)
    await bulkhead.enter(0)
    with pytest.raises(BulkheadRefused) as refused:
        await bulkhead.enter(None)
    assert (refused.value.why, refused.value.retry_after_ns) == ("full", None)
    bulkhead.leave(first)
    bulkhead.enter_nowait()
    assert bulkhead.stats == (2, 0, 2, 0, 1, 0)


async def test_a_hundred_at_once_are_never_more_than_the_limit_and_the_queue() -> None:
    bulkhead = Compartment(3, 5)
    most, refused = 0, 0

    async def visit() -> None:
        nonlocal most, refused
        try:
            permit = await bulkhead.enter(None)
        except BulkheadRefused:
            refused += 1
            return
        most = max(most, bulkhead.stats.in_use)
        await asyncio.sleep(1)
        bulkhead.leave(permit)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(visit())
    assert (most, refused) == (3, 92)
    assert bulkhead.quiescent
    assert bulkhead.stats.waited == 5


async def test_cancelled_waiters_do_not_fill_the_queue() -> None:
    bulkhead = Compartment(1, 2)
    [permit] = full(bulkhead)
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            task = group.create_task(bulkhead.enter(None))
            await asyncio.sleep(0)
            task.cancel()
            assert bulkhead.stats.queued == 0  # at once: a newcomer is entitled to the place
            await asyncio.sleep(0)
    bulkhead.leave(permit)
    assert bulkhead.quiescent


async def test_a_cancelled_head_does_not_strand_who_is_behind_it() -> None:
    bulkhead = Compartment(1, 2)
    [permit] = full(bulkhead)
    async with asyncio.TaskGroup() as group:
        head = group.create_task(bulkhead.enter(None))
        second = group.create_task(bulkhead.enter(None))
        await asyncio.sleep(0)
        head.cancel()
        bulkhead.leave(permit)
        await asyncio.sleep(0)
        assert second.done()
    bulkhead.leave(second.result())
    assert bulkhead.quiescent


@pytest.mark.parametrize("times", [1, 2])
async def test_a_waiter_cancelled_in_the_tick_of_its_grant_gives_the_permit_on(times: int) -> None:
    bulkhead = Compartment(1, 2)
    [permit] = full(bulkhead)
    async with asyncio.TaskGroup() as group:
        granted = group.create_task(bulkhead.enter(None))
        second = group.create_task(bulkhead.enter(None))
        await asyncio.sleep(0)
        bulkhead.leave(permit)
        assert bulkhead.stats.in_use == 1  # the permit is the waiter's own already
        with pytest.raises(BulkheadRefused):
            bulkhead.enter_nowait()
        for _ in range(times):
            granted.cancel()
    assert granted.cancelled()
    bulkhead.leave(second.result())
    assert bulkhead.quiescent


async def test_an_outer_timeout_in_the_tick_of_the_grant_loses_no_permit() -> None:
    bulkhead = Compartment(1, 1)
    [permit] = full(bulkhead)
    asyncio.get_running_loop().call_later(5, bulkhead.leave, permit)
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            bulkhead.leave(await bulkhead.enter(None))
    assert bulkhead.quiescent


async def test_the_wait_ends_in_time_and_leaves_no_trace() -> None:
    bulkhead = Compartment(1, 2)
    [permit] = full(bulkhead)
    loop = asyncio.get_running_loop()
    with pytest.raises(BulkheadRefused, match="timeout"):
        await bulkhead.enter(3)
    assert loop.time() == 3
    with pytest.raises(BulkheadRefused, match="timeout"):
        await bulkhead.enter(0)
    assert loop.time() == 3
    assert bulkhead.stats == (1, 0, 1, 2, 2, 0)
    bulkhead.leave(permit)


async def test_a_permit_is_given_back_once_and_only_where_it_is_from() -> None:
    one, other = Compartment(2, 0), Compartment(2, 0)
    permit = one.enter_nowait()
    one.enter_nowait()
    other.enter_nowait()
    other.leave(permit)
    one.leave(permit)
    one.leave(permit)
    assert (one.stats.in_use, other.stats.in_use) == (1, 1)


async def test_a_place_without_a_permit_goes_to_who_waits_when_it_is_freed() -> None:
    bulkhead = Compartment(1, 1)
    assert bulkhead.try_enter()
    assert not bulkhead.try_enter()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(bulkhead.enter(None))
        await asyncio.sleep(0)
        bulkhead.free()
        assert not bulkhead.try_enter(), "it is the waiter's already"
    bulkhead.leave(waiting.result())
    assert bulkhead.stats == (0, 0, 1, 1, 0, 1), "nobody was refused"


async def test_growing_lets_all_in_whom_there_is_room_for_and_shrinking_waits() -> None:
    bulkhead = Compartment(1, 5)
    permits = full(bulkhead)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bulkhead.enter(None)) for _ in range(4)]
        await asyncio.sleep(0)
        bulkhead.resize(4)
        assert (bulkhead.stats.in_use, bulkhead.stats.queued) == (4, 1)
        bulkhead.resize(2)
        await asyncio.sleep(0)
        permits += [task.result() for task in tasks[:3]]
        for left in (3, 2):
            bulkhead.leave(permits.pop())
            assert (bulkhead.stats.in_use, bulkhead.stats.queued) == (left, 1)
        bulkhead.leave(permits.pop())
        assert (bulkhead.stats.in_use, bulkhead.stats.queued) == (2, 0)


def test_a_loop_that_ends_with_waiters_keeps_none() -> None:
    bulkhead = Compartment(1, 5)

    async def main() -> None:
        full(bulkhead)
        main.task = asyncio.get_running_loop().create_task(bulkhead.enter(None))  # type: ignore[attr-defined]  # kept
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert bulkhead.stats.queued == 0


@pytest.mark.parametrize("granted", [False, True])
def test_a_waiter_that_is_closed_and_not_cancelled_leaves_no_trace(granted: bool) -> None:  # noqa: FBT001 - a column
    bulkhead = Compartment(1, 1)

    async def main() -> None:
        [permit] = full(bulkhead)
        waiting = bulkhead.enter(None)
        waiting.send(None)
        if granted:
            bulkhead.leave(permit)
        waiting.close()
        bulkhead.leave(permit)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert bulkhead.quiescent


def test_a_bulkhead_that_nobody_could_enter_is_not_made() -> None:
    with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
        Compartment(0, 1)
    with pytest.raises(ValueError, match="max_queue must be >= 0, got -1"):
        Compartment(1, -1)
