"""Whatever comes, the important are not sent away before the others; nothing is lost; and overload is survived."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import NS, Clock
from holdfast.resilience.shed import Permit, Priority, Shedder, ShedRefused
from holdfast.testing import VirtualLoop, loop_clock

INTERACTIVE, AGENT_STEP, BATCH = Priority


@dataclass(eq=False)
class Caller:
    """Somebody who came, driven by hand as a task would be, but to the step."""

    priority: Priority
    coming: Coroutine[Any, Any, Permit]
    due: int | None
    future: asyncio.Future[ShedRefused | None]

    @property
    def state(self) -> str:
        if not self.future.done():
            return "waiting"
        if self.future.cancelled():
            return "cancelled"
        refused = self.future.result()
        return "granted" if refused is None else refused.why


class World:
    """A shedder and all who came, checked after each thing that happens."""

    def __init__(self, limit: int, seed: int) -> None:
        self.clock = loop_clock(seed)
        self.real = Shedder(limit, self.clock, self.clock.random.random, target_s=0.1, interval_s=0.1)
        self.callers: list[Caller] = []  # who has not heard yet what became of it, in order of arrival
        self.inside: list[Permit] = []
        self.refused: Counter[Priority] = Counter()
        self.sent_away = BATCH  # the highest class that was sent away in this tick
        self.most = 3 * limit

    def those(self, state: str) -> list[Caller]:
        return [caller for caller in self.callers if caller.state == state]

    def do(self, name: str, pick: int) -> None:
        """Do one thing, and check what it did."""
        before = {caller: caller.state for caller in self.callers}
        in_use = self.real.stats.in_use
        admitted, refused = self._do(name, pick)
        changed = [caller for caller in self.callers if before.get(caller, "waiting") != caller.state]
        admitted += [caller.priority for caller in changed if caller.state == "granted"]
        refused += [caller.priority for caller in changed if caller.state == "shed"]
        self._check_classes(admitted, refused)
        self._check_order(name, changed)
        self._check_counts(in_use)

    def _do(self, name: str, pick: int) -> tuple[list[Priority], list[Priority]]:
        if name == "arrive":
            return self._arrive(Priority(pick % 3), (None, 0.05, 0.3, 1)[pick // 3 % 4])
        if name == "try":
            return self._try(Priority(pick % 3))
        if name == "leave" and self.inside:
            permit = self.inside.pop(pick % len(self.inside))
            for _ in range(2):
                self.real.leave(permit)
        if name == "resize":
            self.real.resize(1 + pick % 5)
        if name == "cancel" and (some := self.those("waiting") + self.those("granted")):
            self._cancel(some[pick % len(some)])
        return [], []

    def _arrive(self, priority: Priority, left_s: float | None) -> tuple[list[Priority], list[Priority]]:
        coming = self.real.enter(priority, left_s)
        try:
            future = coming.send(None)
        except StopIteration as entered:
            self.inside.append(entered.value)
            return [priority], []
        except ShedRefused:
            self.refused[priority] += 1
            return [], [priority]
        due = None if left_s is None else self.clock.now() + round(left_s * NS)
        self.callers.append(Caller(priority, coming, due, future))
        return [priority], []

    def _try(self, priority: Priority) -> tuple[list[Priority], list[Priority]]:
        try:
            self.inside.append(self.real.enter_nowait(priority))
        except ShedRefused as refused:
            self.refused[priority] += 1
            return [], [priority] if refused.why == "load" else []
        return [priority], []

    def _cancel(self, caller: Caller) -> None:
        """As a task does: what it waits for is cancelled, and if that is done already, it hears of it next."""
        if not caller.future.cancel():
            self.callers.remove(caller)
            with pytest.raises(asyncio.CancelledError):
                caller.coming.throw(asyncio.CancelledError())

    def _check_classes(self, admitted: list[Priority], refused: list[Priority]) -> None:
        """L1."""
        waiting = [caller.priority for caller in self.those("waiting")]
        self.sent_away = min([self.sent_away, *refused])
        for priority in refused:
            assert all(other <= priority for other in waiting), "sent away while a lower class waits"
        assert all(priority <= self.sent_away for priority in admitted), "admitted after a higher class was sent away"

    def _check_order(self, name: str, changed: list[Caller]) -> None:
        granted = [caller for caller in changed if caller.state == "granted"]
        if name == "leave" and granted:
            [caller] = granted
            others = [other for other in self.those("waiting") if other.priority <= caller.priority]
            assert all(other.priority == caller.priority for other in others)
            older = [other for other in others if self.callers.index(other) < self.callers.index(caller)]
            assert older == (others if self.real.stats.overloaded else [])
        now = self.clock.now()
        assert all(caller.due is None or now < caller.due for caller in granted)

    def _check_counts(self, in_use: int) -> None:
        stats = self.real.stats
        waiting = len(self.those("waiting"))
        self.most = max(3 * stats.limit, min(self.most, stats.in_use + stats.queued))
        assert stats.in_use == len(self.inside) + len(self.those("granted"))
        assert stats.queued == waiting
        assert stats.in_use <= max(stats.limit, in_use)
        assert stats.in_use + stats.queued <= self.most
        assert not waiting or stats.in_use >= stats.limit, "a free permit, and somebody waits"
        assert self.real.quiescent == (not stats.in_use and not waiting)

    async def turn(self, seconds: float) -> None:
        """End the tick, let time pass, and let everybody hear what became of it."""
        await asyncio.sleep(seconds)
        self.sent_away = BATCH
        now = self.clock.now()
        for caller in list(self.callers):
            if caller.state != "waiting":
                self.callers.remove(caller)
                self._hear(caller)
            else:
                assert caller.due is None or now < caller.due, "waits though it is too late"
        self._check_counts(self.real.stats.in_use)

    def _hear(self, caller: Caller) -> None:
        try:
            caller.coming.send(None)
        except StopIteration as entered:
            self.inside.append(entered.value)
        except ShedRefused:
            self.refused[caller.priority] += 1
        except asyncio.CancelledError:
            pass

    async def drain(self) -> None:
        """Serve everybody who is left."""
        for _ in range(1000):
            if self.real.quiescent:
                break
            for permit in self.inside:
                self.real.leave(permit)
            self.inside.clear()
            await self.turn(0.01)
        assert self.callers == []
        assert self.real.quiescent
        assert self.real.stats.refused == tuple(self.refused[priority] for priority in Priority)


events = st.lists(
    st.tuples(
        st.sampled_from(["arrive"] * 8 + ["leave"] * 4 + ["turn"] * 3 + ["cancel", "cancel", "try", "resize"]),
        st.integers(0, 59),
    ),
    min_size=60,
    max_size=150,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.integers(0, 9), events)
def test_the_important_are_never_sent_away_before_the_others_and_nothing_is_lost(
    limit: int, seed: int, told: list[tuple[str, int]]
) -> None:
    async def main() -> None:
        world = World(limit, seed)
        for name, pick in told:
            if name == "turn":
                await world.turn((0, 0.01, 0.06, 0.2)[pick % 4])
            else:
                world.do(name, pick)
        await world.turn(0)
        await world.drain()

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
    """Nine visitors at two places, of all classes and deadlines; ``strike`` is called at each suspension."""

    def __init__(self, strike: Callable[[asyncio.Task[None]], None]) -> None:
        self.strike = strike
        self.inside = 0
        self.ends: Counter[str] = Counter()

    async def pause(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(self.strike, task)
        await asyncio.sleep(seconds)

    async def visit(self, number: int, priority: Priority, left_s: float | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        await self.pause(number % 3)
        loop.call_soon(self.strike, task)
        for after in (1, 2, 3, 5):  # in the queue, and in the very tick of a grant or a refusal, before and after it
            loop.call_later(after, self.strike, task)
        try:
            permit = await self.shedder.enter(priority, left_s)
        except ShedRefused as refused:
            self.ends[refused.why] += 1
            return
        self.inside += 1
        try:
            await self.pause(2)
        finally:
            self.inside -= 1
            self.shedder.leave(permit)
        self.ends["served"] += 1

    async def main(self) -> Counter[str]:
        clock = loop_clock()
        self.shedder = Shedder(2, clock, clock.random.random)
        async with asyncio.TaskGroup() as group:
            for number, left_s in enumerate((None, 1, 2, 3, None, 4, None, 0.5, 6)):
                group.create_task(self.visit(number, Priority(2 - number // 3), left_s))
            for _ in range(60):
                stats = self.shedder.stats
                assert stats.queued == 0 or stats.in_use >= stats.limit
                assert self.inside <= stats.in_use <= stats.limit
                await asyncio.sleep(0.25)
        assert self.inside == 0
        assert self.shedder.quiescent
        return self.ends


def play(nth: int, times: int, seed: int) -> tuple[int, Counter[str]]:
    """Play it, cancelling at the ``nth`` strike; return how many strikes there were, and how the visits ended."""
    struck = 0

    def strike(task: asyncio.Task[None]) -> None:
        nonlocal struck
        struck += 1
        if struck == nth:
            for _ in range(times):
                task.cancel()

    with asyncio.Runner(loop_factory=lambda: Shuffled(seed)) as runner:
        ends = runner.run(Scenario(strike).main())
    return struck, ends


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cancellation_anywhere_loses_nothing(times: int, seed: int) -> None:
    strikes, ends = play(0, times, seed)
    assert strikes > 50
    assert ends.total() == 9
    assert {"served", "deadline"} < set(ends)  # and some were refused for the load, at arrival or later
    for nth in range(1, strikes + 1):
        play(nth, times, seed)


# Overload


Leave = Callable[[], None]
Enter = Callable[[Priority, float], Coroutine[Any, Any, Leave]]


@dataclass
class Minute:
    """What a minute came to: who asked, who got in before its deadline, and the waits of all who got in, in seconds."""

    asked: Counter[Priority]
    in_time: Counter[Priority]
    waits: list[float]

    def share(self, priority: Priority) -> float:
        return self.in_time[priority] / self.asked[priority]

    def wait(self, quantile: float) -> float:
        return sorted(self.waits)[int(quantile * (len(self.waits) - 1))]


def with_shedder(clock: Clock) -> Enter:
    shedder = Shedder(10, clock, clock.random.random)

    async def enter(priority: Priority, left_s: float) -> Leave:
        permit = await shedder.enter(priority, left_s)
        return lambda: shedder.leave(permit)

    return enter


def first_come_first_served(_: Clock) -> Enter:
    """Whoever is too late is served all the same: such a queue does not know that nobody is there any more."""
    places = asyncio.Semaphore(10)

    async def enter(_: Priority, __: float) -> Leave:
        await places.acquire()
        return places.release

    return enter


def a_minute(make: Callable[[Clock], Enter], load: float, seed: int) -> Minute:
    """Ten places that serve 50 in a second, asked ``load`` times as much; half of that is batch."""
    minute = Minute(Counter(), Counter(), [])

    async def main() -> None:
        loop, clock = asyncio.get_running_loop(), loop_clock(seed)
        enter = make(clock)

        async def call(priority: Priority, left_s: float) -> None:
            came = loop.time()
            minute.asked[priority] += 1
            with suppress(ShedRefused):
                leave = await enter(priority, left_s)
                minute.waits.append(loop.time() - came)
                minute.in_time[priority] += minute.waits[-1] < left_s
                await asyncio.sleep(clock.random.expovariate(1 / 0.2))
                leave()

        async with asyncio.TaskGroup() as group:
            while loop.time() < 60:
                await asyncio.sleep(clock.random.expovariate(50 * load))
                priority = clock.random.choices(list(Priority), (1, 1, 2))[0]
                group.create_task(call(priority, (2, 5, 30)[priority]))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    return minute


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_twice_the_capacity_the_important_are_served_and_whoever_gets_in_waits_briefly(seed: int) -> None:
    minute = a_minute(with_shedder, 2, seed)
    assert minute.share(INTERACTIVE) > 0.99
    assert minute.share(AGENT_STEP) > 0.7
    assert minute.share(BATCH) < 0.15
    assert minute.in_time.total() > 0.95 * 60 * 50  # no place was idle for want of somebody to serve
    assert minute.wait(0.5) < 0.05
    assert minute.wait(0.99) < 0.6
    assert minute.wait(1) < 2.5

    plain = a_minute(first_come_first_served, 2, seed)
    assert plain.share(INTERACTIVE) < 0.1
    assert plain.share(AGENT_STEP) < 0.15
    assert plain.wait(0.5) > 20


def test_below_the_capacity_nobody_who_matters_is_sent_away() -> None:
    minute = a_minute(with_shedder, 0.7, 1)
    assert minute.share(INTERACTIVE) == minute.share(AGENT_STEP) == 1
    assert minute.share(BATCH) > 0.97
