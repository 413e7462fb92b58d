"""A turn's messages, encoded for the next turn, and what of earlier turns the agent is given."""

from collections.abc import Sequence
from typing import cast

import pydantic_core
from pydantic_ai import InstrumentationSettings
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    UserPromptPart,
)

from holdfast.store import Past

FORMAT = "pydantic_ai"
_otel = InstrumentationSettings()


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


def as_json(messages: list[ModelMessage]) -> str:
    """Messages in the form that OpenTelemetry's conventions have for them."""
    return pydantic_core.to_json(_otel.messages_to_otel_messages(messages), fallback=str).decode()


def chars_in(messages: Sequence[ModelMessage]) -> int:
    """Characters of text in ``messages``: what is said, tool arguments and tool results."""
    total = 0
    for message in messages:
        for part in message.parts:
            content = cast("object", getattr(part, "content", None) or getattr(part, "args", None))
            total += len(content) if isinstance(content, str) else len(pydantic_core.to_json(content, fallback=str))
    return total
