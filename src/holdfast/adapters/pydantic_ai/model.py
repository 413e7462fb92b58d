"""A model whose every attempt crosses the guard."""

import copy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NoReturn, Self

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelAPIError, ModelRequestTimeout, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings, merge_model_settings

from holdfast.adapters.pydantic_ai.translate import translate
from holdfast.errors import AttemptTimedOut, HoldfastError
from holdfast.guard import Attempt, ModelKey, ambient

SYSTEMS_THAT_SAY_WHY = frozenset({"anthropic", "openai"})
"""Providers that end every stream with a reason: without one, the stream was cut."""

_NO_SDK_RETRIES = ModelSettings(max_retries=0)


def guard_model(model: Model) -> Model:
    """``model`` with the guard around every attempt. Inside a ``FallbackModel``, each model is guarded by itself."""
    if not isinstance(model, FallbackModel):
        return GuardedModel(model)
    inner = copy.copy(model)
    inner.models = [guard_model(candidate) for candidate in model.models]
    return inner


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
                attempt.used(response.usage.input_tokens, response.usage.output_tokens)
                self._refuse_cut(response)
                return response
            except (ModelAPIError, UnexpectedModelBehavior) as error:
                raise translate(error) from error

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

    def _refuse_cut(self, response: StreamedResponse | ModelResponse) -> None:
        """
        Tell a stream that was cut from one that ended; the SDKs, which may stream unasked, take both for an answer.

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
