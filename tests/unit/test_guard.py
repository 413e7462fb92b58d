"""The two crossings: what is told of a call, and what stops it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from holdfast.clock import Clock
from holdfast.errors import (
    AttemptTimedOut,
    DeadlineExceeded,
    Forbidden,
    ModelUnavailable,
    SessionBusy,
)
from holdfast.events import Event, ModelFinished, ModelStarted, ToolFinished, ToolStarted, Usage
from holdfast.guard import Attempt, Estimate, Guard, GuardSpec, ModelKey, Policies
from holdfast.guard.tool import SHOWN_CHARS
from holdfast.resilience import within
from holdfast.testing import loop_clock

KEY = ModelKey("sim", "small")
SPEC = GuardSpec(turn_s=100, model_s=20, first_token_s=5, tool_s=10, attempts=1)


class Watched:
    """A guard, and what it told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.guard = Guard(Policies(SPEC, loop_clock()), self.events.append)

    def last(self) -> Any:
        return self.events[-1]


async def answers(attempt: Attempt) -> str:
    await asyncio.sleep(2)
    attempt.first_token()
    await asyncio.sleep(1)
    attempt.first_token()
    attempt.used(5, 1, cache_read_tokens=5)
    attempt.used(7, 3, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=1)
    return "hello"


def model(watched: Watched, call: Callable[[], Awaitable[str]]) -> Awaitable[str]:
    return watched.guard.model(KEY, None, lambda _: call())


def tool(watched: Watched, call: Callable[[], Awaitable[str]]) -> Awaitable[str]:
    return watched.guard.tool("search", {"q": "x"}, "id-1", call)


async def stream(watched: Watched, call: Callable[[], Awaitable[str]]) -> str:
    async with watched.guard.model.stream(KEY, None):
        return await call()


crossings = pytest.mark.parametrize("cross", [model, tool, stream])


async def test_a_model_call_is_told_from_start_to_end() -> None:
    watched = Watched()
    assert await watched.guard.model(KEY, Estimate(100), answers) == "hello"
    assert watched.events == [
        ModelStarted(call=1, provider="sim", model="small"),
        ModelFinished(
            call=1,
            provider="sim",
            model="small",
            status="ok",
            duration_s=3,
            first_token_s=2,
            input_tokens=7,
            output_tokens=3,
            cache_read_tokens=4,
            cache_write_tokens=2,
            reasoning_tokens=1,
        ),
    ]


async def test_a_streamed_call_is_told_in_the_same_way() -> None:
    watched = Watched()
    async with watched.guard.model.stream(KEY, None) as attempt:
        assert watched.events == [ModelStarted(call=1, provider="sim", model="small")]
        await answers(attempt)
    assert watched.last().first_token_s == 2
    assert watched.last().status == "ok"


async def test_a_tool_call_is_told_from_start_to_end() -> None:
    watched = Watched()

    async def search() -> dict[str, object]:
        await asyncio.sleep(2)
        return {"hits": [1, 2]}

    assert await watched.guard.tool("search", {"q": "x"}, "id-1", search) == {"hits": [1, 2]}
    assert watched.events == [
        ToolStarted(call_id="id-1", tool="search", args=msgspec.Raw(b'{"q":"x"}')),
        ToolFinished(call_id="id-1", tool="search", status="ok", duration_s=2, result='{"hits":[1,2]}'),
    ]


@crossings
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ValueError("secret"), "error", "ValueError"),
        (ModelUnavailable("secret"), "error", "model_unavailable"),
        (AttemptTimedOut(), "timeout", "attempt_timed_out"),
        (DeadlineExceeded(), "timeout", "deadline_exceeded"),
        (TimeoutError(), "error", "TimeoutError"),
        (Forbidden(), "denied", "forbidden"),
        (SessionBusy(), "rejected", "session_busy"),
        (asyncio.CancelledError(), "cancelled", "CancelledError"),
        (BaseExceptionGroup("both", [KeyboardInterrupt()]), "error", "BaseExceptionGroup"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
async def test_a_call_that_raises_is_told_and_its_error_goes_on(
    cross: Callable[[Watched, object], Awaitable[str]], error: BaseException, status: str, code: str
) -> None:
    watched = Watched()

    async def fails() -> str:
        await asyncio.sleep(1)
        raise error

    with pytest.raises(type(error)) as raised:
        await cross(watched, fails)
    assert raised.value is error
    finished = watched.last()
    assert (finished.status, finished.error, finished.duration_s) == (status, code, 1)
    assert len(watched.events) == 2
    assert getattr(finished, "result", "") == ""


@pytest.mark.parametrize(("cross", "limit_s"), [(model, 20), (tool, 10)])
async def test_a_call_that_takes_too_long_is_cancelled_and_told(
    cross: Callable[[Watched, object], Awaitable[str]], limit_s: float
) -> None:
    watched = Watched()
    with pytest.raises(AttemptTimedOut, match=f"longer than {limit_s:g} s"):
        await cross(watched, hangs)
    finished = watched.last()
    assert (finished.status, finished.error, finished.duration_s) == ("timeout", "attempt_timed_out", limit_s)


async def hangs() -> str:
    await asyncio.sleep(1_000)
    return "never"


@crossings
async def test_a_call_stopped_by_the_turns_deadline_has_timed_out(
    cross: Callable[[Watched, object], Awaitable[str]],
) -> None:
    watched = Watched()
    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 3, DeadlineExceeded):
            await cross(watched, hangs)
    finished = watched.last()
    assert (finished.status, finished.error, finished.duration_s) == ("timeout", "deadline_exceeded", 3)


@crossings
async def test_a_call_cancelled_from_outside_was_cancelled(
    cross: Callable[[Watched, object], Awaitable[str]],
) -> None:
    watched = Watched()

    async def turn() -> None:
        async with within(loop_clock(), 50, DeadlineExceeded):
            await cross(watched, hangs)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(turn())
        await asyncio.sleep(3)
        task.cancel()
    assert task.cancelled()
    assert (watched.last().status, watched.last().error) == ("cancelled", "CancelledError")


@crossings
async def test_once_the_deadline_has_passed_nothing_is_started(
    cross: Callable[[Watched, object], Awaitable[str]],
) -> None:
    """Whatever the agent does with its cancellation, it reaches neither models nor tools any more."""
    watched = Watched()
    ran: list[bool] = []

    async def runs() -> str:
        ran.append(True)
        return ""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            await cross(watched, runs)

    with pytest.raises(DeadlineExceeded):
        async with within(loop_clock(), 3, DeadlineExceeded):
            await stubborn()
    assert (ran, watched.events, watched.guard.usage()) == ([], [], Usage())


@pytest.mark.parametrize(
    ("cancelled_after_s", "first_token_after_s", "status"),
    [(4.4, None, "cancelled"), (4.6, None, "timeout"), (5, 1, "cancelled"), (18.5, 1, "timeout")],
)
async def test_a_stream_its_framework_stopped_at_its_limit_has_timed_out(
    cancelled_after_s: float, first_token_after_s: float | None, status: str
) -> None:
    """The framework keeps the limits of a stream: 5 s to the first token here, and 20 s to the end."""
    watched = Watched()

    async def read() -> None:
        async with watched.guard.model.stream(KEY, None) as attempt:
            if first_token_after_s is not None:
                await asyncio.sleep(first_token_after_s)
                attempt.first_token()
            await asyncio.sleep(1_000)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(cancelled_after_s):
            await read()
    assert watched.last().status == status


def test_the_limits_of_a_stream_are_the_settings() -> None:
    assert Guard(Policies(SPEC, Clock()), list[Event]().append).model.stream_limits() == (5, 20)


async def test_usage_is_the_sum_over_all_calls_failed_ones_too() -> None:
    watched = Watched()

    async def breaks(attempt: Attempt) -> str:
        attempt.used(10, 20)
        raise ModelUnavailable

    async def nothing() -> str:
        return ""

    await watched.guard.model(KEY, None, answers)
    with pytest.raises(ModelUnavailable):
        await watched.guard.model(ModelKey("sim", "large"), None, breaks)
    await tool(watched, nothing)
    with pytest.raises(AttemptTimedOut):
        await tool(watched, hangs)
    assert watched.guard.usage() == Usage(model_calls=2, tool_calls=2, input_tokens=17, output_tokens=23)
    assert watched.guard.model.latest_model == "large"
    assert [e.call for e in watched.events if isinstance(e, ModelFinished)] == [1, 2]


async def test_the_first_token_can_be_told_away_from_the_attempt() -> None:
    watched = Watched()
    watched.guard.model.first_token()  # Before any attempt it is nobody's.
    async with watched.guard.model.stream(KEY, None):
        await asyncio.sleep(3)
        watched.guard.model.first_token()
    assert watched.last().first_token_s == 3


class Mute:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise KeyError("nothing to show")


class Shown:
    def __str__(self) -> str:
        return "shown"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ODD = [
    ({"n": 2**200, "f": float("nan"), "b": b"x", "t": (1, {2})}, rb'{"n":%d,"f":null,"b":"eA==","t":[1,[2]]}' % 2**200),
    ({"x": Shown()}, b'{"x":"shown"}'),
    ({"x": Mute()}, b'"<dict>"'),
    ({"x": nested(100_000)}, b'"<dict>"'),
    ({"x": "\ud83d"}, b"\"{'x': '\\\\ud83d'}\""),
    ({"x": "\0 日本 🜁"}, '{"x":"\\u0000 日本 🜁"}'.encode()),
    ({1: 2}, b'{"1":2}'),
]


@pytest.mark.parametrize(("value", "told"), ODD, ids=range(len(ODD)))
async def test_arguments_and_results_that_json_cannot_hold_are_told_all_the_same(value: Any, told: bytes) -> None:
    """And the tool gets and gives exactly what it was given and gave."""
    watched = Watched()

    async def give() -> Any:
        return value

    assert await watched.guard.tool("odd", value, "id", give) is value
    started, finished = watched.events
    assert isinstance(started, ToolStarted)
    assert isinstance(finished, ToolFinished)
    assert bytes(started.args) == told
    assert finished.result == told.decode()
    assert finished.status == "ok"
    msgspec.json.decode(msgspec.json.encode(started))


async def test_a_result_is_shown_as_text_that_can_be_sent() -> None:
    watched = Watched()

    async def half() -> str:
        return "half a pair \ud83d"

    assert await tool(watched, half) == "half a pair \ud83d"
    assert watched.last().result == "half a pair ?"


@pytest.mark.parametrize(("length", "shown"), [(SHOWN_CHARS, SHOWN_CHARS), (SHOWN_CHARS + 1, SHOWN_CHARS + 1)])
async def test_a_long_result_is_cut_in_the_event_alone(length: int, shown: int) -> None:
    watched = Watched()

    async def long() -> str:
        return "x" * length

    assert len(await tool(watched, long)) == length
    assert len(watched.last().result) == shown
    assert watched.last().result.endswith("…") == (length > SHOWN_CHARS)


async def test_parallel_tools_are_told_apart_by_their_ids() -> None:
    watched = Watched()

    async def wait(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async with asyncio.TaskGroup() as group:
        for n in (3, 1, 2):
            group.create_task(watched.guard.tool("wait", {"s": n}, f"id-{n}", lambda n=n: wait(n)))  # type: ignore[misc]  # a default argument
    ended = [(e.call_id, e.result, e.duration_s) for e in watched.events if isinstance(e, ToolFinished)]
    assert ended == [("id-1", "1", 1), ("id-2", "2", 2), ("id-3", "3", 3)]
