"""
Anthropic Messages.

::

    message_start ─▶ ( content_block_start ─▶ [ping] ─▶ content_block_delta* ─▶ content_block_stop )*
                  ─▶ message_delta ─▶ message_stop
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from holdfast.sim.dialogue import (
    Answer,
    BadRequest,
    FormatName,
    MadeCall,
    Message,
    Request,
    pieces,
    size,
    unpaired,
)
from holdfast.sim.formats.base import HTML, Event, Problem, inner, limit, listed, parts, required, sse, text_of

_ERRORS = {
    "rate_limited": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    "quota": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API.",
    ),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "server_error": (500, "api_error", "Internal server error"),
    "unauthorized": (401, "authentication_error", "invalid x-api-key"),
    "not_found": (404, "not_found_error", "model: {model}"),
    "context_too_long": (400, "invalid_request_error", "prompt is too long: 200001 tokens > 200000 maximum"),
    "too_large": (413, "request_too_large", "Request exceeds the maximum size"),
}
_STOP = {"stop": "end_turn", "length": "max_tokens", "refusal": "refusal", "content_filter": "refusal"}


class Anthropic:
    """``POST /v1/messages``."""

    name: FormatName = "anthropic"
    path = "/v1/messages"
    request_id_header = "request-id"

    def parse(self, body: dict[str, Any], headers: dict[str, str], credential: str) -> Request:
        """The neutral request. ``max_tokens`` is required, as the provider does."""
        max_tokens = limit(body, "max_tokens")
        if max_tokens is None:
            raise BadRequest("max_tokens: Field required", "max_tokens")
        return self.parse_uncounted(body, headers, credential, max_tokens)

    def parse_uncounted(
        self, body: dict[str, Any], headers: dict[str, str], credential: str, max_tokens: int | None = None
    ) -> Request:
        """The same without ``max_tokens``: what ``/v1/messages/count_tokens`` takes."""
        model = required(body, "model", str, "{key}: Field required")
        messages = _messages(required(body, "messages", list, "{key}: Field required"))
        if not messages:
            raise BadRequest("messages: at least one message is required", "messages")
        orphan, unanswered = unpaired(messages)
        if orphan:
            raise BadRequest(
                f"messages: unexpected `tool_use_id` found in `tool_result` blocks: {orphan}. Each `tool_result` block "
                "must have a corresponding `tool_use` block in the previous message.",
                "messages",
            )
        if unanswered:
            raise BadRequest(
                f"messages: `tool_use` ids were found without `tool_result` blocks immediately after: {unanswered}. "
                "Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
                "messages",
            )
        if system := text_of(body.get("system"), "system"):
            messages.insert(0, Message(role="system", text=system))
        tools = listed(body, "tools")
        return Request(
            format=self.name,
            model=model,
            messages=tuple(messages),
            tools=tuple(str(tool.get("name", "")) for tool in tools),
            stream=body.get("stream") is True,
            max_tokens=max_tokens,
            input_tokens=size(messages, tools),
            credential=credential,
            headers=headers,
            body=body,
        )

    def body(self, answer: Answer) -> dict[str, Any]:
        """The message. Malformed arguments stand in ``input`` as a string."""
        content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
        for call in answer.calls:
            given = _object_or_text(call.arguments)
            content.append({"type": "tool_use", "id": f"toolu_{call.id}", "name": call.tool, "input": given})
        output = _output(answer.output_tokens, answer.reasoning_tokens)
        return self._message(answer, content, self._stop(answer), output)

    def events(self, answer: Answer) -> Iterator[Event]:
        """The message as a stream."""
        yield Event(
            sse({"type": "message_start", "message": self._message(answer, [], {}, _output(1, 0))}, "message_start")
        )
        index = 0
        if answer.text:
            yield self._block_start(index, {"type": "text", "text": ""})
            yield Event(sse({"type": "ping"}, "ping"))
            for piece in pieces(answer.text):
                yield self._delta(index, {"type": "text_delta", "text": piece})
            yield Event(sse({"type": "content_block_stop", "index": index}, "content_block_stop"))
            index += 1
        for call in answer.calls:
            block = {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.tool, "input": {}}
            yield self._block_start(index, block)
            for piece in pieces(call.arguments):
                yield self._delta(index, {"type": "input_json_delta", "partial_json": piece})
            yield Event(sse({"type": "content_block_stop", "index": index}, "content_block_stop"))
            index += 1
        end = {
            "type": "message_delta",
            "delta": {"stop_sequence": None, **self._stop(answer)},
            "usage": _output(answer.output_tokens, answer.reasoning_tokens),
        }
        yield Event(sse(end, "message_delta"), closing=True)
        yield Event(sse({"type": "message_stop"}, "message_stop"), closing=True)

    def problem(self, kind: str, model: str, request_id: str, bad: BadRequest | None = None) -> Problem:
        """``{"type": "error", "error": {"type", "message"}, "request_id"}``."""
        if kind == "bad_gateway":
            return Problem(502, HTML, "text/html")
        status, error_type, message = (400, "invalid_request_error", bad.message) if bad else _ERRORS[kind]
        error = {"type": error_type, "message": message if bad else message.format(model=model)}
        return Problem(status, msgspec.json.encode({"type": "error", "error": error, "request_id": request_id}))

    def stream_error(self, sent: int) -> bytes:  # noqa: ARG002 - this format numbers no events
        """An ``error`` event: overloaded, the usual one."""
        return sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")

    def _message(
        self, answer: Answer, content: list[dict[str, Any]], stop: dict[str, Any], output: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": f"msg_{answer.id}",
            "type": "message",
            "role": "assistant",
            "model": answer.request.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            **stop,
            "usage": {
                # The provider counts cached tokens beside, not among, the input tokens.
                "input_tokens": max(0, answer.input_tokens - answer.cached_tokens - answer.cache_write_tokens),
                "cache_creation_input_tokens": answer.cache_write_tokens,
                "cache_read_input_tokens": answer.cached_tokens,
                **output,
                "service_tier": "standard",
            },
        }

    def _stop(self, answer: Answer) -> dict[str, Any]:
        if answer.calls and answer.finish == "stop":
            return {"stop_reason": "tool_use"}
        reason = {"stop_reason": _STOP[answer.finish]}
        if reason["stop_reason"] == "refusal":
            return {**reason, "stop_details": {"type": "refusal", "category": None, "explanation": None}}
        return reason

    def _block_start(self, index: int, block: dict[str, Any]) -> Event:
        start = {"type": "content_block_start", "index": index, "content_block": block}
        return Event(sse(start, "content_block_start"))

    def _delta(self, index: int, delta: dict[str, Any]) -> Event:
        data = {"type": "content_block_delta", "index": index, "delta": delta}
        return Event(sse(data, "content_block_delta"), delta=True)


def _output(tokens: int, reasoning: int) -> dict[str, Any]:
    return {"output_tokens": tokens, "output_tokens_details": {"thinking_tokens": reasoning}}


def _messages(sent: list[Any]) -> list[Message]:
    messages: list[Message] = []
    names: dict[str, str] = {}
    for n, message in enumerate(parts(sent, "messages")):
        where = f"messages.{n}.content"
        role, content = message.get("role"), message.get("content")
        if role not in {"user", "assistant", "system"}:
            raise BadRequest(f"messages.{n}.role: Input should be 'user', 'assistant' or 'system'", "messages")
        blocks = parts(content, where) if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        if role == "assistant":
            calls = tuple(
                MadeCall(tool=str(block.get("name")), args=inner(block, "input"), id=str(block.get("id")))
                for block in blocks
                if block.get("type") == "tool_use"
            )
            names.update((call.id, call.tool) for call in calls)
            messages.append(Message(role="assistant", text=_text(blocks), calls=calls))
            continue
        for block in blocks:
            if block.get("type") == "tool_result":
                call_id = str(block.get("tool_use_id"))
                text = text_of(block.get("content"), where)
                failed = block.get("is_error") is True
                messages.append(
                    Message(role="tool", text=text, tool=names.get(call_id, ""), call_id=call_id, failed=failed)
                )
        if any(block.get("type") != "tool_result" for block in blocks):
            messages.append(Message(role="system" if role == "system" else "user", text=_text(blocks)))
    return messages


def _object_or_text(arguments: str) -> dict[str, Any] | str:
    try:
        given: dict[str, Any] = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments
    return given


def _text(blocks: list[dict[str, Any]]) -> str:
    return "\n".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")
