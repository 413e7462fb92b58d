"""A model whose every attempt crosses the guard."""

import copy
import functools
import hashlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NoReturn, Self

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelAPIError, ModelRequestTimeout, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings, merge_model_settings
from pydantic_ai.usage import RequestUsage

from holdfast.adapters.pydantic_ai.history import as_json, chars_in
from holdfast.adapters.pydantic_ai.kept import decode_answer, encode_answer, request_digest
from holdfast.adapters.pydantic_ai.steps import steer
from holdfast.adapters.pydantic_ai.translate import translate
from holdfast.errors import AttemptTimedOut, BudgetExhausted, HoldfastError, ModelUnavailable, Refused, StreamBroken
from holdfast.guard import Attempt, Estimate, Guard, ModelKey, ambient
from holdfast.journal import STOPS
from holdfast.store import tokens_in
from holdfast.telemetry import among_strangers, model_teller

SYSTEMS_THAT_SAY_WHY = frozenset({"anthropic", "openai"})
"""Providers that end every stream with a reason: without one, the stream was cut."""

WHOLE = frozenset({"complete", "suspended"})
"""States of an answer that was read to its end."""

asker: ContextVar[str] = ContextVar("holdfast_asker", default="")
"""The agent that asks a model at the moment."""

_NO_SDK_RETRIES = ModelSettings(max_retries=0)


def guard_model(model: Model, *, elsewhere: bool = False, standby: bool = False) -> Model:
    """
    ``model`` with the guard around every attempt. Inside a ``FallbackModel``, each model is guarded by itself.

    Args:
        model: Which model.
        elsewhere: Whether another one is asked if it fails.
        standby: Whether it is asked when another one has failed.
    """
    if not isinstance(model, FallbackModel):
        return GuardedModel(model, elsewhere=elsewhere, standby=standby)
    inner = copy.copy(model)
    last = len(model.models) - 1
    inner.models = [
        guard_model(candidate, elsewhere=elsewhere or at < last, standby=standby or at > 0)
        for at, candidate in enumerate(model.models)
    ]
    return inner


class GuardedModel(WrapperModel):
    """A model whose every attempt passes the guard of the turn it is called in. It owns nothing of the model."""

    def __init__(self, wrapped: Model, *, elsewhere: bool = False, standby: bool = False) -> None:
        super().__init__(wrapped)
        self._elsewhere = elsewhere
        self._standby = standby
        retries = getattr(getattr(wrapped, "client", None), "max_retries", None)
        can_be_told = "max_retries" not in wrapped.unsupported_settings
        self._extra = _NO_SDK_RETRIES if retries != 0 and can_be_told else None
        self._sends_headers = "extra_headers" not in wrapped.unsupported_settings

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
        request, estimate = request_digest(asker.get(), messages), _estimate(guard, messages, settings)
        messages, settings, parameters = steer(guard.watch, messages, settings, model_request_parameters)

        async def call(attempt: Attempt) -> ModelResponse:
            if attempt.before is not None:
                return decode_answer(attempt.before)
            try:
                with among_strangers() as headers:
                    sent_with = self._with_headers(settings, headers)
                    response = await self.wrapped.request(messages, sent_with, parameters)
                _tell_used(attempt, response.usage)
                model_teller()(lambda: as_json(messages), lambda: as_json([response]))
                self._refuse_cut(response)
                attempt.answer = encode_answer(response)
                return response
            except (ModelAPIError, UnexpectedModelBehavior) as error:
                raise translate(error) from error

        try:
            return await guard.model(self.key(), estimate, call, request)
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
        settings, parameters = merge_model_settings(model_settings, self._extra), model_request_parameters
        guard = ambient.get()

        def opened(headers: dict[str, str]) -> AbstractAsyncContextManager[StreamedResponse]:
            sent_with = self._with_headers(settings, headers)
            return self.wrapped.request_stream(messages, sent_with, parameters, run_context)

        if guard is None:
            async with opened({}) as response:
                yield response
            return
        request, estimate = request_digest(asker.get(), messages), _estimate(guard, messages, settings)
        messages, settings, parameters = steer(guard.watch, messages, settings, parameters)
        try:
            async with guard.model.stream(self.key(), estimate, request) as attempt:
                if attempt.before is not None:
                    yield _again(attempt.before, model_request_parameters)
                    return
                try:
                    async with AsyncExitStack() as streaming:
                        tell = model_teller()
                        with among_strangers() as headers:
                            response = await streaming.enter_async_context(opened(headers))
                        try:
                            yield response
                        finally:
                            _tell_used(attempt, response.usage)
                            tell(lambda: as_json(messages), lambda: as_json([response.get()]))
                        self._refuse_cut(response)
                        if (answer := response.get()).state in WHOLE:
                            attempt.answer = encode_answer(answer)
                except (ModelAPIError, UnexpectedModelBehavior) as error:
                    known = translate(error)
                    if attempt.first_token_ns is not None and isinstance(known, ModelUnavailable):
                        known = StreamBroken(f"the answer of {self.model_name} broke off: {type(error).__name__}")
                    raise known from error
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

    def _with_headers(self, settings: ModelSettings | None, headers: dict[str, str]) -> ModelSettings | None:
        """``settings`` with ``headers`` besides its own, where the model can send any."""
        if not headers or not self._sends_headers:
            return settings
        own = (settings or {}).get("extra_headers", {})
        return merge_model_settings(settings, ModelSettings(extra_headers=headers | own))

    def key(self) -> ModelKey:
        """What the guard keeps its state by."""
        wrapped = self.wrapped
        credential = _fingerprint(getattr(getattr(wrapped, "client", None), "api_key", None))
        return ModelKey(wrapped.system, wrapped.model_name, credential, self._elsewhere, self._standby)

    def _as_pydantic(self, error: HoldfastError) -> NoReturn:
        """What Pydantic AI, a ``FallbackModel`` above all, expects of a model that failed."""
        if isinstance(error, (*STOPS, BudgetExhausted)):
            raise error
        if isinstance(error, Refused | StreamBroken):
            raise ModelAPIError(self.model_name, error.detail) from error
        if isinstance(error.__cause__, ModelAPIError | UnexpectedModelBehavior):
            raise error.__cause__
        if isinstance(error, AttemptTimedOut):
            raise ModelRequestTimeout(self.model_name, 0.0) from error
        raise error


def _again(kept: bytes, parameters: ModelRequestParameters) -> StreamedResponse:
    """A stream of an answer that has arrived before, for whoever needs its parts to go on."""
    return CompletedStreamedResponse(decode_answer(kept), model_request_parameters=parameters, replay_events=True)


def _tell_used(attempt: Attempt, usage: RequestUsage) -> None:
    """What the provider counted: in Pydantic AI's words too, cached tokens are among the input."""
    attempt.used(
        usage.input_tokens,
        usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.output_reasoning_tokens,
    )


def _estimate(guard: Guard, messages: list[ModelMessage], settings: ModelSettings | None) -> Estimate | None:
    """What a request may take, where there is a limit on that."""
    if not guard.model.counts_tokens:
        return None
    return Estimate(tokens_in(chars_in(messages)), (settings or {}).get("max_tokens"))


@functools.cache
def _fingerprint(secret: object) -> str:
    """Names a credential without telling it."""
    if not isinstance(secret, str) or not secret:
        return ""
    return hashlib.blake2b(secret.encode(), digest_size=4, person=b"holdfast").hexdigest()
