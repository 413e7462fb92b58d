"""
What is asked of a model and what it answers, in no provider's format.

::

    wire JSON ─▶ formats/* ─▶ Request ─▶ script or demo model ─▶ Reply ─▶ Answer ─▶ formats/* ─▶ JSON body or SSE events

A token is four characters here, and one streamed delta is one token, so that counts are the same on every run.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

FormatName = Literal["anthropic", "openai-chat", "openai-responses"]
Finish = Literal["stop", "length", "refusal", "content_filter"]

CHARS_PER_TOKEN = 4


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    One tool call.

    Attributes:
        tool: The tool's name. It need not be among those the request offers: models make names up.
        args: Its arguments. Empty where a client sent back arguments that are no JSON object.
    """

    tool: str
    args: dict[str, Any] = {}


class MadeCall(Call, frozen=True, kw_only=True):
    """A tool call of the conversation so far, with its id on the wire."""

    id: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """
    One message of the conversation.

    Attributes:
        text: Its text parts, joined by newlines; images and files are left out.
        calls: The tool calls of an ``assistant`` message.
        tool: The tool whose result this is, for the role ``tool``; empty where no earlier call has its id.
        call_id: The call this is the result of, for the role ``tool``.
        failed: Whether the client marked the tool's result as an error. Only the Anthropic format can.
    """

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    calls: tuple[MadeCall, ...] = ()
    tool: str = ""
    call_id: str = ""
    failed: bool = False


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request to the model, as a script sees it.

    Attributes:
        format: Which provider's API it came through.
        model: The model's name as sent.
        messages: The conversation, oldest first; the system prompt is in front.
        tools: Names of the tools offered.
        stream: Whether the answer is to be streamed.
        include_usage: Whether a streamed chat completion ends with a usage chunk.
        max_tokens: The most tokens the answer may have, or None. Longer text is cut, and the answer ends as ``length``.
        input_tokens: Size of messages and tool definitions, at four characters a token.
        credential: Fingerprint of the API key (``sha256:1f2e3d4c``), or empty where none was sent.
        headers: Headers by lower-case name; credentials are replaced by their fingerprints.
        body: The JSON body as sent.
    """

    format: FormatName
    model: str
    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    input_tokens: int = 1
    credential: str = ""
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}

    @property
    def user_text(self) -> str:
        """Text of the last user message, or empty."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def last_tool(self) -> str:
        """The tool whose result is the last message, or empty where the last message is something else."""
        return self.messages[-1].tool if self.messages and self.messages[-1].role == "tool" else ""


class Usage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    Token counts that replace the counted ones; None leaves the counted one.

    Attributes:
        input_tokens: All input tokens, the cached ones among them.
        output_tokens: All output tokens.
        cached_tokens: Input tokens read from the provider's cache.
        cache_write_tokens: Input tokens written to it.
        reasoning_tokens: Output tokens the model reasoned with.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must be >= 0, got {value}")


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call ready for the wire: ``arguments`` is JSON text, or on demand text that is not JSON."""

    id: str
    tool: str
    arguments: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """
    A reply ready for the wire.

    Attributes:
        id: Hexadecimal text from which the ids on the wire are made.
        created_s: Seconds since 1970.
        text: What is said; a refusal's wording where ``finish`` is ``refusal``.
        input_tokens: All input tokens, the cached ones among them.
        request: What this answers.
    """

    id: str
    created_s: int
    text: str
    calls: tuple[ToolCall, ...]
    finish: Finish
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    request: Request


class BadRequest(Exception):
    """The request is not what the provider takes. ``param`` names the field, or is None."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def tokens(text: str) -> int:
    """How many tokens ``text`` is: a quarter of its characters, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def pieces(text: str) -> list[str]:
    """``text`` cut into deltas of one token each."""
    return [text[at : at + CHARS_PER_TOKEN] for at in range(0, len(text), CHARS_PER_TOKEN)]


def size(messages: Sequence[Message], tool_definitions: object) -> int:
    """Input tokens of a conversation with these tools offered; at least 1."""
    text = "".join(m.text + "".join(c.tool + json_text(c.args) for c in m.calls) for m in messages)
    return max(1, tokens(text) + (tokens(json_text(tool_definitions)) if tool_definitions else 0))


def unpaired(messages: Sequence[Message]) -> tuple[str, str]:
    """
    Tool calls and results that do not fit together, which every provider refuses.

    Returns:
        The id of the first result that no earlier call asked for, and of the first call without a result before the
        next user or assistant text; each is empty where there is none.
    """
    asked: set[str] = set()
    waiting: dict[str, None] = {}
    for message in messages:
        if message.role == "tool":
            if message.call_id not in asked:
                return message.call_id, ""
            waiting.pop(message.call_id, None)
        elif message.role != "system":
            if waiting and not message.calls:
                break
            asked.update(call.id for call in message.calls)
            waiting.update(dict.fromkeys(call.id for call in message.calls))
    return "", next(iter(waiting), "")


def fingerprint(credential: str) -> str:
    """A credential as it may be shown: ``sha256:`` and eight digits of its hash; empty for an empty one."""
    return f"sha256:{hashlib.sha256(credential.encode()).hexdigest()[:8]}" if credential else ""


def json_text(value: object) -> str:
    """``value`` as compact JSON."""
    return msgspec.json.encode(value).decode()
