"""What the monitor is told of an agent's messages, and how what it orders changes a request."""

from dataclasses import replace
from typing import Any

import pydantic_core
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings, merge_model_settings

from holdfast.guard import Guard, Watch
from holdfast.journal import inside
from holdfast.monitor import Call

NOTE = "Note from the system you run in, not from the user: "
THINKING = frozenset({"thinking", "anthropic_thinking", "openai_reasoning_effort"})
"""Settings with which a model cannot be made to call a tool."""

_BEGUN = object()


def watch_of(guard: Guard | None) -> Watch | None:
    """The monitor of the turn, where the agent that runs now is the one it watches, and goes by its messages."""
    watch = None if guard is None else guard.watch
    return None if watch is None or watch.by_calls or inside.get() else watch


def tell_step(guard: Guard, watch: Watch, messages: list[ModelMessage]) -> None:
    """Tell the monitor of the step that has ended before this request; one that it was told of is not told again."""
    at = next((at for at in range(len(messages) - 1, -1, -1) if isinstance(messages[at], ModelResponse)), None)
    response = _BEGUN if at is None else messages[at]
    if watch.mark is response:
        return
    first, watch.mark = watch.mark is None, response
    if first or at is None or not isinstance(response, ModelResponse):
        return
    returned = {
        part.tool_call_id: part
        for message in messages[at + 1 :]
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    }
    calls = [
        watch.seen(part.tool_call_id, _call(part, returned.get(part.tool_call_id)))
        for part in response.parts
        if isinstance(part, ToolCallPart)
    ]
    text = "\n".join(part.content for part in response.parts if isinstance(part, TextPart))
    watch.step(text, calls, guard.usage())


def _call(call: ToolCallPart, returned: ToolReturnPart[Any] | None) -> Call:
    made = Call(id=call.tool_call_id, tool=call.tool_name, args=call.args)
    if returned is None:
        return made
    errors = {"success": None, "interrupted": "cancelled", "denied": None}
    return replace(
        made,
        result=returned.model_response_str(),
        error=errors.get(returned.outcome, ""),
        blocked=returned.outcome == "denied",
    )


def steer(
    watch: Watch | None,
    messages: list[ModelMessage],
    settings: ModelSettings | None,
    parameters: ModelRequestParameters,
) -> tuple[list[ModelMessage], ModelSettings | None, ModelRequestParameters]:
    """A request as the monitor wants it; it is known by what it was before. None wants nothing."""
    if watch is None:
        return messages, settings, parameters
    tools = parameters.function_tools
    if tools and not watch.introduced:
        watch.introduce({tool.name: pydantic_core.to_json(tool.parameters_json_schema).decode() for tool in tools})
    if not watch.acts:
        return messages, settings, parameters
    last = messages[-1]
    if watch.notes and isinstance(last, ModelRequest):
        told = [UserPromptPart(f"{NOTE}{note}") for note in watch.notes]
        messages = [*messages[:-1], replace(last, parts=[*last.parts, *told])]
    offer = watch.offer([tool.name for tool in tools])
    if offer is not None and not offer.tools:
        # Providers want to know the tools that the conversation has calls of, though none may be called now.
        settings = merge_model_settings(settings, ModelSettings(tool_choice="none"))
    elif offer is not None:
        parameters = replace(parameters, function_tools=[tool for tool in tools if tool.name in offer.tools])
        if offer.must and not THINKING.intersection(settings or {}):
            settings = merge_model_settings(settings, ModelSettings(tool_choice="required"))
    return messages, settings, parameters
