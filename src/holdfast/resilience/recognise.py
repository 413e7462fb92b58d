"""
From any exception to a judged failure, without knowing who raised it.

No SDK is imported: an exception is known by its attributes and by the names of its classes, as the SDKs for the same
service, and their versions, agree on little else. The exception and what it was raised from are looked at from the
outside in, and the first of these decides:

    failure_class ─▶ our own errors ─▶ names that say it all ─▶ JSON-RPC code ─▶ an answer: status, code, type
                  ─▶ no answer: how far the call came ─▶ names that say little ─▶ unknown

Headers, and with them the time to try again, are those of the outermost exception that has some.
"""

import errno
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast import errors
from holdfast.resilience.classify import Facts, Failure, FailureClass, classify

_MOST_CAUSES = 16
"""Exceptions looked at, from the outside in."""

_OURS = (
    (errors.TimedOut, Facts(timed_out="total")),
    (errors.Refused, Facts(kind=FailureClass.REFUSED, sent=False)),
    (errors.Denied, Facts(kind=FailureClass.REFUSED, sent=False)),
    (errors.Invalid, Facts(kind=FailureClass.INVALID, sent=False)),
    (errors.ModelMalformed, Facts(kind=FailureClass.MALFORMED)),
    (errors.TurnCancelled, Facts(kind=FailureClass.CANCELLED)),
)


def _named(facts: Facts, *names: str) -> dict[str, Facts]:
    return dict.fromkeys(names, facts)


_SAY_IT_ALL: Mapping[str, Facts] = {
    **_named(Facts(kind=FailureClass.OVERLOADED), "ModelOverloadedError"),
    **_named(Facts(kind=FailureClass.QUOTA), "ModelQuotaExceededError"),
    **_named(Facts(kind=FailureClass.CONTEXT), "ModelContextWindowExceededError"),
    **_named(Facts(kind=FailureClass.FILTERED), "ContentFilterError", "ContentFilterFinishReasonError"),
    **_named(
        Facts(kind=FailureClass.MALFORMED),
        *("JSONDecodeError", "DecodingError", "ContentDecodingError"),
        *("APIResponseValidationError", "LengthFinishReasonError", "UnexpectedModelBehavior"),
    ),
    **_named(Facts(kind=FailureClass.TOOL_ERROR), "ToolError", "ToolFailed", "ModelRetry"),
    **_named(Facts(kind=FailureClass.INVALID), "UnsupportedProtocol", "LocalProtocolError"),
    # Half an answer: what it was raised from has a code that is no status.
    **_named(Facts(kind=FailureClass.NETWORK), "ClientPayloadError"),
}

_UNANSWERED: Mapping[str, Facts] = {
    **_named(
        Facts(timed_out="connect", sent=False),
        *("ConnectTimeout", "ConnectTimeoutError", "ConnectionTimeoutError", "PoolTimeout"),
    ),
    **_named(Facts(timed_out="idle"), "ReadTimeout", "ReadTimeoutError", "SocketTimeoutError"),
    **_named(
        Facts(timed_out="total"),
        *("TimeoutError", "TimeoutException", "Timeout", "ServerTimeoutError"),
        *("APITimeoutError", "ModelTimeoutError", "ModelRequestTimeout"),
    ),
    **_named(
        Facts(kind=FailureClass.NETWORK, sent=False),
        *("ConnectionRefusedError", "gaierror", "SSLCertVerificationError"),
        *("ConnectError", "ClientConnectorError", "NewConnectionError", "EndpointConnectionError"),
    ),
    **_named(
        Facts(kind=FailureClass.NETWORK),
        *("ConnectionError", "SSLError", "URLError", "BadStatusLine", "IncompleteRead", "IncompleteReadError"),
        *("NetworkError", "TransportError", "MaxRetryError", "ChunkedEncodingError"),
        *("ClientConnectionError", "BrokenResourceError", "ClosedResourceError"),
        *("APIConnectionError", "ModelConnectionError", "ModelUnavailable", "StreamBroken"),
    ),
}
"""
What the names of exceptions say about calls that had no answer, or half of one. A name that does not tell whether
anything was sent leaves that to what it was raised from, and is taken for sent where nothing says otherwise.
"""

_NO_ROUTE = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH})

_SAY_LITTLE: Mapping[str, Facts] = {
    **_named(Facts(429), "ModelRateLimitError"),
    **_named(Facts(503), "ModelUnavailableError"),
    **_named(Facts(401), "ModelAuthenticationError"),
    **_named(Facts(400), "ModelRequestRejectedError", "ModelRejected"),
    **_named(Facts(500), "ModelAPIError", "APIError"),
}
"""Names of errors that providers report, with the status of their kind, for where they come without one."""

_JSON_RPC: Mapping[int, Facts] = {
    -32700: Facts(kind=FailureClass.INVALID),
    -32603: Facts(kind=FailureClass.SERVER),
    -32602: Facts(kind=FailureClass.INVALID),
    -32601: Facts(kind=FailureClass.INVALID),
    -32600: Facts(kind=FailureClass.INVALID),
    -32002: Facts(kind=FailureClass.INVALID),
    -32001: Facts(timed_out="total"),
    -32000: Facts(kind=FailureClass.NETWORK),
}
"""Codes of JSON-RPC, and those that MCP's clients use: resource not found, timed out, connection closed."""


def recognise(error: BaseException, now_s: float) -> Failure:
    """
    Judge an exception. It never raises.

    ``harmless`` speaks of the one request that failed: whoever makes several inside a call cannot go by it.

    Args:
        error: Whatever a call raised.
        now_s: Wall-clock seconds since 1970, for a ``retry-after`` that names a date.
    """
    return classify(facts_of(error), now_s)


def facts_of(error: BaseException) -> Facts:
    """What an exception says of the call that raised it. It never raises."""
    try:
        links = list(_links(error))
        headers: Mapping[str, str] = next(filter(None, map(_headers, links)), {})
        return _decisive(links)._replace(headers=headers)
    except Exception:  # noqa: BLE001 - an exception may hold anything, and its judge must not fail in its place
        return Facts()


def _links(error: BaseException) -> Iterator[BaseException]:
    """The exception, and the causes below it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen and len(seen) < _MOST_CAUSES:
        seen.add(id(link))
        yield link
        # The first of a group is what made the others be cancelled; urllib and requests keep their cause elsewhere.
        group = link.exceptions[:1] if isinstance(link, BaseExceptionGroup) else ()
        args = _get(link, "args")
        below = (_get(link, "__cause__"), *group, _get(link, "reason"), *(args[:1] if isinstance(args, tuple) else ()))
        link = next((cause for cause in below if isinstance(cause, Exception)), None)


def _decisive(links: list[BaseException]) -> Facts:
    for link in links:
        facts = _stated(link) or _answered(link)
        if facts is not None:
            return facts
    return _unanswered(links) or _first_named(links, _SAY_LITTLE) or Facts()


def _stated(error: BaseException) -> Facts | None:
    """What the exception says outright."""
    kind = _get(error, "failure_class")
    if isinstance(kind, FailureClass):
        return Facts(kind=kind)
    if not isinstance(error, Exception):
        return Facts(kind=FailureClass.CANCELLED)
    for cls, facts in _OURS:
        if isinstance(error, cls):
            return facts
    # Anthropic's SDK has no class of its own for a model's arguments that are not JSON.
    if type(error) is ValueError and "tool parameter JSON" in _text(error):
        return Facts(kind=FailureClass.MALFORMED)
    codes = (_get(_get(error, "error"), "code"), _get(error, "code"))
    known = (_JSON_RPC[code] for code in codes if isinstance(code, int) and code in _JSON_RPC)
    return _by_name(error, _SAY_IT_ALL) or next(known, None)


def _answered(error: BaseException) -> Facts | None:
    """What the target answered, where the exception tells of an answer that has a class."""
    if isinstance(error, errors.HoldfastError):
        return None  # its status and code are those that our own callers see
    body = _get(error, "body")
    told = _dict(_dict(body).get("error")) or _dict(body)
    response = _get(error, "response")
    code = _dict(told.get("details")).get("error_code") or told.get("code")
    said = (told.get("message"), _dict(body).get("error"), body)
    statuses = (
        *(_get(error, "status_code"), _get(response, "status_code"), _get(error, "status"), _get(response, "status")),
        *(_get(error, "code"), _get(_get(error, "error"), "code"), code),
    )
    facts = Facts(
        status=next(filter(None, map(_status, statuses)), None),
        code=_word(code, _get(error, "provider_error_code"), _get(error, "code")),
        type=_word(told.get("type"), _get(error, "provider_error_type"), _get(error, "type")),
        message=next((text for text in said if isinstance(text, str)), "") or _text(error),
    )
    return None if classify(facts, 0.0).kind is FailureClass.UNKNOWN else facts


def _unanswered(links: list[BaseException]) -> Facts | None:
    """How far a call without an answer came: the most exact that any of the exceptions says."""
    found = [_no_answer(link) for link in links]
    known = [facts for facts in found if facts is not None]
    if not known:
        return None
    phases = [facts.timed_out for facts in known if facts.timed_out is not None]
    timed_out = next((phase for phase in phases if phase != "total"), phases[0] if phases else None)
    # Whoever raised an exception of their own from this one may have done something before.
    sent = found[0] is None or all(facts.sent for facts in known)
    return Facts(kind=None if timed_out else FailureClass.NETWORK, timed_out=timed_out, sent=sent)


def _no_answer(error: BaseException) -> Facts | None:
    facts = _by_name(error, _UNANSWERED)
    if facts is None:
        unreachable = isinstance(error, OSError) and error.errno in _NO_ROUTE
        return Facts(kind=FailureClass.NETWORK) if unreachable else None
    if _word(_get(error, "phase")) in ("pool", "connect"):
        return facts._replace(timed_out=facts.timed_out and "connect", sent=False)
    if _word(_get(error, "setting")) == "first_event_timeout":
        return facts._replace(timed_out="first_token")
    return facts


def _first_named(links: list[BaseException], names: Mapping[str, Facts]) -> Facts | None:
    return next(filter(None, (_by_name(link, names) for link in links)), None)


def _by_name(error: BaseException, names: Mapping[str, Facts]) -> Facts | None:
    return next((names[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in names), None)


def _headers(error: BaseException) -> dict[str, str]:
    """Headers by lower-case name; the time to try again among them, where an attribute tells it."""
    headers = _pairs(_get(error, "headers")) or _pairs(_get(_get(error, "response"), "headers"))
    for name in ("retry_after_s", "retry_after"):
        asked = _get(error, name)
        if isinstance(asked, int | float):
            headers.setdefault("retry-after", str(asked))
    return headers


def _pairs(headers: Any) -> dict[str, str]:
    try:
        pairs = dict(headers or {}).items()
    except Exception:  # noqa: BLE001 - they may be anything
        return {}
    return {name.lower(): text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}


def _status(value: object) -> int | None:
    """An HTTP status of failure, which some write in words of digits."""
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) == 3 else value
    return number if isinstance(number, int) and 400 <= number < 600 else None


def _word(*values: object) -> str | None:
    return next((value for value in values if isinstance(value, str)), None)


def _dict(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception's text is its author's code
        return ""


def _get(holder: object, name: str) -> Any:
    """An attribute, or None where there is none or reading it fails."""
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001 - a property may raise anything
        return None
