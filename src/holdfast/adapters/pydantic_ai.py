"""
Pydantic AI: any ``Agent``, as it is.

One capability, outermost, takes the agent's model and tool calls through the guard:

    agent.run ─▶ Crossings ─┬─▶ get_wrapper_model ─▶ GuardedModel ─▶ guard.model ─▶ provider
                            └─▶ wrap_tool_execute ─▶ guard.tool ─▶ tool

A ``FallbackModel`` is not wrapped as a whole: each model inside it is, so that the guard sees every attempt.
"""

import copy
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self, cast

import pydantic_core
from pydantic_ai import DeferredToolRequests, RunContext
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapRunHandler, WrapToolExecuteHandler
from pydantic_ai.exceptions import (
    FallbackExceptionGroup,
    ModelAPIError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelTimeoutError,
    ToolFailed,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestContext, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.run import AgentRunResult
from pydantic_ai.settings import ModelSettings, merge_model_settings
from pydantic_ai.tools import ToolDefinition

from holdfast.errors import (
    AgentFailed,
    AttemptTimedOut,
    HoldfastError,
    ModelMalformed,
    ModelRejected,
    ModelUnavailable,
)
from holdfast.guard import Attempt, Guard, ModelKey, ambient
from holdfast.store import Past, tokens_in
from holdfast.tools import ToolError
from holdfast.turn import Reply, Turn

FORMAT = "pydantic_ai"
MODELS_KEPT = 64
"""Models an agent may change between before the guarded ones are made anew."""

SYSTEMS_THAT_SAY_WHY = frozenset({"anthropic", "openai"})
"""Providers that end every stream with a reason: without one, the stream was cut."""

_NO_SDK_RETRIES = ModelSettings(max_retries=0)


class GuardedOnce(NamedTuple):
    """A model, kept so that its identity stays its own, and the same model with the guard around it."""

    model: Model
    guarded: Model


class PydanticAgent:
    """
    Serves a Pydantic AI agent.

    An agent whose ``deps_type`` is ``holdfast.Turn`` is given the turn as its dependencies.

    Args:
        agent: Any agent: with tools, structured output, a ``FallbackModel``, its own capabilities.
        name: What callers choose it by.
    """

    def __init__(self, agent: AbstractAgent[Any, Any], name: str) -> None:
        self._agent = agent
        self._name = name
        own: list[AbstractCapability[Any]] = []
        agent.root_capability.apply(own.append)
        guarded = any(isinstance(capability, Crossings) for capability in own)
        self._crossings: list[Crossings] = [] if guarded else [Crossings()]
        self._stream_crossings: list[Crossings] = [] if guarded else [StreamCrossings()]
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
        return Reply(text, FORMAT, result.new_messages_json(), tokens_in(_chars(messages)))

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


class Crossings(AbstractCapability[Any]):
    """Takes an agent's model and tool calls through the guard of the turn it runs in."""

    def __init__(self) -> None:
        self.id = "holdfast"
        self._guarded: dict[int, GuardedOnce] = {}

    def get_ordering(self) -> CapabilityOrdering:
        """Outermost: nothing another capability does escapes the guard."""
        return CapabilityOrdering(position="outermost")

    def get_wrapper_model(self, model: Model) -> Model:
        """The model with the guard around every attempt, made once for each of the last models seen."""
        known = self._guarded.get(id(model))
        if known is None:
            if len(self._guarded) >= MODELS_KEPT:
                self._guarded.clear()
            known = self._guarded[id(model)] = GuardedOnce(model, _guard_model(model))
        return known.guarded

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Run the tool through the guard. The model is told of a tool that could not do it or took too long."""
        del ctx, tool_def
        guard = ambient.get()
        if guard is None:
            return await handler(args)
        try:
            return await guard.tool(call.tool_name, args, call.tool_call_id, lambda: handler(args))
        except ToolError as error:
            raise ToolFailed(str(error)) from error
        except AttemptTimedOut as error:
            raise ToolFailed(error.detail) from error


class StreamCrossings(Crossings):
    """The same for agents that stream. Pydantic AI keeps the limits of a stream, as it knows where it is read."""

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Give the attempt its limits; shorter ones of the agent's own stay."""
        del ctx
        guard = ambient.get()
        if guard is not None:
            first_s, total_s = guard.model.stream_limits()
            mine = request_context.model_settings or {}
            limits = ModelSettings(
                first_event_timeout=min(first_s, mine.get("first_event_timeout", first_s)),
                request_timeout=min(total_s, mine.get("request_timeout", total_s)),
            )
            request_context.model_settings = merge_model_settings(request_context.model_settings, limits)
        return request_context


class HoldfastCapability(StreamCrossings):
    """
    The same for agents that run in your own process: each run is a turn of its own.

    Args:
        begin: Begins a turn for a run that is in none.
    """

    def __init__(self, begin: Callable[[str], AbstractAsyncContextManager[Guard]]) -> None:
        super().__init__()
        self._begin = begin

    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Begin a turn where there is none."""
        if ambient.get() is not None:
            return await handler()
        name = ctx.agent.name if ctx.agent is not None else None
        async with self._begin(name or "agent") as guard:
            token = ambient.set(guard)
            try:
                return await handler()
            finally:
                ambient.reset(token)


class GuardedModel(WrapperModel):
    """A model whose every attempt passes the guard of the turn it is called in. It owns nothing of the model."""

    def __init__(self, wrapped: Model) -> None:
        super().__init__(wrapped)
        retries = getattr(getattr(wrapped, "client", None), "max_retries", None)
        can_be_told = "max_retries" not in wrapped.unsupported_settings
        self._extra = _NO_SDK_RETRIES if retries != 0 and can_be_told else None

    async def __aenter__(self) -> Self:
        """Nothing: whoever made the model opens it."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Nothing: whoever made the model closes it."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """One attempt."""
        settings = merge_model_settings(model_settings, self._extra)
        guard = ambient.get()
        if guard is None:
            return await self.wrapped.request(messages, settings, model_request_parameters)

        async def call(attempt: Attempt) -> ModelResponse:
            try:
                response = await self.wrapped.request(messages, settings, model_request_parameters)
            except (ModelAPIError, UnexpectedModelBehavior) as error:
                raise translate(error) from error
            attempt.used(response.usage.input_tokens, response.usage.output_tokens)
            return response

        try:
            return await guard.model(self._key(), None, call)
        except HoldfastError as error:
            self._as_pydantic(error)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """One streamed attempt."""
        settings = merge_model_settings(model_settings, self._extra)
        guard = ambient.get()
        opened = self.wrapped.request_stream(messages, settings, model_request_parameters, run_context)
        if guard is None:
            async with opened as response:
                yield response
            return
        try:
            async with guard.model.stream(self._key(), None) as attempt:
                try:
                    async with opened as response:
                        try:
                            yield response
                        finally:
                            attempt.used(response.usage.input_tokens, response.usage.output_tokens)
                        self._refuse_cut(response)
                except (ModelAPIError, UnexpectedModelBehavior) as error:
                    raise translate(error) from error
        except HoldfastError as error:
            self._as_pydantic(error)

    def _refuse_cut(self, response: StreamedResponse) -> None:
        """
        Tell a stream that was cut from one that ended; the SDKs take both for an answer.

        Raises:
            ModelAPIError: the stream stopped before the provider said why it ended.
        """
        said_why = "finish_reason" in (response.provider_details or {})
        if self.wrapped.canonical_system in SYSTEMS_THAT_SAY_WHY and not said_why:
            raise ModelAPIError(self.model_name, "the stream broke off before its end")

    def _key(self) -> ModelKey:
        return ModelKey(self.wrapped.system, self.wrapped.model_name)

    def _as_pydantic(self, error: HoldfastError) -> NoReturn:
        """What Pydantic AI, a ``FallbackModel`` above all, expects of a model that failed."""
        if isinstance(error.__cause__, ModelAPIError | UnexpectedModelBehavior):
            raise error.__cause__
        if isinstance(error, AttemptTimedOut):
            raise ModelRequestTimeout(self.model_name, 0.0) from error
        raise error


def _guard_model(model: Model) -> Model:
    if not isinstance(model, FallbackModel):
        return GuardedModel(model)
    inner = copy.copy(model)
    inner.models = [_guard_model(candidate) for candidate in model.models]
    return inner


def _teller(turn: Turn) -> Callable[[RunContext[Any], AsyncIterable[AgentStreamEvent]], Any]:
    async def tell(_ctx: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            match event:
                case PartStartEvent(part=TextPart(content=text)):
                    turn.guard.model.first_token()
                    turn.say(text)
                case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                    turn.say(text)
                case PartStartEvent():
                    turn.guard.model.first_token()

    return tell


def translate(error: BaseException) -> HoldfastError:
    """Pydantic AI's error as one of ours. Its text may quote the provider's, so it goes into ``detail`` alone."""
    match error:
        case HoldfastError():
            return error
        case ModelRequestTimeout() | ModelTimeoutError():
            return AttemptTimedOut(f"the model {error.model_name} did not answer in time")
        case ModelRequestRejectedError():
            return ModelRejected(f"the provider of {error.model_name} refused: {type(error).__name__}")
        case ModelAPIError():
            detail = f"the provider of {error.model_name} failed: {type(error).__name__}"
            return ModelUnavailable(detail, retry_after_s=error.retry_after)
        case FallbackExceptionGroup():
            causes = [translate(cause) for cause in error.exceptions]
            return next((cause for cause in causes if cause.retryable), causes[-1])
        case UnexpectedModelBehavior():
            return ModelMalformed(f"the model's answer could not be used: {type(error).__name__}")
        case _:
            return AgentFailed(f"the agent raised {type(error).__name__}")


def decode(past: Sequence[Past]) -> list[ModelMessage]:
    """Earlier turns as messages. A turn of another adapter, or too large for the window, is its plain exchange."""
    messages: list[ModelMessage] = []
    for turn in past:
        if turn.format == FORMAT and turn.messages is not None:
            messages.extend(ModelMessagesTypeAdapter.validate_json(turn.messages))
        else:
            messages.append(ModelRequest(parts=[UserPromptPart(turn.message)]))
            messages.append(ModelResponse(parts=[TextPart(turn.reply)]))
    return messages


def _chars(messages: Sequence[ModelMessage]) -> int:
    """Characters of text in ``messages``: what is said, tool arguments and tool results."""
    total = 0
    for message in messages:
        for part in message.parts:
            content = cast("object", getattr(part, "content", None) or getattr(part, "args", None))
            total += len(content) if isinstance(content, str) else len(pydantic_core.to_json(content, fallback=str))
    return total
