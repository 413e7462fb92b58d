"""Pydantic AI agents with a script, whose tools change the world of a test."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from holdfast.adapters import PydanticAgent
from holdfast.journal import effect, idempotency_key
from holdfast.turn import Reply, Turn

if TYPE_CHECKING:
    from tests.crashes import World
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import World

Steps = Sequence[Sequence[tuple[str, int]]]

MANY = 200
"""More moments than any of these turns has."""


def answers(agent: Agent[Any, Any]) -> Callable[[Turn], Any]:
    async def answer(turn: Turn) -> Reply:
        return await PydanticAgent(agent, "agent").answer(turn)

    return answer


class Scripted:
    """
    A model that asks for tools step by step, then says what they returned.

    Attributes:
        asked: How often it was asked for each step.
    """

    def __init__(self, steps: Steps, *, same_ids: bool = False, tokens: bool = True) -> None:
        self._steps = steps
        self._same_ids = same_ids
        self._tokens = tokens
        self.asked: Counter[int] = Counter()

    def model(self, world: World) -> Model:
        async def request(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
            await world.moment()
            step = self._count(messages)
            calls = self._calls(step)
            return ModelResponse(parts=[*calls] if calls else [TextPart(self._text(messages))])

        async def stream(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
            await world.moment()
            step = self._count(messages)
            for at, call in enumerate(self._calls(step)):
                yield {at: DeltaToolCall(call.tool_name, json.dumps(call.args), tool_call_id=call.tool_call_id)}
            if step >= len(self._steps):
                for word in self._text(messages).split(" "):
                    yield word + " "
                    await world.moment()

        return FunctionModel(request, stream_function=stream, model_name="scripted")

    def _count(self, messages: list[ModelMessage]) -> int:
        step = sum(isinstance(message, ModelResponse) for message in messages)
        self.asked[step] += 1
        return step

    def _calls(self, step: int) -> list[ToolCallPart]:
        if step >= len(self._steps):
            return []
        return [
            ToolCallPart(name, {"n": n}, f"c{at}" if self._same_ids else f"c{step}-{at}")
            for at, (name, n) in enumerate(self._steps[step])
        ]

    @staticmethod
    def _text(messages: list[ModelMessage]) -> str:
        parts = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        return "; ".join(f"{part.outcome} {part.model_response_str(wrap_if_error=False)}" for part in parts)


def tools(world: World) -> list[Callable[..., Any]]:
    async def undeclared(n: int) -> str:
        return await world.do("undeclared", n)

    @effect("once")
    async def once(n: int) -> str:
        return await world.do("once", n)

    @effect("pure")
    async def pure(n: int) -> str:
        return await world.do("pure", n)

    @effect("idempotent")
    async def idempotent(n: int) -> str:
        world.did[f"key {idempotency_key()}"] = 1
        return await world.do("idempotent", n)

    return [undeclared, once, pure, idempotent]


def no_turn(_agent: str) -> Any:
    raise AssertionError("the run is in a turn already")


SEQUENCE: Steps = [[("pure", 1)], [("once", 2)], [("undeclared", 3)], [("idempotent", 4)]]
PARALLEL: Steps = [[("pure", 1), ("once", 2), ("undeclared", 3), ("once", 4)], [("idempotent", 5), ("once", 6)]]
