"""Fuses: never early, a slot late at most, one timer for all of them, and nothing left when they are out."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop

from holdfast.clock import NS, Clock
from holdfast.resilience.wheel import SLOT_NS, Fuse, Wheel
from holdfast.testing import VirtualLoop, loop_clock

Task = asyncio.Task[Any]


def now() -> float:
    return asyncio.get_running_loop().time()


def me() -> Task:
    task = asyncio.current_task()
    assert task is not None
    return task


def wheel_of(clock: Clock | None = None) -> Wheel:
    return Wheel.of(asyncio.get_running_loop(), clock or loop_clock())


def timers() -> int:
    """Timers of the running loop that are to fire yet."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]  # asyncio's heap


async def stopped_at(wheel: Wheel, at: int) -> float:
    """When the fuse stops a block that would never end."""
    fuse = wheel.light(me(), at)
    with pytest.raises(asyncio.CancelledError) as stopped:
        await asyncio.get_running_loop().create_future()
    assert fuse.out(stopped.value)
    return now()


@pytest.mark.parametrize(
    ("at", "stops_at"),
    [(5 * NS, 5), (5 * NS + 1, 5.01), (5 * NS - 1, 5), (5 * NS - SLOT_NS + 1, 5), (1, 0.01), (0, 0), (-NS, 0)],
)
async def test_a_task_is_stopped_at_the_end_of_the_slot(at: int, stops_at: float) -> None:
    assert await stopped_at(wheel_of(), at) == pytest.approx(stops_at, abs=1e-9)


async def test_an_earlier_limit_does_not_wait_for_a_later_one_nor_the_other_way_round() -> None:
    wheel = wheel_of()
    limits = [30, 10, 20, 10, 50, 5, 40]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stopped_at(wheel, limit * NS)) for limit in limits]
    assert [task.result() for task in tasks] == limits


async def test_a_task_that_left_is_never_stopped() -> None:
    wheel = wheel_of()
    fuse = wheel.light(me(), 5 * NS)
    await asyncio.sleep(4.999)
    assert not fuse.out(None)
    assert fuse.task is None
    await asyncio.sleep(60)
    assert not fuse.blown
    assert me().cancelling() == 0


async def test_a_task_that_leaves_as_the_wheel_turns_is_not_stopped_either() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    wheel = wheel_of()
    fuse = wheel.light(me(), 5 * NS)
    loop.advance(6)
    wheel._turn()
    assert not fuse.out(None)
    await asyncio.sleep(60)
    assert not fuse.blown
    assert me().cancelling() == 0


async def test_all_share_one_timer_and_none_is_left_when_they_are_out() -> None:
    wheel = wheel_of()
    fuses = [wheel.light(me(), (7 + (500 + 13 * n) % 1_000) * SLOT_NS) for n in range(1_000)]
    assert timers() == 1
    for fuse in fuses:
        fuse.out(None)
    assert timers() == 1
    await asyncio.sleep(0.07)
    await asyncio.sleep(0)
    assert timers() == 0


async def test_the_timer_goes_from_slot_to_slot_that_holds_a_fuse_and_past_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wheel, started = wheel_of(), []
    call_later = asyncio.get_running_loop().call_later

    def count(delay: float, callback: Callable[..., object], *args: Any, **context: Any) -> asyncio.TimerHandle:
        if callback == wheel._turn:
            started.append(delay)
        return call_later(delay, callback, *args, **context)

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", count)
    fuses = {seconds: wheel.light(me(), seconds * NS) for seconds in (10, 20, 30, 40)}
    for seconds in (10, 20, 40):
        fuses[seconds].out(None)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.get_running_loop().create_future()
    assert fuses[30].out(asyncio.CancelledError())
    assert now() == 30
    await asyncio.sleep(1)
    assert timers() == 0
    assert started == [10, 20]


def test_a_wheel_does_not_keep_the_loop_from_finding_a_deadlock() -> None:
    async def main() -> None:
        wheel_of().light(me(), 3_600 * NS).out(None)
        await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(RuntimeError, match="deadlock"):
        runner.run(main())


async def test_short_calls_with_long_limits_leave_no_garbage_and_lose_nobody() -> None:
    wheel = wheel_of()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(stopped_at(wheel, (100 + n) * NS)) for n in range(300)]
        await asyncio.sleep(0)
        for n in range(50_000):
            wheel.light(me(), 10_000 * NS + n * SLOT_NS).out(None)
        assert len(wheel._slots) == len(wheel._ahead) < 1_000
    assert [task.result() for task in waiting] == [100 + n for n in range(300)]
    assert not wheel._ahead
    assert not wheel._slots
    assert timers() == 0


async def test_a_fuse_that_is_out_holds_neither_its_task_nor_who_lit_it() -> None:
    class Held:
        pass

    holds: ContextVar[Held] = ContextVar("holds")
    kept: list[Fuse] = []
    refs: list[weakref.ref[Any]] = []

    async def call() -> None:
        holds.set(held := Held())
        refs.extend((weakref.ref(held), weakref.ref(me())))
        kept.append(wheel_of().light(me(), 30 * NS))
        kept[0].out(None)

    async with asyncio.TaskGroup() as group:
        group.create_task(call())
    await asyncio.sleep(1)
    gc.collect()
    assert timers() == 1
    assert [ref() for ref in refs] == [None, None]


@pytest.mark.parametrize("pending", [0, 1])
@pytest.mark.parametrize("asked", [0, 1, 2])
@pytest.mark.parametrize(
    "ends", [None, asyncio.CancelledError(), ZeroDivisionError(), BaseExceptionGroup("", [OSError()])]
)
async def test_it_was_the_fuse_only_if_nobody_else_asked_and_the_block_was_cancelled(
    ends: BaseException | None, asked: int, pending: int
) -> None:
    """Whatever the answer, the fuse's own cancellation is taken back, and no other."""
    told: list[bool] = []

    async def call() -> None:
        for _ in range(pending):
            me().cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        fuse = wheel_of().light(me(), 5 * NS)
        while now() < 8:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(8 - now())
        assert me().cancelling() == pending + asked + 1
        told.append(fuse.out(ends))
        told.append(fuse.out(ends))
        assert me().cancelling() == pending + asked

    async with asyncio.TaskGroup() as group:
        task = group.create_task(call())
        await asyncio.sleep(0)
        for n in range(asked):
            asyncio.get_running_loop().call_at(4 + 2 * n, task.cancel)
    assert told == [asked == 0 and isinstance(ends, asyncio.CancelledError), False]


async def test_a_fuse_that_did_not_blow_takes_no_cancellation_back() -> None:
    fuse = wheel_of().light(me(), 5 * NS)
    me().cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await asyncio.sleep(60)
    assert not fuse.out(raised.value)
    assert me().cancelling() == 1


async def test_who_cannot_be_stopped_does_not_save_the_others() -> None:
    class Stubborn(asyncio.Future[None]):
        def cancel(self, msg: object = None) -> bool:
            raise ZeroDivisionError(msg)

    loop, wheel, stubborn = asyncio.get_running_loop(), wheel_of(), Stubborn()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async def refuse() -> bool:
        fuse = wheel.light(me(), 5 * NS)
        await stubborn
        return fuse.out(None)

    async with asyncio.TaskGroup() as group:
        refused = group.create_task(refuse())
        others = [group.create_task(stopped_at(wheel, 5 * NS)) for _ in range(3)]
        loop.call_at(6, stubborn.set_result, None)
    assert [task.result() for task in others] == [5, 5, 5]
    assert not refused.result()
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_those_of_one_slot_are_stopped_in_the_order_they_were_lit() -> None:
    wheel = wheel_of()
    order: list[int] = []

    async def call(n: int) -> None:
        await stopped_at(wheel, 5 * NS - 31 * n % 50)
        order.append(n)

    async with asyncio.TaskGroup() as group:
        for n in range(50):
            group.create_task(call(n))
    assert order == list(range(50))


async def test_each_clock_has_its_wheel_and_one_alone() -> None:
    clock = loop_clock()
    assert wheel_of(clock) is wheel_of(clock)
    assert wheel_of(clock) is not wheel_of(loop_clock())


async def test_it_goes_by_its_clock_even_where_the_loop_is_faster() -> None:
    loop = asyncio.get_running_loop()
    slow = Clock(lambda: round(loop.time() * NS / 2))
    assert 10 <= await stopped_at(wheel_of(slow), 5 * NS) < 10.01


LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.sockets
@pytest.mark.parametrize("new_loop", LOOPS)
def test_on_a_real_loop_nobody_is_stopped_early(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Though its timers may be early, uvloop's by a millisecond."""
    clock = Clock()

    async def late_by(wheel: Wheel, after: int) -> int:
        at = clock.now() + after
        await stopped_at(wheel, at)
        return clock.now() - at

    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(late_by(wheel_of(clock), n * 777_777)) for n in range(60)]
        return [task.result() for task in tasks]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        late = runner.run(main())
    assert min(late) >= 0
    assert max(late) < NS


@pytest.mark.sockets
@pytest.mark.parametrize("new_loop", [*LOOPS, VirtualLoop])
def test_a_wheel_ends_with_its_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> tuple[weakref.ref[asyncio.AbstractEventLoop], weakref.ref[asyncio.TimerHandle]]:
        wheel = wheel_of()
        wheel.light(me(), 3_600 * NS).out(None)
        assert wheel._timer is not None
        return weakref.ref(asyncio.get_running_loop()), weakref.ref(wheel._timer)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        refs = runner.run(main())
    del runner
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
