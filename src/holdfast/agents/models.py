"""
From settings to a model client.

SDK clients are built with ``max_retries=0`` and our timeouts: left on, their own retries would multiply the attempts
that the guard counts and bounds.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from holdfast.agents.demo_model import DEMO, demo_model
from holdfast.agents.spec import LLMSpec
from holdfast.errors import Misconfigured

DEFAULT_ANTHROPIC = "anthropic:claude-sonnet-5-5"
DEFAULT_OPENAI = "openai:gpt-6.1-terra"
_KEY_VARIABLES = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
_OPENAI_FORMS: dict[str, type[OpenAIResponsesModel] | type[OpenAIChatModel]] = {
    "openai": OpenAIResponsesModel,
    "openai-responses": OpenAIResponsesModel,
    "openai-chat": OpenAIChatModel,
}


def choose_model(spec: LLMSpec, environ: Mapping[str, str]) -> str:
    """The name of the model that ``spec`` asks for, with ``auto`` decided from what credentials there are."""
    if spec.model != "auto":
        return spec.model
    if environ.get("ANTHROPIC_API_KEY"):
        return DEFAULT_ANTHROPIC
    if environ.get("OPENAI_API_KEY"):
        return DEFAULT_OPENAI
    if spec.base_url is not None or spec.api_key is not None:
        raise Misconfigured(
            "llm.model: name the model that llm.base_url or llm.api_key is for, such as openai-chat:llama3"
        )
    return DEMO


def build_model(spec: LLMSpec, environ: Mapping[str, str], timeout_s: float) -> Model:
    """
    The model that ``spec`` asks for.

    Args:
        spec: Which model, where, and with which key.
        environ: Where the provider's usual variables are looked up.
        timeout_s: Seconds the client waits for the provider at most.

    Raises:
        Misconfigured: no such model, or no credential for it.
    """
    name = choose_model(spec, environ)
    if name == DEMO:
        return demo_model()
    provider, _, model = name.partition(":")
    settings = ModelSettings(max_tokens=spec.max_output_tokens)
    if provider == "anthropic":
        anthropic = AnthropicProvider(api_key=_key(spec, environ, "anthropic"), base_url=spec.base_url)
        _tame(anthropic.client, timeout_s)
        return AnthropicModel(model, provider=anthropic, settings=settings)
    if provider in _OPENAI_FORMS:
        openai = OpenAIProvider(api_key=_key(spec, environ, "openai"), base_url=spec.base_url)
        _tame(openai.client, timeout_s)
        form = _OPENAI_FORMS[provider]
        return form(model, provider=openai, settings=settings)
    if spec.base_url is not None or spec.api_key is not None:
        raise Misconfigured(
            f"llm.base_url and llm.api_key go with anthropic:, openai:, openai-responses: and openai-chat: models; "
            f"{name} takes its provider's own variables"
        )
    try:
        return infer_model(name)
    except (UserError, ImportError) as error:
        raise Misconfigured(f"llm.model: {str(error).splitlines()[0]}") from error


class _Client(Protocol):
    """What the SDKs' clients have in common."""

    max_retries: int
    timeout: Any


def _tame(client: _Client, timeout_s: float) -> None:
    """One attempt a call, and no longer than ours may take."""
    client.max_retries = 0
    client.timeout = timeout_s


def _key(spec: LLMSpec, environ: Mapping[str, str], provider: str) -> str:
    variable = _KEY_VARIABLES[provider]
    if spec.api_key is not None:
        return spec.api_key.get_secret_value()
    if key := environ.get(variable):
        return key
    if spec.base_url is not None:
        return "none"  # A server of one's own may want no key, but the client insists on one.
    raise Misconfigured(f"llm.model: {provider} needs a key: set {variable}, or llm.api_key = 'env:NAME'")
