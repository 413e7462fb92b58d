"""The monitor of a turn: the same whoever runs it again, and what outlasts it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from holdfast import Ask, Holdfast
from holdfast.adapters import PydanticAgent
from holdfast.budget import BudgetSpec
from holdfast.config import load
from holdfast.errors import CircuitOpen
from holdfast.events import Event, MonitorActed, MonitorDetected, StateChanged
from holdfast.guard import Conduct
from holdfast.journal import effect
from holdfast.monitor import MonitorSpec, Success
from holdfast.store import MemoryStore
from holdfast.testing import loop_clock
from holdfast.tools import ToolError
from holdfast.turn import Reply, Turn

if TYPE_CHECKING:
    from tests.crashes import Server, World, whole
    from tests.scripted import MANY, answers
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World, whole
    from scripted import MANY, answers


def looping(world: World) -> Agent[None, str]:
    """It calls the same until it may not, and then says how often that was answered, and how."""

    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        await world.moment()
        returned = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        if len(returned) < 5 and info.function_tools:
            return ModelResponse([ToolCallPart("look", {"at": "the sky"}, f"c{len(returned)}")])
        return ModelResponse([TextPart(" ".join(part.outcome for part in returned))])

    @effect("pure")
    async def look(at: str) -> str:
        await world.moment()
        world.did[at] += 1
        return f"there is nothing to be seen at {at}"

    return Agent(FunctionModel(model, model_name="loops"), tools=[look])


def conduct_for(spec: MonitorSpec) -> Conduct:
    return Conduct(spec, MemoryStore(loop_clock()), loop_clock(), BudgetSpec(), 120.0)


async def test_wherever_its_server_dies_a_call_that_was_blocked_stays_blocked() -> None:
    spec = MonitorSpec(mode="act", hide_steps=100)
    for dies_at in range(1, MANY):
        world = World(dies_at)
        reply, _ = await whole(answers(looping(world)), world, conduct=conduct_for(spec))
        assert reply.text == "success success success failed failed"
        assert 3 <= world.did["the sky"] <= 4
        if not world.moments >= dies_at:
            break
    else:
        raise AssertionError("there are more moments than that")
    assert dies_at > 10


async def test_what_was_found_is_not_told_again_when_a_turn_is_run_again() -> None:
    world = World()
    told: list[list[Event]] = []
    for generation in (1, 2):
        server = Server(world, generation=generation, conduct=conduct_for(MonitorSpec(mode="act")))
        await server.run(answers(looping(world)))
        told.append([one for one in server.events if isinstance(one, MonitorDetected | MonitorActed)])
    assert len(told[0]) >= 4
    assert told[1] == []


@pytest.mark.parametrize("mode", ["act", "shadow"])
async def test_a_request_is_the_same_to_the_journal_whatever_the_monitor_adds(mode: Any) -> None:
    """A turn that began in shadow is finished by a server whose monitor acts: it does not diverge."""
    world = World()
    await Server(world, conduct=conduct_for(MonitorSpec(mode="shadow"))).run(answers(looping(world)))
    server = Server(world, generation=2, conduct=conduct_for(MonitorSpec(mode=mode)))
    reply = await server.run(answers(looping(world)))
    assert reply is not None
    assert reply.text == "success success success success success"


def quick(text: str = "done") -> Agent[None, str]:
    async def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if isinstance(messages[-1], ModelRequest) and not any(
            isinstance(p, ToolReturnPart) for p in messages[-1].parts
        ):
            return ModelResponse([ToolCallPart("look", {})])
        return ModelResponse([TextPart(text)])

    async def look() -> str:
        return "a blue sky, and some clouds in it"

    return Agent(FunctionModel(model, model_name="quick"), tools=[look])


def stubborn() -> Agent[None, str]:
    async def model(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("look", {})])

    async def look() -> str:
        return "a blue sky, and some clouds in it"

    return Agent(FunctionModel(model, model_name="stubborn"), tools=[look])


def served(path: Path, agent: Agent[None, str], **settings: object) -> Holdfast:
    flags = {"store.url": f"sqlite:{path}", "telemetry.jsonl_path": "", "monitor.successes": 3, **settings}
    hold = Holdfast(load(environ={}, flags=flags).settings, environ={})
    hold.serve(agent, "agent")
    return hold


def ask(session: str, message: str = "well?") -> Ask:
    return Ask(message=message, principal="ada", session_id=session, trace_id="0" * 32, request_id="r")


@pytest.mark.sockets
def test_an_agent_is_held_back_once_it_has_succeeded_often_enough_and_a_stopped_session_stays_stopped(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"

    async def learn() -> None:
        async with served(path, quick()) as hold:
            for number in range(3):
                assert (await hold.begin(ask(f"s{number}"), "agent")).outcome == "success"

    async def act() -> None:
        async with served(path, stubborn()) as hold:  # Another process, which has seen no success of it.
            seen: list[Event] = []
            answer = await hold.begin(ask("stuck"), "agent", watch=[lambda _, event: seen.append(event)])
            assert answer.outcome == "guardrail_blocked"
            assert all(one.acts for one in seen if isinstance(one, MonitorDetected))
            assert [one.state for one in seen if isinstance(one, StateChanged)][-1] == "none"

    async def stay() -> None:
        async with served(path, quick()) as hold:
            assert (await hold.begin(ask("stuck"), "agent")).outcome == "guardrail_blocked"
            assert (await hold.begin(ask("new"), "agent")).outcome == "success"
            [latest] = await hold.store.turns("ada", "stuck", 1, None) or []
            assert await hold.conduct.reset(latest.conversation_id)
            assert (await hold.begin(ask("stuck"), "agent")).outcome == "success"

    for part in (learn, act, stay):
        asyncio.run(part())


async def test_norms_are_learnt_from_successes_and_kept() -> None:
    store = MemoryStore(loop_clock())
    first = Conduct(MonitorSpec(), store, loop_clock(), BudgetSpec(), 120.0)
    async with first.keeping(["agent"]):
        for number in range(4):
            first.learn("agent", f"t-{number}", Success(number + 1, 10, 2, 0.7))
    second = Conduct(MonitorSpec(), store, loop_clock(), BudgetSpec(), 120.0)
    await second.load(["agent", "other"])
    assert [len(second._norms[name]) for name in ("agent", "other")] == [4, 0]
    assert (second._norms["agent"].longest(), second._norms["agent"].least_evidence()) == (4, 2)


async def test_an_agent_that_streams_is_held_back_too() -> None:
    world = World()

    async def stream(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        returned = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        if len(returned) < 4:
            yield {0: DeltaToolCall("look", "{}", tool_call_id=f"c{len(returned)}")}
        else:
            yield " ".join(part.outcome for part in returned)

    async def look() -> str:
        return "there is nothing to be seen here"

    agent = Agent(FunctionModel(stream_function=stream, model_name="loops"), tools=[look])
    server = Server(world, streams=True, conduct=conduct_for(MonitorSpec(mode="act")))
    reply = await server.run(answers(agent))
    assert reply is not None
    assert reply.text == "success success success failed"


async def test_an_agent_that_only_makes_errors_is_given_another_model() -> None:
    asked: list[str] = []

    def model_called(name: str) -> FunctionModel:
        async def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
            asked.append(name)
            if name == "other":
                return ModelResponse([TextPart("It cannot be found.")])
            return ModelResponse([ToolCallPart("find", {"n": len(messages)}, f"c{len(messages)}")])

        return FunctionModel(model, model_name=name)

    async def find(n: int) -> str:
        raise ToolError(f"there is no entry {n}")

    async def look(n: int) -> str:
        return f"entry {n}"

    agent = Agent(model_called("own"), tools=[find, look])
    served = PydanticAgent(agent, "agent", [model_called("other")])
    spec = MonitorSpec(mode="act", failed_in_a_row=10, failed_in_all=10)
    server = Server(World(), conduct=conduct_for(spec))

    async def answer(turn: Turn) -> Reply:
        return await served.answer(turn)

    reply = await server.run(answer)
    assert reply is not None
    assert reply.text == "It cannot be found."
    assert asked[-1] == "other"
    assert "other" not in asked[:-1]
    done = [event.protocol for event in server.events if isinstance(event, MonitorActed)]
    assert "switch_model" in done


async def test_a_breaker_that_is_open_is_not_held_against_the_agent() -> None:
    """What policies refuse is no error of its own, however often it tries."""

    async def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if len(messages) > 12:
            return ModelResponse([TextPart("It is down.")])
        return ModelResponse([ToolCallPart("find", {"n": len(messages)}, f"c{len(messages)}")])

    async def find(n: int) -> str:
        raise CircuitOpen(f"the index is left alone, {n}")

    server = Server(World(), conduct=conduct_for(MonitorSpec(mode="act")))
    reply = await server.run(answers(Agent(FunctionModel(model, model_name="m"), tools=[find])))
    assert reply is not None
    assert reply.text == "It is down."
    assert not [event for event in server.events if isinstance(event, MonitorDetected)]
