"""A Pydantic AI agent whose turn is stopped, or cannot go on, and what decides whether it can."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from pydantic_ai import Agent, FunctionToolset, RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.toolsets import AbstractToolset

from holdfast.adapters import HoldfastCapability, PydanticAgent
from holdfast.adapters.pydantic_ai import GuardedModel
from holdfast.errors import (
    Diverged,
    HandedOver,
    HoldfastError,
    InDoubt,
    Misconfigured,
    NotOwner,
    StoreUnavailable,
    TurnCancelled,
)
from holdfast.guard import ambient
from holdfast.journal import effect

if TYPE_CHECKING:
    from tests.crashes import Server, World, whole
    from tests.scripted import Scripted, answers, no_turn, tools
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World, whole
    from scripted import Scripted, answers, no_turn, tools


async def test_an_agent_that_asks_for_something_else_is_stopped_before_it_does_anything() -> None:
    world = World()
    await Server(world).run(answers(Agent(Scripted([[("pure", 1)], [("once", 2)]]).model(world), tools=tools(world))))
    did = Counter(world.did)
    last = max(world.units, key=lambda place: world.units[place].begun_ns)
    other = Scripted([[("pure", 1)], [("once", 3)]])

    async def stray(ctx: RunContext[object], n: int) -> str:
        del ctx
        return await world.do("pure", n + 10)

    agent = Agent(other.model(world), instructions="be quick", tools=tools(world)[:2])
    agent.tool(name="pure")(stray)
    with pytest.raises(Diverged):
        await Server(world, "another message", generation=2).run(answers(agent))
    assert world.did == did
    assert last in world.units


async def test_a_tool_whose_arguments_are_others_than_before_is_not_called() -> None:
    world, script = World(), Scripted([[("once", 1)]])
    await Server(world).run(answers(Agent(script.model(world), tools=tools(world))))

    async def once(n: int, much: int = 5) -> str:
        return await world.do("once", n + much)

    with pytest.raises(Diverged):
        await Server(world, generation=2).run(answers(Agent(script.model(world), tools=[once])))
    assert world.did == {"once 1": 1}


@pytest.mark.parametrize("streams", [False, True])
async def test_instructions_that_tell_the_time_and_new_tools_change_nothing(*, streams: bool) -> None:
    world, days = World(dies_at=12), iter(range(100))
    script = Scripted([[("pure", 1)], [("once", 2)]])

    def agent(*more: Callable[..., Any]) -> Agent[Any, Any]:
        made = Agent(script.model(world), tools=[*tools(world), *more])
        made.instructions(today)
        made.system_prompt(today)
        return made

    async def today() -> str:
        return f"today is day {next(days)}"

    async def new(n: int) -> str:
        return f"new {n}"

    assert await Server(world, streams=streams).run(answers(agent())) is None
    reply, doubts = await whole(answers(agent(new)), world, streams=streams)
    assert reply.text.strip() == "success pure 1 done; success once 2 done"
    assert doubts == 0
    assert world.did["once 2"] == 1


@pytest.mark.parametrize(
    "stop", [HandedOver(), InDoubt("x"), Diverged("y"), NotOwner(), StoreUnavailable(), TurnCancelled()]
)
@pytest.mark.parametrize("streams", [False, True])
async def test_a_stop_comes_out_of_the_agents_run_as_it_is_and_no_other_model_is_asked(
    stop: HoldfastError, *, streams: bool
) -> None:
    world, script = World(), Scripted([[("pure", 1)]])
    for model in (script.model(world), FallbackModel(script.model(world), script.model(world))):
        server = Server(world, streams=streams)
        server.journal.stop(stop)
        with pytest.raises(type(stop)) as caught:
            await answers(Agent(model, tools=tools(world)))(server.turn)
        assert caught.value is stop
    server = Server(world, streams=streams)
    server.journal.stop(stop)
    with pytest.raises(type(stop)):
        await PydanticAgent(Agent(script.model(world)), "a", [script.model(world)]).answer(server.turn)
    assert not script.asked


@pytest.mark.parametrize("streams", [False, True])
async def test_the_model_is_not_told_of_a_tool_that_was_not_called_as_the_turn_goes_on_elsewhere(
    *, streams: bool
) -> None:
    world, script = World(), Scripted([[("once", 1)]])
    server = Server(world, streams=streams, handing_over=lambda: bool(script.asked))
    with pytest.raises(HandedOver):
        await answers(Agent(script.model(world), tools=tools(world)))(server.turn)
    assert script.asked == {0: 1}
    reply, doubts = await whole(answers(Agent(script.model(world), tools=tools(world))), world, streams=streams)
    assert (reply.text.strip(), doubts) == ("success once 1 done", 0)


async def test_agents_that_ask_the_same_at_the_same_time_get_their_own_answers() -> None:
    def says(text: str) -> FunctionModel:
        async def model(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
            return ModelResponse([TextPart(text)])

        return FunctionModel(model)

    waits = {"rosy": 1.0, "grim": 2.0}
    world = World()

    @effect("pure")
    async def panel(n: int) -> str:
        async def ask(name: str) -> str:
            await asyncio.sleep(waits[name])
            sub = Agent(says(name), name=name, capabilities=[HoldfastCapability(no_turn)])
            return (await sub.run("how will it end?")).output

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(name)) for name in ("rosy", "grim")]
        return f"{n} " + " ".join(task.result() for task in asked)

    agent = Agent(Scripted([[("panel", 1)]]).model(world), tools=[panel])
    await Server(world).run(answers(agent))
    for place, unit in world.units.items():
        if unit.name == "panel":
            world.units[place] = msgspec.structs.replace(unit, state="begun", result=None)
    waits.update(rosy=2.0, grim=1.0)
    reply = await Server(world, generation=2).run(answers(agent))
    assert reply is not None
    assert reply.text == "success 1 rosy grim"


async def test_a_stream_that_nobody_read_to_its_end_is_not_kept() -> None:
    world = World()
    server = Server(world, streams=True)
    model = GuardedModel(Scripted([]).model(world))
    token = ambient.set(server.turn.guard)
    try:
        async with model.request_stream(
            [ModelRequest([UserPromptPart("hi")])], None, ModelRequestParameters()
        ) as stream:
            async for _ in stream:
                break
    finally:
        ambient.reset(token)
    assert [unit.state for unit in world.units.values()] == ["failed"]


async def effects_of(*toolsets: AbstractToolset[Any]) -> dict[str, str]:
    world = World()
    script = Scripted([[("t_one", 1)]])
    agent = Agent(script.model(world), toolsets=toolsets)
    await Server(world).run(answers(agent))
    return {unit.name: unit.effect for unit in world.units.values() if unit.kind == "tool"}


async def test_a_tool_is_what_its_function_declares_under_whatever_name() -> None:
    @effect("idempotent")
    async def one(n: int) -> int:
        return n

    assert await effects_of(FunctionToolset([one]).prefixed("t")) == {"t_one": "idempotent"}


@pytest.mark.parametrize(
    ("metadata", "effect_of"),
    [
        ({"holdfast": {"effect": "pure"}, "annotations": {"idempotentHint": True}}, "pure"),
        ({"annotations": {"readOnlyHint": True, "idempotentHint": True}}, "pure"),
        ({"annotations": {"readOnlyHint": False, "idempotentHint": True}}, "idempotent"),
        ({"annotations": {"readOnlyHint": False, "idempotentHint": None}}, "once"),
        ({"annotations": None}, "once"),
        (None, "once"),
    ],
)
async def test_a_tool_is_else_what_its_metadata_says(metadata: dict[str, Any] | None, effect_of: str) -> None:
    async def t_one(n: int) -> int:
        return n

    toolset: FunctionToolset[Any] = FunctionToolset()
    toolset.add_function(t_one, metadata=metadata)
    assert await effects_of(toolset) == {"t_one": effect_of}


async def test_an_effect_that_there_is_not_is_told() -> None:
    async def t_one(n: int) -> int:
        return n

    toolset: FunctionToolset[Any] = FunctionToolset()
    toolset.add_function(t_one, metadata={"holdfast": {"effect": "reads"}})
    with pytest.raises(Misconfigured, match="the tool t_one"):
        await effects_of(toolset)
