"""One point in time that everything inside inherits."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import uvloop

from holdfast.clock import Clock
from holdfast.errors import AttemptTimedOut, DeadlineExceeded, TimedOut
from holdfast.resilience import remaining_s, within
from holdfast.testing import VirtualLoop, loop_clock


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_block_that_takes_too_long_is_cancelled_where_it_stands() -> None:
    stopped_at: list[float] = []

    async def stand() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped_at.append(now())

    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 5, DeadlineExceeded):
            await stand()
    assert stopped_at == [5]
    assert remaining_s(loop_clock()) is None


async def test_a_block_in_time_is_left_alone_afterwards_too() -> None:
    async with within(loop_clock(), 5, DeadlineExceeded):
        await asyncio.sleep(4.999)
    await asyncio.sleep(60)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # a test runs in a task


async def test_what_is_left_is_told_inside_and_nothing_outside() -> None:
    clock = loop_clock()
    assert remaining_s(clock) is None
    async with within(clock, 10, DeadlineExceeded):
        await asyncio.sleep(4)
        assert remaining_s(clock) == 6
        async with within(clock, 1, AttemptTimedOut):
            assert remaining_s(clock) == 1
        async with within(clock, 100, AttemptTimedOut):
            assert remaining_s(clock) == 6
        assert remaining_s(clock) == 6
    assert remaining_s(clock) is None


@pytest.mark.parametrize("inner_s", [5, 5.0001, 60])
async def test_an_inner_limit_that_is_no_shorter_leaves_it_to_the_outer_one(inner_s: float) -> None:
    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 5, DeadlineExceeded), within(loop_clock(), inner_s, AttemptTimedOut):
            await asyncio.sleep(60)
    assert now() == 5


async def test_an_inner_limit_that_is_no_shorter_does_not_disturb_the_tidying_up_either() -> None:
    tidy = False

    async def stand() -> None:
        nonlocal tidy
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(20)
            tidy = True

    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 5, DeadlineExceeded), within(loop_clock(), 10, AttemptTimedOut):
            await stand()
    assert tidy
    assert now() == 25


async def test_a_limit_may_be_used_again() -> None:
    clock = loop_clock()
    limit = within(clock, 5, AttemptTimedOut)
    async with limit:
        assert remaining_s(clock) == 5
    async with within(clock, 3, DeadlineExceeded):
        async with limit:
            assert remaining_s(clock) == 3
        assert remaining_s(clock) == 3
    with pytest.raises(AttemptTimedOut):
        async with limit:
            await asyncio.sleep(60)
    assert now() == 5


async def test_a_shorter_inner_limit_is_its_own_and_the_outer_block_goes_on() -> None:
    clock = loop_clock()
    async with within(clock, 5, DeadlineExceeded):
        with pytest.raises(AttemptTimedOut):
            async with within(clock, 3, AttemptTimedOut):
                await asyncio.sleep(60)
        assert now() == 3
        assert remaining_s(clock) == 2
        await asyncio.sleep(1)


@pytest.mark.parametrize("seconds", [0, -1, 1e-10])
async def test_no_time_at_all_refuses_the_block(seconds: float) -> None:
    ran = False
    with pytest.raises(AttemptTimedOut):
        async with within(loop_clock(), seconds, AttemptTimedOut):
            ran = True
    assert not ran
    assert remaining_s(loop_clock()) is None


async def test_after_the_deadline_nothing_is_started_and_the_error_is_the_outer_ones() -> None:
    """A block that swallowed its cancellation gets no further time."""
    ran = False

    async def go_on() -> None:
        nonlocal ran
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        async with within(loop_clock(), 30, AttemptTimedOut):
            ran = True

    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 5, DeadlineExceeded):
            await go_on()
    assert not ran


async def test_a_loop_that_was_blocked_past_the_deadline_starts_nothing_either() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    ran = False

    async def block_the_loop() -> None:
        nonlocal ran
        loop.advance(6)
        async with within(loop_clock(), 30, AttemptTimedOut):
            ran = True

    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 5, DeadlineExceeded):
            await block_the_loop()
    assert not ran


async def test_what_the_block_raises_is_what_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        async with within(loop_clock(), 5, DeadlineExceeded):
            raise ZeroDivisionError
    assert remaining_s(loop_clock()) is None


async def test_a_block_that_finished_at_the_last_moment_has_finished() -> None:
    """The answer and the timer come in the same step of the loop, the answer first."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()
    loop.call_at(5, answer.set_result, "done")
    ended = "nothing"
    try:
        async with within(loop_clock(), 5, DeadlineExceeded):
            ended = await answer
    except DeadlineExceeded:
        ended = "too late"
    assert ended in ("done", "too late")
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # a test runs in a task
    await asyncio.sleep(60)  # No cancellation is left over.


async def test_a_block_that_returns_all_the_same_has_finished_and_leaves_no_cancellation() -> None:
    async with within(loop_clock(), 5, DeadlineExceeded):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    await asyncio.sleep(60)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # a test runs in a task


@pytest.mark.parametrize("first", ["cancellation", "deadline"])
async def test_a_cancellation_from_outside_is_never_told_as_a_timeout(first: str) -> None:
    """Not even where both come in the same step, whichever is first."""
    loop = asyncio.get_running_loop()
    raised: list[type[BaseException]] = []

    async def block() -> None:
        try:
            async with within(loop_clock(), 5, DeadlineExceeded):
                await asyncio.sleep(60)
        except BaseException as error:
            raised.append(type(error))
            raise

    async with asyncio.TaskGroup() as group:
        task = group.create_task(block())
        await asyncio.sleep(0)
        loop.call_at(5 if first == "deadline" else 4.999_999_999_9, task.cancel)
    assert raised == [asyncio.CancelledError]
    assert task.cancelled()


async def test_children_inherit_the_deadline_and_are_stopped_with_their_parent() -> None:
    left: list[float | None] = []

    async def child(n: int) -> None:
        async with within(loop_clock(), 30, AttemptTimedOut):
            await asyncio.sleep(n)
            left.append(remaining_s(loop_clock()))
            await asyncio.sleep(60)

    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 5, DeadlineExceeded), asyncio.TaskGroup() as group:
            [group.create_task(child(n)) for n in (1, 2)]
    assert left == [4, 3]
    assert now() == 5


@pytest.mark.parametrize("outer_ends", ["in time", "too late"])
async def test_a_task_left_behind_is_still_stopped(outer_ends: str) -> None:
    """The outer deadline cancels its own task alone: what that task shielded, or never awaited, keeps its own limit."""
    stopped: list[tuple[float, type[TimedOut]]] = []

    async def call() -> None:
        try:
            async with within(loop_clock(), 30, AttemptTimedOut):
                await asyncio.sleep(1_000)
        except TimedOut as error:
            stopped.append((now(), type(error)))

    async with asyncio.TaskGroup() as group:
        try:
            async with within(loop_clock(), 20, DeadlineExceeded):
                shielded = asyncio.shield(group.create_task(call()))
                await (asyncio.sleep(1) if outer_ends == "in time" else shielded)
        except DeadlineExceeded:
            assert now() == 20
    assert stopped == [(30, AttemptTimedOut)]


async def test_the_tie_between_a_deadline_and_a_childs_own_limit_goes_to_the_deadline() -> None:
    async def child() -> None:
        async with within(loop_clock(), 30, AttemptTimedOut):
            await asyncio.sleep(60)

    async def turn() -> None:
        async with within(loop_clock(), 30, DeadlineExceeded), asyncio.TaskGroup() as group:
            asyncio.get_running_loop().call_at(18, now)  # With a third timer those of equal times change places.
            for _ in range(5):
                group.create_task(child())

    with pytest.raises(DeadlineExceeded):
        await turn()
    assert now() == 30


@pytest.mark.parametrize("inner_s", [4.995, 4.999_999_999])
@pytest.mark.parametrize("children", [0, 5])
async def test_limits_that_end_in_one_slot_leave_it_to_the_outer_one(children: int, inner_s: float) -> None:
    """Both have passed when the slot ends."""
    clock = loop_clock()

    async def call() -> None:
        async with within(clock, inner_s, AttemptTimedOut):
            assert remaining_s(clock) == inner_s
            await asyncio.sleep(60)

    async def turn() -> None:
        async with within(clock, 5, DeadlineExceeded), asyncio.TaskGroup() as group:
            [group.create_task(call()) for _ in range(children)]
            if not children:
                await call()

    with pytest.raises(DeadlineExceeded):
        await turn()
    assert now() == 5
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # a test runs in a task


async def test_between_the_deadline_and_the_end_of_its_slot_nothing_is_started() -> None:
    clock = loop_clock()
    left: list[float | None] = []

    async def call() -> None:
        await asyncio.sleep(4.999)
        left.append(remaining_s(clock))
        async with within(clock, 30, AttemptTimedOut):
            pytest.fail("started")

    with pytest.raises(DeadlineExceeded):
        async with within(clock, 4.995, DeadlineExceeded):
            await call()
    assert left == [-0.004]
    assert now() == 4.999


@pytest.mark.parametrize("stops_at", [-1, 0, 1])
async def test_a_child_in_a_block_of_its_own_is_stopped_by_the_earlier_of_both(stops_at: int) -> None:
    """Its own deadline is not its parent's: it is never taken for one that stops it already."""
    clock = loop_clock()
    ended: list[tuple[float, type[TimedOut]]] = []

    async def child() -> None:
        try:
            async with within(clock, 5 + stops_at, DeadlineExceeded), within(clock, 5, AttemptTimedOut):
                await asyncio.sleep(60)
        except TimedOut as error:
            ended.append((now(), type(error)))

    async with asyncio.TaskGroup() as group, within(clock, 20, DeadlineExceeded):
        group.create_task(child())
        await asyncio.sleep(1)
    assert ended == [(min(5, 5 + stops_at), AttemptTimedOut if stops_at > 0 else DeadlineExceeded)]


def test_outside_a_task_there_is_nothing_to_stop() -> None:
    async def block() -> None:
        async with within(Clock(), 5, DeadlineExceeded):
            pytest.fail("started")

    with pytest.raises(RuntimeError):
        block().send(None)


@pytest.mark.sockets
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_deadline_has_passed_once_its_timer_has_fired(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The timers of uvloop fire up to a millisecond early on the clock that deadlines are kept on."""
    left: list[float | None] = []

    async def stand(clock: Clock) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            left.append(remaining_s(clock))

    async def ask(clock: Clock) -> None:
        for _ in range(5):
            with pytest.raises(DeadlineExceeded):
                async with within(clock, 0.001_4, DeadlineExceeded):
                    await stand(clock)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(ask(Clock()))
    assert len(left) == 5
    assert all(seconds is not None and seconds <= 0 for seconds in left)


async def scenario() -> None:
    """Every kind of step within two levels: a sleep, an inner timeout that is caught, and one more sleep."""
    clock = loop_clock()
    async with within(clock, 20, DeadlineExceeded):
        await asyncio.sleep(1)
        try:
            async with within(clock, 2, AttemptTimedOut):
                await asyncio.sleep(0)
                await asyncio.sleep(10)
        except AttemptTimedOut:
            await asyncio.sleep(1)
        async with within(clock, 2, AttemptTimedOut):
            try:
                await asyncio.sleep(1)
            finally:
                await asyncio.sleep(0)  # Tidying up, where a second cancellation finds it.
    await asyncio.sleep(1)


STEPS = 30


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("at", range(STEPS))
async def test_cancelled_anywhere_it_leaves_nothing_behind(at: int, times: int) -> None:
    """Afterwards there is no deadline, no pending cancellation, and the outcome is a cancellation or none at all."""
    ended: list[str] = []

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await scenario()
        except asyncio.CancelledError:
            ended.append("cancelled")
            while task.uncancel():
                pass
        else:
            ended.append("finished")
        assert remaining_s(loop_clock()) is None
        await asyncio.sleep(100)
        ended.append("left alone")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await steps(at)
        if not ended:
            task.cancel()
            await asyncio.sleep(0)
            if times == 2 and not ended:
                task.cancel()
    assert ended in (["cancelled", "left alone"], ["finished", "left alone"], [])
    assert ended != [] or at == 0  # Cancelled before its first step it never ran.


async def steps(number: int) -> None:
    """Let the loop take this many steps, half a second or none apart."""
    for n in range(number):
        await asyncio.sleep(0.5 if n % 2 else 0)
