"""Which agents are served, and on which model."""

from pydantic import BaseModel, Field, SecretStr


class LLMSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """The model behind the built-in assistant and `turn.model`. Section ``llm``."""

    model: str = "auto"
    """`provider:name` such as `anthropic:claude-sonnet-5-5` or `openai:gpt-6.1-terra`; `demo` is the offline one.
    `auto` takes Anthropic or OpenAI where the environment has their API key, and `demo` otherwise."""

    fallbacks: tuple[str, ...] = ()
    """Models that are asked in this order when `model` has failed, each with its provider's own variables; `demo` may
    be the last one. The answer then says `degraded`, `via` and `because`."""

    base_url: str | None = None
    """Address of the provider's API; None is the provider's own."""

    api_key: SecretStr | None = None
    """The provider's API key, best given as `env:NAME` or `file:PATH`; None takes the provider's usual variable."""

    max_output_tokens: int = Field(4_096, ge=1, le=1_000_000)
    """Most tokens the model may answer with in one call."""


class AgentSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is served. Section ``agent``."""

    targets: tuple[str, ...] = ()
    """Agents to serve besides the assistant, as `module:object` or `path.py:object`; the first one is the default."""

    instructions: str = ""
    """Instructions for the built-in assistant, in place of its own; empty keeps its own."""

    history_tokens: int = Field(16_000, ge=0, le=10_000_000)
    """Tokens of earlier turns that a turn is given, newest first, at about four characters a token; 0 gives none."""
