"""
OpenAI Chat Completions.

::

    chunk(role) ─▶ chunk(content)* ─▶ ( chunk(tool_calls: id, name) ─▶ chunk(tool_calls: arguments)* )*
                ─▶ chunk(finish_reason) ─▶ [chunk(usage)] ─▶ [DONE]
"""

from collections.abc import Iterator
from typing import Any

from holdfast.sim.dialogue import Answer, BadRequest, FormatName, MadeCall, Message, Request, pieces, size, unpaired
from holdfast.sim.formats.base import (
    Event,
    Problem,
    inner,
    limit,
    listed,
    object_or_empty,
    openai_error,
    openai_problem,
    parts,
    required,
    sse,
    text_of,
)

_FINISH = {"stop": "stop", "length": "length", "refusal": "stop", "content_filter": "content_filter"}


class OpenAIChat:
    """``POST /v1/chat/completions``."""

    name: FormatName = "openai-chat"
    path = "/v1/chat/completions"
    request_id_header = "x-request-id"

    def parse(self, body: dict[str, Any], headers: dict[str, str], credential: str) -> Request:
        """The neutral request."""
        model = required(body, "model", str, "you must provide a model parameter")
        messages = _messages(required(body, "messages", list, "Missing required parameter: '{key}'."))
        orphan, unanswered = unpaired(messages)
        if orphan:
            raise BadRequest(
                f"messages with role 'tool' must be a response to a preceeding message with 'tool_calls': {orphan}",
                "messages",
            )
        if unanswered:
            raise BadRequest(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {unanswered}",
                "messages",
            )
        tools = listed(body, "tools")
        options = body.get("stream_options")
        return Request(
            format=self.name,
            model=model,
            messages=tuple(messages),
            tools=tuple(str(inner(tool, "function").get("name", "")) for tool in tools),
            stream=body.get("stream") is True,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            max_tokens=limit(body, "max_completion_tokens", "max_tokens"),
            input_tokens=size(messages, tools),
            credential=credential,
            headers=headers,
            body=body,
        )

    def body(self, answer: Answer) -> dict[str, Any]:
        """The completion."""
        refused = answer.finish == "refusal"
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if refused or not answer.text else answer.text,
            "refusal": answer.text if refused else None,
            "annotations": [],
        }
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{call.id}",
                    "type": "function",
                    "function": {"name": call.tool, "arguments": call.arguments},
                }
                for call in answer.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish(answer)}
        return {**self._head(answer, "chat.completion"), "choices": [choice], "usage": _usage(answer)}

    def events(self, answer: Answer) -> Iterator[Event]:
        """The completion in chunks."""
        yield self._chunk(answer, {"role": "assistant", "content": "", "refusal": None})
        said = "refusal" if answer.finish == "refusal" else "content"
        for piece in pieces(answer.text):
            yield self._chunk(answer, {said: piece}, delta=True)
        for index, call in enumerate(answer.calls):
            head = {"index": index, "id": f"call_{call.id}", "type": "function"}
            function = {"name": call.tool, "arguments": ""}
            yield self._chunk(answer, {"tool_calls": [{**head, "function": function}]})
            for piece in pieces(call.arguments):
                more = {"index": index, "function": {"arguments": piece}}
                yield self._chunk(answer, {"tool_calls": [more]}, delta=True)
        yield self._chunk(answer, {}, finish=self._finish(answer))
        if answer.request.include_usage:
            last = {**self._head(answer, "chat.completion.chunk"), "choices": [], "usage": _usage(answer)}
            yield Event(sse(last), closing=True)
        yield Event(b"data: [DONE]\n\n", closing=True)

    def problem(self, kind: str, model: str, request_id: str, bad: BadRequest | None = None) -> Problem:  # noqa: ARG002 - the id is in the header alone
        """``{"error": {"message", "type", "param", "code"}}``."""
        return openai_problem(kind, model, bad, "messages")

    def stream_error(self, sent: int) -> bytes:  # noqa: ARG002 - this format numbers no events
        """A chunk that holds an ``error`` in place of choices."""
        return sse({"error": openai_error("server_error", "")[1]})

    def _head(self, answer: Answer, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{answer.id}",
            "object": kind,
            "created": answer.created_s,
            "model": answer.request.model,
            "service_tier": "default",
            "system_fingerprint": "fp_sim",
        }

    def _chunk(
        self, answer: Answer, change: dict[str, Any], *, delta: bool = False, finish: str | None = None
    ) -> Event:
        choice = {"index": 0, "delta": change, "logprobs": None, "finish_reason": finish}
        chunk = {**self._head(answer, "chat.completion.chunk"), "choices": [choice]}
        if answer.request.include_usage:
            chunk["usage"] = None
        return Event(sse(chunk), delta=delta, closing=finish is not None)

    def _finish(self, answer: Answer) -> str:
        return "tool_calls" if answer.calls and answer.finish == "stop" else _FINISH[answer.finish]


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "cache_write_tokens": answer.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _messages(sent: list[Any]) -> list[Message]:
    messages: list[Message] = []
    names: dict[str, str] = {}
    for n, message in enumerate(parts(sent, "messages")):
        where = f"messages.{n}.content"
        text = text_of(message.get("content"), where)
        match message.get("role"):
            case "system" | "developer":
                messages.append(Message(role="system", text=text))
            case "user":
                messages.append(Message(role="user", text=text))
            case "assistant":
                calls = tuple(
                    MadeCall(
                        tool=str(inner(call, "function").get("name")),
                        args=object_or_empty(inner(call, "function").get("arguments")),
                        id=str(call.get("id")),
                    )
                    for call in listed(message, "tool_calls")
                )
                names.update((call.id, call.tool) for call in calls)
                messages.append(Message(role="assistant", text=text, calls=calls))
            case "tool":
                call_id = str(message.get("tool_call_id"))
                messages.append(Message(role="tool", text=text, tool=names.get(call_id, ""), call_id=call_id))
            case role:
                raise BadRequest(
                    f"Invalid value: {role!r}. Supported values are: 'system', 'assistant', 'user', 'tool', and "
                    "'developer'.",
                    f"messages[{n}].role",
                )
    if not messages:
        raise BadRequest("Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages")
    return messages
