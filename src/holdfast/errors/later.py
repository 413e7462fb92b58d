"""Not now: nothing was done and it may be tried again, or it was not finished in time."""

from holdfast.errors.base import HoldfastError


class Refused(HoldfastError):
    """
    Nothing was done; the same request may be accepted later.

    Attributes:
        guard: What refused: ``breaker``, ``rate``, ``bulkhead``, ``shed``, ``budget``; empty where it was none of them.
        key_class: Whose share is used up: ``user``, ``tool``, ``target``, ``agent``, ``session``, ``turn``; ``all``
            where everybody shares it.
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


class HandedOver(Refused):
    """The server stopped while the turn ran. Nothing is lost: another server, or this one later, goes on with it."""

    code = "handed_over"
    public = "The server is stopping; the turn goes on elsewhere. Ask for it again with its id or idempotency key."


class NotOwner(Refused):
    """Another server owns the turn by now. What was to be written was not."""

    code = "not_owner"
    public = "Another server goes on with the turn. Ask for it again with its id or idempotency key."


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


class BudgetExhausted(Refused):
    """A model call has no room in a budget of its turn, session, user or agent, or of everybody. It was not sent."""

    code = "budget_exhausted"
    status = 402
    public = "A budget is used up."


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
