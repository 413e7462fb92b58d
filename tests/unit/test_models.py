"""From settings to a model."""

from typing import Any

import pytest
from anthropic.resources.messages import DEPRECATED_MODELS
from pydantic import SecretStr
from pydantic_ai.models import known_model_names
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

from holdfast.agents.models import DEFAULT_ANTHROPIC, DEFAULT_OPENAI, build_model, choose_model
from holdfast.agents.spec import LLMSpec
from holdfast.errors import Misconfigured

ANTHROPIC = {"ANTHROPIC_API_KEY": "a"}
OPENAI = {"OPENAI_API_KEY": "o"}


@pytest.mark.parametrize(
    ("environ", "chosen"),
    [
        ({}, "demo"),
        (ANTHROPIC, "anthropic:claude-sonnet-5-5"),
        (OPENAI, "openai:gpt-6.1-terra"),
        (ANTHROPIC | OPENAI, "anthropic:claude-sonnet-5-5"),
        ({"ANTHROPIC_API_KEY": ""}, "demo"),
    ],
)
def test_auto_takes_what_there_is_a_key_for(environ: dict[str, str], chosen: str) -> None:
    assert choose_model(LLMSpec(), environ) == chosen


@pytest.mark.parametrize("name", [DEFAULT_ANTHROPIC, DEFAULT_OPENAI])
def test_the_default_models_are_known_and_not_about_to_go_away(name: str) -> None:
    assert name in known_model_names()
    assert name.partition(":")[2] not in DEPRECATED_MODELS


@pytest.mark.parametrize("given", [{"base_url": "http://127.0.0.1:1"}, {"api_key": SecretStr("k")}])
def test_auto_does_not_guess_what_an_address_or_a_key_is_for(given: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match=r"llm.model: name the model"):
        choose_model(LLMSpec(**given), {})


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("anthropic:claude-sonnet-5-5", AnthropicModel),
        ("openai:gpt-5", OpenAIResponsesModel),
        ("openai-responses:gpt-5", OpenAIResponsesModel),
        ("openai-chat:llama3", OpenAIChatModel),
    ],
)
def test_clients_never_retry_and_go_where_they_are_told(model: str, kind: type[Any]) -> None:
    spec = LLMSpec(model=model, base_url="http://127.0.0.1:9/v1", api_key=SecretStr("k"))
    built: Any = build_model(spec, {}, timeout_s=12.0)
    assert isinstance(built, kind)
    assert (built.client.max_retries, built.client.timeout, built.client.api_key) == (0, 12.0, "k")
    assert str(built.client.base_url).startswith("http://127.0.0.1:9/v1")


def test_a_server_of_ones_own_needs_no_key() -> None:
    spec = LLMSpec(model="openai-chat:llama3", base_url="http://127.0.0.1:9/v1")
    assert build_model(spec, {}, 1.0).model_name == "llama3"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("anthropic:claude-sonnet-5-5", "llm.model: anthropic needs a key: set ANTHROPIC_API_KEY, or llm.api_key"),
        ("openai:gpt-5", "llm.model: openai needs a key: set OPENAI_API_KEY"),
        ("gpt-5", "llm.model: Unknown model: gpt-5"),
        ("nobody:model", "llm.model: Unknown model: nobody:model"),
    ],
)
def test_a_model_that_cannot_be_had_is_explained_in_one_line(model: str, said: str) -> None:
    with pytest.raises(Misconfigured, match=said) as caught:
        build_model(LLMSpec(model=model), {}, 1.0)
    assert "\n" not in caught.value.detail


def test_an_address_is_refused_where_it_would_be_ignored() -> None:
    spec = LLMSpec(model="groq:llama-3.3-70b-versatile", base_url="http://127.0.0.1:9")
    with pytest.raises(Misconfigured, match=r"llm.base_url and llm.api_key go with"):
        build_model(spec, {}, 1.0)


def test_the_key_is_masked_in_the_settings_own_repr() -> None:
    assert "hush" not in repr(LLMSpec(api_key=SecretStr("hush")))
