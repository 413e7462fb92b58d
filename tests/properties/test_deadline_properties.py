"""Random nestings of deadlines agree with a model of four lines."""

import asyncio
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import TimedOut
from holdfast.resilience import remaining_s, within
from holdfast.testing import VirtualLoop, loop_clock


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
