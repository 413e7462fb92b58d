"""Random nestings of deadlines agree with a model of four lines; tasks by the dozen keep what deadlines promise."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import NS, Clock
from holdfast.errors import TimedOut
from holdfast.resilience import remaining_s, within
from holdfast.resilience.wheel import SLOT_NS, Wheel
from holdfast.testing import VirtualLoop, loop_clock

MS = NS // 1_000


class Level(NamedTuple):
    """A block: it may take ``limit`` seconds, sleeps ``before``, holds what is in it, and sleeps ``after``."""

    limit: int
    before: int
    inside: "Level | None"
    after: int


class Ended(NamedTuple):
    at: int
    raised_by: int | None


def levels() -> st.SearchStrategy[Level]:
    # Odd limits and even sleeps from even starts: no timer ties with the end of a sleep.
    limits, sleeps = st.integers(0, 30).map(lambda n: 2 * n + 1), st.integers(0, 20).map(lambda n: 2 * n)
    leaves = st.builds(Level, limits, sleeps, st.none(), sleeps)
    return st.recursive(leaves, lambda inner: st.builds(Level, limits, sleeps, inner, sleeps), max_leaves=6)


def model(level: Level, now: int, outer: tuple[int, int] | None = None, depth: int = 0) -> Ended:
    """When the block ends, and whose error it raises. The deadline in force is the earliest; of two, the outer one."""
    mine = (now + level.limit, depth)
    due = mine if outer is None else min(outer, mine)
    now += level.before
    if now >= due[0]:
        return Ended(*due)
    if level.inside is not None:
        inner = model(level.inside, now, due, depth + 1)
        if inner.raised_by is not None:
            return inner
        now = inner.at
    now += level.after
    return Ended(*due) if now >= due[0] else Ended(now, None)


class Expired(TimedOut):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth


async def play(level: Level, depth: int = 0) -> None:
    before = remaining_s(loop_clock())
    try:
        async with within(loop_clock(), level.limit, lambda: Expired(depth)):
            left = remaining_s(loop_clock())
            assert left is not None
            assert left <= level.limit
            assert before is None or left <= before
            await asyncio.sleep(level.before)
            if level.inside is not None:
                await play(level.inside, depth + 1)
            await asyncio.sleep(level.after)
    finally:
        after = remaining_s(loop_clock())
        assert (after is None) == (before is None)
        assert before is None or (after is not None and after <= before)


async def played(level: Level) -> Ended:
    raised_by = None
    try:
        await play(level)
    except Expired as expired:
        raised_by = expired.depth
    at = asyncio.get_running_loop().time()
    await asyncio.sleep(200)  # Nothing that is over may still fire.
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    return Ended(round(at), raised_by)


@settings(max_examples=150, deadline=None)
@given(levels())
def test_the_level_that_raises_and_when_are_those_of_the_model(level: Level) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(played(level)) == model(level, 0)


@settings(max_examples=100, deadline=None)
@given(levels(), st.integers(0, 60).map(lambda n: n + 0.5), st.integers(1, 2))
def test_a_cancellation_from_outside_wins_at_any_time_and_leaves_nothing(level: Level, at: float, times: int) -> None:
    """It is told as itself, unless the block had ended before."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended: list[Ended | None] = []

        async def run() -> None:
            try:
                ended.append(await played(level))
            except asyncio.CancelledError:
                ended.append(None)
                assert remaining_s(loop_clock()) is None
                raise

        async with asyncio.TaskGroup() as group:
            task = group.create_task(run())
            for _ in range(times):
                loop.call_at(at, task.cancel)
        expected = model(level, 0)
        # It waits for 200 s once it has ended, and is cancelled there at the latest.
        assert ended == ([None] if at < expected.at + 200 else [expected])

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


class Attempt(NamedTuple):
    """Work and tidying up, in milliseconds, within a limit. It may return where it was cancelled, as if it was done."""

    limit: int
    work: int
    tidy: int
    swallows: bool


class Plan(NamedTuple):
    """A task: when it starts, how long its attempts may take in all, and when somebody else cancels it."""

    start: int
    limit: int
    attempts: list[Attempt]
    cancels: list[int]


def plans() -> st.SearchStrategy[Plan]:
    times = st.integers(0, 90)
    attempts = st.builds(Attempt, st.integers(1, 60), times, st.integers(0, 15), st.booleans())
    cancels = st.lists(times, max_size=2) | times.map(lambda at: [at, at])
    return st.builds(Plan, times, st.integers(1, 90), st.lists(attempts, min_size=1, max_size=3), cancels)


def end_of_slot(at: int) -> int:
    return -(-at // SLOT_NS) * SLOT_NS


class Player:
    """
    Plays a plan, and checks at every step what D1 to D3 say.

    Attributes:
        asked: Cancellations from outside so far.
        swallowed: How many of them the block itself did away with.
    """

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self.plan, self.clock = plan, clock
        self.asked = self.swallowed = 0
        self.over = 0
        self.task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        assert self.task is not None
        self.asked += self.task.cancel()

    async def run(self) -> None:
        await asyncio.sleep(self.plan.start / 1_000)
        loop, self.task = asyncio.get_running_loop(), asyncio.current_task()
        for at in self.plan.cancels:
            loop.call_later(at / 1_000, self.ask)
        self.over = self.clock.now() + self.plan.limit * MS
        try:
            async with within(self.clock, self.plan.limit / 1_000, lambda: Expired(0)):
                for attempt in self.plan.attempts:
                    await self.attempt(attempt)
        except Expired:
            assert self.clock.now() >= self.over
            assert self.asked == self.swallowed  # D2
        except asyncio.CancelledError:
            assert self.asked > 0
        else:
            assert self.asked == self.swallowed
        await self.stay()

    async def attempt(self, attempt: Attempt) -> None:
        began = self.clock.now()
        limit = began + attempt.limit * MS
        ends = end_of_slot(min(limit, self.over))
        try:
            async with within(self.clock, attempt.limit / 1_000, lambda: Expired(1)):
                assert began < self.over  # D1
                try:
                    await self.body(attempt, min(limit, self.over))
                except asyncio.CancelledError:
                    if not attempt.swallows:
                        raise
                    self.swallowed = self.asked
                else:
                    assert self.clock.now() <= ends
        except Expired as expired:
            self.stopped(self.over if expired.depth == 0 else limit, max(began, ends + attempt.tidy * MS))
            if expired.depth == 0:
                raise

    def stopped(self, earliest: int, latest: int) -> None:
        assert self.asked == self.swallowed  # D2
        assert earliest <= self.clock.now() <= latest

    async def body(self, attempt: Attempt, due: int) -> None:
        try:
            try:
                await asyncio.sleep(attempt.work / 1_000)
            finally:
                await asyncio.sleep(attempt.tidy / 1_000)
        except asyncio.CancelledError:
            assert self.asked > self.swallowed or self.clock.now() >= due  # Never early.
            raise

    async def stay(self) -> None:
        """Wait for long: only who asks from outside cancels a task that left."""
        assert self.task is not None
        asked = self.asked
        for _ in range(3):
            assert self.task.cancelling() == self.asked  # D3
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
                return
            assert self.asked > asked
            asked = self.asked


@settings(max_examples=200, deadline=None)
@given(st.lists(plans(), min_size=1, max_size=12))
def test_many_tasks_are_stopped_in_time_for_the_right_reason_and_never_once_they_left(given_plans: list[Plan]) -> None:
    async def main() -> None:
        loop, clock = asyncio.get_running_loop(), loop_clock()
        async with asyncio.TaskGroup() as group:
            for plan in given_plans:
                group.create_task(Player(plan, clock).run())
        wheel = Wheel.of(loop, clock)
        assert not wheel._slots
        assert not wheel._ahead
        timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]  # asyncio's heap
        assert not [timer for timer in timers if not timer.cancelled()]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
