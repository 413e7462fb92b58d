"""From exceptions to judged failures: by attributes and names, never by type."""

import asyncio
import errno
import json
import pickle
import socket
import ssl
import urllib.error
from email.message import Message
from typing import Any, ClassVar

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import exceptions as pydantic

from holdfast import errors
from holdfast.resilience.classify import Facts, FailureClass
from holdfast.resilience.recognise import facts_of, recognise

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
REQUEST = httpx2.Request("POST", "http://provider/v1")


def kind_of(error: BaseException) -> str:
    return recognise(error, NOW).kind.value


def raised(error: BaseException, *, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


def named(name: str, *bases: type[BaseException], **attributes: Any) -> BaseException:
    """An exception of a library that is not installed."""
    error: BaseException = type(name, bases or (Exception,), attributes)()
    return error


def of_anthropic(status: int, body: object, **headers: str) -> anthropic.APIStatusError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, headers=names, request=REQUEST)
    return anthropic.APIStatusError("no", response=response, body=body)


def of_openai(status: int, body: object, **headers: str) -> openai.APIStatusError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return openai.APIStatusError("no", response=httpx2.Response(status, headers=names, request=REQUEST), body=body)


# Said outright


class NoSuchCity(Exception):
    failure_class = FailureClass.TOOL_ERROR


class Teapot(Exception):
    status_code = 503

    def __init__(self) -> None:
        super().__init__("short and stout")
        self.failure_class = FailureClass.QUOTA


def test_a_class_of_failure_on_the_exception_or_its_class_decides() -> None:
    assert kind_of(NoSuchCity()) == "tool_error"
    assert kind_of(Teapot()) == "quota"
    assert kind_of(raised(RuntimeError("no weather"), cause=NoSuchCity())) == "tool_error"
    assert kind_of(named("Odd", failure_class="tool_error")) == "unknown"


@pytest.mark.parametrize(
    ("error", "kind", "harmless"),
    [
        (errors.Refused(), "refused", True),
        (errors.Draining(), "refused", True),
        (errors.Forbidden(), "refused", True),
        (errors.NotFound(), "invalid", True),
        (errors.DeadlineExceeded(), "timeout", False),
        (errors.AttemptTimedOut(), "timeout", False),
        (errors.ModelMalformed(), "malformed", False),
        (errors.ModelRejected(), "invalid", False),
        (errors.ModelUnavailable(), "network", False),
        (errors.StreamBroken(), "network", False),
        (errors.TurnCancelled(), "cancelled", False),
        (errors.AgentFailed(), "unknown", False),
        (errors.StoreUnavailable(), "unknown", False),
    ],
)
def test_our_own_errors_are_judged_by_what_they_mean_and_not_by_the_status_our_callers_see(
    error: errors.HoldfastError, kind: str, *, harmless: bool
) -> None:
    failure = recognise(error, NOW)
    assert (failure.kind.value, failure.harmless) == (kind, harmless)


def test_a_refusal_keeps_its_own_time_to_try_again() -> None:
    refused = raised(errors.Refused(retry_after_s=2.5), cause=of_openai(429, None, retry_after="60"))
    assert recognise(refused, NOW) == (FailureClass.REFUSED, 2.5, False, True)


def test_our_own_timeout_is_one_whatever_came_before() -> None:
    assert kind_of(raised(errors.DeadlineExceeded(), cause=of_openai(429, None))) == "timeout"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt()])
def test_whoever_stopped_it_it_was_cancelled(error: BaseException) -> None:
    assert kind_of(error) == "cancelled"


async def test_a_timeout_that_cancelled_the_call_is_a_timeout() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(1):
            await asyncio.sleep(2)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert facts_of(caught.value) == Facts(timed_out="total", sent=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pydantic.ContentFilterError("no"), "filtered"),
        (openai.ContentFilterFinishReasonError(), "filtered"),
        (pydantic.UnexpectedModelBehavior("nonsense"), "malformed"),
        (json.JSONDecodeError("no", "{", 1), "malformed"),
        (raised(pydantic.ModelAPIError("m", "not JSON"), cause=json.JSONDecodeError("no", "{", 1)), "malformed"),
        (ValueError("Unable to parse tool parameter JSON from model."), "malformed"),
        (RuntimeError("Unable to parse tool parameter JSON from model."), "unknown"),
        (ValueError("no such city"), "unknown"),
        (pydantic.ModelRetry("try another city"), "tool_error"),
        (pydantic.ToolFailed("no such city"), "tool_error"),
        (named("ToolError"), "tool_error"),
        (httpx2.UnsupportedProtocol("ftp"), "invalid"),
        (RuntimeError("a mistake"), "unknown"),
    ],
)
def test_some_names_say_it_all(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


# Answers


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {"type": "error", "error": {"type": "rate_limit_error", "message": "slower"}}, "rate_limited"),
        (
            429,
            {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
            "quota",
        ),
        (400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}}, "quota"),
        (400, {"error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}, "context"),
        (400, {"error": {"type": "invalid_request_error", "message": "temperature"}}, "invalid"),
        (400, "Your credit balance is too low", "quota"),
        (400, {"error": "the context length is exceeded"}, "context"),
        (400, None, "invalid"),
        (401, {"error": {"type": "authentication_error"}}, "auth"),
        (529, {"error": {"type": "overloaded_error"}}, "overloaded"),
        (500, ["odd"], "server"),
        (502, "<html>", "server"),
        # Inside a stream that began with 200:
        (200, {"type": "error", "error": {"type": "overloaded_error"}}, "overloaded"),
        (200, {"type": "error", "error": {"type": "rate_limit_error"}}, "rate_limited"),
        (200, {"error": {"type": "invalid_request_error", "message": "prompt is too long"}}, "context"),
        (200, {"error": {"type": "invented_error"}}, "server"),
        (200, {"error": {"code": 429, "message": "from upstream"}}, "rate_limited"),
    ],
)
def test_an_answer_is_read_from_its_status_and_body(status: int, body: object, kind: str) -> None:
    error = of_anthropic(status, body)
    assert kind_of(error) == kind
    assert not recognise(error, NOW).harmless


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": "server_is_overloaded", "message": "later"}, "overloaded"),
        ({"code": None, "type": "server_error", "message": "sorry"}, "server"),
        ({"code": "insufficient_quota"}, "quota"),
        ({"code": "429"}, "rate_limited"),
        ({"type": "invalid_request_error", "message": "bad"}, "invalid"),
        ({"message": "sorry"}, "server"),
        (None, "server"),
    ],
)
def test_an_error_event_of_openai_has_no_status_and_is_read_from_its_code(body: object, kind: str) -> None:
    assert kind_of(openai.APIError("sorry", REQUEST, body=body)) == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pydantic.ModelHTTPError(529, "m", {"error": {"type": "overloaded_error"}}), "overloaded"),
        (pydantic.ModelHTTPError(503, "m"), "overloaded"),
        (pydantic.ModelHTTPError(400, "m", provider_error_code="context_length_exceeded"), "context"),
        (pydantic.ModelHTTPError(429, "m", provider_error_type="insufficient_quota"), "quota"),
        (
            pydantic.ModelHTTPError.for_category(pydantic.ModelQuotaExceededError, status_code=429, model_name="m"),
            "quota",
        ),
        (pydantic.ModelContextWindowExceededError("m", "long"), "context"),
        (pydantic.ModelRateLimitError("m", "slower"), "rate_limited"),
        (pydantic.ModelUnavailableError("m", "later"), "overloaded"),
        (pydantic.ModelServerError("m", "sorry"), "server"),
        (pydantic.ModelAuthenticationError("m", "who?"), "auth"),
        (pydantic.ModelNotFoundError("m", "what?"), "invalid"),
        (pydantic.ModelAPIError("m", "the stream broke off"), "server"),
    ],
)
def test_pydantic_ai_says_it_by_attributes_and_else_by_its_classes(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize(
    "error",
    [
        httpx2.HTTPStatusError("no", request=REQUEST, response=httpx2.Response(429, headers={"Retry-After": "3"})),
        urllib.error.HTTPError("http://x", 429, "no", Message(), None),
        named("ClientResponseError", status=429, headers=[("Retry-After", "3")]),
        named("HTTPError", response=type("Response", (), {"status": 429, "headers": {"Retry-After": "3"}})()),
    ],
    ids=["httpx", "urllib", "aiohttp", "other"],
)
def test_a_status_is_found_wherever_a_client_keeps_it(error: Any) -> None:
    if isinstance(error, urllib.error.HTTPError):
        error.headers["Retry-After"] = "3"
    assert recognise(error, NOW) == (FailureClass.RATE_LIMITED, 3.0, True, False)


def test_without_a_body_an_errors_own_text_is_read() -> None:
    assert kind_of(type("BadRequest", (Exception,), {"status_code": 400})("prompt is too long")) == "context"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(-32602, "invalid"), (-32601, "invalid"), (-32600, "invalid"), (-32603, "server"), (-32000, "network"),
     (-32001, "timeout"), (408, "timeout"), (-32042, "unknown"), ("-32602", "unknown")],
)  # fmt: skip
def test_an_mcp_error_is_judged_by_its_json_rpc_code(code: object, kind: str) -> None:
    data = type("ErrorData", (), {"code": code, "message": "no"})()
    assert kind_of(named("McpError", error=data)) == kind
    assert kind_of(named("MCPError", RuntimeError, code=code)) == kind


# No answer


OfRequests = type("ConnectionError", (OSError,), {})

CONNECT = Facts(timed_out="connect", sent=False)
NEVER_SENT = Facts(kind=FailureClass.NETWORK, sent=False)
TOO_LONG = Facts(timed_out="total")
BROKEN = Facts(kind=FailureClass.NETWORK)


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (TimeoutError(), TOO_LONG),
        (httpx2.ConnectTimeout("slow"), CONNECT),
        (httpx2.PoolTimeout("slow"), CONNECT),
        (httpx2.ReadTimeout("slow"), Facts(timed_out="idle")),
        (httpx2.WriteTimeout("slow"), TOO_LONG),
        (httpx2.ConnectError("refused"), NEVER_SENT),
        (httpx2.ReadError("reset"), BROKEN),
        (httpx2.RemoteProtocolError("gone"), BROKEN),
        (ConnectionRefusedError(), NEVER_SENT),
        (socket.gaierror(), NEVER_SENT),
        (ssl.SSLCertVerificationError(), NEVER_SENT),
        (ssl.SSLError(), BROKEN),
        (ConnectionResetError(), BROKEN),
        (BrokenPipeError(), BROKEN),
        (OSError(errno.ENETUNREACH, "unreachable"), BROKEN),
        (urllib.error.URLError(ConnectionRefusedError()), NEVER_SENT),
        (urllib.error.URLError(TimeoutError()), TOO_LONG),
        (OfRequests(named("MaxRetryError", reason=named("NewConnectionError"))), NEVER_SENT),
        (named("ConnectTimeout", ConnectionError), CONNECT),
        (named("ClientConnectorDNSError", type("ClientConnectorError", (OSError,), {})), NEVER_SENT),
        (named("ServerTimeoutError", type("ClientConnectionError", (Exception,), {}), TimeoutError), TOO_LONG),
        (raised(named("ClientPayloadError"), cause=named("ContentLengthError", code=400)), BROKEN),
        (pydantic.ModelRequestTimeout("m", 1.0), TOO_LONG),
        (pydantic.ModelRequestTimeout("m", 1.0, setting="first_event_timeout"), Facts(timed_out="first_token")),
        (pydantic.ModelTimeoutError("m", "slow", phase="connect"), CONNECT),
        (pydantic.ModelTimeoutError("m", "slow", phase="read"), TOO_LONG),
        (pydantic.ModelConnectionError("m", "no", phase="connect"), NEVER_SENT),
        (pydantic.ModelConnectionError("m", "no", phase="read"), BROKEN),
        (FileNotFoundError(errno.ENOENT, "notes.txt"), Facts()),
    ],
)  # fmt: skip
def test_without_an_answer_it_is_told_how_far_the_call_came(error: BaseException, facts: Facts) -> None:
    assert facts_of(error) == facts
    assert recognise(error, NOW).harmless is not facts.sent


@pytest.mark.parametrize("sdk", [anthropic, openai])
def test_an_sdks_connection_error_says_less_than_what_it_was_raised_from(sdk: Any) -> None:
    def wrapped(name: str, cause: BaseException | None) -> BaseException:
        return raised(getattr(sdk, name)(request=REQUEST), cause=cause)

    assert facts_of(wrapped("APITimeoutError", None)) == TOO_LONG
    assert facts_of(wrapped("APITimeoutError", httpx2.ConnectTimeout("slow"))) == CONNECT
    assert facts_of(wrapped("APITimeoutError", httpx2.ReadTimeout("slow"))) == Facts(timed_out="idle")
    assert facts_of(wrapped("APIConnectionError", None)) == BROKEN
    assert facts_of(wrapped("APIConnectionError", httpx2.ConnectError("refused"))) == NEVER_SENT
    assert facts_of(wrapped("APIConnectionError", httpx2.ReadError("reset"))) == BROKEN
    answered = httpx2.HTTPStatusError("no", request=REQUEST, response=httpx2.Response(429))
    assert kind_of(wrapped("APIConnectionError", answered)) == "rate_limited"


def test_a_pickled_error_is_judged_as_it_was() -> None:
    error = pydantic.ModelConnectionError("m", "no", phase="connect")
    assert recognise(pickle.loads(pickle.dumps(error)), NOW) == recognise(error, NOW)


# What it was raised from


def test_headers_that_only_the_cause_has_are_found() -> None:
    error = raised(pydantic.ModelHTTPError(429, "m"), cause=of_anthropic(429, None, retry_after="7"))
    assert recognise(error, NOW).retry_after_s == 7.0
    date = of_openai(429, None, retry_after="Thu, 01 Jan 2026 00:00:30 GMT")
    assert recognise(raised(errors.ModelUnavailable(), cause=date), NOW) == (
        FailureClass.RATE_LIMITED,
        30.0,
        True,
        False,
    )


def test_the_time_to_try_again_may_be_an_attribute_but_a_header_is_the_targets_own_word() -> None:
    assert recognise(pydantic.ModelRateLimitError("m", "slower", retry_after=4), NOW).retry_after_s == 4.0
    assert recognise(named("Busy", retry_after_s=1.5), NOW).retry_after_s == 1.5
    for said in ({"Retry-After-Ms": "1500"}, {"Retry-After": "1.5"}):
        assert recognise(named("Busy", retry_after=9, headers=said), NOW).retry_after_s == 1.5
    assert recognise(named("Busy", retry_after=float("nan")), NOW).retry_after_s is None


def test_a_target_that_says_not_to_try_again_is_believed_through_the_sdk() -> None:
    assert recognise(of_openai(500, None), NOW).retryable
    assert not recognise(of_openai(500, None, x_should_retry="false"), NOW).retryable


def test_an_outer_answer_is_kept() -> None:
    stream = raised(pydantic.ModelHTTPError(529, "m"), cause=of_anthropic(200, {"error": {"type": "api_error"}}))
    assert kind_of(stream) == "overloaded"
    assert kind_of(raised(of_openai(502, None), cause=ConnectionResetError())) == "server"


def test_an_error_of_ours_is_judged_by_the_one_it_was_raised_from() -> None:
    refused = raised(pydantic.ModelConnectionError("m", "no"), cause=httpx2.ConnectError("refused"))
    assert facts_of(raised(errors.ModelUnavailable(), cause=refused)) == NEVER_SENT
    assert kind_of(raised(errors.AgentFailed(), cause=of_openai(401, None))) == "auth"


def test_an_error_of_somebody_elses_does_not_say_that_nothing_was_done() -> None:
    """It may come from the second request of a tool whose first one went through."""
    audit = raised(RuntimeError("paid, but not noted"), cause=ConnectionRefusedError())
    assert facts_of(audit) == BROKEN


def test_an_answer_without_a_class_does_not_hide_what_is_below() -> None:
    assert facts_of(raised(named("OperationalError", code="e3q8"), cause=ConnectionRefusedError())) == BROKEN


def test_a_group_is_judged_by_its_first_exception() -> None:
    assert kind_of(ExceptionGroup("two", [of_openai(429, None), ValueError()])) == "rate_limited"
    assert kind_of(BaseExceptionGroup("stopped", [KeyboardInterrupt()])) == "cancelled"


def test_causes_that_go_round_or_never_end_are_left() -> None:
    first, second = RuntimeError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first
    assert kind_of(first) == "unknown"
    deep: BaseException = of_openai(429, None)
    for _ in range(15):
        deep = raised(RuntimeError(), cause=deep)
    assert kind_of(deep) == "rate_limited"
    assert kind_of(raised(RuntimeError(), cause=deep)) == "unknown"


# Whatever an exception is


class Hostile(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")


class Picky(Exception):
    def __str__(self) -> str:
        raise RuntimeError("str")

    status_code = 429
    args = property(lambda _: 1 / 0)
    body = property(lambda _: 1 / 0)
    headers: ClassVar[Any] = {1: "one", "Retry-After": 3, b"x": b"y", "X-Should-Retry": "false"}


def test_what_can_be_read_of_an_odd_exception_is_used() -> None:
    assert kind_of(Hostile()) == "unknown"
    assert kind_of(named("Odd", status_code=429, headers=5)) == "rate_limited"
    assert recognise(Picky(), NOW) == (FailureClass.RATE_LIMITED, None, False, False)


class Mimic:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)  # as Hypothesis prints what it draws
        return Mimic()

    def __call__(self) -> Any:
        raise RuntimeError("called")

    def __bool__(self) -> bool:
        raise RuntimeError("asked")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]  # as odd as they come


ATTRIBUTES = [
    *("status", "status_code", "code", "type", "body", "headers", "response", "error", "message", "failure_class"),
    *("reason", "phase", "setting", "retry_after", "retry_after_s", "provider_error_code", "errno", "exceptions"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-33_000, 700)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.sampled_from(["429", "invalid_request_error", "connect", Mimic(), FailureClass.QUOTA, 10**400]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["error", "code", "type"]), inner),
    max_leaves=4,
)
NAMES = st.sampled_from(["Odd", "APIConnectionError", "ModelTimeoutError", "APIError", "TimeoutError"])


@given(st.lists(st.tuples(NAMES, st.dictionaries(st.sampled_from(ATTRIBUTES), VALUES)), min_size=1, max_size=3))
def test_whatever_an_exception_holds_it_is_judged(links: list[tuple[str, dict[str, Any]]]) -> None:
    """It never raises; and a time to try again is one that can be waited."""
    error: BaseException | None = None
    for name, attributes in links:
        error = raised(named(name, Exception, **attributes), cause=error)
    assert error is not None
    failure = recognise(error, NOW)
    assert isinstance(failure.kind, FailureClass)
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s < float("inf")
