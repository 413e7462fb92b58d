"""The Pydantic AI adapter, from outside: an agent goes in, events and a reply come out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, RunContext, Tool
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from holdfast.adapters import HoldfastCapability, PydanticAgent
from holdfast.adapters.pydantic_ai import decode, translate
from holdfast.clock import Clock
from holdfast.errors import (
    AgentFailed,
    AttemptTimedOut,
    DeadlineExceeded,
    HoldfastError,
    ModelMalformed,
    ModelRejected,
    ModelUnavailable,
)
from holdfast.events import Event, ModelFinished, TextDelta, ToolFinished, ToolStarted, TurnIds, Usage
from holdfast.guard import Guard, GuardSpec, Policies
from holdfast.store import Past
from holdfast.testing import loop_clock
from holdfast.tools import ToolError
from holdfast.turn import Ask, Reply, Turn, unserved_turn

IDS = TurnIds("s", "t-1", "0" * 32, "agent")


def turn_for(
    message: str, *, streams: bool = False, past: tuple[Past, ...] = (), spec: GuardSpec | None = None
) -> tuple[Turn, list[Event]]:
    events: list[Event] = []
    ask = Ask(message=message, principal="p", session_id="s", trace_id="0" * 32, request_id="r", streams=streams)
    guard = Guard(Policies((spec or GuardSpec()).model_copy(update={"attempts": 1}), loop_clock()), events.append)
    return Turn(ask, IDS, past, guard, events.append), events


async def answer(agent: Agent[Any, Any], turn: Turn) -> Reply:
    async with PydanticAgent(agent, "agent") as served:
        return await served.answer(turn)


def says(text: str) -> FunctionModel:
    async def model(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[TextPart(text)])

    return FunctionModel(model, model_name="says")


def calls_then_says(*calls: ToolCallPart) -> FunctionModel:
    """Calls these tools, then says what each of them answered."""

    async def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        results = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        if not results:
            return ModelResponse(parts=list(calls))
        told = "; ".join(f"{r.tool_name}: {r.outcome}: {r.model_response_str(wrap_if_error=False)}" for r in results)
        return ModelResponse(parts=[TextPart(told)])

    return FunctionModel(model, model_name="calls")


def fails(error: Exception) -> FunctionModel:
    async def model(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        raise error

    return FunctionModel(model, model_name="fails")


def of(events: list[Event], *kinds: type[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kinds)]


async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def test_model_and_tool_calls_cross_the_guard() -> None:
    model = calls_then_says(ToolCallPart("add", {"a": 1, "b": 2}, "one"), ToolCallPart("add", {"a": 3, "b": 4}, "two"))
    turn, events = turn_for("add them")
    reply = await answer(Agent(model, tools=[add]), turn)
    assert reply.text == "add: success: 3; add: success: 7"
    assert [(e.call_id, e.tool, bytes(e.args)) for e in of(events, ToolStarted)] == [
        ("one", "add", b'{"a":1,"b":2}'),
        ("two", "add", b'{"a":3,"b":4}'),
    ]
    assert {(e.call_id, e.status, e.result) for e in of(events, ToolFinished)} == {
        ("one", "ok", "3"),
        ("two", "ok", "7"),
    }
    assert [(e.call, e.provider, e.model, e.status) for e in of(events, ModelFinished)] == [
        (1, "function", "calls", "ok"),
        (2, "function", "calls", "ok"),
    ]
    used = turn.guard.usage()
    assert (used.model_calls, used.tool_calls) == (2, 2)
    assert used.input_tokens == sum(e.input_tokens for e in of(events, ModelFinished)) > 0


async def test_structured_output_is_answered_as_json() -> None:
    class City(BaseModel):
        name: str
        people: int

    async def model(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart(info.output_tools[0].name, {"name": "Oslo", "people": 7})])

    turn, _ = turn_for("which city?")
    reply = await answer(Agent(FunctionModel(model), output_type=City), turn)
    assert reply.text == '{"name":"Oslo","people":7}'


async def test_text_is_said_as_it_streams_and_the_first_token_is_timed() -> None:
    async def stream(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        await asyncio.sleep(2)
        yield "one "
        await asyncio.sleep(3)
        yield "two"

    turn, events = turn_for("go", streams=True)
    reply = await answer(Agent(FunctionModel(stream_function=stream)), turn)
    assert reply.text == "one two"
    assert [e.text for e in of(events, TextDelta)] == ["one ", "two"]
    [finished] = of(events, ModelFinished)
    assert (finished.status, finished.first_token_s, finished.duration_s) == ("ok", 2.0, 5.0)
    assert finished.output_tokens > 0


async def test_streamed_tool_calls_cross_the_guard() -> None:
    async def stream(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if len(messages) == 1:
            yield {0: DeltaToolCall(name="add", json_args='{"a": 20, "b": 3}', tool_call_id="x")}
        else:
            yield "done"

    turn, events = turn_for("go", streams=True)
    reply = await answer(Agent(FunctionModel(stream_function=stream), tools=[add]), turn)
    assert reply.text == "done"
    assert [(e.tool, e.result) for e in of(events, ToolFinished)] == [("add", "23")]


async def test_nothing_streams_where_nobody_watches() -> None:
    async def stream(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        yield "streamed"

    async def model(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[TextPart("whole")])

    turn, events = turn_for("go")
    assert (await answer(Agent(FunctionModel(model, stream_function=stream)), turn)).text == "whole"
    assert of(events, TextDelta) == []


async def test_every_attempt_inside_a_fallback_model_is_seen() -> None:
    down = fails(ModelHTTPError.for_category(ModelRateLimitError, status_code=429, model_name="fails"))
    turn, events = turn_for("go")
    reply = await answer(Agent(FallbackModel(down, FallbackModel(down, says("here")))), turn)
    assert reply.text == "here"
    assert [(e.model, e.status, e.error) for e in of(events, ModelFinished)] == [
        ("fails", "error", "model_unavailable"),
        ("fails", "error", "model_unavailable"),
        ("says", "ok", None),
    ]


async def test_a_slow_model_inside_a_fallback_model_is_left_for_the_next() -> None:
    async def slow(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        await asyncio.sleep(1_000)
        raise AssertionError

    turn, events = turn_for("go", spec=GuardSpec(model_s=10))
    reply = await answer(Agent(FallbackModel(FunctionModel(slow, model_name="slow"), says("here"))), turn)
    assert reply.text == "here"
    assert [(e.model, e.status, round(e.duration_s)) for e in of(events, ModelFinished)] == [
        ("slow", "timeout", 10),
        ("says", "ok", 0),
    ]


@pytest.mark.parametrize("streams", [False, True])
async def test_a_model_that_is_too_slow_is_stopped_at_its_limit(*, streams: bool) -> None:
    async def slow(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        await asyncio.sleep(1_000)
        raise AssertionError

    async def stream(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        await asyncio.sleep(1_000)
        yield "late"

    turn, events = turn_for("go", streams=streams, spec=GuardSpec(model_s=20, first_token_s=5))
    with pytest.raises(AttemptTimedOut):
        await answer(Agent(FunctionModel(slow, stream_function=stream)), turn)
    [finished] = of(events, ModelFinished)
    assert (finished.status, round(finished.duration_s)) == ("timeout", 5 if streams else 20)


async def test_a_stream_that_stalls_is_stopped_at_the_limit_of_the_attempt() -> None:
    async def stream(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        yield "begun"
        await asyncio.sleep(1_000)
        yield "never"

    turn, events = turn_for("go", streams=True, spec=GuardSpec(model_s=20, first_token_s=5))
    with pytest.raises(AttemptTimedOut):
        await answer(Agent(FunctionModel(stream_function=stream)), turn)
    [finished] = of(events, ModelFinished)
    assert (finished.status, round(finished.duration_s), finished.first_token_s) == ("timeout", 20, 0.0)


@pytest.mark.parametrize("streams", [False, True])
async def test_the_turns_deadline_stops_a_call_with_the_turns_own_error(*, streams: bool) -> None:
    async def slow(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        await asyncio.sleep(1_000)
        raise AssertionError

    async def stream(_messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str]:
        await asyncio.sleep(1_000)
        yield "late"

    spec = GuardSpec(turn_s=7)
    events: list[Event] = []

    async def bounded() -> None:
        async with unserved_turn(
            IDS, Policies(spec, loop_clock()), [lambda _ids, event: events.append(event)]
        ) as guard:
            ask = Ask(message="go", principal="p", session_id="s", trace_id="", request_id="", streams=streams)
            turn = Turn(ask, IDS, (), guard, events.append)
            await answer(Agent(FunctionModel(slow, stream_function=stream)), turn)

    with pytest.raises(DeadlineExceeded):
        await bounded()
    [finished] = of(events, ModelFinished)
    assert (finished.status, round(finished.duration_s)) == ("timeout", 7)


async def test_the_model_is_told_of_a_tool_that_could_not_or_took_too_long() -> None:
    async def broken() -> str:
        raise ToolError("the drawer is stuck")

    async def slow() -> str:
        await asyncio.sleep(1_000)
        return "never"

    model = calls_then_says(ToolCallPart("broken", {}, "1"), ToolCallPart("slow", {}, "2"))
    turn, events = turn_for("go", spec=GuardSpec(tool_s=3))
    reply = await answer(Agent(model, tools=[broken, slow]), turn)
    assert reply.text == (
        "broken: failed: the drawer is stuck; slow: failed: the tool slow took longer than 3 s and was stopped"
    )
    assert {(e.tool, e.status) for e in of(events, ToolFinished)} == {("broken", "error"), ("slow", "timeout")}


async def test_a_tool_that_raises_something_else_ends_the_turn_with_that() -> None:
    async def broken() -> str:
        raise KeyError("lost")

    turn, _ = turn_for("go")
    with pytest.raises(KeyError):
        await answer(Agent(calls_then_says(ToolCallPart("broken", {}, "1")), tools=[broken]), turn)


async def test_an_agent_may_take_the_turn_as_its_dependencies() -> None:
    async def who(ctx: RunContext[Turn]) -> str:
        return ctx.deps.principal

    agent = Agent(calls_then_says(ToolCallPart("who", {}, "1")), deps_type=Turn, tools=[who])
    turn, _ = turn_for("go")
    assert (await answer(agent, turn)).text == "who: success: p"


async def test_the_next_turn_is_given_what_was_said_and_done() -> None:
    model = calls_then_says(ToolCallPart("add", {"a": 1, "b": 2}, "one"))
    turn, _ = turn_for("add them")
    reply = await answer(Agent(model, tools=[add]), turn)
    past = Past(message="add them", reply=reply.text, format=reply.format, messages=reply.messages)
    seen: list[ModelMessage] = []

    async def look(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        seen.extend(messages)
        return ModelResponse(parts=[TextPart("seen")])

    later, _ = turn_for("and now?", past=(past,))
    await answer(Agent(FunctionModel(look), tools=[add]), later)
    kinds = [part.part_kind for message in seen for part in message.parts]
    assert kinds == ["user-prompt", "tool-call", "tool-return", "text", "user-prompt"]
    assert 0 < reply.tokens < 100


async def test_a_turn_of_another_adapter_is_given_as_its_plain_exchange() -> None:
    messages = decode(
        [
            Past(message="hi", reply="hello", format="plain", messages=b""),
            Past(message="big", reply="file", format="pydantic_ai", messages=None),
        ]
    )
    said = [part.content for message in messages for part in message.parts if hasattr(part, "content")]
    assert said == ["hi", "hello", "big", "file"]


async def test_calls_that_wait_for_approval_are_not_served() -> None:
    agent: Agent[None, Any] = Agent(
        calls_then_says(ToolCallPart("add", {"a": 1, "b": 2}, "one")),
        tools=[Tool(add, requires_approval=True)],
        output_type=[str, DeferredToolRequests],
    )
    turn, events = turn_for("go")
    with pytest.raises(AgentFailed, match="approval"):
        await answer(agent, turn)
    assert of(events, ToolFinished) == []


def http_error(category: Any, status: int, retry_after: float | None = None) -> ModelHTTPError:
    return ModelHTTPError.for_category(category, status_code=status, model_name="m", retry_after=retry_after)


@pytest.mark.parametrize(
    ("raised", "expected", "retry_after_s"),
    [
        (http_error(ModelRateLimitError, 429, retry_after=7.0), ModelUnavailable, 7.0),
        (http_error(ModelRequestRejectedError, 400), ModelRejected, None),
        (ModelAPIError("m", "lost"), ModelUnavailable, None),
        (UnexpectedModelBehavior("what?"), ModelMalformed, None),
    ],
)
@pytest.mark.parametrize("behind_a_fallback", [False, True])
async def test_a_providers_failure_is_one_of_our_errors(
    raised: Exception, expected: type[HoldfastError], retry_after_s: float | None, *, behind_a_fallback: bool
) -> None:
    model = fails(raised)
    turn, events = turn_for("go")
    with pytest.raises(expected) as caught:
        await answer(Agent(FallbackModel(model, model) if behind_a_fallback else model), turn)
    assert caught.value.retry_after_s == retry_after_s
    assert {e.error for e in of(events, ModelFinished)} == {expected.code}


def test_a_translated_error_does_not_quote_the_provider() -> None:
    error = translate(ModelHTTPError(400, "m", body={"message": "SECRET PROMPT"}))
    assert "SECRET" not in error.detail


async def test_in_ones_own_process_each_run_is_a_turn() -> None:
    events: list[Event] = []
    clock: Clock = loop_clock()

    def begin(agent: str) -> Any:
        ids = TurnIds("", "local", "0" * 32, agent)
        return unserved_turn(ids, Policies(GuardSpec(tool_s=3), clock), [lambda _ids, event: events.append(event)])

    async def slow() -> str:
        await asyncio.sleep(100)
        return "never"

    agent = Agent(
        calls_then_says(ToolCallPart("slow", {}, "1")),
        name="mine",
        tools=[slow],
        capabilities=[HoldfastCapability(begin)],
    )
    result = await agent.run("go")
    assert result.output == "slow: failed: the tool slow took longer than 3 s and was stopped"
    assert [event.name for event in events] == [
        "turn.started", "model.started", "model.finished", "tool.started", "tool.finished",
        "model.started", "model.finished", "turn.ended",
    ]  # fmt: skip
    assert events[-1].agent == "mine"  # type: ignore[attr-defined]  # the last one is TurnEnded
    assert events[-1].usage == Usage(  # type: ignore[attr-defined]  # the same
        model_calls=2, tool_calls=1, input_tokens=turn_input(events), output_tokens=turn_output(events)
    )


def turn_input(events: list[Event]) -> int:
    return sum(event.input_tokens for event in of(events, ModelFinished))


def turn_output(events: list[Event]) -> int:
    return sum(event.output_tokens for event in of(events, ModelFinished))


async def test_an_agent_that_brings_the_capability_is_served_without_being_guarded_twice() -> None:
    def begin(_agent: str) -> Any:
        raise AssertionError("the run is in a turn already")

    agent = Agent(says("once"), capabilities=[HoldfastCapability(begin)])
    turn, events = turn_for("go")
    assert (await answer(agent, turn)).text == "once"
    assert len(of(events, ModelFinished)) == 1
