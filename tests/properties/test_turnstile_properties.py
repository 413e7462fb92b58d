"""However visitors come, stay and are cancelled, one is inside at a time, in order, and nothing is left behind."""

import asyncio
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import SessionBusy
from holdfast.resilience import Turnstile
from holdfast.testing import VirtualLoop


class Visit(NamedTuple):
    """Comes at ``at`` after ``steps`` turns of the loop, waits and stays; is cancelled ``times`` times."""

    at: int
    steps: int
    wait_s: int
    stay_s: int
    fails: bool
    cancel_at: int | None
    cancel_steps: int
    times: int


small = st.integers(0, 4)
never_or_at = st.none() | st.integers(0, 12)
visits = st.lists(
    st.builds(Visit, small, small, small, small, st.booleans(), never_or_at, small, st.integers(1, 2)),
    min_size=1,
    max_size=8,
)


class Story:
    def __init__(self) -> None:
        self.places = Turnstile()
        self.inside: set[int] = set()
        self.arrived: list[int] = []
        self.entered: list[int] = []
        self.left_at = -1.0

    async def play(self, number: int, visit: Visit) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(visit.at)
        for _ in range(visit.steps):
            await asyncio.sleep(0)
        self.arrived.append(number)
        came = loop.time()
        try:
            async with self.places.hold("key", visit.wait_s, SessionBusy):
                assert loop.time() - came <= visit.wait_s
                assert not self.inside, f"{number} came in while {self.inside} was there"
                self.inside.add(number)
                self.entered.append(number)
                try:
                    await asyncio.sleep(visit.stay_s)
                    if visit.fails:
                        raise ZeroDivisionError
                finally:
                    self.inside.remove(number)
                    self.left_at = loop.time()
        except SessionBusy:
            assert loop.time() - came == visit.wait_s
            assert self.inside or self.left_at == loop.time(), f"{number} was refused, and nobody was there"
        except ZeroDivisionError:
            pass

    async def stop(self, task: asyncio.Task[None], visit: Visit) -> None:
        if visit.cancel_at is None:
            return
        await asyncio.sleep(visit.cancel_at)
        for _ in range(visit.cancel_steps):
            await asyncio.sleep(0)
        for _ in range(visit.times):
            task.cancel()
            await asyncio.sleep(0)


@settings(max_examples=300, deadline=None)
@given(visits)
def test_one_at_a_time_in_order_and_nothing_left(schedule: list[Visit]) -> None:
    async def main() -> None:
        story = Story()
        async with asyncio.TaskGroup() as group:
            for number, visit in enumerate(schedule):
                task = group.create_task(story.play(number, visit))
                group.create_task(story.stop(task, visit))
        assert story.entered == [number for number in story.arrived if number in story.entered]
        assert len(story.places) == 0
        async with story.places.hold("key", 0, SessionBusy):
            pass

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
