"""
Stopping, whatever turns and hooks do and whenever somebody is in a hurry.

S1 within the deadline · S2 nothing is admitted from DRAINING on · S3 every admitted turn ends exactly once, and none is
cancelled before its time · S4 what is used is closed after its users · S5 idempotent, and nothing that raises stops it
"""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from holdfast.errors import Draining
from holdfast.lifecycle import Drain, Hooks, Phase, ShutdownSpec
from holdfast.testing import VirtualLoop, loop_clock

ORDER = list(Phase)
NEVER = 10_000.0
"""Seconds until what never ends by itself lets go, so that a test ends."""


class Turn(NamedTuple):
    """A turn that is asked for at ``at``, and what it does once it is cancelled, or should be handed over."""

    at: float
    lasts_s: float
    step_s: float
    then_s: float
    how: str


class Closing(NamedTuple):
    """A hook: how long it takes, what it does, and after which others it wants to be."""

    lasts_s: float
    how: str
    after: tuple[int, ...]


class Story(NamedTuple):
    """A stop."""

    deadline_s: float
    lame_duck_s: float
    turns: list[Turn]
    hooks: list[Closing]
    hurry_at: float | None
    stops: list[float]


seconds = st.floats(0, 100)
turns = st.builds(
    Turn,
    st.floats(30, 90),
    st.floats(10, 100),
    st.floats(0.01, 20),
    seconds,
    st.sampled_from(["tidy", "stubborn", "steps", "raises"]),
)
hooks = st.builds(
    Closing,
    seconds,
    st.sampled_from(["ends", "raises", "exits", "hangs", "stubborn", "registers"]),
    st.lists(st.integers(0, 4), max_size=2).map(tuple),
)
stories = st.builds(
    Story,
    st.floats(0.1, 100),
    st.just(0.0) | st.floats(0, 150),
    st.lists(turns, max_size=5),
    st.lists(hooks, max_size=5),
    st.none() | st.floats(0, 120),
    st.lists(st.floats(0, 120), max_size=3),
)


class Play:
    """One story, and what came of it. The stop begins at 50 s."""

    begin = 50.0

    def __init__(self, story: Story) -> None:
        self.story = story
        spec = ShutdownSpec(deadline_s=story.deadline_s, lame_duck_s=story.lame_duck_s)
        self.drain = Drain(spec, loop_clock())
        self.hooks = Hooks(self.drain)
        self.phases: list[Phase] = []
        self.began: dict[Phase, float] = {}
        self.admitted: list[float] = []
        self.admitted_in: list[Phase] = []
        self.ended: Counter[int] = Counter()
        self.handed_over: list[float] = []
        self.cancelled: list[float] = []
        self.called: list[int] = []
        self.running_at_closing = 0
        self.closed: list[int] = []
        self.registered: list[int] = []
        self.drain.watchers.append(self._moved)

    def _moved(self, _was: Phase, phase: Phase, _lasted_s: float) -> None:
        self.phases.append(phase)
        self.began[phase] = now()
        if phase is Phase.CLOSING:
            self.running_at_closing = self.drain.in_progress

    async def _turn(self, number: int, turn: Turn) -> None:
        began = now()
        try:
            while (left_s := began + turn.lasts_s - now()) > 0:
                if turn.how == "steps" and self.drain.handing_over:
                    self.handed_over.append(now())
                    return
                await asyncio.sleep(min(left_s, turn.step_s))
            if turn.how == "raises":
                raise LookupError
        except asyncio.CancelledError:
            self.cancelled.append(now())
            await asyncio.sleep(turn.then_s)
            if turn.how != "stubborn":
                raise
        finally:
            self.ended[number] += 1

    async def _ask(self, number: int, turn: Turn) -> asyncio.Task[None] | None:
        await asyncio.sleep(turn.at)
        try:
            self.drain.admit()
        except Draining:
            return None
        self.admitted.append(now())
        self.admitted_in.append(self.drain.phase)
        task = asyncio.get_running_loop().create_task(self._turn(number, turn))
        self.drain.track(task)
        return task

    def _hook(self, number: int, hook: Closing) -> None:
        async def close() -> None:
            self.called.append(number)
            if hook.how == "registers":
                with suppress(Draining):
                    self.hooks.add("late", close)
                    self.registered.append(-1)
            if hook.how == "exits":
                raise SystemExit(3)
            if hook.how == "stubborn":
                gone_at = now() + NEVER
                while now() < gone_at:
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(gone_at - now())
            await asyncio.sleep(NEVER if hook.how == "hangs" else hook.lasts_s)
            if hook.how == "raises":
                raise LookupError
            if self.drain.phase is Phase.CLOSING:
                self.closed.append(number)

        with suppress(ValueError):
            self.hooks.add(str(number), close, after=tuple(map(str, hook.after)))
            self.registered.append(number)

    async def _stop(self, after_s: float) -> None:
        await asyncio.sleep(self.begin + after_s)
        await self.drain.stop()
        await self.hooks.close()
        self.stopped_at = now()

    async def run(self) -> "Play":
        story, loop = self.story, asyncio.get_running_loop()
        self.drain.start()
        for number, hook in enumerate(story.hooks):
            self._hook(number, hook)
        if story.hurry_at is not None:
            loop.call_at(story.hurry_at, self.drain.hurry)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask(*each)) for each in enumerate(story.turns)]
            group.create_task(self._stop(0))
            others = [group.create_task(self._stop(after_s)) for after_s in story.stops]
            group.create_task(self._first_end())
        del others
        left = [task for each in asking if (task := each.result()) is not None]
        if left:
            await asyncio.wait(left)
            for task in left:
                task.cancelled() or task.exception()
        await asyncio.sleep(10 * NEVER)  # Those that were left behind let go.
        return self

    async def _first_end(self) -> None:
        await self.drain.wait_phase(Phase.STOPPED)
        self.first_stopped_at = now()


def now() -> float:
    return asyncio.get_running_loop().time()


def play(story: Story) -> Play:
    async def main() -> Play:
        return await Play(story).run()

    with capture_logs(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


@settings(max_examples=300, deadline=None)
@given(stories)
def test_it_ends_within_the_deadline_and_in_order(story: Story) -> None:
    """S1, S2, S5: whatever turns and hooks do, however often it is stopped, and whoever is in a hurry."""
    played = play(story)
    assert played.first_stopped_at <= Play.begin + story.deadline_s + 1e-6
    assert played.phases == ORDER[1:]
    assert set(played.admitted_in) <= {Phase.RUNNING, Phase.LAME_DUCK}
    assert sorted(played.called) == sorted(played.registered)
    healthy = {n for n in played.registered if n >= 0 and story.hooks[n].how in {"ends", "registers"}}
    failed = {int(failure.hook) for failure in played.hooks.failures}
    assert set(played.registered) - healthy <= failed
    assert set(played.closed) >= healthy - failed


@settings(max_examples=300, deadline=None)
@given(stories)
def test_every_turn_that_was_admitted_ends_once_and_none_before_its_time(story: Story) -> None:
    """S3: seven tenths of the deadline to finish, eight to hand over, less where somebody is in a hurry."""
    played = play(story)
    assert len(played.ended) == len(played.admitted)
    assert set(played.ended.values()) <= {1}
    hurried = Play.begin if story.hurry_at is None else max(Play.begin, story.hurry_at)
    soonest = NEVER if story.hurry_at is None else hurried
    assert all(at >= min(Play.begin + 0.7 * story.deadline_s, soonest) - 1e-6 for at in played.handed_over)
    assert all(at >= min(Play.begin + 0.8 * story.deadline_s, soonest) - 1e-6 for at in played.cancelled)
    assert played.began[Phase.CANCELLING] <= max(Play.begin, soonest) + 1e-6
    assert played.first_stopped_at >= min(Play.begin + min(story.lame_duck_s, 0.7 * story.deadline_s), soonest) - 1e-6


@settings(max_examples=300, deadline=None)
@given(stories)
def test_what_is_used_is_closed_after_its_users(story: Story) -> None:
    """S4: reverse order of registration, unless one asked to come later; and no turn runs then but a stubborn one."""
    played = play(story)
    place = {number: at for at, number in enumerate(played.called)}
    for number, hook in enumerate(story.hooks):
        for user in hook.after:
            if number in place and user in place:
                assert place[user] < place[number]
    if not any(hook.after for hook in story.hooks):
        assert played.called == sorted(played.called, reverse=True)
    patient = all(turn.then_s <= 0.1 * story.deadline_s for turn in story.turns)
    if patient:
        assert played.running_at_closing == 0


@pytest.mark.parametrize(
    ("hurry_at", "handed_over", "cancelled"),
    [(None, [64.5], [66]), (0, [], [50, 50]), (60, [], [60, 60]), (65, [64.5], [65]), (68, [64.5], [66])],
)
def test_the_tests_above_see_all_there_is(
    hurry_at: float | None, handed_over: list[float], cancelled: list[float]
) -> None:
    """A story in which everything happens, so that none of them holds for want of an example."""
    steps = Turn(49, 90, 0.5, 0, "steps")
    slow = Turn(49, 90, 60, 1, "tidy")
    late = Turn(55, 1, 1, 1, "tidy")
    hooks = [Closing(0.5, "ends", ()), Closing(1, "raises", (0,)), Closing(1, "stubborn", ())]
    played = play(Story(20, 2, [steps, slow, late], hooks, hurry_at, [3]))
    assert len(played.admitted) == 2
    assert played.handed_over == pytest.approx(handed_over)
    assert played.cancelled == pytest.approx(cancelled)
    assert played.running_at_closing == 0
    assert played.called == [2, 0, 1]
    assert played.closed == [0]
