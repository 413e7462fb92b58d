"""Retries: what is promised of them, over all histories."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import NS
from holdfast.resilience.classify import TREATMENTS, Facts, Failure, FailureClass, classify
from holdfast.resilience.retry import Again, Budget, NotAgain, Retry, RetryBudget, decide, wait_before

SPEC = Retry()
FULL = Budget(cap=1_000)


def failure(kind: FailureClass, retry_after_s: float | None = None, *, harmless: bool = False) -> Failure:
    return Failure(kind, retry_after_s, TREATMENTS[kind].retries != 0, harmless)


def decided(what: Failure, attempt: int = 1, **more: object) -> Again | NotAgain:
    given_: dict[str, object] = {
        "repeatable": True,
        "left_s": None,
        "budget": RetryBudget(FULL, 0),
        "now": 0,
        "chance": random.Random(1).random,
    }
    return decide(SPEC, what, attempt, **(given_ | more))  # type: ignore[arg-type]  # keywords of one test


def test_each_reason_to_give_up_is_named() -> None:
    server = failure(FailureClass.SERVER)
    assert decided(failure(FailureClass.INVALID)) == NotAgain("not_retryable")
    assert decided(server, 4) == NotAgain("attempts")
    assert decided(failure(FailureClass.OVERLOADED), 3) == NotAgain("attempts")
    assert decided(server, repeatable=False) == NotAgain("effects")
    assert decided(failure(FailureClass.RATE_LIMITED, 61.0)) == NotAgain("too_long")
    assert decided(server, left_s=0.4) == NotAgain("no_time")
    empty = RetryBudget(Budget(ratio=0, floor_per_s=0, cap=1), 0)
    assert empty.withdraw(0)
    assert decided(server, budget=empty) == NotAgain("budget")


def test_a_call_with_effects_is_repeated_only_where_nothing_can_have_happened() -> None:
    never_sent = classify(Facts(sent=False), 0.0)
    assert isinstance(decided(never_sent, repeatable=False), Again)


def test_giving_up_costs_the_budget_nothing() -> None:
    budget = RetryBudget(Budget(ratio=0, floor_per_s=0, cap=1), 0)
    decided(failure(FailureClass.SERVER), left_s=0.0, budget=budget)
    assert budget.withdraw(0)


@given(
    st.sampled_from(list(FailureClass)),
    st.integers(1, 200),
    st.none() | st.floats(0, 100),
    st.none() | st.floats(0, 200),
    st.integers(0, 1_000),
)
def test_a_wait_is_never_shorter_than_asked_and_never_passes_the_deadline(
    kind: FailureClass, attempt: int, asked_s: float | None, left_s: float | None, seed: int
) -> None:
    """R3, whatever happened and whatever is left."""
    answer = decided(failure(kind, asked_s), attempt, left_s=left_s, chance=random.Random(seed).random)
    if isinstance(answer, Again):
        assert attempt < SPEC.attempts
        assert answer.wait_s >= (asked_s or 0.0)
        assert left_s is None or answer.wait_s + SPEC.min_useful_s <= left_s


@given(st.sampled_from(list(FailureClass)), st.integers(1, 10_000), st.integers(0, 1_000))
def test_a_wait_that_nobody_asked_for_keeps_to_its_cap(kind: FailureClass, attempt: int, seed: int) -> None:
    assert 0 <= wait_before(SPEC, kind, attempt, None, random.Random(seed).random) <= SPEC.cap_s


def test_callers_who_were_asked_for_the_same_time_do_not_come_back_together() -> None:
    draw = random.Random(7).random
    waits = {wait_before(SPEC, FailureClass.RATE_LIMITED, 1, 3.0, draw) for _ in range(100)}
    assert len(waits) == 100
    assert min(waits) >= 3.0


EVENTS = st.lists(st.tuples(st.sampled_from(["first", "retry"]), st.integers(0, 3 * NS)), max_size=80)


@given(EVENTS, st.integers(0, 10), st.integers(0, 20), st.integers(1, 5))
def test_over_any_time_retries_keep_to_ratio_floor_and_cap(
    events: list[tuple[str, int]], tenths: int, floor_tenths: int, cap: int
) -> None:
    """R1: retries ≤ ratio · firsts + floor · time + cap, in every interval of every history."""
    spec = Budget(ratio=tenths / 10, floor_per_s=floor_tenths / 10, cap=cap)
    budget, now, log = RetryBudget(spec, 0), 0, []
    for what, wait in events:
        now += wait
        if what == "first":
            budget.deposit(now)
            log.append((now, 1, 0))
        elif budget.withdraw(now):
            log.append((now, 0, 1))
    for begin in range(len(log)):
        firsts = retries = 0
        for at, first, retry in log[begin:]:
            firsts, retries = firsts + first, retries + retry
            allowed = spec.ratio * firsts + spec.floor_per_s * (at - log[begin][0]) / NS + spec.cap
            assert retries <= allowed + 1e-6


@given(st.lists(st.integers(1, NS // 20), min_size=1, max_size=60))
def test_no_share_of_a_retry_is_rounded_away(steps: list[int]) -> None:
    """However often it is looked at, the floor accrues to the nanosecond."""
    spec = Budget(ratio=0, floor_per_s=0.2, cap=1)
    budget, now = RetryBudget(spec, 0), 0
    assert budget.withdraw(0)
    for step in steps:
        now += step
        budget.withdraw(now, weight=1_000)  # looks, and takes nothing
    assert not budget.withdraw(5 * NS - 1)
    assert budget.withdraw(5 * NS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"attempts": 0}, "retry.attempts must be at least 1, got 0"),
        ({"cap_s": 0}, "retry.cap_s must be > 0, got 0"),
        ({"min_useful_s": -1}, "retry.min_useful_s must be >= 0, got -1"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Retry(**wrong)
