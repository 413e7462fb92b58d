"""The important are let in, and who cannot be is told at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from holdfast.clock import NS
from holdfast.resilience.shed import Permit, Priority, Shedder, ShedRefused
from holdfast.testing import VirtualLoop, loop_clock

INTERACTIVE, AGENT_STEP, BATCH = Priority


def always_lucky() -> float:
    """The draw of somebody who is let in unless nobody is."""
    return 1 - 2**-53


def make(limit: int, chance: Callable[[], float] = always_lucky, target_s: float = 0.1) -> Shedder:
    return Shedder(limit, loop_clock(), chance, target_s=target_s)


def full(shedder: Shedder) -> list[Permit]:
    return [shedder.enter_nowait(BATCH) for _ in range(shedder.stats.limit)]


class Callers:
    """Callers of one shedder, by name; what became of each is written to ``told``."""

    def __init__(self, shedder: Shedder, group: asyncio.TaskGroup) -> None:
        self.shedder, self.group = shedder, group
        self.told: list[str] = []
        self.permits: dict[str, Permit] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, priority: Priority, left_s: float | None = None) -> None:
        """Come, and go as far as one does at once."""
        self.tasks[name] = self.group.create_task(self._call(name, priority, left_s))
        await asyncio.sleep(0)

    async def _call(self, name: str, priority: Priority, left_s: float | None) -> None:
        try:
            self.permits[name] = await self.shedder.enter(priority, left_s)
            self.told.append(name)
        except ShedRefused as refused:
            self.told.append(f"{name}: {refused.why}")

    async def serve(self, permit: Permit) -> list[str]:
        """Give a permit back; what anybody is told of that."""
        self.told.clear()
        self.shedder.leave(permit)
        await asyncio.sleep(0)
        return self.told


@asynccontextmanager
async def waiting(
    shedder: Shedder, priorities: list[Priority], ready: Callable[[], object] = lambda: None
) -> AsyncIterator[list[asyncio.Task[Permit]]]:
    """Waiters of these priorities, from first to last, for the length of the block."""
    ready()
    loop = asyncio.get_running_loop()  # no group: some of these tasks fail, and their test looks at that
    tasks = [loop.create_task(shedder.enter(priority, None)) for priority in priorities]
    await asyncio.sleep(0)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and task.exception() is None:
                shedder.leave(task.result())


# Room, and none


async def test_where_there_is_room_everybody_enters_at_once() -> None:
    shedder = make(3)
    permits = [await shedder.enter(priority, 1) for priority in Priority]
    with pytest.raises(ShedRefused) as refused:
        shedder.enter_nowait(INTERACTIVE)
    assert (refused.value.why, refused.value.retry_after_ns) == ("full", NS)
    assert shedder.stats == (3, 0, 3, False, (1, 0, 0), 0)
    for permit in permits:
        shedder.leave(permit)
    assert shedder.quiescent


async def test_a_permit_is_given_back_once_and_only_where_it_is_from() -> None:
    one, other = make(2), make(2)
    permit = one.enter_nowait(BATCH)
    one.enter_nowait(BATCH)
    other.enter_nowait(BATCH)
    other.leave(permit)
    one.leave(permit)
    one.leave(permit)
    assert (one.stats.in_use, other.stats.in_use) == (1, 1)


async def test_growing_lets_all_in_whom_there_is_room_for_and_shrinking_waits() -> None:
    shedder = make(2)
    permits = full(shedder)
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        for name in "abcd":
            await callers.come(name, INTERACTIVE)
        shedder.resize(5)
        assert (shedder.stats.in_use, shedder.stats.queued) == (5, 1)
        shedder.resize(3)
        await asyncio.sleep(0)
        permits += callers.permits.values()
        for left in (4, 3):
            shedder.leave(permits.pop())
            assert (shedder.stats.in_use, shedder.stats.queued) == (left, 1)
        shedder.leave(permits.pop())
        assert (shedder.stats.in_use, shedder.stats.queued) == (3, 0)


@pytest.mark.parametrize(
    ("limit", "target_s", "interval_s", "wrong"),
    [
        (0, 1, 1, "limit must be >= 1, got 0"),
        (1, 0, 1, "target_s must be > 0, got 0"),
        (1, float("nan"), 1, "target_s must be > 0, got nan"),
        (1, 1, -1, "interval_s must be > 0, got -1"),
        (1, 1, float("inf"), "interval_s must be > 0, got inf"),
    ],
)
async def test_what_is_out_of_range_is_not_made(limit: int, target_s: float, interval_s: float, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Shedder(limit, loop_clock(), always_lucky, target_s=target_s, interval_s=interval_s)


# Order


async def test_the_higher_class_is_served_first_and_each_in_order_of_arrival() -> None:
    shedder = make(4)
    permits = full(shedder)
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        for name, priority in (("b1", BATCH), ("s1", AGENT_STEP), ("i1", INTERACTIVE), ("b2", BATCH)):
            await callers.come(name, priority)
        for name, priority in (("i2", INTERACTIVE), ("s2", AGENT_STEP)):
            await callers.come(name, priority)
        order = []
        for _ in range(6):
            [name] = await callers.serve(permits.pop())
            order.append(name)
            permits.append(callers.permits[name])
    assert order == ["i1", "i2", "s1", "s2", "b1", "b2"]
    assert shedder.stats.waited == 6


async def overload(shedder: Shedder, callers: Callers, names: list[tuple[str, Priority]]) -> list[Permit]:
    """Let those of ``names`` wait until the queue counts as overloaded; return two permits that are held."""
    permits = full(shedder)
    for name, priority in names:
        await callers.come(name, priority)
    await asyncio.sleep(1)
    await callers.serve(permits.pop())  # from now on no wait was short
    await asyncio.sleep(0.1)
    return permits


async def test_when_no_wait_was_short_for_an_interval_the_newest_is_served_and_the_oldest_sent_away() -> None:
    shedder = make(3)
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        permits = await overload(shedder, callers, [(f"b{n}", BATCH) for n in range(4)])
        assert (callers.told, shedder.stats.overloaded) == (["b0"], False)
        assert await callers.serve(permits.pop()) == ["b3", "b1: shed"]
        assert shedder.stats.overloaded
        # One that waits alone is no queue.
        assert await callers.serve(permits.pop()) == ["b2"]
        assert not shedder.stats.overloaded


async def test_the_lowest_class_is_sent_away_first() -> None:
    shedder = make(3)
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        names = [("s1", AGENT_STEP), ("i1", INTERACTIVE), ("i2", INTERACTIVE), ("b1", BATCH), ("s2", AGENT_STEP)]
        permits = await overload(shedder, callers, names)
        await callers.come("i3", INTERACTIVE)
        assert await callers.serve(permits.pop()) == ["i3", "b1: shed"]
        assert await callers.serve(callers.permits["i3"]) == ["i2", "s1: shed"]
        assert await callers.serve(permits.pop()) == ["s2"]


async def test_one_short_wait_ends_the_overload() -> None:
    shedder = make(3, target_s=0.5)
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        permits = await overload(shedder, callers, [("b0", BATCH), ("b1", BATCH)])
        assert await callers.serve(permits.pop()) == ["b1"]
        for n in range(2, 5):
            await callers.come(f"b{n}", BATCH)
        await asyncio.sleep(0.5)
        assert await callers.serve(permits.pop()) == ["b2"]
        assert not shedder.stats.overloaded
        # Long from here on, but not for an interval yet.
        await asyncio.sleep(0.01)
        assert await callers.serve(callers.permits["b1"]) == ["b3"]
        await callers.come("b5", BATCH)
        await asyncio.sleep(0.09)
        assert await callers.serve(callers.permits["b2"]) == ["b4"]
        shedder.leave(callers.permits["b4"])


async def test_one_service_after_a_long_silence_is_no_overload() -> None:
    shedder = make(2)
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        [_, permit] = full(shedder)
        for n in range(4):
            await callers.come(f"i{n}", INTERACTIVE)
        await asyncio.sleep(60)
        assert await callers.serve(permit) == ["i0"]
        await asyncio.sleep(0.09)
        assert await callers.serve(callers.permits["i0"]) == ["i1"]
        await asyncio.sleep(0.02)
        assert await callers.serve(callers.permits["i1"]) == ["i3", "i2: shed"]


# Too many at arrival


def comes_in(shedder: Shedder, priority: Priority) -> bool:
    """Whether somebody would enter, or be let wait; it does neither."""
    coming = shedder.enter(priority, None)
    try:
        coming.send(None)
    except ShedRefused:
        return False
    coming.close()
    return True


@pytest.mark.parametrize(
    ("load", "shares"),
    [
        (20, (0, 0, 0)),
        (21, (0, 0, 0.3)),
        (23, (0, 0, 0.9)),
        (24, (0, 0.2, 1)),
        (26, (0, 0.8, 1)),
        (27, (0.1, 1, 1)),
        (29, (0.7, 1, 1)),
        (30, (1, 1, 1)),
    ],
)
async def test_refusal_at_arrival_grows_from_none_to_all_the_lowest_class_first(
    load: int, shares: tuple[float, ...]
) -> None:
    draws = [0.0]
    shedder = make(10, lambda: draws[-1])
    full(shedder)
    async with waiting(shedder, [INTERACTIVE] * (load - 10), lambda: draws.append(always_lucky())):
        for priority, share in zip(Priority, shares, strict=True):
            came_in = 0
            for n in range(40):
                draws.append(n / 40)
                came_in += comes_in(shedder, priority)
                await asyncio.sleep(0)  # a tick in which a higher class was refused is over
            assert 1 - came_in / 40 == pytest.approx(share)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_no_more_than_twice_the_limit_wait(limit: int) -> None:
    shedder = make(limit)
    full(shedder)
    async with waiting(shedder, [INTERACTIVE] * (2 * limit - 1)):
        assert not shedder.saturated
    async with waiting(shedder, [INTERACTIVE] * 2 * limit):
        assert shedder.stats.queued == 2 * limit
        assert shedder.saturated
        assert not any(comes_in(shedder, priority) for priority in Priority)


@pytest.mark.parametrize(
    ("waiters", "newcomer", "gone"),
    [
        ([BATCH, BATCH, AGENT_STEP, INTERACTIVE], INTERACTIVE, 1),
        ([BATCH, BATCH, AGENT_STEP, INTERACTIVE], AGENT_STEP, 1),
        ([AGENT_STEP, AGENT_STEP, INTERACTIVE, INTERACTIVE], INTERACTIVE, 1),
        ([AGENT_STEP, AGENT_STEP, INTERACTIVE, INTERACTIVE], AGENT_STEP, None),
        ([INTERACTIVE] * 4, INTERACTIVE, None),
    ],
)
async def test_a_newcomer_takes_the_place_of_the_last_of_the_lowest_class_below_it(
    waiters: list[Priority], newcomer: Priority, gone: int | None
) -> None:
    shedder = make(2)
    full(shedder)
    async with waiting(shedder, waiters) as tasks:
        async with asyncio.TaskGroup() as group:
            callers = Callers(shedder, group)
            await callers.come("new", newcomer)
            await asyncio.sleep(0)
            assert callers.told == ([] if gone is not None else ["new: load"])
            assert [n for n, task in enumerate(tasks) if task.done()] == ([] if gone is None else [gone])
            assert shedder.stats.queued == 4
            callers.tasks["new"].cancel()
        if gone is not None:
            with pytest.raises(ShedRefused, match="shed"):
                tasks[gone].result()


async def test_under_overload_it_takes_the_place_of_the_oldest() -> None:
    shedder = make(3)
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        permits = await overload(shedder, callers, [(f"s{n}", AGENT_STEP) for n in range(5)])
        assert await callers.serve(permits.pop()) == ["s4", "s1: shed"]
        for n in range(5):
            await callers.come(f"i{n}", INTERACTIVE)
        await asyncio.sleep(0)
        assert callers.told == ["s4", "s1: shed", "s2: shed"]
        for task in callers.tasks.values():
            task.cancel()


async def test_after_a_refusal_nobody_of_a_lower_class_is_let_in_in_that_tick_even_if_there_is_room() -> None:
    shedder = make(1)
    [permit] = full(shedder)
    async with waiting(shedder, [AGENT_STEP] * 2) as tasks:
        assert not comes_in(shedder, AGENT_STEP)
        for task in tasks:
            task.cancel()
        shedder.leave(permit)
        assert shedder.quiescent
        with pytest.raises(ShedRefused, match="load"):
            shedder.enter_nowait(BATCH)
        assert not comes_in(shedder, BATCH)
        shedder.leave(shedder.enter_nowait(AGENT_STEP))
        await asyncio.sleep(0)
        shedder.leave(shedder.enter_nowait(BATCH))


async def test_after_one_had_to_make_way_nobody_of_a_lower_class_is_let_in_in_that_tick() -> None:
    shedder = make(1)
    full(shedder)
    async with waiting(shedder, [AGENT_STEP] * 2) as [first, second]:
        assert comes_in(shedder, INTERACTIVE)
        assert shedder.stats.refused == (0, 1, 0)
        first.cancel()
        assert shedder.stats.queued == 0
        assert not comes_in(shedder, BATCH)
        assert comes_in(shedder, AGENT_STEP)
        await asyncio.sleep(0)
        assert comes_in(shedder, BATCH)
        with pytest.raises(ShedRefused, match="shed"):
            second.result()


# Deadlines


async def test_who_is_too_late_already_is_refused_though_there_is_room() -> None:
    shedder = make(1)
    for left_s in (0, -1):
        with pytest.raises(ShedRefused, match="deadline"):
            await shedder.enter(INTERACTIVE, left_s)
    assert shedder.quiescent
    assert shedder.stats.refused == (2, 0, 0)


async def test_a_waiter_is_refused_at_its_deadline() -> None:
    shedder = make(1)
    [permit] = full(shedder)
    loop = asyncio.get_running_loop()
    with pytest.raises(ShedRefused, match="deadline"):
        await shedder.enter(INTERACTIVE, 3)
    assert loop.time() == 3
    assert shedder.stats[:2] == (1, 0)
    shedder.leave(permit)
    assert shedder.quiescent


async def test_a_permit_that_comes_free_at_the_deadline_goes_to_the_next() -> None:
    shedder = make(1)
    [permit] = full(shedder)
    loop = asyncio.get_running_loop()
    broken: list[object] = []
    loop.set_exception_handler(lambda _, context: broken.append(context))
    async with asyncio.TaskGroup() as group:
        callers = Callers(shedder, group)
        loop.call_at(3, shedder.leave, permit)  # set up first, so that it runs first
        await callers.come("late", INTERACTIVE, 3)
        await callers.come("next", BATCH, 4)
    assert sorted(callers.told) == ["late: deadline", "next"]
    assert broken == []


# The way back


async def test_retry_after_is_the_time_of_the_queue_and_at_least_a_second() -> None:
    shedder = make(2)
    permits = full(shedder)
    await asyncio.sleep(8)
    shedder.leave(permits.pop())  # 8 s is the mean of one
    permits += [shedder.enter_nowait(BATCH)]
    with pytest.raises(ShedRefused) as refused:
        shedder.enter_nowait(INTERACTIVE)
    assert refused.value.retry_after_ns == NS
    async with waiting(shedder, [INTERACTIVE] * 3):
        with pytest.raises(ShedRefused) as refused:
            shedder.enter_nowait(INTERACTIVE)
        assert refused.value.retry_after_ns == 3 * 8 * NS // 2
        await asyncio.sleep(8)
        shedder.leave(permits.pop(0))  # after 16 s: an eighth of the difference
        with pytest.raises(ShedRefused) as refused:
            shedder.enter_nowait(INTERACTIVE)
        assert refused.value.retry_after_ns == 2 * 9 * NS // 2


# Cancellation


async def test_cancelled_waiters_leave_their_place_at_once() -> None:
    shedder = make(1)
    [permit] = full(shedder)
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            task = group.create_task(shedder.enter(BATCH, 5))
            await asyncio.sleep(0)
            task.cancel()
            assert shedder.stats.queued == 0
            await asyncio.sleep(0)
    shedder.leave(permit)
    assert shedder.quiescent


@pytest.mark.parametrize("times", [1, 2])
async def test_a_waiter_cancelled_in_the_tick_of_its_grant_gives_the_permit_on(times: int) -> None:
    shedder = make(1)
    [permit] = full(shedder)
    async with asyncio.TaskGroup() as group:
        granted = group.create_task(shedder.enter(BATCH, None))
        second = group.create_task(shedder.enter(BATCH, None))
        await asyncio.sleep(0)
        shedder.leave(permit)
        assert shedder.stats[:2] == (1, 1)  # the permit is the waiter's own already
        for _ in range(times):
            granted.cancel()
    assert granted.cancelled()
    shedder.leave(second.result())
    assert shedder.quiescent


async def test_a_waiter_cancelled_in_the_tick_of_its_refusal_gives_nothing_back() -> None:
    shedder = make(1)
    [permit] = full(shedder)
    async with waiting(shedder, [BATCH, BATCH]) as [_, shed], waiting(shedder, [INTERACTIVE]):
        shed.cancel()
        await asyncio.sleep(0)
        assert shed.cancelled()
        assert shedder.stats[:2] == (1, 2)
    shedder.leave(permit)
    assert shedder.quiescent


async def test_an_outer_timeout_in_the_tick_of_the_grant_loses_no_permit() -> None:
    shedder = make(1)
    [permit] = full(shedder)
    asyncio.get_running_loop().call_later(5, shedder.leave, permit)
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            shedder.leave(await shedder.enter(BATCH, None))
    assert shedder.quiescent


@pytest.mark.parametrize("granted", [False, True])
async def test_a_waiter_that_is_closed_and_not_cancelled_leaves_no_trace(granted: bool) -> None:  # noqa: FBT001 - a column
    shedder = make(1)
    [permit] = full(shedder)
    coming = shedder.enter(BATCH, None)
    coming.send(None)
    if granted:
        shedder.leave(permit)
    coming.close()
    shedder.leave(permit)
    assert shedder.quiescent


def test_a_loop_that_ends_with_waiters_keeps_none() -> None:
    kept: list[Any] = []

    async def main() -> None:
        shedder = make(1)
        full(shedder)
        kept.extend([shedder, asyncio.get_running_loop().create_task(shedder.enter(BATCH, 5))])
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert kept[0].stats.queued == 0
