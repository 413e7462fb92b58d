"""What kind of failure it was, from facts alone."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.resilience.classify import TREATMENTS, Facts, FailureClass, classify, retry_after_s

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (Facts(529, type="overloaded_error"), "overloaded"),
        (Facts(503), "overloaded"),
        (Facts(200, type="overloaded_error"), "overloaded"),
        (Facts(500, code="server_is_overloaded"), "overloaded"),
        (Facts(503, type="server_error"), "overloaded"),
        (Facts(429, type="rate_limit_error"), "rate_limited"),
        (Facts(429), "rate_limited"),
        (Facts(429, type="tokens", code="rate_limit_exceeded"), "rate_limited"),
        (Facts(429, type="insufficient_quota", code="insufficient_quota"), "quota"),
        (Facts(429, type="rate_limit_error", code="contract_spend_limit_reached"), "quota"),
        (Facts(429, code="credit_balance_exhausted"), "quota"),
        (Facts(402), "quota"),
        (Facts(400, type="invalid_request_error", message="Your credit balance is too low to access the API"), "quota"),
        (Facts(400, type="invalid_request_error", message="You have reached your specified API usage limits"), "quota"),
        (Facts(500, type="api_error"), "server"),
        (Facts(200, type="api_error"), "server"),
        (Facts(type="server_error"), "server"),
        (Facts(502), "server"),
        (Facts(504), "server"),
        (Facts(timed_out="connect", sent=False), "timeout"),
        (Facts(timed_out="first_token"), "timeout"),
        (Facts(408), "timeout"),
        (Facts(sent=False), "network"),
        (Facts(401, type="authentication_error"), "auth"),
        (Facts(403), "auth"),
        (Facts(413, type="request_too_large"), "context"),
        (Facts(400, type="invalid_request_error", message="prompt is too long: 200010 tokens > 200000"), "context"),
        (Facts(400, code="context_length_exceeded", type="invalid_request_error"), "context"),
        (Facts(400, code="content_policy_violation"), "filtered"),
        (Facts(200, type="invalid_request_error", message="prompt is too long: 9 > 8"), "context"),
        (Facts(type="invalid_request_error", message="temperature: range: 0..1"), "invalid"),
        (Facts(401, type="invalid_request_error"), "auth"),
        (Facts(400, type="invalid_request_error", message="temperature: range: 0..1"), "invalid"),
        (Facts(404, type="not_found_error"), "invalid"),
        (Facts(422), "invalid"),
        (Facts(418), "invalid"),
        (Facts(), "unknown"),
        (Facts(200), "unknown"),
        (Facts(429, code="insufficient_quota", kind=FailureClass.TOOL_ERROR), "tool_error"),
        (Facts(kind=FailureClass.NETWORK), "network"),
    ],
)
def test_the_facts_decide_the_class(facts: Facts, kind: str) -> None:
    assert classify(facts, NOW).kind.value == kind


def test_every_class_has_its_treatment_and_only_failures_of_the_target_count_against_it() -> None:
    assert set(TREATMENTS) == set(FailureClass)
    against = {kind.value for kind, treatment in TREATMENTS.items() if treatment.breaker == "fail"}
    assert against == {"overloaded", "server", "timeout", "network", "unknown"}
    assert {kind.value for kind, treatment in TREATMENTS.items() if treatment.closes} == {"quota", "auth"}


def test_the_table_of_the_documentation_says_what_the_code_does() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "resilience" / "failures.md"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text("utf-8").splitlines()]
    told = {row[0]: row[2:] for row in rows if len(row) == 6 and row[0] in {kind.value for kind in FailureClass}}
    often = {None: "as bounded", 0: "never"}
    assert told == {
        kind.value: [
            f"{treatment.breaker}, closes" if treatment.closes else treatment.breaker,
            treatment.load,
            often.get(treatment.retries, str(treatment.retries)),
            "yes" if treatment.fallback else "no",
        ]
        for kind, treatment in TREATMENTS.items()
    }


@pytest.mark.parametrize(("status", "retryable"), [(529, True), (429, True), (500, True), (401, False), (400, False)])
def test_a_target_that_says_no_is_believed_and_one_that_says_yes_changes_nothing(
    status: int, *, retryable: bool
) -> None:
    assert classify(Facts(status), NOW).retryable is retryable
    assert classify(Facts(status, headers={"x-should-retry": "true"}), NOW).retryable is retryable
    assert not classify(Facts(status, headers={"x-should-retry": " False "}), NOW).retryable


def test_only_what_was_never_sent_may_be_repeated_whatever_it_does() -> None:
    assert classify(Facts(sent=False), NOW).harmless
    assert not classify(Facts(503), NOW).harmless
    assert not classify(Facts(kind=FailureClass.NETWORK), NOW).harmless


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 23:00:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_when_to_try_again_is_read_in_each_of_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text()), st.floats(0, 1e11))
def test_whatever_a_server_says_the_wait_is_none_or_a_time_that_can_be_waited(
    headers: dict[str, str], now_s: float
) -> None:
    """It never raises, and never gives a negative or infinite time."""
    wait = retry_after_s(headers, now_s)
    assert wait is None or (wait >= 0 and math.isfinite(wait))
