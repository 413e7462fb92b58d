"""Serves a Pydantic AI agent."""

from collections.abc import AsyncIterable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import pydantic_core
from pydantic_ai import DeferredToolRequests, RunContext
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import FallbackExceptionGroup, ModelAPIError, UnexpectedModelBehavior
from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult

from holdfast.adapters.pydantic_ai.capability import Crossings, StreamCrossings
from holdfast.adapters.pydantic_ai.history import FORMAT, chars_in, decode
from holdfast.adapters.pydantic_ai.translate import translate
from holdfast.errors import AgentFailed
from holdfast.guard import ambient
from holdfast.store import tokens_in
from holdfast.turn import Reply, Turn


class PydanticAgent:
    """
    Serves a Pydantic AI agent.

    An agent whose ``deps_type`` is ``holdfast.Turn`` is given the turn as its dependencies.

    Args:
        agent: Any agent: with tools, structured output, a ``FallbackModel``, its own capabilities.
        name: What callers choose it by.
        fallbacks: Models that are asked in this order when the agent's own has failed.
    """

    def __init__(self, agent: AbstractAgent[Any, Any], name: str, fallbacks: Sequence[Model] = ()) -> None:
        self._agent = agent
        self._name = name
        own: list[AbstractCapability[Any]] = []
        agent.root_capability.apply(own.append)
        guarded = any(isinstance(capability, Crossings) for capability in own)
        self._crossings: list[Crossings] = [] if guarded else [Crossings(fallbacks)]
        self._stream_crossings: list[Crossings] = [] if guarded else [StreamCrossings(fallbacks)]
        self._wants_turn = agent.deps_type is Turn

    @property
    def name(self) -> str:
        """What callers choose it by."""
        return self._name

    async def __aenter__(self) -> Self:
        """Open the agent's tools and its provider's connections."""
        await self._agent.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them."""
        await self._agent.__aexit__(kind, error, trace)

    async def answer(self, turn: Turn) -> Reply:
        """
        Run the agent.

        Raises:
            ModelUnavailable, ModelRejected, ModelMalformed, TimedOut: what the model did instead of answering.
            AgentFailed: the agent ended with calls that wait for somebody's approval, which is not served.
        """
        result = await self.run(turn, turn.message)
        if isinstance(result.output, DeferredToolRequests):
            raise AgentFailed(f"the agent {self._name} asks for approval of tool calls, which is not served")
        text = result.output if isinstance(result.output, str) else pydantic_core.to_json(result.output).decode()
        messages = result.new_messages()
        return Reply(text, FORMAT, result.new_messages_json(), tokens_in(chars_in(messages)))

    async def run(self, turn: Turn, prompt: str, instructions: str | None = None) -> AgentRunResult[Any]:
        """Run the agent under the turn's guard, with what came before; errors are those of ``answer``."""
        token = ambient.set(turn.guard)
        try:
            return await self._agent.run(
                prompt,
                message_history=decode(turn.past),
                instructions=instructions,
                deps=turn if self._wants_turn else None,
                event_stream_handler=_teller(turn) if turn.streams else None,
                capabilities=self._stream_crossings if turn.streams else self._crossings,
                infer_name=False,
            )
        except (ModelAPIError, FallbackExceptionGroup, UnexpectedModelBehavior) as error:
            raise translate(error) from error
        finally:
            ambient.reset(token)


def _teller(turn: Turn) -> Callable[[RunContext[Any], AsyncIterable[AgentStreamEvent]], Any]:
    async def tell(_ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            if turn.guard.model.known:
                continue  # It was said when the turn was run before.
            match event:
                case PartStartEvent(part=TextPart(content=text)):
                    turn.guard.model.first_token()
                    turn.say(text)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    turn.say(text)
                case PartStartEvent():
                    turn.guard.model.first_token()

    return tell
