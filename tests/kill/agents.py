"""
What the servers under test serve: agents whose tools are counted from outside, in a file that the test owns.

Each asks a model, calls the tool ``first``, asks again, calls ``middle``, whose effect is the one under test, and
``last``, and answers with what they returned. ``first`` and ``last`` are declared by nobody.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from holdfast import FunctionTurn, effect, idempotency_key
from holdfast.clock import token_hex
from holdfast.guard import Attempt
from holdfast.journal import DID_NOT_HAPPEN, UNKNOWN, Happened, Unclear

if TYPE_CHECKING:
    from tests.kill.trigger import FOLDER, note, plan_of
else:
    sys.path.insert(0, str(Path(__file__).parent))
    from trigger import FOLDER, note, plan_of

OUTSIDE = FOLDER / "outside.jsonl"
Tool = Callable[..., Awaitable[str]]


def tell(run: str, what: str, did: str, key: str = "") -> None:
    """One line for those outside."""
    note(OUTSIDE, json.dumps({"run": run, "what": what, "did": did, "key": key}).encode() + b"\n")


def returned(tool: str) -> str:
    """What a tool returns."""
    return f"the {tool} one"


async def do(tool: str, run: str, pause_s: float = 0.0) -> str:
    """What every tool does: it tells that it was called, and then has its effect."""
    key, plan = idempotency_key(), plan_of(run)
    place = tool.partition("_")[0]
    tell(run, tool, "called", key)
    await plan.at(f"{place} inside before")
    await asyncio.sleep(pause_s)
    tell(run, tool, "effect", key)
    await plan.at(f"{place} inside after")
    return returned(tool)


async def first(run: str) -> str:
    """Is over before anything dies."""
    return await do("first", run)


async def last(run: str) -> str:
    """Is still under way where the tools run at the same time."""
    return await do("last", run)


@effect("pure")
async def middle_pure(run: str) -> str:
    """Only reads."""
    return await do("middle_pure", run)


@effect("idempotent")
async def middle_idempotent(run: str) -> str:
    """Hands on its key."""
    return await do("middle_idempotent", run)


@effect("once")
async def middle_once(run: str) -> str:
    """Must not be called twice."""
    return await do("middle_once", run)


async def middle_undeclared(run: str) -> str:
    """Nobody said what it does."""
    return await do("middle_undeclared", run)


async def look(args: Mapping[str, Any], key: str) -> Happened | Unclear:
    """Whether a call happened, as the file outside says."""
    tell(args["run"], "middle_reconcile", "asked", key)
    lines = [json.loads(line) for line in OUTSIDE.read_bytes().splitlines()]
    happened = any(line["key"] == key and line["did"] == "effect" for line in lines)
    return Happened(returned("middle_reconcile")) if happened else DID_NOT_HAPPEN


async def shrug(args: Mapping[str, Any], key: str) -> Happened | Unclear:
    """Cannot find out."""
    tell(args["run"], "middle_unknown", "asked", key)
    return UNKNOWN


@effect("reconcile", reconcile=look)
async def middle_reconcile(run: str) -> str:
    """Can be asked about."""
    return await do("middle_reconcile", run)


@effect("reconcile", reconcile=shrug)
async def middle_unknown(run: str) -> str:
    """Can be asked about, in vain."""
    return await do("middle_unknown", run)


MIDDLE: dict[str, Tool] = {
    tool.__name__.partition("_")[2]: tool
    for tool in (middle_pure, middle_idempotent, middle_once, middle_undeclared, middle_reconcile, middle_unknown)
}


async def think(run: str, number: int) -> None:
    """A model call."""
    tell(run, f"model{number}", "called")
    await plan_of(run).at(f"model{number} inside")


# Functions


async def _ask(turn: FunctionTurn, run: str, number: int) -> str:
    async def call(attempt: Attempt) -> str:
        await think(run, number)
        attempt.used(10, 2)
        return f"thought {number}"

    return await turn.call_model("test", "thinker", call, request=number)


async def function(turn: FunctionTurn) -> str:
    """One call after the other."""
    asked = json.loads(turn.message)
    run = asked["run"]
    said = [await _ask(turn, run, 1), await turn.tool(first, run=run), await _ask(turn, run, 2)]
    said.append(await turn.tool(MIDDLE[asked["effect"]], run=run))
    turn.say("so far so good, ")
    said += [await turn.tool(last, run=run), await _ask(turn, run, 3)]
    return ", ".join(said)


async def function_parallel(turn: FunctionTurn) -> str:
    """The tools at the same time."""
    asked = json.loads(turn.message)
    run = asked["run"]
    thought = await _ask(turn, run, 1)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(turn.tool(tool, run=run)) for tool in (first, MIDDLE[asked["effect"]], last)]
    return ", ".join([thought, *(call.result() for call in calls), await _ask(turn, run, 2)])


# Pydantic AI


def _asked(messages: list[ModelMessage]) -> dict[str, Any]:
    prompts = [part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    found: dict[str, Any] = json.loads(str(prompts[-1]))
    return found


def _call(tool: str, **args: object) -> ToolCallPart:
    return ToolCallPart(tool, args, tool_call_id=f"call_{token_hex(6)}")


def _steps(scenario: str, asked: Mapping[str, Any]) -> list[list[ToolCallPart]]:
    run, middle = asked["run"], f"middle_{asked['effect']}"
    one, two, three = _call("first", run=run), _call(middle, run=run), _call("last", run=run)
    match scenario:
        case "parallel":
            return [[one, two, three]]
        case "retry":
            return [[one], [_call("middle_picky", run=run, wrong=True)], [_call("middle_picky", run=run, wrong=False)]]
        case _:
            return [[one], [two], [three]]


async def _answer(scenario: str, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    asked = _asked(messages)
    number = 1 + sum(isinstance(message, ModelResponse) for message in messages)
    await think(asked["run"], number)
    steps = _steps(scenario, asked)
    if number <= len(steps):
        return ModelResponse(parts=list(steps[number - 1]))
    told = [str(part.content) for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if info.output_tools:
        return ModelResponse(parts=[_call(info.output_tools[0].name, told=sorted(told))])
    return ModelResponse(parts=[TextPart(", ".join(sorted(told)))])


def _model(scenario: str) -> FunctionModel:
    async def whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return await _answer(scenario, messages, info)

    async def streamed(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        for number, part in enumerate((await _answer(scenario, messages, info)).parts):
            if isinstance(part, ToolCallPart):
                yield {number: DeltaToolCall(part.tool_name, part.args_as_json_str(), tool_call_id=part.tool_call_id)}
            elif isinstance(part, TextPart):
                for word in part.content.split(" "):
                    yield f"{word} "

    return FunctionModel(whole, stream_function=streamed, model_name=f"scripted-{scenario}")


async def middle_picky(run: str, wrong: bool) -> str:  # noqa: FBT001 - a model fills it in by name
    """Wants to be called again, with something else."""
    if wrong:
        tell(run, "middle_picky", "wrong", idempotency_key())
        await plan_of(run).at("middle inside wrong")
        raise ModelRetry("not like this")
    return await do("middle_picky", run)


class Told(BaseModel):
    """A structured answer."""

    told: list[str]


TOOLS: list[Tool] = [first, *MIDDLE.values(), last, middle_picky]
chain = Agent(_model("chain"), name="chain", tools=TOOLS)
parallel = Agent(_model("parallel"), name="parallel", tools=TOOLS)
retry = Agent(_model("retry"), name="retry", tools=TOOLS)
structured = Agent(_model("structured"), name="structured", tools=TOOLS, output_type=Told)


# Under load


@effect("idempotent")
async def add(run: str) -> str:
    """May be called again with its key."""
    return await do("add", run, 0.02)


async def pay(run: str) -> str:
    """May not."""
    return await do("pay", run, 0.02)


async def load(turn: FunctionTurn) -> str:
    """A short turn: a thought, two effects, another thought."""
    run = json.loads(turn.message)["run"]
    await _ask(turn, run, 1)
    added = await turn.tool(add, run=run)
    await asyncio.sleep(0.02)
    paid = await turn.tool(pay, run=run)
    await _ask(turn, run, 2)
    return f"{added}, {paid}"
