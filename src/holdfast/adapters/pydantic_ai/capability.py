"""The capability that takes an agent's model and tool calls through the guard of the turn it runs in."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import pydantic_core
from pydantic_ai import DeferredToolRequests, RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapOutputProcessHandler, WrapRunHandler, WrapToolExecuteHandler
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    FallbackExceptionGroup,
    ModelRetry,
    RetryModelRequest,
    SkipToolExecution,
    ToolFailed,
    ToolRetryError,
)
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.output import OutputContext
from pydantic_ai.run import AgentRunResult
from pydantic_ai.settings import ModelSettings, merge_model_settings
from pydantic_ai.tools import ToolDefinition

from holdfast.adapters.pydantic_ai.kept import NOT_TAKEN, TOOL
from holdfast.adapters.pydantic_ai.model import GuardedModel, asker, guard_model
from holdfast.adapters.pydantic_ai.steps import tell_step, watch_of
from holdfast.adapters.pydantic_ai.translate import translate
from holdfast.errors import AttemptTimedOut, Blocked, Misconfigured, Refused, StoppedPartial
from holdfast.guard import Guard, ambient
from holdfast.journal import PURE, STOPS, Declared, declared_effect
from holdfast.resilience import FailureClass
from holdfast.tools import ToolError

MODELS_KEPT = 64
"""Models an agent may change between before the guarded ones are made anew."""


class GuardedOnce(NamedTuple):
    """A model, kept so that its identity stays its own, and the same model with the guard around it."""

    model: Model
    guarded: Model


class Crossings(AbstractCapability[Any]):
    """
    Takes an agent's model and tool calls through the guard of the turn it runs in.

    Args:
        fallbacks: Models that are asked in this order when the agent's own has failed. They are entered elsewhere.
    """

    def __init__(self, fallbacks: Sequence[Model] = ()) -> None:
        self.id = "holdfast"
        self._fallbacks = tuple(fallbacks)
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
            place = self._place(model)
            guarded = guard_model(model, elsewhere=place < len(self._fallbacks), standby=place > 0)
            known = self._guarded[id(model)] = GuardedOnce(model, guarded)
        return known.guarded

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Remember which agent asks, and tell the monitor what it did before; it may want another model asked."""
        asker.set((ctx.agent and ctx.agent.name) or "")
        guard = ambient.get()
        if guard is not None and (watch := watch_of(guard)) is not None:
            tell_step(guard, watch, request_context.messages)
            model = request_context.model
            own = model.wrapped if isinstance(model, GuardedModel) else model
            if watch.switched and self._fallbacks and not self._place(own):
                raise RetryModelRequest(self._fallbacks[0])
        return request_context

    async def wrap_output_process(
        self, ctx: RunContext[Any], *, output_context: OutputContext, output: Any, handler: WrapOutputProcessHandler
    ) -> Any:
        """
        Have the monitor look at the answer.

        Raises:
            ModelRetry: it lacks something; it says what.
            StoppedPartial: the turn ends with a question in its place.
        """
        del output_context
        answer = await handler(output)
        watch = watch_of(ambient.get())
        if watch is None or ctx.partial_output or isinstance(answer, DeferredToolRequests):
            return answer
        text = answer if isinstance(answer, str) else pydantic_core.to_json(answer, fallback=str).decode()
        lacks = watch.finish(text, again=ctx.retry < ctx.max_retries)
        if lacks is not None:
            raise ModelRetry(f"{NOT_TAKEN}{lacks}")
        return answer

    async def on_model_request_error(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        """Ask again where that may help: the same model, if the guard says so after its wait, or else the next one."""
        del ctx
        guard, model = ambient.get(), request_context.model
        if guard is None or isinstance(error, (FallbackExceptionGroup, StoppedPartial, *STOPS)):
            raise error
        served = model if isinstance(model, GuardedModel) else self.get_wrapper_model(model)
        known = translate(error)
        if isinstance(served, GuardedModel) and await guard.model.again(served.key(), known):
            raise RetryModelRequest
        place = self._place(served.wrapped if isinstance(served, GuardedModel) else model)
        if place < len(self._fallbacks) and guard.model.may_ask_another():
            raise RetryModelRequest(self._fallbacks[place])
        raise error

    def _place(self, model: Model) -> int:
        """0 for the agent's own model, and from 1 for its fallbacks."""
        return next((at for at, fallback in enumerate(self._fallbacks, 1) if fallback is model), 0)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """
        Run the tool through the guard. The model is told of a tool that could not do it, or not now or in time.

        Raises:
            SkipToolExecution: the call was made before, with this result; Pydantic AI counts it and goes on.
        """
        guard = ambient.get()
        if guard is None:
            return await handler(args)
        made = False

        async def make() -> Any:
            nonlocal made
            made = True
            return await _answered(handler(args))

        try:
            declared = declared_of(ctx, tool_def)
            result = await guard.tool(call.tool_name, args, call.tool_call_id, make, declared=declared, codec=TOOL)
        except (StoppedPartial, *STOPS):
            raise
        except ToolError as error:
            raise ToolFailed(str(error)) from error
        except (AttemptTimedOut, Blocked, Refused) as error:
            raise ToolFailed(error.detail) from error
        if not made:
            raise SkipToolExecution(result)
        return result


class StreamCrossings(Crossings):
    """The same for agents that stream. Pydantic AI keeps the limits of a stream, as it knows where it is read."""

    async def prepare_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Give the attempt its limits; shorter ones of the agent's own stay."""
        request_context = await super().prepare_model_request(ctx, request_context)
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


def declared_of(ctx: RunContext[Any], tool: ToolDefinition) -> Declared | None:
    """
    What a tool says of itself: its function by ``effect``, else its metadata, else the hints of its MCP server.

    Metadata is ``{"holdfast": {"effect": "pure"}}``, or ``idempotent``, or ``once``.

    Raises:
        Misconfigured: its metadata has another effect. It was not run.
    """
    known: object = ctx.tool_manager.tools.get(tool.name) if ctx.tool_manager and ctx.tool_manager.tools else None
    while (inner := getattr(known, "source_tool", None)) is not None:  # Of several toolsets, as of one.
        known = inner
    schema = getattr(getattr(known, "call_func", None), "__self__", None)
    declared = declared_effect(getattr(schema, "function", None))
    if declared is not None:
        return declared
    match tool.metadata or {}:
        case {"holdfast": {"effect": "pure" | "idempotent" | "once" as kind}}:
            return Declared(kind)
        case {"holdfast": {"effect": other}}:
            raise Misconfigured(
                f"the tool {tool.name}: metadata has the effect {other!r}; use pure, idempotent or once"
            )
        case {"annotations": {"readOnlyHint": True}}:
            return PURE
        case {"annotations": {"idempotentHint": True}}:
            return Declared("idempotent")
    return None


async def _answered(call: Awaitable[Any]) -> Any:
    """A tool's call. What it tells the model, or asks of it, is an answer and no failure of the tool."""
    try:
        return await call
    except (ModelRetry, ToolFailed, ToolRetryError, ApprovalRequired, CallDeferred) as told:
        told.failure_class = FailureClass.TOOL_ERROR  # type: ignore[union-attr]  # what `recognise` looks for
        raise
