"""
Every error Holdfast raises on purpose.

::

    HoldfastError
    ├── Invalid              the request is wrong: correct it, then send it again
    │   ├── NotJson            400   the body is not JSON
    │   ├── Unprocessable      422   the body is JSON, but not what was asked for
    │   │   └── KeyReused      422   the idempotency key came with something else before
    │   ├── NotFound           404   no such thing, or not yours
    │   ├── MethodNotAllowed   405
    │   ├── NotInDoubt         409   everybody knows what became of the call
    │   ├── BodyTimeout        408   the body did not arrive in time
    │   ├── TooLarge           413
    │   └── NotSupportedMedia  415
    ├── Denied               a rule said no: asking again changes nothing
    │   ├── Unauthenticated    401
    │   ├── Forbidden          403
    │   ├── Blocked            403   the monitor answered a call in the tool's place
    │   └── PriceUnknown       403   money is limited, and nobody knows what the model costs
    ├── Refused              nothing was done: try again later
    │   ├── SessionBusy        409   another turn of this session is running
    │   ├── Draining           503   the server is stopping
    │   ├── HandedOver         503   the server stopped: another one goes on with the turn
    │   ├── NotOwner           503   another server owns the turn
    │   ├── RateLimited        429   more in this time than is allowed
    │   ├── CircuitOpen        503   what it needs has failed, and is left alone for a while
    │   ├── QueueFull          503   too many at a time, and too many waiting already
    │   ├── Shed               503   the server has too much to do
    │   └── BudgetExhausted    402   what may be spent is spent, or held by calls under way
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
    │   ├── TurnAbandoned      500   every server that ran the turn died of it
    │   ├── StoppedPartial     500   the monitor ended the turn with a partial answer, or a question
    │   ├── InDoubt            409   nobody knows whether an effect happened: somebody has to say so
    │   ├── Diverged           500   run again, the agent did something else than before
    │   ├── UnitFailed         500   a call failed when the turn was run before
    │   └── StoreUnavailable   503   the database did not answer
    └── Misconfigured        exit 2   the settings are wrong: nothing was started

An error is split by what its catcher does next. ``public`` is safe to show to any caller; ``detail`` says what
happened to what, for the same caller where it is about their own request and for the log alone otherwise.
"""

from holdfast.errors.base import (
    Blocked,
    BodyTimeout,
    Denied,
    Forbidden,
    HoldfastError,
    Invalid,
    KeyReused,
    MethodNotAllowed,
    NotFound,
    NotInDoubt,
    NotJson,
    NotSupportedMedia,
    PriceUnknown,
    TooLarge,
    Unauthenticated,
    Unprocessable,
)
from holdfast.errors.failed import (
    AgentFailed,
    Diverged,
    Failed,
    InDoubt,
    Misconfigured,
    ModelMalformed,
    ModelRejected,
    ModelUnavailable,
    StoppedPartial,
    StoreUnavailable,
    StreamBroken,
    TurnAbandoned,
    TurnCancelled,
    UnitFailed,
)
from holdfast.errors.later import (
    AttemptTimedOut,
    BudgetExhausted,
    CircuitOpen,
    DeadlineExceeded,
    Draining,
    HandedOver,
    NotOwner,
    QueueFull,
    RateLimited,
    Refused,
    SessionBusy,
    Shed,
    TimedOut,
)

__all__ = [
    "AgentFailed",
    "AttemptTimedOut",
    "Blocked",
    "BodyTimeout",
    "BudgetExhausted",
    "CircuitOpen",
    "DeadlineExceeded",
    "Denied",
    "Diverged",
    "Draining",
    "Failed",
    "Forbidden",
    "HandedOver",
    "HoldfastError",
    "InDoubt",
    "Invalid",
    "KeyReused",
    "MethodNotAllowed",
    "Misconfigured",
    "ModelMalformed",
    "ModelRejected",
    "ModelUnavailable",
    "NotFound",
    "NotInDoubt",
    "NotJson",
    "NotOwner",
    "NotSupportedMedia",
    "PriceUnknown",
    "QueueFull",
    "RateLimited",
    "Refused",
    "SessionBusy",
    "Shed",
    "StoppedPartial",
    "StoreUnavailable",
    "StreamBroken",
    "TimedOut",
    "TooLarge",
    "TurnAbandoned",
    "TurnCancelled",
    "Unauthenticated",
    "UnitFailed",
    "Unprocessable",
    "every_error",
]


def every_error() -> list[type[HoldfastError]]:
    """The tree in the order it is drawn above: what the documentation and the OpenAPI document are rendered from."""

    def below(cls: type[HoldfastError]) -> list[type[HoldfastError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in below(child))]

    return [HoldfastError, *(found for kind in _IN_ORDER for found in below(kind))]


_IN_ORDER: tuple[type[HoldfastError], ...] = (Invalid, Denied, Refused, TimedOut, Failed, Misconfigured)
