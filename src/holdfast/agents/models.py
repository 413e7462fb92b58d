"""
From settings to a model client.

SDK clients are built with ``max_retries=0`` and our timeouts: left on, their own retries would multiply the attempts
that the guard counts and bounds.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.providers import Provider, infer_provider_class
from pydantic_ai.settings import ModelSettings

from holdfast.agents.demo_model import DEMO, demo_model
from holdfast.agents.spec import LLMSpec
from holdfast.errors import Misconfigured

DEFAULT_ANTHROPIC = "anthropic:claude-sonnet-5-5"
DEFAULT_OPENAI = "openai:gpt-6.1-terra"
_KEY_VARIABLES = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "openai-chat": "OPENAI_API_KEY",
}
"""Providers that ``llm.base_url`` and ``llm.api_key`` are for, and where each looks for its key otherwise."""


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
    provider = name.partition(":")[0]
    if provider in _KEY_VARIABLES:
        return infer_model(name, lambda provider: _provider(provider, spec, environ, timeout_s))
    if spec.base_url is not None or spec.api_key is not None:
        raise Misconfigured(
            f"llm.base_url and llm.api_key go with {', '.join(f'{known}:' for known in _KEY_VARIABLES)} models; "
            f"{name} takes its provider's own variables"
        )
    try:
        return infer_model(name)
    except (UserError, ImportError) as error:
        raise Misconfigured(f"llm.model: {str(error).splitlines()[0]}") from error


def build_fallbacks(spec: LLMSpec, environ: Mapping[str, str], timeout_s: float) -> list[Model]:
    """
    The models that are asked when the one that ``spec`` asks for has failed, in order.

    Raises:
        Misconfigured: no such model, no credential for it, or the same model twice.
    """
    names = [choose_model(spec, environ), *spec.fallbacks]
    for name in spec.fallbacks:
        if name == "auto" or names.count(name) > 1:
            raise Misconfigured(f"llm.fallbacks: {name} must be another model than the ones before it, by name")
    elsewhere = LLMSpec(max_output_tokens=spec.max_output_tokens)
    return [build_model(elsewhere.model_copy(update={"model": name}), environ, timeout_s) for name in spec.fallbacks]


def settings_of(spec: LLMSpec) -> ModelSettings:
    """What every call of the model is made with."""
    return ModelSettings(max_tokens=spec.max_output_tokens)


def _provider(name: str, spec: LLMSpec, environ: Mapping[str, str], timeout_s: float) -> Provider[Any]:
    made: Any = infer_provider_class(name)
    provider: Provider[Any] = made(api_key=_key(spec, environ, name), base_url=spec.base_url)
    provider.client.max_retries = 0
    provider.client.timeout = timeout_s
    return provider


def _key(spec: LLMSpec, environ: Mapping[str, str], provider: str) -> str:
    variable = _KEY_VARIABLES[provider]
    if spec.api_key is not None:
        return spec.api_key.get_secret_value()
    if key := environ.get(variable):
        return key
    if spec.base_url is not None:
        return "none"  # A server of one's own may want no key, but the client insists on one.
    raise Misconfigured(f"llm.model: {provider} needs a key: set {variable}, or llm.api_key = 'env:NAME'")
