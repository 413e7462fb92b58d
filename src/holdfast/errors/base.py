"""What every error has, and those of a caller: the request is wrong, or a rule said no."""

from typing import ClassVar


class HoldfastError(Exception):
    """
    Base of every error raised on purpose.

    Attributes:
        code: Stable machine-readable name.
        status: HTTP status a caller sees.
        retryable: Whether the same request may succeed later.
        public: One sentence, the same for every caller.
        detail: What happened, to what, and what to do. Part of the answer only where ``detail_is_public``.
        retry_after_s: Seconds to wait before trying again, or None where nobody can say.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    public: ClassVar[str] = "Something went wrong."
    detail_is_public: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(detail or self.public)
        self.detail = detail or self.public
        self.retry_after_s = retry_after_s


class Invalid(HoldfastError):
    """The request is wrong. Nothing was done."""

    code = "invalid"
    status = 400
    public = "The request is not valid."
    detail_is_public = True


class NotJson(Invalid):
    """The body is not JSON: not UTF-8, cut short, or nested too deep."""

    code = "not_json"
    public = "The body is not valid JSON."


class Unprocessable(Invalid):
    """The body is JSON but a field is missing, of the wrong type, or out of range."""

    code = "unprocessable"
    status = 422
    public = "The body is valid JSON, but not what this route takes."


class KeyReused(Unprocessable):
    """An idempotency key came with something else than before. Nothing was done."""

    code = "key_reused"
    public = "This idempotency key was used for something else."


class NotFound(Invalid):
    """There is no such thing, or it belongs to somebody else; a caller cannot tell which."""

    code = "not_found"
    status = 404
    public = "There is no such thing here."


class MethodNotAllowed(Invalid):
    """The route exists, but not for this method."""

    code = "method_not_allowed"
    status = 405
    public = "This route does not take that method."


class NotInDoubt(Invalid):
    """What became of the call is known, or it was not made. Nothing was changed."""

    code = "not_in_doubt"
    status = 409
    public = "What became of that call is known."


class BodyTimeout(Invalid):
    """The body did not arrive within ``server.body_timeout_s``."""

    code = "body_timeout"
    status = 408
    retryable = True
    public = "The request body did not arrive in time."


class TooLarge(Invalid):
    """The body is larger than ``server.max_body_bytes``. It was not read to its end."""

    code = "too_large"
    status = 413
    public = "The request body is too large."


class NotSupportedMedia(Invalid):
    """The body's declared type is not JSON."""

    code = "unsupported_media_type"
    status = 415
    public = "Send the body as application/json."


class Denied(HoldfastError):
    """A rule said no. Nothing was done, and asking again changes nothing."""

    code = "denied"
    status = 403
    public = "That is not allowed."


class Unauthenticated(Denied):
    """No credential, or one that is unknown, revoked or expired; the answer does not say which."""

    code = "unauthenticated"
    status = 401
    public = "A valid API key is required."


class Forbidden(Denied):
    """The credential is valid, but does not cover this."""

    code = "forbidden"
    public = "This credential does not allow that."
    detail_is_public = True


class Blocked(Denied):
    """The monitor answered a tool call in the tool's place. It was not made; the text says what to do instead."""

    code = "call_blocked"
    public = "The call was not made."
    detail_is_public = True


class PriceUnknown(Denied):
    """Money is limited, or unknown prices are refused, and nobody knows what the model costs. It was not asked."""

    code = "price_unknown"
    public = "The price of the model is not known."
    detail_is_public = True
