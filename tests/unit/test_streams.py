"""Calls that answer little by little: until the first part an attempt like any other, and then never made again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.errors import AttemptTimedOut, DeadlineExceeded, QueueFull, RateLimited, StreamBroken
from holdfast.resilience import (
    Breaker,
    Bulkhead,
    Deadline,
    FailureClass,
    Limit,
    Notice,
    Pipeline,
    Quota,
    Rate,
    Retry,
    State,
    Timeout,
    per,
    within,
)
from holdfast.resilience.order import Policy
from holdfast.testing import loop_clock

if TYPE_CHECKING:
    from tests.unit.pipelines import AGAIN, SERVER, Failed, failure_of, free, idle, made, now, state_of
else:  # pytest puts a test's folder on the path, and mypy the project's
    from pipelines import AGAIN, SERVER, Failed, failure_of, free, idle, made, now, state_of

Does = str | float | BaseException


class Parts:
    """An async iterator: gives texts, waits for numbers of seconds, and raises errors. It is false, as it is empty."""

    def __init__(self, source: "Source", does: tuple[Does, ...]) -> None:
        self.source = source
        self.does = list(does)

    def __len__(self) -> int:
        return 0

    def __aiter__(self) -> "Parts":
        return self

    async def __anext__(self) -> str:
        while self.does:
            doing = self.does.pop(0)
            if isinstance(doing, str):
                return doing
            if isinstance(doing, BaseException):
                raise doing
            await asyncio.sleep(doing)
        raise StopAsyncIteration


class Closed(Parts):
    async def aclose(self) -> None:
        await self.source.close(None)


class Entered:
    """A context manager around parts; ``await`` it or enter it at once."""

    def __init__(self, source: "Source", parts: Parts) -> None:
        self.source, self.parts = source, parts

    def __await__(self) -> Generator[Any, None, "Entered"]:
        yield from asyncio.sleep(0).__await__()
        return self

    async def __aenter__(self) -> Parts:
        self.source.opened += 1
        return self.parts

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.source.close(kind)


class Context:
    """The same, to be entered and not awaited."""

    def __init__(self, source: "Source", parts: Parts) -> None:
        self.inner = Entered(source, parts)

    async def __aenter__(self) -> Parts:
        return await self.inner.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.inner.__aexit__(kind)


class Source:
    """Opens a stream in one of the ways there are, each time with the next script, and counts."""

    def __init__(self, way: str, *scripts: tuple[Does, ...]) -> None:
        self.way = way
        self.scripts = list(scripts)
        self.opened = self.closed = 0
        self.told: list[type[BaseException] | None] = []
        self.at: list[float] = []
        self.says: Exception | None = None

    def __call__(self) -> Any:
        self.at.append(now())
        does = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return getattr(self, self.way)(does)

    async def close(self, kind: type[BaseException] | None) -> None:
        await asyncio.sleep(0)
        self.closed += 1
        self.told.append(kind)
        if self.says is not None:
            raise self.says

    async def generator(self, does: tuple[Does, ...]) -> AsyncIterator[str]:
        self.opened += 1
        try:
            async for part in Parts(self, does):
                yield part
        finally:
            await self.close(None)

    def iterator(self, does: tuple[Does, ...]) -> Parts:
        self.opened += 1
        return Closed(self, does)

    async def awaited(self, does: tuple[Does, ...]) -> Parts:
        await asyncio.sleep(0)
        return self.iterator(does)

    def context(self, does: tuple[Does, ...]) -> Context:
        return Context(self, Closed(self, does))

    async def awaited_context(self, does: tuple[Does, ...]) -> Context:
        return Context(self, Parts(self, does))

    def either(self, does: tuple[Does, ...]) -> Entered:
        return Entered(self, Parts(self, does))


WAYS = ["generator", "iterator", "awaited", "context", "awaited_context", "either"]
every_way = pytest.mark.parametrize("way", WAYS)


async def read(pipeline: Pipeline, source: Callable[[], Any]) -> list[str]:
    return [part async for part in pipeline.on(AGAIN).stream(source)]


def guarded(*outer: Policy) -> Pipeline:
    return made(*outer, Breaker(consecutive=1), Rate(Limit("calls", per.minute(9))), Bulkhead(1))


# However it is opened


@every_way
async def test_all_parts_come_and_it_is_closed_once(way: str) -> None:
    pipeline, source = guarded(), Source(way, ("a", 1.0, "b", "", "c"))
    assert await read(pipeline, source) == ["a", "b", "", "c"]
    assert (source.opened, source.closed, source.told) == (1, 1, [None])
    assert idle(pipeline)
    assert pipeline.breaker is not None
    assert [(view.calls, view.failed) for view in pipeline.breaker.views(0)] == [(1, 0)]


@every_way
async def test_an_empty_stream_is_a_good_one(way: str) -> None:
    pipeline, source = guarded(), Source(way, ())
    assert await read(pipeline, source) == []
    assert (source.opened, source.closed) == (1, 1)
    assert pipeline.breaker is not None
    assert [(view.calls, view.failed) for view in pipeline.breaker.views(0)] == [(1, 0)]
    assert idle(pipeline)


@every_way
async def test_a_failure_before_the_first_part_is_an_ordinary_attempts(way: str) -> None:
    pipeline = made(Retry(attempts=3), Breaker(), Rate(Limit("calls", per.minute(9))), Bulkhead(1))
    source = Source(way, (1.0, Failed(SERVER)), (Failed(SERVER),), ("a", "b"))
    assert await read(pipeline, source) == ["a", "b"]
    assert (source.opened, source.closed) == (3, 3)
    assert free(pipeline) == [6]
    assert idle(pipeline)
    error = Failed(SERVER)
    source = Source(way, (Failed(SERVER),), (Failed(SERVER),), (error,))
    assert await failure_of(read(pipeline, source)) is error
    assert [note.split(" after")[0] for note in error.__notes__] == [f"attempt {n} of 3: server" for n in (1, 2, 3)]
    assert (source.opened, source.closed) == (3, 3)
    assert idle(pipeline)


@every_way
async def test_after_its_first_part_it_is_broken_and_not_made_again(way: str) -> None:
    pipeline, error = guarded(Retry(attempts=3)), Failed(SERVER)
    source = Source(way, ("a", "b", error))
    stream = pipeline.on(AGAIN).stream(source)
    assert [await anext(stream), await anext(stream)] == ["a", "b"]
    broken = await failure_of(anext(stream))
    assert isinstance(broken, StreamBroken)
    assert broken.__cause__ is error
    assert str(broken) == "a stream of tools broke after 2 parts"
    assert (source.opened, source.closed) == (1, 1)
    assert state_of(pipeline) is State.OPEN
    assert idle(pipeline)


@every_way
async def test_a_reader_who_leaves_early_frees_everything_and_says_nothing(way: str) -> None:
    pipeline, source = guarded(), Source(way, ("a", "b", "c"))
    async with aclosing(pipeline.on(AGAIN).stream(source)) as parts:
        async for part in parts:
            assert not idle(pipeline)
            if part == "b":
                break
    assert (source.opened, source.closed) == (1, 1)
    assert source.told == [GeneratorExit if "context" in way or way == "either" else None]
    said_nothing(pipeline)
    assert free(pipeline) == [8], "it was sent all the same"


def said_nothing(pipeline: Pipeline) -> None:
    assert pipeline.breaker is not None
    assert [(view.state, view.calls) for view in pipeline.breaker.views(0)] == [(State.CLOSED, 0)]
    assert idle(pipeline)


@every_way
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("does", [(60.0,), ("a", 60.0)], ids=["before the first part", "after it"])
async def test_a_reader_who_is_cancelled_frees_everything_and_says_nothing(
    way: str, times: int, does: tuple[Does, ...]
) -> None:
    pipeline, source = guarded(Retry()), Source(way, does)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read(pipeline, source))
        await asyncio.sleep(1)
        for _ in range(times):
            reader.cancel()
    assert reader.cancelled()
    assert (source.opened, source.closed) == (1, 1)
    said_nothing(pipeline)


async def test_a_reader_who_is_cancelled_in_a_later_attempt_is_not_told_of_as_giving_up() -> None:
    seen: list[Notice] = []
    pipeline = made(Retry(), sink=seen.append)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read(pipeline, Source("context", (Failed(SERVER),), (60.0,))))
        await asyncio.sleep(1)
        reader.cancel()
    assert reader.cancelled()
    assert [one.name for one in seen] == ["retry.scheduled"]


async def test_a_readers_own_error_is_not_the_streams() -> None:
    pipeline, source = guarded(), Source("context", ("a", "b"))

    async def reader() -> None:
        async with aclosing(pipeline.on(AGAIN).stream(source)) as parts:
            async for part in parts:
                raise KeyError(part)

    assert isinstance(await failure_of(reader()), KeyError)
    assert source.closed == 1
    said_nothing(pipeline)


@every_way
@pytest.mark.parametrize("does", [(Failed(SERVER),), ("a", Failed(SERVER))], ids=["before", "after"])
async def test_what_a_source_says_to_being_closed_after_a_failure_is_not_heard(
    way: str, does: tuple[Does, ...]
) -> None:
    pipeline, source = guarded(), Source(way, does)
    source.says = OSError("already gone")
    error = await failure_of(read(pipeline, source))
    # A generator that raises from its `finally` has replaced its own error.
    if way != "generator":
        assert does[-1] in (error, error.__cause__)
    assert source.closed == 1
    assert idle(pipeline)


async def test_what_a_source_says_at_its_end_is_heard() -> None:
    pipeline, source = guarded(), Source("context", ("a",))
    source.says = OSError("not all of it was sent")
    assert await failure_of(read(pipeline, source)) is source.says
    assert idle(pipeline)


async def test_a_context_is_left_where_what_it_gives_is_no_stream() -> None:
    class Bare(Context):
        async def __aenter__(self) -> Any:
            await super().__aenter__()
            return 7

    pipeline = guarded()
    source = Source("context", ())
    assert isinstance(await failure_of(read(pipeline, lambda: Bare(source, Parts(source, ())))), TypeError)
    assert (source.opened, source.closed, source.told) == (1, 1, [TypeError])
    assert idle(pipeline)


async def test_a_nested_stream_ends_like_any_other() -> None:
    source = Source("context", ("a", "b"))
    inner, outer = guarded(), guarded()
    assert await read(outer, lambda: inner.on(AGAIN).stream(source)) == ["a", "b"]
    assert source.closed == 1
    assert idle(inner)
    assert idle(outer)


# Limits


async def opening_slowly() -> AsyncIterator[str]:
    await asyncio.sleep(60)
    raise AssertionError("it was awaited to its end")


@pytest.mark.parametrize(
    ("does", "limits", "phase", "limit_s", "at"),
    [
        (None, Timeout(connect=2, first=9), "connect", 2, 2),
        ((60.0,), Timeout(connect=9, first=2), "first", 2, 2),
        ((1.0, "a", 60.0), Timeout(first=9, idle=2), "idle", 2, 3),
        (None, Timeout(connect=9, total=2), "total", 2, 2),
        ((60.0,), Timeout(first=9, total=2), "total", 2, 2),
        ((2.0, "a", 2.0, "b", 2.0, "c"), Timeout(idle=9, total=5), "total", 5, 5),
        (("a", 60.0), Timeout(idle=9, total=2), "total", 2, 2),
    ],
)
async def test_each_phase_has_its_limit(
    does: tuple[Does, ...] | None, limits: Timeout, phase: str, limit_s: float, at: float
) -> None:
    seen: list[Notice] = []
    pipeline = made(Breaker(consecutive=1), Bulkhead(1), limits, sink=seen.append)
    late = await failure_of(read(pipeline, opening_slowly if does is None else Source("context", does)))
    assert isinstance(late, AttemptTimedOut)
    assert str(late) == f"a call of tools took longer than it may: {phase} within {limit_s} s"
    assert now() == pytest.approx(at, abs=0.011)
    assert [dict(one.facts) for one in seen if one.name == "timeout.fired"] == [{"phase": phase}]
    assert state_of(pipeline) is State.OPEN
    assert idle(pipeline)


async def test_a_limit_before_the_first_part_is_a_reason_to_try_again() -> None:
    pipeline = made(Retry(attempts=3), Breaker(), Bulkhead(1), Timeout(first=2))
    source = Source("context", (60.0,), (1.9, "a"))
    assert await read(pipeline, source) == ["a"]
    assert (source.opened, source.closed, source.told) == (2, 2, [AttemptTimedOut, None])
    assert idle(pipeline)


async def test_each_attempt_has_all_of_its_time() -> None:
    pipeline = made(Retry(attempts=3), Timeout(total=3))
    source = Source("iterator", (2.5, Failed(SERVER)), (2.5, "a"))
    assert await read(pipeline, source) == ["a"]


async def test_the_readers_own_time_does_not_count() -> None:
    pipeline = made(Breaker(), Bulkhead(1), Timeout(idle=2, total=6))
    parts = []
    async for part in pipeline.on(AGAIN).stream(Source("context", ("a", 1.9, "b", 1.9, "c", 1.9, "d"))):
        parts.append(part)
        await asyncio.sleep(100)
    assert parts == ["a", "b", "c", "d"]
    assert idle(pipeline)


async def test_a_deadline_holds_while_a_stream_waits_to_begin_or_to_be_tried_again() -> None:
    pipeline = made(Deadline(5), Rate(Limit("calls", Quota(1, 8 * 10**9, 1)), max_wait_s=60))
    source = Source("context", ("a",))
    assert await read(pipeline, source) == ["a"]
    assert isinstance(await failure_of(read(pipeline, source)), RateLimited), "there is no time for that wait"
    assert now() == 0
    pipeline = made(Deadline(5), Retry(attempts=9))
    source = Source("context", (Failed(SERVER, 4),))
    assert isinstance(await failure_of(read(pipeline, source)), Failed)
    assert source.at == [0, 4]


@pytest.mark.parametrize("does", [(60.0,), (2.0, "a", 60.0)], ids=["before the first part", "after it"])
async def test_a_deadline_stops_a_stream_and_its_error_is_no_other(does: tuple[Does, ...]) -> None:
    seen: list[Notice] = []
    pipeline = made(Deadline(5), Retry(), Breaker(consecutive=1), Bulkhead(1), Timeout(first=50), sink=seen.append)
    source = Source("context", does)
    late = await failure_of(read(pipeline, source))
    assert isinstance(late, DeadlineExceeded)
    assert now() == pytest.approx(5, abs=0.011)
    assert source.closed == 1
    assert [one.name for one in seen] == ["deadline.exceeded"]
    assert idle(pipeline)
    said_nothing(pipeline)


async def test_a_deadline_that_passes_in_the_readers_time_stops_the_next_part_and_blames_nobody() -> None:
    pipeline = made(Deadline(5), Breaker(consecutive=1), Bulkhead(1), Timeout(total=6))
    source = Source("context", ("a", "b"))

    async def reader() -> None:
        async for _ in pipeline.on(AGAIN).stream(source):
            await asyncio.sleep(30)

    assert isinstance(await failure_of(reader()), DeadlineExceeded)
    assert source.closed == 1
    said_nothing(pipeline)


async def test_a_deadline_from_outside_stops_a_stream_too() -> None:
    pipeline, source = guarded(Deadline(60)), Source("context", ("a", 60.0))

    async def reader() -> None:
        async with within(loop_clock(), 3, lambda: DeadlineExceeded("the turn's")):
            await read(pipeline, source)

    assert str(await failure_of(reader())) == "the turn's"
    assert now() == pytest.approx(3, abs=0.011)
    assert source.closed == 1
    said_nothing(pipeline)


# Inside a pipeline


async def test_a_place_is_held_from_the_beginning_to_the_end() -> None:
    pipeline = made(Bulkhead(1, queue=0))
    stream = pipeline.on(AGAIN).stream(Source("context", ("a", "b")))
    assert idle(pipeline), "nothing begins before the reader does"
    assert await anext(stream) == "a"
    assert isinstance(await failure_of(read(pipeline, Source("context", ("c",)))), QueueFull)
    assert await anext(stream) == "b"
    assert [part async for part in stream] == []
    assert await read(pipeline, Source("context", ("c",))) == ["c"]


async def test_a_refusal_of_a_stream_is_waited_out_where_that_is_asked_for() -> None:
    pipeline = made(Retry(wait_out=True), Rate(Limit("calls", per.minute(1)), max_wait_s=0))
    source = Source("context", ("a",))
    assert await read(pipeline, source) == ["a"]
    assert await read(pipeline, source) == ["a"]
    assert source.at[1] == pytest.approx(60, abs=0.2)
    pipeline = made(Retry(), Rate(Limit("calls", per.minute(1)), max_wait_s=0))
    await read(pipeline, source)
    refused = await failure_of(read(pipeline, source))
    assert isinstance(refused, RateLimited)
    assert refused.__notes__ == ["attempt 1 of 4: refused after 0 s, not again: not_retryable"]


async def test_a_429_before_the_first_part_shuts_the_gate() -> None:
    pipeline = made(Retry(), Rate(max_wait_s=60))
    source = Source("context", (Failed(FailureClass.RATE_LIMITED, 3),), ("a",))
    assert await read(pipeline, source) == ["a"]
    assert source.at[1] >= 3


async def test_attempts_keep_the_number_of_their_call() -> None:
    seen: list[Notice] = []
    pipeline = made(Retry(attempts=3), sink=seen.append)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(failure_of(read(pipeline, Source("context", (1.0, Failed(SERVER))))))
    assert [[one.attempt for one in seen if one.call == call] for call in (1, 2, 3)] == [[1, 2, 3]] * 3


async def test_guards_outside_of_the_retries_stand_around_all_attempts_of_a_stream() -> None:
    with pytest.warns(UserWarning, match="better in the order"):
        pipeline = made(Deadline(9), Breaker(consecutive=1), Bulkhead(1, queue=0), Retry(attempts=3))
    source = Source("context", (Failed(SERVER),), ("a", "b"))
    async for _ in pipeline.on(AGAIN).stream(source):
        assert isinstance(await failure_of(read(pipeline, source)), QueueFull)
    assert state_of(pipeline) is State.CLOSED
    assert idle(pipeline)
    async with aclosing(pipeline.on(AGAIN).stream(source)) as parts:
        await anext(parts)
    assert idle(pipeline)
    assert source.opened == source.closed == 3
    assert isinstance(await failure_of(read(pipeline, Source("context", ("a", Failed(SERVER))))), StreamBroken)
    assert state_of(pipeline) is State.OPEN
    assert idle(pipeline)


async def test_arguments_go_through() -> None:
    async def count(first: int, *, last: int) -> AsyncIterator[int]:
        for number in range(first, last):
            yield number

    pipeline = guarded()
    assert [number async for number in pipeline.stream(count, 2, last=5)] == [2, 3, 4]
    assert [number async for number in pipeline.on(AGAIN).stream(count, 3, last=5)] == [3, 4]
