"""The demo rules as a Pydantic AI model, so that an agent without a key runs its whole path, tools included."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from holdfast.agents.demo import Call, Line, Say, decide

DEMO = "demo"
_WORDS = re.compile(r"\S+\s*|\s+")


def demo_model() -> Model:
    """The offline, rule-based demo model: it reads words, not minds, but the tools it calls are real."""
    return FunctionModel(_answer, stream_function=_stream, model_name=DEMO)


async def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    decision = _decide(messages, info)
    if isinstance(decision, Say):
        return ModelResponse(parts=[TextPart(decision.text)])
    return ModelResponse(
        parts=[ToolCallPart(call.tool, call.args, call_id) for call_id, call in _named(messages, decision)]
    )


async def _stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
    decision = _decide(messages, info)
    if isinstance(decision, Say):
        for word in _WORDS.findall(decision.text):
            yield word
        return
    yield {
        index: DeltaToolCall(name=call.tool, json_args=json.dumps(call.args), tool_call_id=call_id)
        for index, (call_id, call) in enumerate(_named(messages, decision))
    }


def _decide(messages: Sequence[ModelMessage], info: AgentInfo) -> Say | list[Call]:
    return decide(list(_lines(messages)), {tool.name for tool in info.function_tools})


def _named(messages: Sequence[ModelMessage], calls: Sequence[Call]) -> list[tuple[str, Call]]:
    """Each call with an id that is its own within the conversation, and the same whenever it is asked again."""
    return [(f"demo-{len(messages)}-{number}", call) for number, call in enumerate(calls, 1)]


def _lines(messages: Sequence[ModelMessage]) -> Iterator[Line]:
    for message in messages:
        for part in message.parts:
            match part:
                case UserPromptPart(content=str() as text):
                    yield Line("user", text)
                case ToolReturnPart():
                    failed = "" if part.outcome == "success" else "error: "
                    yield Line("tool", failed + part.model_response_str(wrap_if_error=False), part.tool_name)
                case TextPart(content=text):
                    yield Line("assistant", text)
