"""Stopping in order, within one deadline."""

import asyncio
from collections.abc import Awaitable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import Draining
from holdfast.lifecycle import Drain, Phase, ShutdownSpec
from holdfast.testing import VirtualLoop, loop_clock


class Process:
    """A drain whose phases are written down, with tasks for turns."""

    def __init__(self, deadline_s: float = 30, lame_duck_s: float = 0) -> None:
        self.drain = Drain(ShutdownSpec(deadline_s=deadline_s, lame_duck_s=lame_duck_s), loop_clock())
        self.drain.phase = Phase.RUNNING
        self.turns: list[asyncio.Task[None]] = []

    def begin(self, group: asyncio.TaskGroup, work: Awaitable[object]) -> asyncio.Task[None]:
        async def turn() -> None:
            await work

        task = group.create_task(turn())
        self.drain.track(task)
        return task

    async def phases(self, *, until: float) -> list[tuple[int, Phase]]:
        """The phases and the second in which each began, looked at four times a second."""
        seen: list[tuple[int, Phase]] = []
        await asyncio.sleep(0.125)
        while now() < until:
            if not seen or seen[-1][1] is not self.drain.phase:
                seen.append((int(now()), self.drain.phase))
            await asyncio.sleep(0.25)
        return seen


def now() -> float:
    return asyncio.get_running_loop().time()


async def stubborn(lasts_s: float) -> None:
    """Goes on for so long after it was cancelled."""
    try:
        await asyncio.sleep(1_000)
    except asyncio.CancelledError:
        await asyncio.sleep(lasts_s)


async def test_an_idle_process_stops_at_once() -> None:
    process = Process()
    await process.drain.stop()
    assert (now(), process.drain.phase) == (0, Phase.STOPPED)


async def test_the_phases_come_in_order() -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(process.phases(until=40))
        turn = process.begin(group, stubborn(2))
        await asyncio.sleep(1)
        await process.drain.stop()
        assert now() == pytest.approx(30)
    assert watching.result() == [
        (0, Phase.RUNNING),
        (1, Phase.LAME_DUCK),
        (6, Phase.DRAINING),
        (28, Phase.CANCELLING),
        (30, Phase.STOPPED),
    ]
    assert not turn.cancelled()


async def test_a_running_turn_finishes() -> None:
    process = Process()
    async with asyncio.TaskGroup() as group:
        turn = process.begin(group, asyncio.sleep(20))
        assert process.drain.in_progress == 1
        await process.drain.stop()
    assert now() == 20
    assert not turn.cancelled()
    assert process.drain.in_progress == 0


async def test_a_turn_that_does_not_finish_is_cancelled_in_time_to_end_well() -> None:
    """The last tenth of the deadline is for what it still has to do."""
    process = Process(deadline_s=30)
    ended: list[float] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(1)
            ended.append(now())

    async with asyncio.TaskGroup() as group:
        turn = process.begin(group, tidy())
        await process.drain.stop()
        assert now() == 28
    assert ended == [28]
    assert turn.cancelled()


@pytest.mark.parametrize("lame_duck_s", [28, 30, 600])
async def test_even_a_long_lame_duck_leaves_cancelled_turns_their_tenth(lame_duck_s: float) -> None:
    process = Process(deadline_s=30, lame_duck_s=lame_duck_s)
    async with asyncio.TaskGroup() as group:
        process.begin(group, stubborn(2))
        await process.drain.stop()
    assert now() == pytest.approx(29)


async def test_a_lame_duck_still_takes_turns_but_is_not_ready() -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(process.drain.stop())
        await asyncio.sleep(4)
        assert not process.drain.ready
        process.drain.admit()
        late = process.begin(group, asyncio.sleep(10))
        await stopping
    assert now() == 14
    assert not late.cancelled()


async def test_before_it_runs_and_from_draining_on_nothing_is_admitted() -> None:
    process = Process(deadline_s=30)
    process.drain.phase = Phase.STARTING
    with pytest.raises(Draining) as refused:
        process.drain.admit()
    assert refused.value.retry_after_s == 1
    process.drain.phase = Phase.RUNNING
    assert process.drain.ready
    process.drain.admit()
    async with asyncio.TaskGroup() as group:
        process.begin(group, stubborn(60))
        stopping = group.create_task(process.drain.stop())
        for at, retry_after_s in ((10, 20), (28, 2), (29.5, 1), (31, 1)):
            await asyncio.sleep(at - now())
            assert not process.drain.ready
            with pytest.raises(Draining) as refused:
                process.drain.admit()
            assert refused.value.retry_after_s == pytest.approx(retry_after_s)
        assert stopping.done()


@pytest.mark.parametrize("at", [2, 7], ids=["as a lame duck", "while draining"])
async def test_hurry_cancels_at_once(at: float) -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    async with asyncio.TaskGroup() as group:
        turn = process.begin(group, asyncio.sleep(1_000))
        stopping = group.create_task(process.drain.stop())
        await asyncio.sleep(at)
        process.drain.hurry()
        await stopping
        assert now() == at
    assert turn.cancelled()


async def test_a_hurry_before_the_stop_counts_too() -> None:
    process = Process()
    async with asyncio.TaskGroup() as group:
        turn = process.begin(group, asyncio.sleep(1_000))
        await asyncio.sleep(0)
        process.drain.hurry()
        await process.drain.stop()
    assert (now(), turn.cancelled()) == (0, True)


async def test_stopping_twice_waits_for_the_first_and_is_done_once() -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    async with asyncio.TaskGroup() as group:
        process.begin(group, asyncio.sleep(20))
        watching = group.create_task(process.phases(until=22))
        for at in (0, 3, 4):
            await asyncio.sleep(at)
            group.create_task(process.drain.stop())
    assert [phase for _, phase in watching.result()] == [Phase.LAME_DUCK, Phase.DRAINING, Phase.STOPPED]
    stopped_at = now()
    await process.drain.stop()
    assert now() == stopped_at


async def test_however_often_it_is_stopped_a_turn_is_cancelled_once() -> None:
    """A second cancellation would take it out of its own tidying up."""
    process = Process(deadline_s=30)
    async with asyncio.TaskGroup() as group:
        turn = process.begin(group, stubborn(2))
        for _ in range(3):
            group.create_task(process.drain.stop())
    assert now() == 29
    assert turn.cancelling() == 1


async def test_a_stop_that_was_cancelled_can_be_gone_on_with() -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    async with asyncio.TaskGroup() as group:
        turn = process.begin(group, asyncio.sleep(1_000))
        first = group.create_task(process.drain.stop())
        await asyncio.sleep(10)
        first.cancel()
        await asyncio.sleep(2)
        await process.drain.stop()
        assert now() == 27
    assert turn.cancelled()
    assert process.drain.phase is Phase.STOPPED


async def test_a_turn_that_ended_before_it_was_tracked_is_not_waited_for() -> None:
    process = Process()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, None))
        await asyncio.sleep(1)
        process.drain.track(task)
        await process.drain.stop()
        assert now() == 1


Turns = list[tuple[float, float, str]]


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.1, 100),
    st.floats(0, 150),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.sampled_from(["tidy", "stubborn"])), max_size=5),
    st.none() | st.floats(0, 120),
)
def test_it_never_takes_longer_than_the_deadline(
    deadline_s: float, lame_duck_s: float, turns: Turns, hurry_at: float | None
) -> None:
    """Whatever the turns do when they are cancelled; and nothing is cancelled before its time."""

    async def main() -> None:
        process = Process(deadline_s, min(lame_duck_s, 600))
        cancelled_at: list[float] = []

        async def turn(lasts_s: float, then_s: float, how: str) -> None:
            try:
                await asyncio.sleep(lasts_s)
            except asyncio.CancelledError:
                cancelled_at.append(now())
                await asyncio.sleep(then_s)
                if how == "tidy":
                    raise

        async with asyncio.TaskGroup() as group:
            for one in turns:
                process.begin(group, turn(*one))
            await asyncio.sleep(0)
            if hurry_at is not None:
                asyncio.get_running_loop().call_at(hurry_at, process.drain.hurry)
            await process.drain.stop()
            assert now() <= deadline_s + 1e-6
            assert process.drain.phase is Phase.STOPPED
            needed = max((lasts_s for lasts_s, _, _ in turns), default=0)
            hurried = deadline_s if hurry_at is None else hurry_at
            assert now() >= min(needed, 0.9 * deadline_s, hurried) - 1e-6
        assert all(at >= min(0.9 * deadline_s, hurried) - 1e-6 for at in cancelled_at)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
