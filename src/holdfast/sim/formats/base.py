"""What a wire format has to offer, and what OpenAI's two formats share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from holdfast.sim.dialogue import Answer, BadRequest, FormatName, Request

HTML = b"""<html>\r
<head><title>502 Bad Gateway</title></head>\r
<body>\r
<center><h1>502 Bad Gateway</h1></center>\r
<hr><center>nginx</center>\r
</body>\r
</html>\r
"""


@dataclass(frozen=True, slots=True)
class Event:
    """
    One server-sent event.

    Attributes:
        data: The event as it is sent, its empty line included.
        delta: Whether it carries a token of text or tool arguments.
        closing: Whether it belongs to the end of the answer, after all deltas.
    """

    data: bytes
    delta: bool = False
    closing: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """An error answer: HTTP status, and what its body says."""

    status: int
    body: bytes
    content_type: str = "application/json"


class Format(Protocol):
    """
    One provider API.

    Attributes:
        name: What scripts and records call it.
        path: Where it is asked.
        request_id_header: The header that carries the request's id.
    """

    name: FormatName
    path: str
    request_id_header: str

    def parse(self, body: dict[str, Any], headers: dict[str, str], credential: str) -> Request:
        """
        The neutral request.

        Raises:
            BadRequest: the provider would not take it.
        """

    def body(self, answer: Answer) -> dict[str, Any]:
        """The answer as one JSON object."""

    def events(self, answer: Answer) -> Iterator[Event]:
        """The answer as a stream."""

    def problem(self, kind: str, model: str, request_id: str, bad: BadRequest | None = None) -> Problem:
        """An error of this kind: a fault's name, ``invalid`` (then ``bad`` says what), or ``too_large``."""

    def stream_error(self, sent: int) -> bytes:
        """The event that tells of an error inside a stream after ``sent`` events."""


def sse(data: object, name: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


def text_of(content: object, param: str) -> str:
    """
    Text of a message's content: a string, a list of parts, or null. Parts that are not text are left out.

    Raises:
        BadRequest: it is neither.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise BadRequest(f"{param}: expected a string or a list of parts", param)
    return "\n".join(str(part.get("text") or part.get("refusal") or "") for part in parts(content, param)).strip("\n")


def parts(content: list[Any], param: str) -> list[dict[str, Any]]:
    """
    ``content``, of which every item is an object.

    Raises:
        BadRequest: one is not.
    """
    for n, part in enumerate(content):
        if not isinstance(part, dict):
            raise BadRequest(f"{param}.{n}: expected an object", param)
    return content


def required(body: dict[str, Any], key: str, kind: type | tuple[type, ...], message: str) -> Any:
    """
    ``body[key]``.

    Raises:
        BadRequest: it is missing or of another type. ``message`` says so, with ``{key}`` in place of its name.
    """
    value = body.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise BadRequest(message.format(key=key), key)
    return value


def inner(outer: dict[str, Any], key: str) -> dict[str, Any]:
    """``outer[key]`` where it is an object, else an empty one."""
    value = outer.get(key)
    return value if isinstance(value, dict) else {}


def listed(outer: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """
    ``outer[key]``, a list of objects; empty where it is missing or null.

    Raises:
        BadRequest: it is neither.
    """
    value = outer.get(key) or []
    if not isinstance(value, list):
        raise BadRequest(f"{key}: expected a list", key)
    return parts(value, key)


def limit(body: dict[str, Any], *keys: str) -> int | None:
    """
    The most tokens the answer may have: the first of ``keys`` that is there, or None.

    Raises:
        BadRequest: it is not a whole number, or less than 1.
    """
    for key in keys:
        value = body.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadRequest(f"{key}: expected an integer >= 1, got {value!r}", key)
        return value
    return None


def object_or_empty(text: object) -> dict[str, Any]:
    """``text`` as a JSON object, or an empty one where it is none."""
    try:
        value = msgspec.json.decode(text if isinstance(text, str) else "")
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


_OPENAI = {
    "rate_limited": (
        429,
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for {model} on requests per min (RPM): Limit 500, Used 500, Requested 1.",
    ),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "overloaded": (503, "server_error", None, "The engine is currently overloaded, please try again later"),
    "server_error": (500, "server_error", None, "The server had an error while processing your request. Sorry!"),
    "unauthorized": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "not_found": (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    "context_too_long": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. Please reduce the length of the messages.",
    ),
    "too_large": (413, "invalid_request_error", "request_too_large", "The request body is too large."),
}


def openai_error(kind: str, model: str) -> tuple[int, dict[str, Any]]:
    """Status and ``error`` object of one of OpenAI's errors."""
    status, error_type, code, message = _OPENAI[kind]
    return status, {"message": message.format(model=model), "type": error_type, "param": None, "code": code}


def openai_problem(kind: str, model: str, bad: BadRequest | None, long_param: str) -> Problem:
    """An error as OpenAI's APIs answer it; ``long_param`` is the field a too long conversation is in."""
    if kind == "bad_gateway":
        return Problem(502, HTML, "text/html")
    if bad is not None:
        error = {"message": bad.message, "type": "invalid_request_error", "param": bad.param, "code": None}
        return Problem(400, msgspec.json.encode({"error": error}))
    status, error = openai_error(kind, model)
    if kind == "context_too_long":
        error["param"] = long_param
    return Problem(status, msgspec.json.encode({"error": error}))
