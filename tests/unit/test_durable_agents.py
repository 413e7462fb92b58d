"""A Pydantic AI agent whose server dies: run again, it goes on with what was kept, and no effect happens twice."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, NativeOutput, RunContext
from pydantic_ai.exceptions import ModelHTTPError, ModelRateLimitError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturn,
)
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from pydantic_ai.usage import UsageLimits

from holdfast.adapters import HoldfastCapability, PydanticAgent
from holdfast.events import ModelStarted, TextDelta, ToolStarted
from holdfast.guard import ambient
from holdfast.journal import effect
from holdfast.turn import Reply, Turn

if TYPE_CHECKING:
    from tests.crashes import Server, World, done, whole
    from tests.scripted import MANY, PARALLEL, SEQUENCE, Scripted, Steps, answers, no_turn, tools
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World, done, whole
    from scripted import MANY, PARALLEL, SEQUENCE, Scripted, Steps, answers, no_turn, tools


@pytest.mark.parametrize(("same_ids", "streams"), [(False, True), (True, False)])
@pytest.mark.parametrize("steps", [SEQUENCE, PARALLEL], ids=["sequence", "parallel"])
async def test_wherever_its_server_dies_a_turn_is_finished_and_nothing_happens_twice(
    steps: Steps, *, same_ids: bool, streams: bool
) -> None:
    calls = [call for step in steps for call in step]
    expected = "; ".join(f"success {done(*call)}" for call in calls) + (" " if streams else "")
    doubts = 0
    for dies_at in range(1, MANY):
        world, script = World(dies_at), Scripted(steps, same_ids=same_ids)
        agent = Agent(script.model(world), tools=tools(world))
        reply, asked = await whole(answers(agent), world, streams=streams)
        doubts += asked
        assert reply.text == expected
        for name, n in calls:
            assert 1 <= world.did[f"{name} {n}"] <= (1 if name in ("once", "undeclared") else 2 + asked)
        assert max(script.asked.values()) <= 2
        assert sum(key.startswith("key ") for key in world.did) == sum(name == "idempotent" for name, _ in calls)
        if not world.moments >= dies_at:
            break
    else:
        raise AssertionError("there are more moments than that")
    assert dies_at > 30
    assert doubts > 0


@pytest.mark.parametrize("streams", [False, True])
async def test_a_model_call_that_was_answered_is_not_sent_again_and_a_tool_that_returned_not_called(
    *, streams: bool
) -> None:
    world, script = World(), Scripted(SEQUENCE)
    agent = Agent(script.model(world), tools=tools(world))
    first = await Server(world, streams=streams).run(answers(agent))
    before, did = Counter(script.asked), Counter(world.did)
    server = Server(world, streams=streams, generation=2)
    again = await server.run(answers(agent))
    assert first is not None
    assert again is not None
    assert (script.asked, world.did) == (before, did)
    assert again.text == first.text
    assert [e for e in server.events if isinstance(e, ModelStarted | ToolStarted)] == []
    used = server.turn.guard.usage()
    assert (used.model_calls, used.tool_calls) == (5, 4)
    assert used.input_tokens > 0


async def test_the_messages_of_a_turn_that_was_run_again_are_those_of_the_first_run() -> None:
    async def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("seen", provider_details={"logprob": 0.5})], finish_reason="stop")
        call = ToolCallPart("look", {"n": 1}, "c1", provider_details={"signature": "abc"})
        return ModelResponse(
            [ThinkingPart("hm", signature="s"), call], provider_details={"finish_reason": "tool_calls", "x": [1, None]}
        )

    async def look(n: int) -> ToolReturn:
        shown: list[str | BinaryContent] = [f"number {n}", BinaryContent(b"\x00\xff", media_type="image/png")]
        return ToolReturn({"n": n, "at": datetime(2020, 1, 1, tzinfo=UTC)}, content=shown, metadata={"m": n})

    world = World()
    agent = Agent(FunctionModel(model, model_name="m"), tools=[look])
    replies = [await Server(world, generation=generation).run(answers(agent)) for generation in (1, 2)]
    first, again = ([without_moments(message) for message in loaded(reply)] for reply in replies)
    assert again == first
    responses = [[message for message in loaded(reply) if isinstance(message, ModelResponse)] for reply in replies]
    assert [r.timestamp for r in responses[0]] == [r.timestamp for r in responses[1]]


def loaded(reply: Reply | None) -> list[ModelMessage]:
    assert reply is not None
    return ModelMessagesTypeAdapter.validate_json(reply.messages)


def without_moments(message: ModelMessage) -> object:
    """A message without what each run of an agent gives it anew."""
    told = json.loads(ModelMessagesTypeAdapter.dump_json([message]))[0]
    for gone in (told, *told["parts"]):
        gone.pop("run_id", None), gone.pop("timestamp", None), gone.pop("conversation_id", None)
    return told


async def test_text_is_said_once_though_the_turn_is_streamed_twice() -> None:
    world, script = World(), Scripted([[("pure", 1)]])
    agent = Agent(script.model(world), tools=tools(world))
    said = []
    for generation in (1, 2):
        server = Server(world, streams=True, generation=generation)
        reply = await server.run(answers(agent))
        assert reply is not None
        assert reply.text == "success pure 1 done "
        said.append([event.text for event in server.events if isinstance(event, TextDelta)])
    assert said == [["success ", "pure ", "1 ", "done "], []]


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("output", [City, NativeOutput(City)], ids=["tool", "native"])
async def test_structured_output_that_was_wrong_at_first_is_made_of_what_was_kept(
    output: Any, *, streams: bool
) -> None:
    asked: Counter[int] = Counter()

    def told(messages: list[ModelMessage]) -> str:
        asked[len(messages)] += 1
        return '{"name": "Oslo"}' if len(messages) == 1 else '{"name": "Oslo", "people": 7}'

    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        await world.moment()
        if info.output_tools:
            return ModelResponse([ToolCallPart(info.output_tools[0].name, told(messages))])
        return ModelResponse([TextPart(told(messages))])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        await world.moment()
        if info.output_tools:
            yield {0: DeltaToolCall(info.output_tools[0].name, told(messages))}
        else:
            yield told(messages)

    for dies_at in range(1, MANY):
        world = World(dies_at)
        asked.clear()
        agent = Agent(
            FunctionModel(model, stream_function=stream, profile={"supports_json_schema_output": True}),
            output_type=output,
            retries=2,
        )
        reply, _ = await whole(answers(agent), world, streams=streams)
        assert reply.text == '{"name":"Oslo","people":7}'
        assert max(asked.values()) <= 2
        if world.moments < dies_at:
            break
    assert dies_at > 8
    assert set(asked.values()) == {1}


async def test_a_tool_that_asked_for_a_retry_asks_again_and_is_counted_again() -> None:
    calls: Counter[int] = Counter()

    async def picky(ctx: RunContext[object], n: int) -> str:
        calls[n] += 1
        await world.moment()
        if n < 3:
            raise ModelRetry(f"not {n} {ctx.retry}")
        return f"{n} after {ctx.retry}"

    for dies_at in (0, *range(1, MANY)):
        world, script = World(dies_at), Scripted([[("picky", 1)], [("picky", 2)], [("picky", 3)]])
        calls.clear()
        agent = Agent(script.model(world))
        agent.tool(retries=2, metadata={"holdfast": {"effect": "pure"}})(picky)
        reply, doubts = await whole(answers(agent), world)
        assert reply.text == "retried not 1 0; retried not 2 1; success 3 after 2"
        assert doubts == 0
        if 0 < world.moments < dies_at:
            break
    assert dies_at > 12


async def test_a_tool_that_may_not_be_retried_again_ends_the_turn_in_each_run() -> None:
    async def never(n: int) -> str:
        raise ModelRetry(f"not {n}")

    world = World()
    agent = Agent(Scripted([[("never", 1)], [("never", 2)], [("never", 3)]]).model(world))
    agent.tool_plain(retries=1)(never)
    ended = []
    for generation in (1, 2):
        with pytest.raises(Exception, match="could not be used") as caught:
            await Server(world, generation=generation).run(answers(agent))
        ended.append((type(caught.value), str(caught.value), world.began("never")))
    assert ended[0] == ended[1]
    assert ended[0][2] == 2


async def test_a_value_that_a_tool_could_not_validate_is_shown_the_same_in_each_run() -> None:
    async def strict(n: int) -> str:
        City.model_validate({"name": n, "people": "{many}"})
        return "valid"

    world = World()
    agent = Agent(Scripted([[("strict", 1)]]).model(world))
    agent.tool_plain(retries=2)(strict)
    replies = [await Server(world, generation=generation).run(answers(agent)) for generation in (1, 2)]
    first, again = ([without_moments(message) for message in loaded(reply)] for reply in replies)
    assert again == first
    assert "{many}" in json.dumps(first)


async def test_usage_limits_count_calls_that_were_made_before() -> None:
    world = World()
    agent = Agent(Scripted(SEQUENCE).model(world), tools=tools(world))

    async def answer(turn: Turn) -> Reply:
        token = ambient.set(turn.guard)
        try:
            limits = UsageLimits(tool_calls_limit=3)
            await agent.run("go", usage_limits=limits, capabilities=PydanticAgent(agent, "a")._crossings)
        finally:
            ambient.reset(token)
        raise AssertionError

    for generation in (1, 2):
        with pytest.raises(Exception, match="tool_calls_limit of 3"):
            await Server(world, generation=generation).run(answer)
    assert world.began("idempotent") == 0


async def test_every_model_of_a_fallback_model_is_asked_no_more_than_it_must() -> None:
    asked: Counter[str] = Counter()

    async def down(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        asked["down"] += 1
        raise ModelHTTPError.for_category(ModelRateLimitError, status_code=429, model_name="down")

    world = World()
    inner = Scripted([[("once", 1)]]).model(world)

    async def served(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked["up"] += 1
        assert isinstance(inner, FunctionModel)
        assert inner.function is not None
        response = inner.function(messages, info)
        return response if isinstance(response, ModelResponse) else await response

    model = FallbackModel(FunctionModel(down, model_name="down"), FunctionModel(served, model_name="up"))
    agent = Agent(model, tools=tools(world))
    first = await Server(world).run(answers(agent))
    again = await Server(world, generation=2).run(answers(agent))
    assert first is not None
    assert again is not None
    assert again.text == first.text == "success once 1 done"
    assert asked == {"down": 2, "up": 2}


async def test_an_agent_inside_a_tool_has_units_of_its_own() -> None:
    for dies_at in range(1, MANY):
        world, outer = World(dies_at), Scripted([[("ask", 1), ("ask", 2)]])

        @effect("pure")
        async def ask(n: int) -> str:
            inner = Scripted([[("once", n)]]).model(world)  # noqa: B023 - it is called within this round
            sub = Agent(inner, tools=tools(world), capabilities=[HoldfastCapability(no_turn)])  # noqa: B023 - the same
            return (await sub.run("the same for both")).output

        agent = Agent(outer.model(world), tools=[ask])
        reply, _ = await whole(answers(agent), world)
        assert reply.text == "success success once 1 done; success success once 2 done"
        assert world.did == {"once 1": 1, "once 2": 1}
        if world.moments < dies_at:
            break
    keys = {unit.key for unit in world.units.values() if unit.name == "once"}
    assert keys == {"c0-0/c0-0", "c0-1/c0-0"}
    assert dies_at > 25
