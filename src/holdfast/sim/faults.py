"""
What can go wrong, on demand. Each fault is one class: its tag is its name in a script, its fields are its keys.

::

    instead of an answer   rate_limited quota overloaded server_error bad_gateway unauthorized not_found
                           context_too_long hang reset
    in an answer           slow_first_token stall stream_error truncated malformed_tool_args
                           reset with after_deltas

``after_deltas`` counts the deltas of text or tool arguments that are sent before the fault: the same number in every
format. 0 means after the opening events; an answer with fewer deltas is hit before its closing events. A delta is
four characters. Where the answer is not streamed, such a fault hits in the middle of the body.
"""

from typing import Annotated, Literal, get_args

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Fault(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"
):
    """Base of every fault."""

    @property
    def kind(self) -> str:
        """The fault's name."""
        return str(self.__struct_config__.tag)

    @property
    def needs_answer(self) -> bool:
        """Whether it happens to an answer, rather than taking its place."""
        return False


class ErrorAnswer(Fault, frozen=True, kw_only=True):
    """
    An HTTP error in the provider's own shape, in place of the answer.

    Attributes:
        retry_after_s: What the answer's ``retry-after`` says, or None to leave the header out.
        retry_after_as: ``seconds`` (rounded up), ``milliseconds`` (the header ``retry-after-ms``), or an HTTP ``date``.
    """

    retry_after_s: Seconds | None = None
    retry_after_as: Literal["seconds", "milliseconds", "date"] = "seconds"


class RateLimited(ErrorAnswer, frozen=True, kw_only=True, tag="rate_limited"):
    """429: too many requests."""


class Quota(ErrorAnswer, frozen=True, kw_only=True, tag="quota"):
    """The account is out of money: 400 from Anthropic, 429 ``insufficient_quota`` from OpenAI."""


class Overloaded(ErrorAnswer, frozen=True, kw_only=True, tag="overloaded"):
    """529 from Anthropic, 503 from OpenAI."""


class ServerError(ErrorAnswer, frozen=True, kw_only=True, tag="server_error"):
    """500."""


class BadGateway(ErrorAnswer, frozen=True, kw_only=True, tag="bad_gateway"):
    """502, as the proxy in front of the provider says it: a page of HTML."""


class Unauthorized(ErrorAnswer, frozen=True, kw_only=True, tag="unauthorized"):
    """401: the API key is wrong."""


class NotFound(ErrorAnswer, frozen=True, kw_only=True, tag="not_found"):
    """404: there is no such model."""


class ContextTooLong(ErrorAnswer, frozen=True, kw_only=True, tag="context_too_long"):
    """400: the conversation is longer than the model's context."""


class Hang(Fault, frozen=True, kw_only=True, tag="hang"):
    """The request is read and never answered."""


class Reset(Fault, frozen=True, kw_only=True, tag="reset"):
    """
    The connection is reset (a TCP RST).

    Attributes:
        after_deltas: Deltas sent before it, or None for a reset before the first byte of the response.
    """

    after_deltas: Count | None = None

    @property
    def needs_answer(self) -> bool:
        """A reset before the first byte needs none."""
        return self.after_deltas is not None


class SlowFirstToken(Fault, frozen=True, kw_only=True, tag="slow_first_token"):
    """
    The answer comes, but late. A stream's opening events come at once.

    Attributes:
        seconds: Waited before the first delta, or before a whole body, in place of the usual first-token latency.
    """

    seconds: Seconds

    @property
    def needs_answer(self) -> bool:
        """It delays one."""
        return True


class Interruption(Fault, frozen=True, kw_only=True):
    """
    Something that breaks an answer half way.

    Attributes:
        after_deltas: Deltas sent before it.
    """

    after_deltas: Count = 1

    @property
    def needs_answer(self) -> bool:
        """It breaks one."""
        return True


class Stall(Interruption, frozen=True, kw_only=True, tag="stall"):
    """
    Nothing more comes, and the connection stays open.

    Attributes:
        seconds: How long, before the rest comes; None means for ever.
    """

    seconds: Seconds | None = None


class StreamError(Interruption, frozen=True, kw_only=True, tag="stream_error"):
    """An error event inside a 200 stream, which then ends. Not streamed, it is the provider's 500."""


class Truncated(Interruption, frozen=True, kw_only=True, tag="truncated"):
    """The body ends half way, correctly framed: a stream in the middle of an event, JSON in the middle of the text."""


class MalformedToolArgs(Fault, frozen=True, kw_only=True, tag="malformed_tool_args"):
    """The arguments of every tool call lack their first colon, so they are not JSON. Text is left alone."""

    @property
    def needs_answer(self) -> bool:
        """It spoils one."""
        return True


AnyFault = (
    RateLimited
    | Quota
    | Overloaded
    | ServerError
    | BadGateway
    | Unauthorized
    | NotFound
    | ContextTooLong
    | Hang
    | Reset
    | SlowFirstToken
    | Stall
    | StreamError
    | Truncated
    | MalformedToolArgs
)

EVERY_FAULT: tuple[type[Fault], ...] = get_args(AnyFault)
