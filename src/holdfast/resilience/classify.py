"""
What kind of failure a call had: the one question that retries, breakers, limits and fallbacks all ask.

The answer is decided from facts that any client can state (a status, a provider's code, headers, how far the call
came), so that it is the same for every provider, SDK and tool. The first of these that says something decides:

    stated ─▶ provider's code or type ─▶ its words, for a 400 ─▶ HTTP status ─▶ how far the call came ─▶ unknown

Codes and words are those of the Anthropic and OpenAI APIs, and of servers compatible with them.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Literal, NamedTuple

Evidence = Literal["ok", "fail", "none"]
"""What a call's end tells a breaker: that its target works, that it fails, or nothing."""

Load = Literal["ok", "decrease", "none"]
"""What it tells an adaptive limit: that its target is well, that it has too much to do, or nothing."""

Phase = Literal["connect", "first_token", "idle", "total"]


class FailureClass(Enum):
    """Kinds of failure, told apart by what is done about them."""

    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    SERVER = "server"
    TIMEOUT = "timeout"
    NETWORK = "network"
    AUTH = "auth"
    CONTEXT = "context"
    FILTERED = "filtered"
    INVALID = "invalid"
    MALFORMED = "malformed"
    TOOL_ERROR = "tool_error"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Treatment(NamedTuple):
    """
    What is done about a class of failure.

    Attributes:
        breaker: What it tells a breaker.
        load: What it tells an adaptive limit.
        retries: How often the same target may be asked again; None leaves it to the caller's own bounds.
        fallback: Whether another target may be asked instead.
        closes: Whether the target is closed at once for this credential: only a person can put it right.
    """

    breaker: Evidence
    load: Load = "none"
    retries: int | None = 0
    fallback: bool = False
    closes: bool = False


TREATMENTS: Mapping[FailureClass, Treatment] = {
    FailureClass.OVERLOADED: Treatment("fail", "decrease", retries=2, fallback=True),
    FailureClass.RATE_LIMITED: Treatment("none", "decrease", retries=None, fallback=True),
    FailureClass.QUOTA: Treatment("none", fallback=True, closes=True),
    FailureClass.SERVER: Treatment("fail", retries=None, fallback=True),
    FailureClass.TIMEOUT: Treatment("fail", "decrease", retries=None, fallback=True),
    FailureClass.NETWORK: Treatment("fail", retries=None, fallback=True),
    FailureClass.AUTH: Treatment("none", fallback=True, closes=True),
    FailureClass.CONTEXT: Treatment("ok", fallback=True),
    FailureClass.FILTERED: Treatment("ok", "ok"),
    FailureClass.INVALID: Treatment("ok"),
    FailureClass.MALFORMED: Treatment("ok", "ok", fallback=True),
    FailureClass.TOOL_ERROR: Treatment("ok", "ok"),
    FailureClass.CANCELLED: Treatment("none"),
    FailureClass.REFUSED: Treatment("none", fallback=True),
    FailureClass.UNKNOWN: Treatment("fail"),
}


class Facts(NamedTuple):
    """
    What is known of a call that failed.

    Attributes:
        status: HTTP status, or the one the provider uses for the same error outside a stream; None without an answer.
        code: The provider's error code.
        type: The provider's error type.
        message: The provider's words. Looked at, never kept.
        headers: Of the answer, by lower-case name.
        timed_out: The phase of the time limit that was reached.
        sent: Whether any byte of the request may have reached the target.
        kind: Its class, where whoever raised it says so; None leaves it to the rest.
    """

    status: int | None = None
    code: str | None = None
    type: str | None = None
    message: str = ""
    headers: Mapping[str, str] = {}
    timed_out: Phase | None = None
    sent: bool = True
    kind: FailureClass | None = None


class Failure(NamedTuple):
    """
    A failure, judged.

    Attributes:
        kind: Its class.
        retry_after_s: Seconds the target asked to be left alone; None where it did not say.
        retryable: Whether the same target may be asked again at all: a target that says no is believed.
        harmless: Whether nothing can have happened yet, so that even a call with effects may be repeated.
    """

    kind: FailureClass
    retry_after_s: float | None
    retryable: bool
    harmless: bool


_CODES = {
    "overloaded_error": FailureClass.OVERLOADED,
    "server_is_overloaded": FailureClass.OVERLOADED,
    "service_unavailable": FailureClass.OVERLOADED,
    "slow_down": FailureClass.OVERLOADED,
    "rate_limit_error": FailureClass.RATE_LIMITED,
    "rate_limit_exceeded": FailureClass.RATE_LIMITED,
    "too_many_requests": FailureClass.RATE_LIMITED,
    "insufficient_quota": FailureClass.QUOTA,
    "billing_error": FailureClass.QUOTA,
    "billing_hard_limit_reached": FailureClass.QUOTA,
    "contract_spend_limit_reached": FailureClass.QUOTA,
    "credit_balance_exhausted": FailureClass.QUOTA,
    "enforced_spend_limit_reached": FailureClass.QUOTA,
    "linked_organization_spend_limit_reached": FailureClass.QUOTA,
    "organization_spend_limit_exceeded": FailureClass.QUOTA,
    "organization_usage_limit_exceeded": FailureClass.QUOTA,
    "project_spend_limit_exceeded": FailureClass.QUOTA,
    "api_error": FailureClass.SERVER,
    "server_error": FailureClass.SERVER,
    "timeout_error": FailureClass.SERVER,
    "authentication_error": FailureClass.AUTH,
    "permission_error": FailureClass.AUTH,
    "invalid_api_key": FailureClass.AUTH,
    "context_length_exceeded": FailureClass.CONTEXT,
    "request_too_large": FailureClass.CONTEXT,
    "content_filter": FailureClass.FILTERED,
    "content_policy_violation": FailureClass.FILTERED,
    "model_not_found": FailureClass.INVALID,
    "not_found_error": FailureClass.INVALID,
}

_WORDS = (
    (re.compile(r"credit balance|spend limit|usage limit", re.IGNORECASE), FailureClass.QUOTA),
    (re.compile(r"prompt is too long|context (?:length|window)|maximum context", re.IGNORECASE), FailureClass.CONTEXT),
    (re.compile(r"content (?:policy|filter|management)|safety system", re.IGNORECASE), FailureClass.FILTERED),
)

_STATUSES = {
    401: FailureClass.AUTH,
    402: FailureClass.QUOTA,
    403: FailureClass.AUTH,
    408: FailureClass.TIMEOUT,
    413: FailureClass.CONTEXT,
    429: FailureClass.RATE_LIMITED,
    503: FailureClass.OVERLOADED,
    529: FailureClass.OVERLOADED,
}

_SAYS_LITTLE = frozenset({"api_error", "server_error"})
"""Types of whatever goes wrong at the target: where it answered with an error's status, that says more."""


def classify(facts: Facts, now_s: float) -> Failure:
    """
    Judge a failed call.

    Args:
        facts: What is known of it.
        now_s: Wall-clock seconds since 1970, for a ``retry-after`` that names a date.
    """
    kind = _kind(facts)
    told_not_to = facts.headers.get("x-should-retry", "").strip().lower() == "false"
    return Failure(
        kind=kind,
        retry_after_s=retry_after_s(facts.headers, now_s),
        retryable=TREATMENTS[kind].retries != 0 and not told_not_to,
        harmless=not facts.sent,
    )


def _kind(facts: Facts) -> FailureClass:
    if facts.kind is not None:
        return facts.kind
    answered = facts.status is not None and facts.status >= 400
    for name in (facts.code, facts.type):
        if name in _CODES and not (answered and name in _SAYS_LITTLE):
            return _CODES[name]
    if facts.timed_out is not None:
        return FailureClass.TIMEOUT
    if facts.status == 400 or (not answered and facts.type == "invalid_request_error"):
        return next((kind for words, kind in _WORDS if words.search(facts.message)), FailureClass.INVALID)
    if facts.status is None:
        return FailureClass.UNKNOWN if facts.sent else FailureClass.NETWORK
    if facts.status in _STATUSES:
        return _STATUSES[facts.status]
    if facts.status >= 500:
        return FailureClass.SERVER
    return FailureClass.INVALID if facts.status >= 400 else FailureClass.UNKNOWN


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """
    Seconds the target asks to be left alone, from ``retry-after-ms`` or ``retry-after`` in seconds or as a date.

    None where it does not say, or says nothing that can be waited for: a negative, infinite or unreadable time.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1_000
    said = headers.get("retry-after")
    if said is None:
        return None
    seconds = _number(said)
    return seconds if seconds is not None else _until(said, now_s)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(text: str, now_s: float) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        left = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return max(0.0, left)
