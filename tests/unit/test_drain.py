"""Stopping in order, within one deadline."""

import asyncio
from collections.abc import Awaitable
from itertools import pairwise

import pytest

from holdfast.errors import Draining
from holdfast.lifecycle import Drain, Phase, ShutdownSpec
from holdfast.testing import loop_clock


class Process:
    """A drain whose phases are written down, with tasks for turns."""

    def __init__(self, deadline_s: float = 30, lame_duck_s: float = 0) -> None:
        self.drain = Drain(ShutdownSpec(deadline_s=deadline_s, lame_duck_s=lame_duck_s), loop_clock())
        self.drain.start()

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
    assert (now(), process.drain.phase) == (0, Phase.CLOSING)
    process.drain.end()
    assert (now(), process.drain.phase) == (0, Phase.STOPPED)


async def test_it_ends_only_once_it_is_closing() -> None:
    process = Process()
    process.drain.end()
    assert process.drain.phase is Phase.RUNNING


async def test_the_phases_come_in_order() -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(process.phases(until=40))
        turn = process.begin(group, stubborn(2))
        await asyncio.sleep(1)
        await process.drain.stop()
        assert now() == pytest.approx(27)
        await asyncio.sleep(1)
        process.drain.end()
    assert watching.result() == [
        (0, Phase.RUNNING),
        (1, Phase.LAME_DUCK),
        (6, Phase.DRAINING),
        (25, Phase.CANCELLING),
        (27, Phase.CLOSING),
        (28, Phase.STOPPED),
    ]
    assert not turn.cancelled()


async def test_whoever_watches_is_told_of_each_phase_and_how_long_it_took() -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    told: list[tuple[Phase, Phase, float]] = []

    def fails(*_: object) -> None:
        raise LookupError

    process.drain.watchers += [fails, lambda *move: told.append(move)]
    await asyncio.sleep(2)
    async with asyncio.TaskGroup() as group:
        process.begin(group, stubborn(1))
        await process.drain.stop()
    process.drain.end()
    assert [(was, to) for was, to, _ in told] == list(pairwise(list(Phase)[1:]))
    assert [lasted_s for *_, lasted_s in told] == pytest.approx([2, 5, 19, 1, 0])


async def test_a_phase_can_be_waited_for_before_and_after_it() -> None:
    process = Process(deadline_s=30, lame_duck_s=5)
    reached: dict[Phase, float] = {}

    async def wait(phase: Phase) -> None:
        await process.drain.wait_phase(phase)
        reached[phase] = now()

    async with asyncio.TaskGroup() as group:
        process.begin(group, asyncio.sleep(12))
        for phase in Phase:
            group.create_task(wait(phase))
        await process.drain.stop()
        assert now() == 12
        process.drain.end()
    assert reached == {
        Phase.STARTING: 0,
        Phase.RUNNING: 0,
        Phase.LAME_DUCK: 0,
        Phase.DRAINING: 5,
        Phase.CANCELLING: 12,
        Phase.CLOSING: 12,
        Phase.STOPPED: 12,
    }
    await process.drain.wait_phase(Phase.LAME_DUCK)


async def test_turns_hand_over_at_their_next_step_once_the_time_to_finish_is_up() -> None:
    process = Process(deadline_s=30)
    handed_over_at: list[float] = []

    async def steps() -> None:
        for _ in range(100):
            if process.drain.handing_over:
                break
            await asyncio.sleep(2)
        handed_over_at.append(now())

    async def told_at_once() -> None:
        await process.drain.wait_handing_over()
        assert process.drain.handing_over
        handed_over_at.append(now())

    async with asyncio.TaskGroup() as group:
        turns = [process.begin(group, steps()), process.begin(group, told_at_once())]
        assert not process.drain.handing_over
        await process.drain.stop()
        assert now() == 22
    assert handed_over_at == pytest.approx([21, 22])
    assert not any(turn.cancelled() for turn in turns)


async def test_where_somebody_is_in_a_hurry_turns_are_handed_over_too() -> None:
    process = Process(deadline_s=30)
    async with asyncio.TaskGroup() as group:
        process.begin(group, asyncio.sleep(1_000))
        stopping = group.create_task(process.drain.stop())
        await asyncio.sleep(3)
        assert not process.drain.handing_over
        process.drain.hurry()
        await stopping
        assert process.drain.handing_over


async def test_a_start_after_the_stop_takes_nothing_back() -> None:
    process = Process()
    await process.drain.stop()
    process.drain.start()
    assert process.drain.phase is Phase.CLOSING


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
    """A tenth of the deadline is for what it still has to do, and one for closing the rest."""
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
        assert now() == pytest.approx(25)
    assert ended == pytest.approx([25])
    assert turn.cancelled()


@pytest.mark.parametrize("lame_duck_s", [21, 30, 600])
async def test_even_a_long_lame_duck_leaves_turns_their_time_to_end(lame_duck_s: float) -> None:
    process = Process(deadline_s=30, lame_duck_s=lame_duck_s)
    async with asyncio.TaskGroup() as group:
        process.begin(group, stubborn(2))
        await process.drain.stop()
    assert now() == pytest.approx(26)


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
    process.drain = Drain(ShutdownSpec(deadline_s=30), loop_clock())
    assert (process.drain.phase, process.drain.ready, process.drain.stopping) == (Phase.STARTING, False, False)
    with pytest.raises(Draining) as refused:
        process.drain.admit()
    assert refused.value.retry_after_s == 1
    process.drain.start()
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
        assert process.drain.stopping


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
    assert [phase for _, phase in watching.result()] == [Phase.LAME_DUCK, Phase.DRAINING, Phase.CLOSING]
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
    assert now() == 26
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
        assert now() == 24
    assert turn.cancelled()
    assert process.drain.phase is Phase.CLOSING


async def test_a_stubborn_turn_has_a_tenth_of_the_deadline_even_where_somebody_is_in_a_hurry() -> None:
    process = Process(deadline_s=30)
    async with asyncio.TaskGroup() as group:
        process.begin(group, stubborn(10))
        process.drain.hurry()
        await asyncio.sleep(0)
        await process.drain.stop()
        assert now() == pytest.approx(3)
        assert process.drain.phase is Phase.CLOSING


async def test_a_turn_that_ended_before_it_was_tracked_is_not_waited_for() -> None:
    process = Process()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, None))
        await asyncio.sleep(1)
        process.drain.track(task)
        await process.drain.stop()
        assert now() == 1
