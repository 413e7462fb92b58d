"""The built-in assistant: a Pydantic AI agent with five tools, served where nothing else is asked for."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

NAME = "assistant"

INSTRUCTIONS = (
    "You are a careful assistant. Use your tools for arithmetic, the time and the files you are asked about, rather "
    "than guessing; call several at once where the question has several parts. Answer plainly and briefly, and say "
    "so when a tool could not do what was asked."
)


def build_assistant(
    model: Model, settings: ModelSettings, tools: Sequence[Callable[..., Awaitable[Any]]], instructions: str = ""
) -> Agent[None, str]:
    """The assistant on ``model`` with ``tools``; empty ``instructions`` are its own."""
    return Agent(
        model, name=NAME, instructions=instructions or INSTRUCTIONS, tools=list(tools), model_settings=settings
    )
