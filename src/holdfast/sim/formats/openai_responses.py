"""
OpenAI Responses.

::

    response.created ─▶ response.in_progress
      ─▶ ( response.output_item.added ─▶ response.content_part.added ─▶ response.output_text.delta*
             ─▶ response.output_text.done ─▶ response.content_part.done ─▶ response.output_item.done )
      ─▶ ( response.output_item.added ─▶ response.function_call_arguments.delta*
             ─▶ response.function_call_arguments.done ─▶ response.output_item.done )*
      ─▶ response.completed, or response.incomplete

Every event carries its ``sequence_number``, from 0. The simulator keeps no responses: ``previous_response_id`` is
answered as an id that is not known.
"""

from collections.abc import Iterator
from typing import Any

from holdfast.sim.dialogue import Answer, BadRequest, FormatName, MadeCall, Message, Request, pieces, size, unpaired
from holdfast.sim.formats.base import (
    Event,
    Problem,
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

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class OpenAIResponses:
    """``POST /v1/responses``."""

    name: FormatName = "openai-responses"
    path = "/v1/responses"
    request_id_header = "x-request-id"

    def parse(self, body: dict[str, Any], headers: dict[str, str], credential: str) -> Request:
        """The neutral request."""
        model = required(body, "model", str, "Missing required parameter: '{key}'.")
        if previous := body.get("previous_response_id"):
            raise BadRequest(f"Previous response with id '{previous}' not found.", "previous_response_id")
        messages = _messages(required(body, "input", (str, list), "Missing required parameter: '{key}'."))
        orphan, unanswered = unpaired(messages)
        if orphan:
            raise BadRequest(f"No tool call found for function call output with call_id {orphan}.", "input")
        if unanswered:
            raise BadRequest(f"No tool output found for function call {unanswered}.", "input")
        if instructions := text_of(body.get("instructions"), "instructions"):
            messages.insert(0, Message(role="system", text=instructions))
        tools = listed(body, "tools")
        return Request(
            format=self.name,
            model=model,
            messages=tuple(messages),
            tools=tuple(str(tool.get("name", tool.get("type", ""))) for tool in tools),
            stream=body.get("stream") is True,
            max_tokens=limit(body, "max_output_tokens"),
            input_tokens=size(messages, tools),
            credential=credential,
            headers=headers,
            body=body,
        )

    def body(self, answer: Answer) -> dict[str, Any]:
        """The response."""
        output = [_message_item(answer, "completed")] if answer.text else []
        output += [_call_item(answer, n, "completed") for n in range(len(answer.calls))]
        return self._response(answer, output, "incomplete" if answer.finish in _INCOMPLETE else "completed")

    def events(self, answer: Answer) -> Iterator[Event]:
        """The response as a stream, its events numbered."""
        for number, (name, data, delta) in enumerate(self._unnumbered(answer)):
            closing = name in {"response.completed", "response.incomplete"}
            yield Event(sse({"type": name, "sequence_number": number, **data}, name), delta=delta, closing=closing)

    def problem(self, kind: str, model: str, request_id: str, bad: BadRequest | None = None) -> Problem:  # noqa: ARG002 - the id is in the header alone
        """``{"error": {"message", "type", "param", "code"}}``."""
        return openai_problem(kind, model, bad, "input")

    def stream_error(self, sent: int) -> bytes:
        """An ``error`` event, numbered as the others."""
        message = openai_error("server_error", "")[1]["message"]
        data = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": sent}
        return sse(data, "error")

    def _unnumbered(self, answer: Answer) -> Iterator[tuple[str, dict[str, Any], bool]]:
        started = self._response(answer, [], "in_progress")
        yield "response.created", {"response": started}, False
        yield "response.in_progress", {"response": started}, False
        if answer.text:
            yield from self._said(answer)
        first = 1 if answer.text else 0
        for n, call in enumerate(answer.calls):
            at = {"output_index": first + n}
            item = {**at, "item_id": f"fc_{call.id}"}
            yield "response.output_item.added", {**at, "item": _call_item(answer, n, "in_progress")}, False
            for piece in pieces(call.arguments):
                yield "response.function_call_arguments.delta", {**item, "delta": piece}, True
            done = {**item, "name": call.tool, "arguments": call.arguments}
            yield "response.function_call_arguments.done", done, False
            yield "response.output_item.done", {**at, "item": _call_item(answer, n, "completed")}, False
        whole = self.body(answer)
        yield f"response.{whole['status']}", {"response": whole}, False

    def _said(self, answer: Answer) -> Iterator[tuple[str, dict[str, Any], bool]]:
        at = {"output_index": 0}
        part = {**at, "item_id": f"msg_{answer.id}", "content_index": 0}
        refused = answer.finish == "refusal"
        kind, field = ("refusal", "refusal") if refused else ("output_text", "text")
        extra: dict[str, Any] = {} if refused else {"logprobs": []}
        yield "response.output_item.added", {**at, "item": _message_item(answer, "in_progress")}, False
        yield "response.content_part.added", {**part, "part": _content(answer, "")}, False
        for piece in pieces(answer.text):
            yield f"response.{kind}.delta", {**part, "delta": piece, **extra}, True
        yield f"response.{kind}.done", {**part, field: answer.text, **extra}, False
        yield "response.content_part.done", {**part, "part": _content(answer, answer.text)}, False
        yield "response.output_item.done", {**at, "item": _message_item(answer, "completed")}, False

    def _response(self, answer: Answer, output: list[dict[str, Any]], status: str) -> dict[str, Any]:
        asked = answer.request.body
        incomplete = {"reason": _INCOMPLETE[answer.finish]} if status == "incomplete" else None
        return {
            "id": f"resp_{answer.id}",
            "object": "response",
            "created_at": answer.created_s,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": incomplete,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "metadata": {},
            "model": answer.request.model,
            "output": output,
            "parallel_tool_calls": asked.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "service_tier": "default",
            "store": asked.get("store", True),
            "temperature": asked.get("temperature", 1.0),
            "text": asked.get("text") or {"format": {"type": "text"}},
            "tool_choice": asked.get("tool_choice", "auto"),
            "tools": asked.get("tools") or [],
            "top_p": asked.get("top_p", 1.0),
            "truncation": "disabled",
            "usage": None if status == "in_progress" else _usage(answer),
        }


def _content(answer: Answer, text: str) -> dict[str, Any]:
    if answer.finish == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message_item(answer: Answer, status: str) -> dict[str, Any]:
    content = [] if status == "in_progress" else [_content(answer, answer.text)]
    return {"type": "message", "id": f"msg_{answer.id}", "status": status, "role": "assistant", "content": content}


def _call_item(answer: Answer, n: int, status: str) -> dict[str, Any]:
    call = answer.calls[n]
    return {
        "type": "function_call",
        "id": f"fc_{call.id}",
        "call_id": f"call_{call.id}",
        "name": call.tool,
        "arguments": "" if status == "in_progress" else call.arguments,
        "status": status,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {
            "cached_tokens": answer.cached_tokens,
            "cache_write_tokens": answer.cache_write_tokens,
        },
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def _messages(sent: str | list[Any]) -> list[Message]:
    if isinstance(sent, str):
        return [Message(role="user", text=sent)]
    messages: list[Message] = []
    names: dict[str, str] = {}
    for n, item in enumerate(parts(sent, "input")):
        match item.get("type", "message"):
            case "message":
                role = item.get("role")
                if role not in {"user", "assistant", "system", "developer"}:
                    raise BadRequest(
                        f"Invalid value: {role!r}. Supported values are: 'assistant', 'system', 'developer', and "
                        "'user'.",
                        f"input[{n}]",
                    )
                text = text_of(item.get("content"), f"input[{n}].content")
                messages.append(Message(role="system" if role == "developer" else role, text=text))
            case "function_call":
                call_id = str(item.get("call_id"))
                names[call_id] = str(item.get("name"))
                call = MadeCall(tool=names[call_id], args=object_or_empty(item.get("arguments")), id=call_id)
                before: tuple[MadeCall, ...] = ()
                text = ""
                # Text and calls of one answer come as separate items; here they are one message again.
                if messages and messages[-1].role == "assistant":
                    last = messages.pop()
                    before, text = last.calls, last.text
                messages.append(Message(role="assistant", text=text, calls=(*before, call)))
            case "function_call_output":
                call_id = str(item.get("call_id"))
                text = text_of(item.get("output"), f"input[{n}].output")
                messages.append(Message(role="tool", text=text, tool=names.get(call_id, ""), call_id=call_id))
            case _:
                continue  # reasoning, references and the provider's own tools say nothing to a script
    if not messages:
        raise BadRequest("Invalid 'input': there is nothing to answer.", "input")
    return messages
