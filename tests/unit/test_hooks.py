"""What is closed at the end: in reverse order, each in its share of the time, whatever the others do."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from holdfast.errors import Draining
from holdfast.lifecycle import Drain, Failure, Hooks, Phase, ShutdownSpec
from holdfast.testing import loop_clock


class Process:
    """Hooks of a process, and what they did at which second."""

    def __init__(self, deadline_s: float = 30) -> None:
        self.drain = Drain(ShutdownSpec(deadline_s=deadline_s), loop_clock())
        self.hooks = Hooks(self.drain)
        self.did: list[tuple[str, float]] = []
        self.drain.start()

    def add(self, name: str, *after: str, lasts_s: float = 0, error: BaseException | None = None) -> None:
        async def close() -> None:
            await asyncio.sleep(lasts_s)
            if error is not None:
                raise error
            self.did.append((name, now()))

        self.hooks.add(name, close, after=after)

    async def stop(self) -> list[str]:
        """Stop; the names of those that closed, in order."""
        with capture_logs() as self.log:
            await self.drain.stop()
            await self.hooks.close()
        return [name for name, _ in self.did]


def now() -> float:
    return asyncio.get_running_loop().time()


async def stubborn() -> None:
    """Never ends, and cannot be cancelled either, until the test is over."""
    for _ in range(1_000):
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            continue


async def test_they_are_closed_in_reverse_order_and_then_the_process_has_stopped() -> None:
    process = Process()
    for name in ("store", "agents", "turns"):
        process.add(name, lasts_s=1)
    assert await process.stop() == ["turns", "agents", "store"]
    assert [at for _, at in process.did] == [1, 2, 3]
    assert process.drain.phase is Phase.STOPPED
    assert process.hooks.failures == []


async def test_one_can_be_closed_after_others_that_came_before_it() -> None:
    process = Process()
    process.add("store")
    process.add("agents")
    process.add("pool", "agents", "turns", "nobody")
    process.add("turns")
    assert await process.stop() == ["turns", "agents", "pool", "store"]


async def test_those_that_would_wait_for_each_other_are_refused() -> None:
    process = Process()
    process.add("a", "b")
    with pytest.raises(ValueError, match="the hooks a, b would be closed after each other"):
        process.add("b", "a")
    with pytest.raises(ValueError, match="the hooks c would"):
        process.add("c", "c")
    with pytest.raises(ValueError, match="there is a hook a already"):
        process.add("a")
    process.add("b")
    assert await process.stop() == ["b", "a"]


@pytest.mark.parametrize(
    "error", [LookupError("the key"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("odd")]
)
async def test_one_that_raises_stops_nothing_and_is_logged(error: BaseException) -> None:
    process = Process()
    process.add("store")
    process.add("cache", error=error)
    process.add("agents")
    assert await process.stop() == ["agents", "store"]
    failure = Failure("cache", type(error).__name__, str(error))
    assert process.hooks.failures == [failure]
    assert process.log == [{"event": "stop_hook_failed", "log_level": "error", **failure._asdict()}]


async def test_each_has_its_share_of_what_is_left_and_leaves_the_rest_to_the_next() -> None:
    process = Process(deadline_s=30)
    for name in ("last", "hangs", "quick"):
        process.add(name, lasts_s={"last": 10, "hangs": 3_600, "quick": 3}[name])
    assert await process.stop() == ["quick", "last"]
    # 30 s are left for three, 27 s for two: the one that hangs is cancelled after nine tenths of its 13.5 s.
    assert [at for _, at in process.did] == pytest.approx([3, 3 + 0.9 * 13.5 + 10])
    (failure,) = process.hooks.failures
    assert failure == Failure("hangs", "TimeoutError", "it did not end within 13.5 s")


async def test_one_that_will_not_even_be_cancelled_is_left_behind() -> None:
    process = Process(deadline_s=10)
    process.add("store")
    process.hooks.add("stubborn", stubborn)
    assert await process.stop() == ["store"]
    assert now() == pytest.approx(5)
    assert [failure.hook for failure in process.hooks.failures] == ["stubborn"]
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        assert task.get_name() == "close stubborn"
        for _ in range(1_001):
            task.cancel()
            await asyncio.sleep(0)


async def test_one_that_is_cancelled_has_a_moment_to_tidy_up() -> None:
    process = Process(deadline_s=10)
    tidied: list[float] = []

    async def close() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            await asyncio.sleep(0.5)
            tidied.append(now())

    process.hooks.add("slow", close)
    await process.stop()
    assert tidied == [pytest.approx(9.5)]


async def test_even_without_time_each_is_called() -> None:
    process = Process(deadline_s=1)
    called: list[str] = []

    async def close() -> None:
        called.append("store")

    process.hooks.add("store", close)
    await process.drain.stop()
    await asyncio.sleep(60)
    await process.hooks.close()
    assert called == ["store"]


async def test_nothing_is_added_while_the_process_stops_and_nobody_waits_for_that() -> None:
    process = Process()
    refused: list[str] = []

    async def close() -> None:
        for name in ("late", "first"):
            with pytest.raises(Draining, match=f"the hook {name} was not added, and will not be called") as error:
                process.add(name)
            refused.append(error.value.code)

    process.hooks.add("first", close)
    assert await process.stop() == []
    assert refused == ["draining"] * 2
    assert process.hooks.failures == []


async def test_closing_twice_waits_for_the_first_and_calls_nothing_twice() -> None:
    process = Process()
    process.add("store", lasts_s=4)
    await process.drain.stop()
    ended: list[float] = []

    async def close() -> None:
        await process.hooks.close()
        ended.append(now())

    async with asyncio.TaskGroup() as group:
        group.create_task(close())
        group.create_task(close())
    await process.hooks.close()
    assert process.did == [("store", 4)]
    assert ended == [4, 4]


async def test_a_close_that_was_cancelled_can_be_gone_on_with() -> None:
    process = Process()
    process.add("store")
    process.add("agents", lasts_s=10)
    await process.drain.stop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await process.hooks.close()
    assert process.drain.phase is Phase.CLOSING
    await process.hooks.close()
    assert process.did == [("store", 2)]


# Context managers


async def test_a_manager_is_entered_at_once_and_left_at_the_end_in_one_task() -> None:
    """Task groups, and cancel scopes of other libraries, ask for that."""
    process = Process()
    tasks: list[object] = []

    @asynccontextmanager
    async def pool() -> AsyncIterator[str]:
        tasks.append(asyncio.current_task())
        yield "connections"
        tasks.append(asyncio.current_task())

    assert await process.hooks.open("pool", pool()) == "connections"
    group = await process.hooks.open("group", asyncio.TaskGroup())
    work = group.create_task(asyncio.sleep(3, "done"))
    assert len(tasks) == 1
    await process.stop()
    assert (now(), work.result()) == (3, "done")
    assert tasks[0] is tasks[1]
    assert process.hooks.failures == []


async def test_what_entering_raises_is_raised_and_nothing_is_left() -> None:
    process = Process()
    left: list[str] = []

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        try:
            await asyncio.sleep(1)
            raise LookupError("no such host")
            yield
        finally:
            left.append("tidied")

    with pytest.raises(LookupError, match="no such host"):
        await process.hooks.open("pool", broken())
    assert left == ["tidied"]
    process.add("pool")
    assert await process.stop() == ["pool"]


async def test_entering_can_be_cancelled_and_what_was_begun_is_undone_first() -> None:
    process = Process()
    undone: list[float] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            await asyncio.sleep(60)
            yield
        finally:
            await asyncio.sleep(1)
            undone.append(now())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await process.hooks.open("pool", slow())
    assert undone == [6]
    assert await process.stop() == []


async def test_a_manager_that_raises_or_hangs_at_the_end_stops_nothing() -> None:
    process = Process(deadline_s=10)

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise LookupError("lost")

    @asynccontextmanager
    async def hangs() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(sys.maxsize)

    process.add("store")
    await process.hooks.open("broken", broken())
    await process.hooks.open("hangs", hangs())
    assert await process.stop() == ["store"]
    assert [(failure.hook, failure.error) for failure in process.hooks.failures] == [
        ("hangs", "TimeoutError"),
        ("broken", "LookupError"),
    ]
