"""The providers' wire formats: each turns a request into a neutral one, and a neutral answer into JSON or SSE."""

from holdfast.sim.formats.anthropic import Anthropic
from holdfast.sim.formats.base import Event, Format, Problem
from holdfast.sim.formats.openai_chat import OpenAIChat
from holdfast.sim.formats.openai_responses import OpenAIResponses

__all__ = ["FORMATS", "Anthropic", "Event", "Format", "OpenAIChat", "OpenAIResponses", "Problem"]

FORMATS: tuple[Format, ...] = (Anthropic(), OpenAIChat(), OpenAIResponses())
