"""The bulkhead does what its specification does, and no cancellation anywhere loses a permit."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.resilience.compartment import BulkheadRefused, Compartment, Permit
from holdfast.testing import VirtualLoop

if TYPE_CHECKING:
    from tests.properties import compartment_model as model
else:
    import compartment_model as model  # pytest puts a test's folder on the path, and mypy the project's

events = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "arrive", "leave", "leave", "cancel", "double", "turn", "resize"]),
        st.integers(0, 9),
    ),
    max_size=60,
)


class Twin:
    """A real bulkhead and its model, told the same events. A task is let run only where the model resumes it."""

    def __init__(self, limit: int, max_queue: int) -> None:
        self.real = Compartment(limit, max_queue)
        self.model = model.State(limit, max_queue)
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.permits: dict[int, Permit] = {}
        self.entered: list[int] = []
        self.refused = 0

    async def visit(self, who: int) -> None:
        try:
            self.permits[who] = await self.real.enter(None)
            self.entered.append(who)
        except BulkheadRefused:
            self.refused += 1

    async def arrive(self, group: asyncio.TaskGroup) -> None:
        # A task's first step runs with everybody else's next one: let those pass in both worlds first.
        await self.turn()
        who, refused = self.model.next_id, self.refused
        why, self.model = model.arrive(self.model)
        self.tasks[who] = group.create_task(self.visit(who))
        await asyncio.sleep(0)
        assert (who in self.permits) == (why == "admit")
        assert (self.refused > refused) == (why == "full")

    async def turn(self) -> None:
        await asyncio.sleep(0)
        for who in self.model.granted:
            self.model = model.resume(self.model, who)

    def cancel(self, pick: int, times: int) -> None:
        inside = [*self.model.waiting, *self.model.granted]
        if not inside:
            return
        who = inside[pick % len(inside)]
        for _ in range(times):
            self.tasks[who].cancel()
        if who in self.model.waiting:
            self.model = model.stop_waiting(self.model, who)

    async def step(self, name: str, pick: int, group: asyncio.TaskGroup) -> None:
        if name == "arrive":
            await self.arrive(group)
        elif name in ("cancel", "double"):
            granted = self.model.granted
            self.cancel(pick, 2 if name == "double" else 1)
            stopped = [who for who in granted if self.tasks[who].cancelling()]
            if stopped:
                # Its task hears of it with the next turn, as the others that were granted resume.
                await asyncio.sleep(0)
                for who in granted:
                    self.model = (model.stop_granted if who in stopped else model.resume)(self.model, who)
        elif name == "turn":
            await self.turn()
        elif name == "resize":
            self.model = model.resize(self.model, 1 + pick % 4)
            self.real.resize(1 + pick % 4)
        elif self.model.running:
            who = self.model.running[pick % len(self.model.running)]
            self.model = model.leave(self.model, who)
            for _ in range(2):
                self.real.leave(self.permits[who])

    def agree(self) -> None:
        model.check_state(self.model)
        stats = self.real.stats
        assert (stats.in_use, stats.queued, stats.limit) == (
            self.model.in_use,
            len(self.model.waiting),
            self.model.limit,
        )
        assert stats.refused == self.refused
        assert set(self.model.running) <= set(self.permits)
        assert self.entered == sorted(self.entered)
        assert self.real.quiescent == (not (self.model.in_use or self.model.waiting))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.integers(0, 4), events)
def test_it_does_what_the_specification_does(limit: int, max_queue: int, told: list[tuple[str, int]]) -> None:
    async def main() -> None:
        twin = Twin(limit, max_queue)
        async with asyncio.TaskGroup() as group:
            for name, pick in told:
                await twin.step(name, pick, group)
                twin.agree()
            for task in twin.tasks.values():
                task.cancel()
        for permit in twin.permits.values():
            twin.real.leave(permit)
        assert twin.real.quiescent

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


# Cancelled everywhere, and in any order


class Shuffled(VirtualLoop):
    """Runs what is ready in another order at each step."""

    def __init__(self, seed: int) -> None:
        self._order = random.Random(seed)
        super().__init__()

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]  # asyncio's own, which its stubs leave out
        self._order.shuffle(ready)
        super()._run_once()  # type: ignore[misc]  # asyncio's own, which its stubs leave out


class Scenario:
    """Seven visitors at two places for three, timeouts, a resize; ``strike`` is called at each suspension."""

    def __init__(self, strike: Callable[[asyncio.Task[None]], None]) -> None:
        self.bulkhead = Compartment(2, 4)
        self.strike = strike
        self.inside = 0

    async def pause(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(self.strike, task)
        await asyncio.sleep(seconds)

    async def visit(self, number: int, max_wait_s: float | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        await self.pause(number % 3)
        loop.call_soon(self.strike, task)
        for after in (1, 2, 3, 5):  # in the queue, and in the very tick of a grant, before and after it
            loop.call_later(after, self.strike, task)
        try:
            permit = await self.bulkhead.enter(max_wait_s)
        except BulkheadRefused:
            return
        self.inside += 1
        try:
            await self.pause(2)
        finally:
            self.inside -= 1
            self.bulkhead.leave(permit)

    async def main(self) -> None:
        tasks = []
        async with asyncio.TaskGroup() as group:
            for number, wait in enumerate((None, 1, 2, 3, None, 4, None)):
                tasks.append(group.create_task(self.visit(number, wait)))
            for _ in range(60):
                stats = self.bulkhead.stats
                assert stats.queued == 0 or stats.in_use >= stats.limit  # J3
                assert stats.queued <= stats.max_queue  # J2
                assert self.inside <= stats.in_use  # J1
                await asyncio.sleep(0.25)
        assert self.inside == 0
        assert self.bulkhead.quiescent  # J4


def play(nth: int, times: int, seed: int) -> int:
    """Play the scenario, cancelling at the ``nth`` strike; return how many strikes there were."""
    struck = 0

    def strike(task: asyncio.Task[None]) -> None:
        nonlocal struck
        struck += 1
        if struck == nth:
            for _ in range(times):
                task.cancel()

    with asyncio.Runner(loop_factory=lambda: Shuffled(seed)) as runner:
        runner.run(Scenario(strike).main())
    return struck


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cancellation_anywhere_loses_nothing(times: int, seed: int) -> None:
    strikes = play(0, times, seed)
    assert strikes > 40
    for nth in range(1, strikes + 1):
        play(nth, times, seed)
