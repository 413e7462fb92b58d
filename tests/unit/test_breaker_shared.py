"""Probes of a circuit that several processes have in common: two pipelines are two processes here."""

import asyncio

import pytest

from holdfast.errors import CircuitOpen, QueueFull
from holdfast.resilience import Breaker, Bulkhead, Call, Pipeline, ShareUnavailable, State, per
from holdfast.testing import loop_clock

CALL = Call(target="claude")


class Places:
    """What a coord does, in one process; it answers after ``latency_s``, or not while it is ``away``."""

    def __init__(self) -> None:
        self.taken: dict[str, str] = {}
        self.asked = 0
        self.latency_s = 0.01
        self.away = False

    async def probe(self, name: str, slots: int, lease_ns: int) -> str | None:
        assert lease_ns > 0
        self.asked += 1
        place = None
        if not self.away and sum(held == name for held in self.taken.values()) < slots:
            place = f"place {self.asked}"
            self.taken[place] = name
        await asyncio.sleep(self.latency_s)  # The answer is on its way, whoever still waits for it.
        if self.away:
            raise ShareUnavailable
        return place

    def release(self, name: str, probe: str) -> None:
        assert self.taken.pop(probe) == name


class Process:
    """A pipeline with a breaker that opens at the first failure and closes after two probes, and a full bulkhead."""

    def __init__(self, places: Places, room: int = 100) -> None:
        breaker = Breaker(key=per.target, consecutive=1, open_s=10, jitter=0, need=2, lease_s=60, share=places)
        self.pipeline = Pipeline("model", breaker, Bulkhead(room, queue=0), clock=loop_clock())

    async def fail(self) -> None:
        with pytest.raises(ConnectionError):
            await self.pipeline.on(CALL)(_fails)

    async def ask(self, seconds: float = 1) -> str:
        return await self.pipeline.on(CALL)(_answers, seconds)

    def state(self) -> State:
        assert self.pipeline.breaker is not None
        [view] = self.pipeline.breaker.views(loop_clock().now())
        return view.state


async def _fails() -> str:
    raise ConnectionError


async def _answers(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "hello"


async def broken() -> tuple[Places, Process, Process]:
    """Two processes whose breaks are over."""
    places = Places()
    one, other = Process(places), Process(places)
    await one.fail()
    await other.fail()
    await asyncio.sleep(10)
    return places, one, other


async def test_a_target_is_tried_by_one_of_all_processes_at_a_time() -> None:
    places, one, other = await broken()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(one.ask())
        await asyncio.sleep(0.1)
        with pytest.raises(CircuitOpen) as refused:
            await other.ask()
        assert refused.value.reason == "probing"
    assert first.result() == "hello"
    assert places.taken == {}
    assert await other.ask() == "hello"


async def test_a_place_is_given_back_and_the_circuit_closes_after_its_probes() -> None:
    places, one, _ = await broken()
    assert await one.ask() == "hello"
    assert one.state() is State.HALF_OPEN
    assert await one.ask() == "hello"
    assert one.state() is State.CLOSED
    assert (places.taken, places.asked) == ({}, 2)
    assert await one.ask() == "hello"
    assert places.asked == 2, "a closed circuit asks nobody"


async def test_an_open_circuit_asks_nobody() -> None:
    places = Places()
    one = Process(places)
    await one.fail()
    with pytest.raises(CircuitOpen):
        await one.ask()
    assert places.asked == 0


async def test_while_the_places_cannot_be_asked_for_each_process_tries_by_itself() -> None:
    places, one, other = await broken()
    places.away = True
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(process.ask()) for process in (one, other)]
    assert [task.result() for task in tasks] == ["hello", "hello"]


async def test_a_guard_further_in_that_refuses_gives_the_place_back() -> None:
    places = Places()
    one = Process(places, room=1)
    blocked = asyncio.Event()

    async def blocks() -> str:
        await blocked.wait()
        return "hello"

    async with asyncio.TaskGroup() as group:
        group.create_task(one.pipeline.on(Call(target="another"))(blocks))
        await asyncio.sleep(0)
        assert one.pipeline.breaker is not None
        one.pipeline.breaker.follow("model:claude", "open", 1_000_000_000)
        await asyncio.sleep(1)
        with pytest.raises(QueueFull):
            await one.ask()
        assert places.taken == {}
        blocked.set()
    assert await one.ask() == "hello"


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.01, 0.5, 1.0])
async def test_a_cancellation_anywhere_holds_no_place_that_was_given(after_s: float, *, twice: bool) -> None:
    places, one, other = await broken()
    task = asyncio.get_running_loop().create_task(one.ask())
    await asyncio.sleep(after_s)
    task.cancel()
    if twice:
        task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(1)
    assert places.taken == {}
    assert await other.ask() == "hello"
