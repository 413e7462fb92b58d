"""
Every error Holdfast raises on purpose.

::

    HoldfastError
    ├── Invalid              the request is wrong: correct it, then send it again
    │   ├── NotJson            400   the body is not JSON
    │   ├── Unprocessable      422   the body is JSON, but not what was asked for
    │   ├── NotFound           404   no such thing, or not yours
    │   ├── MethodNotAllowed   405
    │   ├── BodyTimeout        408   the body did not arrive in time
    │   ├── TooLarge           413
    │   └── NotSupportedMedia  415
    ├── Denied               a rule said no: asking again changes nothing
    │   ├── Unauthenticated    401
    │   └── Forbidden          403
    ├── Refused              nothing was done: try again later
    │   ├── SessionBusy        409   another turn of this session is running
    │   ├── Draining           503   the server is stopping
    │   ├── RateLimited        429   more in this time than is allowed
    │   ├── CircuitOpen        503   what it needs has failed, and is left alone for a while
    │   ├── QueueFull          503   too many at a time, and too many waiting already
    │   └── Shed               503   the server has too much to do
    ├── TimedOut             504   begun, and not finished in time
    │   ├── DeadlineExceeded         the turn's own time is up
    │   └── AttemptTimedOut          one call took too long
    ├── Failed               begun, and something it needed failed
    │   ├── ModelUnavailable   503   the provider is down, overloaded or limiting us
    │   ├── ModelRejected      502   the provider refused this request or this credential
    │   ├── StreamBroken       502   an answer broke off after it had begun
    │   ├── ModelMalformed     502   the model's answer made no sense
    │   ├── AgentFailed        500   the agent's own code raised
    │   ├── TurnCancelled      503   the turn was stopped before its end
    │   └── StoreUnavailable   503   the database did not answer
    └── Misconfigured        exit 2   the settings are wrong: nothing was started

An error is split by what its catcher does next. ``public`` is safe to show to any caller; ``detail`` says what
happened to what, for the same caller where it is about their own request and for the log alone otherwise.
"""

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


class Refused(HoldfastError):
    """
    Nothing was done; the same request may be accepted later.

    Attributes:
        guard: What refused: ``breaker``, ``rate``, ``bulkhead``, ``shed``; empty where it was none of them.
        key_class: Whose share is used up: ``user``, ``tool``, ``target``; ``all`` where everybody shares it.
        reason: Why, in a word.
    """

    code = "refused"
    status = 503
    retryable = True
    public = "Not now. Try again later."
    detail_is_public = True

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        guard: str = "",
        key_class: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.guard = guard
        self.key_class = key_class
        self.reason = reason


class SessionBusy(Refused):
    """Another turn of the same session is still running, and the wait for it ran out."""

    code = "session_busy"
    status = 409
    public = "Another turn of this session is still running."


class Draining(Refused):
    """The server is stopping and takes no new turns."""

    code = "draining"
    public = "The server is stopping."


class RateLimited(Refused):
    """More units in this time than a limit allows. Nothing was taken from any limit."""

    code = "rate_limited"
    status = 429
    public = "Too many requests."


class CircuitOpen(Refused):
    """A circuit breaker is open: what would be called has failed, or may not be called for now. It was not called."""

    code = "circuit_open"
    public = "Something this needs is failing and is left alone for a while."


class QueueFull(Refused):
    """As many run as may, and nobody may wait, or has waited long enough. It was not run."""

    code = "queue_full"
    public = "Too many of these are running and waiting."


class Shed(Refused):
    """The server has more to do than it can. What matters least, or came too late, is refused; it was not begun."""

    code = "shed"
    public = "The server is overloaded."


class TimedOut(HoldfastError):
    """It was begun and did not finish in time. What it had done by then may have happened."""

    code = "timed_out"
    status = 504
    retryable = True
    public = "It took too long."
    detail_is_public = True


class DeadlineExceeded(TimedOut):
    """The turn's one deadline passed. The call that was running was cancelled; nothing further was started."""

    code = "deadline_exceeded"
    public = "The turn did not finish in time."


class AttemptTimedOut(TimedOut):
    """One attempt at a model or tool call took longer than it may. The turn may still have time left."""

    code = "attempt_timed_out"
    public = "A call the turn depends on took too long."


class Failed(HoldfastError):
    """It was begun, and something it needed failed."""

    code = "failed"
    public = "The turn failed."


class ModelUnavailable(Failed):
    """The provider could not be reached, is overloaded, or is limiting us."""

    code = "model_unavailable"
    status = 503
    retryable = True
    public = "The model provider is not available."


class ModelRejected(Failed):
    """The provider refused the request: the credential, the model's name or the input. Sending it again won't help."""

    code = "model_rejected"
    status = 502
    public = "The model provider refused the request."


class StreamBroken(Failed):
    """An answer broke off after its first part was passed on. It was not asked for again."""

    code = "stream_broken"
    status = 502
    retryable = True
    public = "The answer broke off before its end."


class ModelMalformed(Failed):
    """The model's answer could not be used: not parsable, or not what the agent's output type allows."""

    code = "model_malformed"
    status = 502
    public = "The model's answer could not be used."


class AgentFailed(Failed):
    """The agent's own code raised an exception that is not one of these."""

    code = "agent_failed"
    public = "The agent failed."


class TurnCancelled(Failed):
    """The turn was stopped before its end, as the server was stopping."""

    code = "turn_cancelled"
    status = 503
    retryable = True
    public = "The turn was stopped before it finished."


class StoreUnavailable(Failed):
    """The database did not answer. Nothing was half-written."""

    code = "store_unavailable"
    status = 503
    retryable = True
    public = "The store is not available."


class Misconfigured(HoldfastError):
    """The settings are wrong. Nothing was started; the command line shows ``detail`` and exits with 2."""

    code = "misconfigured"
    public = "The server is not configured correctly."


def every_error() -> list[type[HoldfastError]]:
    """The tree in the order it is drawn above: what the documentation and the OpenAPI document are rendered from."""

    def below(cls: type[HoldfastError]) -> list[type[HoldfastError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in below(child))]

    return below(HoldfastError)
