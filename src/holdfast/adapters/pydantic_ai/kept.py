"""
What of an agent's calls is kept: how a request is told from another one, and how what came back is encoded.

A model request is named by its last message, and by what of the answer before it can be told apart: whoever is asked
that again was told the same before. Times, ids of runs, instructions and the tools there are do not count, as they
are others tomorrow, or after a new version was deployed.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pydantic_core
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    RunCancelled,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)
from pydantic_ai.messages import (
    BinaryContent,
    FileUrl,
    ModelMessage,
    ModelResponse,
    RetryFeedbackPart,
    TextPart,
    ToolCallPart,
    ToolReturn,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
)
from pydantic_core import PydanticCustomError

from holdfast.journal import JsonCodec, digest_of, encode_json
from holdfast.tools import ToolError

NOT_TAKEN = "The answer is not taken: "
"""What the monitor begins with where it sends an answer back."""

_to_json = partial(pydantic_core.to_json, bytes_mode="base64", inf_nan_mode="null", fallback=str)


def request_digest(asker: str, messages: list[ModelMessage]) -> bytes:
    """
    Names what ``asker``, an agent, asks of a model: the same whenever it is asked, in any process.

    Args:
        asker: Tells apart agents that ask the same at the same time; may be empty.
        messages: The conversation, the message that is sent last.
    """
    return digest_of(asker.encode(), *(told for message in messages[-2:] for told in _told(message)))


def _told(message: ModelMessage) -> Iterator[bytes]:
    if isinstance(message, ModelResponse):
        for part in message.parts:
            match part:
                case TextPart():
                    yield _bytes(part.content)
                case ToolCallPart():
                    yield _bytes(part.tool_call_id)
        return
    for asked in message.parts:
        match asked:
            case RetryFeedbackPart(content=str() as told) if told.startswith(NOT_TAKEN):
                yield NOT_TAKEN.encode()  # What the answer lacks may be told otherwise once more is usual.
            case UserPromptPart() | RetryFeedbackPart():
                yield asked.part_kind.encode()
                yield _bytes(asked.content)
            case ToolReturnPart():
                yield f"{asked.tool_name} {asked.tool_call_id} {asked.outcome}".encode(errors="replace")
                yield _bytes(asked.content)


def _bytes(content: object) -> bytes:
    """The same for what a tool returned and for what that is after it was kept: some is a text then."""
    if isinstance(content, str):
        return content.encode(errors="replace")
    told = _as_json(content)
    return pydantic_core.from_json(told).encode() if told.startswith(b'"') else told


def _as_json(value: object) -> bytes:
    try:
        return _to_json(value)
    except ValueError:
        return encode_json(value)


_answers = TypeAdapter(list[ModelResponse], config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
"""As ``ModelMessagesTypeAdapter`` has it, in half the time: nobody need find out which kind of message it is."""


def encode_answer(response: ModelResponse) -> bytes | None:
    """A model's whole answer; None where it cannot be kept, and so has to be asked for again."""
    with suppress(ValueError):  # It holds what is neither JSON nor Unicode.
        return _answers.dump_json([response])
    return None


def decode_answer(kept: bytes) -> ModelResponse:
    """The answer again, equal to the one that was encoded."""
    [response] = _answers.validate_json(kept)
    return response


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What a tool told the agent in place of a result.

    Attributes:
        name: Of the exception's class.
        text: What it says.
        metadata: Of a call that is left to somebody else.
        kind: Of a call that is left to somebody else.
        errors: What was wrong with a value, each as its type, place, text and the value itself.
    """

    name: str
    text: str = ""
    metadata: dict[str, Any] | None = None
    kind: str = ""
    errors: list[tuple[str, list[int | str], str, Any]] = []


_told_decoder = msgspec.json.Decoder(Told)
_tool_return = TypeAdapter(ToolReturn)
_FILES = "holdfast_files"
_FILE_TYPES = (BinaryContent, FileUrl, UploadedFile)


def _has_files(content: object) -> bool:
    """Whether a model is shown files in it."""
    match content:
        case str() | bytes() | int() | float() | None:
            return False
        case Mapping():
            return any(map(_has_files, content.values()))
        case list() | tuple():
            return any(map(_has_files, content))
    return isinstance(content, _FILE_TYPES)


class ToolCodec(JsonCodec):
    """
    What a Pydantic AI tool returns, so that the model is shown the same, files included; and what it raises.

    What has no JSON form is kept as its ``str``: the call is not made again for that.
    """

    def encode(self, result: Any) -> bytes:
        """See ``Codec.encode``."""
        if isinstance(result, ToolReturn):
            return self._encode_whole(result)
        return self._encode_whole(ToolReturn(result)) if _has_files(result) else _as_json(result)

    @staticmethod
    def _encode_whole(result: ToolReturn) -> bytes:
        try:
            kept = _to_json(result)
        except ValueError:
            return encode_json(result.return_value)
        return b'{"%s":%s,%s' % (_FILES.encode(), b"true" if _has_files(result.return_value) else b"false", kept[1:])

    def decode(self, kept: bytes) -> Any:
        """See ``Codec.decode``. Other JSON, such as what somebody said a call returned, is the result itself."""
        told = pydantic_core.from_json(kept)
        if not isinstance(told, dict) or _FILES not in told:
            return told
        files, plain = told.pop(_FILES), told["return_value"]
        result = _tool_return.validate_python(told)
        if not files:
            result.return_value = plain  # What merely looks like a file is none.
        bare = result.content is None and result.metadata is None and result.tools is None
        return result.return_value if bare else result

    def encode_failure(self, error: Exception) -> bytes:
        """See ``Codec.encode_failure``."""
        match error:
            case ModelRetry() | ToolFailed():
                return encode_json(Told(type(error).__name__, error.message))
            case ToolRetryError():
                return encode_json(Told("ModelRetry", str(error)))
            case ToolFailedError():
                return encode_json(Told("ToolFailed", str(error)))
            case ToolError():
                return encode_json(Told("ToolError", str(error)))
            case RunCancelled():
                return encode_json(Told("RunCancelled", error.message))
            case ApprovalRequired():
                return encode_json(Told("ApprovalRequired", metadata=error.metadata))
            case CallDeferred():
                return encode_json(Told("CallDeferred", metadata=error.metadata, kind=error.kind))
            case ValidationError():
                return encode_json(Told("ValidationError", error.title, errors=_errors(error)))
        return super().encode_failure(error)

    def decode_failure(self, kept: bytes) -> Exception:
        """See ``Codec.decode_failure``. What is to count as a retry of the tool is a ``ModelRetry``, which does."""
        told = _told_decoder.decode(kept)
        match told.name:
            case "ModelRetry":
                return ModelRetry(told.text)
            case "ToolFailed":
                return ToolFailed(told.text)
            case "ToolError":
                return ToolError(told.text)
            case "RunCancelled":
                return RunCancelled(told.text)
            case "ApprovalRequired":
                return ApprovalRequired(told.metadata)
            case "CallDeferred":
                return CallDeferred(told.metadata, kind="question" if told.kind == "question" else "external")
            case "ValidationError":
                return _validation_error(told)
        return super().decode_failure(kept)


TOOL = ToolCodec()


def _errors(error: ValidationError) -> list[tuple[str, list[int | str], str, Any]]:
    return [
        (one["type"], list(one["loc"]), one["msg"], pydantic_core.from_json(_as_json(one["input"])))
        for one in error.errors(include_url=False, include_context=False)
    ]


def _validation_error(told: Told) -> ValidationError:
    return ValidationError.from_exception_data(
        told.text,
        [
            # A text of its own may hold braces, which only the template is searched for.
            {"type": PydanticCustomError(kind, "{text}", {"text": text}), "loc": tuple(place), "input": value}
            for kind, place, text, value in told.errors
        ],
    )
