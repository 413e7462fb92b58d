"""The breaker by example: each rule, each bug that breakers in use have had, and each order."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import NS
from holdfast.resilience.circuit import Circuit, CircuitSpec, Outcome, Permit, Refusal, State

PLAIN = CircuitSpec(jitter=0)


class Target:
    """A breaker, the time, and what moved."""

    def __init__(self, spec: CircuitSpec = PLAIN, chance: float = 0.5) -> None:
        self.now = 0
        self.moves: list[str] = []
        self.breaker = Circuit(
            spec,
            "model:demo",
            lambda: chance,
            lambda was, to, why, _: self.moves.append(f"{was.value} {to.value} {why}"),
        )

    def state(self) -> State:
        return self.breaker.state(self.now)

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * NS)

    def ask(self) -> Permit:
        answer = self.breaker.acquire(self.now)
        assert isinstance(answer, Permit), answer
        return answer

    def refused(self) -> Refusal:
        answer = self.breaker.acquire(self.now)
        assert isinstance(answer, Refusal)
        return answer

    def answer(self, permit: Permit, outcome: Outcome, **told: Any) -> None:
        self.breaker.settle(permit, outcome, self.now, **told)

    def call(self, *outcomes: Outcome, times: int = 1, **told: Any) -> None:
        for outcome in outcomes * times:
            self.answer(self.ask(), outcome, **told)

    def trip(self, **told: Any) -> None:
        while self.state() is State.CLOSED:
            self.call("fail", **told)

    def break_s(self) -> float:
        wait = self.refused().retry_after_ns
        assert wait is not None
        return wait / NS

    def close(self) -> None:
        self.wait(self.break_s())
        self.call("ok", times=self.breaker.spec.need)
        assert self.state() is State.CLOSED


# What opens


def test_five_failures_in_a_row_open_it_and_an_ok_between_begins_the_row_anew() -> None:
    target = Target()
    target.call("ok", "ok", "fail", "fail", "fail", "fail", "ok", "fail", "none", "fail")
    assert target.state() is State.CLOSED
    target = Target()
    target.call("fail", "fail", "none", "fail", "fail", "fail")
    assert target.state() is State.OPEN
    assert target.moves == ["closed open consecutive"]


def test_half_of_the_calls_failing_opens_it_once_there_are_enough_of_them() -> None:
    target = Target()
    target.call("ok", "fail", times=4)
    target.call("ok")
    assert target.state() is State.CLOSED
    target.call("fail")
    assert target.moves == ["closed open failure_ratio"]


def test_the_call_that_makes_them_enough_may_be_an_ok_one() -> None:
    target = Target(replace(PLAIN, consecutive=None))
    target.call("fail", times=9)
    assert target.state() is State.CLOSED
    target.call("ok")
    assert target.state() is State.OPEN


def test_failures_leave_the_window_a_twelfth_at_a_time() -> None:
    target = Target(replace(PLAIN, consecutive=None))
    target.call("fail", "fail")
    target.wait(5)
    target.call("fail", "ok")
    target.wait(54)
    assert target.breaker.counts(target.now) == (4, 3, 0)
    target.wait(1)
    assert target.breaker.counts(target.now) == (2, 1, 0)
    target.wait(5)
    assert target.breaker.counts(target.now) == (0, 0, 0)


def test_a_failure_that_left_the_window_is_no_part_of_a_row() -> None:
    target = Target()
    target.call("fail", "fail", "fail", "fail")
    target.wait(60)
    target.call("fail")
    assert target.state() is State.CLOSED


def test_a_slow_trickle_of_failures_is_a_row_all_the_same() -> None:
    target = Target()
    for _ in range(5):
        target.call("fail")
        target.wait(50)
    assert target.moves == ["closed open consecutive"]


def test_slow_calls_open_it_although_they_were_ok() -> None:
    target = Target(replace(PLAIN, slow_s=10))
    target.call("ok", times=5)
    target.call("ok", times=4, slow=True)
    assert target.state() is State.CLOSED
    target.call("ok", slow=True)
    assert target.moves == ["closed open slow_ratio"]


def test_slow_means_nothing_where_no_call_is_slow() -> None:
    target = Target()
    target.call("ok", times=50, slow=True)
    assert target.breaker.counts(target.now) == (50, 0, 0)


def test_a_slow_probe_opens_it_again() -> None:
    target = Target(replace(PLAIN, slow_s=10))
    target.trip()
    target.wait(5)
    target.call("ok", slow=True)
    assert target.moves[-1] == "half_open open probe_slow"


def test_a_share_of_the_calls_is_compared_exactly() -> None:
    target = Target(replace(PLAIN, failure_ratio=0.1, min_calls=30, consecutive=None))
    target.call("ok", times=27)
    target.call("fail", "fail")
    assert target.state() is State.CLOSED
    target.call("fail")
    assert target.state() is State.OPEN


# How long


def test_each_break_is_twice_as_long_up_to_the_longest() -> None:
    target, breaks = Target(), []
    target.trip()
    for _ in range(8):
        breaks.append(target.break_s())
        target.wait(breaks[-1])
        target.call("fail")
    assert breaks == [5, 10, 20, 40, 80, 120, 120, 120]


def test_a_break_soon_after_closing_goes_on_growing_and_one_after_healing_is_short_again() -> None:
    target = Target()
    target.trip()
    target.close()
    target.wait(49.9)
    target.trip()
    assert target.break_s() == 10
    target.close()
    target.wait(50)
    target.trip()
    assert target.break_s() == 5


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 4.0), (0.5, 5.0), (0.999999999, 6.0)])
def test_chance_makes_a_break_up_to_a_fifth_shorter_or_longer(chance: float, seconds: float) -> None:
    target = Target(CircuitSpec(), chance)
    target.trip()
    assert target.break_s() == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(("asked_s", "break_s"), [(None, 5), (-3, 5), (0, 5), (4, 5), (30, 30), (60, 60), (3_600, 60)])
def test_the_server_can_ask_for_a_longer_break_up_to_a_bound(asked_s: int | None, break_s: float) -> None:
    target = Target()
    target.trip(retry_after_ns=None if asked_s is None else asked_s * NS)
    assert target.break_s() == break_s


def test_a_failed_probe_can_ask_for_a_longer_break_too() -> None:
    target = Target()
    target.trip()
    target.wait(5)
    target.call("fail", retry_after_ns=45 * NS)
    assert target.break_s() == 45


# What a probe may do


def test_two_probes_one_after_the_other_close_it() -> None:
    target = Target()
    target.trip()
    target.wait(5)
    assert target.state() is State.HALF_OPEN
    target.call("ok")
    assert target.state() is State.HALF_OPEN
    target.call("ok")
    assert target.moves == ["closed open consecutive", "open half_open break_over", "half_open closed probes_ok"]


def test_a_refusal_says_how_long_until_it_can_help_to_ask_again() -> None:
    target = Target(replace(PLAIN, lease_s=7))
    target.trip()
    target.wait(2)
    assert target.refused() == (3 * NS, "open")
    target.wait(3)
    target.ask()
    target.wait(1)
    assert target.refused() == (6 * NS, "probing")


def test_what_earlier_probes_said_and_held_is_forgotten_with_their_round() -> None:
    target = Target(replace(PLAIN, probes=2, lease_s=7))
    target.trip()
    target.wait(5)
    target.ask()
    target.call("ok", "fail")
    target.wait(10)
    target.call("ok")
    assert target.state() is State.HALF_OPEN
    target.call("ok")
    assert target.state() is State.CLOSED


def test_the_lease_that_ends_first_counts_and_not_the_one_given_first() -> None:
    target = Target(replace(PLAIN, probes=2))
    target.trip()
    target.wait(5)
    target.ask()
    target.breaker.reconfigure(replace(PLAIN, probes=2, lease_s=7))
    target.ask()
    assert target.refused() == (7 * NS, "probing")


def test_slow_calls_leave_the_window_too() -> None:
    target = Target(replace(PLAIN, slow_s=10))
    target.call("ok", times=9, slow=True)
    target.wait(60)
    target.call("ok", times=20)
    assert target.state() is State.CLOSED


# Bugs that breakers in use have had


def test_only_one_of_a_herd_is_let_through_after_the_break() -> None:
    target = Target()
    target.trip()
    target.wait(5)
    target.ask()
    assert [target.refused().why for _ in range(100)] == ["probing"] * 100


def test_an_ok_that_races_with_a_failed_probe_does_not_undo_the_break() -> None:
    target = Target(replace(PLAIN, probes=2, need=1))
    target.trip()
    target.wait(5)
    first, second = target.ask(), target.ask()
    target.answer(first, "fail")
    target.answer(second, "ok")
    assert target.state() is State.OPEN
    assert target.break_s() == 10


def test_an_ignored_error_of_a_probe_frees_its_place_and_closes_nothing() -> None:
    target = Target(replace(PLAIN, need=1))
    target.trip()
    target.wait(5)
    for _ in range(20):
        target.call("none")
        assert target.state() is State.HALF_OPEN
    target.call("ok")
    assert target.state() is State.CLOSED


def test_a_cancelled_probe_does_not_wedge_the_breaker() -> None:
    target = Target()
    target.trip()
    target.wait(5)
    target.answer(target.ask(), "none")
    target.ask()


def test_a_probe_that_never_answers_counts_as_failed_and_another_one_follows() -> None:
    target = Target()
    target.trip()
    target.wait(5)
    lost = target.ask()
    target.wait(60)
    assert target.state() is State.OPEN
    assert target.refused() == (10 * NS, "open")
    assert target.moves[-1] == "half_open open probe_lost"
    target.wait(10)
    target.ask()
    target.answer(lost, "ok")
    assert target.breaker.inflight == 1


def test_a_probe_that_an_inner_guard_refused_leaves_its_place_to_the_next() -> None:
    target = Target()
    target.trip()
    target.wait(5)
    for _ in range(3):
        target.answer(target.ask(), "none")
    target.call("ok", "ok")
    assert target.state() is State.CLOSED


def test_a_permit_that_nobody_gives_back_keeps_nobody_out() -> None:
    """A closed breaker has no places that could run out, and a probe's place has an end."""
    target = Target(replace(PLAIN, lease_s=1))
    for _ in range(1_000):
        target.ask()
    target.trip()
    target.wait(5)
    target.ask()
    target.wait(1)
    target.wait(target.break_s())
    target.ask()


def test_a_call_that_outlives_its_state_says_nothing_about_the_next() -> None:
    target = Target(replace(PLAIN, need=1))
    overhanging = [target.ask() for _ in range(10)]
    target.trip()
    target.answer(overhanging[0], "ok")
    assert target.state() is State.OPEN
    target.close()
    for permit in overhanging[1:]:
        target.answer(permit, "fail")
    assert target.state() is State.CLOSED
    assert target.breaker.counts(target.now) == (0, 0, 0)
    assert target.breaker.stale == 10


def test_failures_while_open_do_not_extend_the_break() -> None:
    target = Target()
    overhanging = [target.ask() for _ in range(10)]
    target.trip()
    target.wait(3)
    for permit in overhanging:
        target.answer(permit, "fail", retry_after_ns=60 * NS)
    assert target.break_s() == 2


def test_the_break_counts_from_when_the_call_failed_and_not_from_its_start() -> None:
    target = Target(replace(PLAIN, consecutive=1))
    permit = target.ask()
    target.wait(30)
    target.answer(permit, "fail")
    assert target.break_s() == 5


def test_asking_while_open_does_not_extend_the_break() -> None:
    target = Target()
    target.trip()
    for left in (5, 4, 3, 2, 1):
        assert target.break_s() == left
        target.wait(1)
    target.ask()


def test_a_permit_counts_once_however_often_it_comes_back() -> None:
    target = Target()
    permit = target.ask()
    for _ in range(100):
        target.answer(permit, "fail")
    assert target.breaker.counts(target.now) == (1, 1, 0)
    assert (target.breaker.inflight, target.breaker.stale) == (0, 99)


# Orders


def test_forced_open_lets_nobody_through_until_it_is_reset() -> None:
    target = Target()
    target.breaker.force_open(target.now)
    target.wait(1_000_000)
    assert target.refused() == (None, "forced_open")
    assert not target.breaker.quiescent(target.now)
    target.breaker.reset(target.now)
    target.ask()
    assert target.moves == ["closed forced_open force_open", "forced_open closed reset"]


def test_disabled_lets_everybody_through_and_learns_nothing() -> None:
    target = Target()
    target.trip()
    target.breaker.disable(target.now)
    target.call("fail", times=100)
    assert target.state() is State.DISABLED
    assert target.breaker.counts(target.now) == (0, 0, 0)
    assert target.breaker.inflight == 0


def test_a_reset_forgets_the_window_what_is_under_way_and_how_long_breaks_were() -> None:
    target = Target()
    target.trip()
    target.close()
    target.call("fail", "fail", "fail", "fail")
    under_way = target.ask()
    target.breaker.reset(target.now)
    target.answer(under_way, "fail")
    assert target.breaker.quiescent(target.now)
    target.trip()
    assert target.break_s() == 5


def test_every_order_is_told_even_one_that_changes_nothing_here() -> None:
    """Others follow it, and there it may."""
    target = Target()
    target.breaker.force_open(target.now)
    target.breaker.force_open(target.now)
    assert target.moves == ["closed forced_open force_open", "forced_open forced_open force_open"]


# Other rules


def test_other_thresholds_count_from_the_next_outcome_with_what_was_seen_before() -> None:
    target = Target()
    target.call("ok", times=6)
    target.call("fail", times=3)
    target.breaker.reconfigure(replace(PLAIN, failure_ratio=0.4, consecutive=None))
    assert target.state() is State.CLOSED
    target.call("fail")
    assert target.state() is State.OPEN


def test_another_window_keeps_what_falls_inside_it() -> None:
    target = Target(replace(PLAIN, consecutive=None))
    target.call("fail", "ok")
    target.wait(50)
    target.call("ok", "fail", "ok")
    target.breaker.reconfigure(replace(PLAIN, window_s=600))
    assert target.breaker.counts(target.now) == (5, 2, 0)
    target.wait(6)
    target.call("ok")
    target.breaker.reconfigure(replace(PLAIN, window_s=12, consecutive=None))
    assert target.breaker.counts(target.now) == (4, 1, 0)
    target.wait(5)
    target.call("ok")
    assert target.breaker.counts(target.now) == (5, 1, 0)
    target.wait(1)
    assert target.breaker.counts(target.now) == (1, 0, 0)
    target.wait(700)
    assert target.breaker.counts(target.now) == (0, 0, 0)
    target.call("ok")
    assert target.breaker.counts(target.now) == (1, 0, 0)


def test_a_break_that_began_is_not_changed_by_other_rules() -> None:
    target = Target()
    target.trip()
    target.breaker.reconfigure(replace(PLAIN, open_s=100))
    assert target.break_s() == 5


# Who watches, and what is remembered


def test_whoever_watches_finds_the_change_complete_and_may_call_the_breaker() -> None:
    def end_it(_was: State, to: State, _why: str, now: int) -> None:
        if to is State.OPEN:
            breaker.reset(now)

    breaker = Circuit(replace(PLAIN, consecutive=1), "b", lambda: 0.5, end_it)
    permit = breaker.acquire(0)
    assert isinstance(permit, Permit)
    breaker.settle(permit, "fail", 0)
    assert breaker.state(0) is State.CLOSED


def test_whoever_watches_and_raises_breaks_nothing() -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    breaker = Circuit(PLAIN, "b", lambda: 0.5, broken)
    breaker.force_open(0)
    assert breaker.state(0) is State.FORCED_OPEN
    assert breaker.moved_errors == 1


def test_only_a_breaker_with_nothing_to_remember_is_quiescent() -> None:
    target = Target()
    assert target.breaker.quiescent(0)
    permit = target.ask()
    assert not target.breaker.quiescent(0)
    target.answer(permit, "ok")
    assert not target.breaker.quiescent(0)
    target.wait(60)
    assert target.breaker.quiescent(target.now)
    target.trip()
    target.close()
    target.wait(49.9)
    assert not target.breaker.quiescent(target.now)
    target.wait(0.1)
    assert target.breaker.quiescent(target.now)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"open_s": -1}, "breaker.open_s must be > 0, got -1"),
        ({"open_s": 200}, "breaker.max_open_s must be >= open_s (200), got 120"),
        ({"window_s": float("nan")}, "breaker.window_s must be > 0, got nan"),
        ({"lease_s": float("inf")}, "breaker.lease_s must be > 0, got inf"),
        ({"lease_s": None}, "breaker.lease_s must be > 0, got None"),
        ({"slow_s": 0}, "breaker.slow_s must be > 0, got 0"),
        ({"heal_s": -1}, "breaker.heal_s must be >= 0, got -1"),
        ({"max_retry_after_s": -1}, "breaker.max_retry_after_s must be >= 0, got -1"),
        ({"failure_ratio": 0}, "breaker.failure_ratio must be in (0, 1], got 0"),
        ({"slow_ratio": 1.1}, "breaker.slow_ratio must be in (0, 1], got 1.1"),
        ({"jitter": 1}, "breaker.jitter must be in [0, 1), got 1"),
        ({"min_calls": 0}, "breaker.min_calls must be a whole number >= 1, got 0"),
        ({"consecutive": 0}, "breaker.consecutive must be a whole number >= 1, got 0"),
        ({"probes": 1.5}, "breaker.probes must be a whole number >= 1, got 1.5"),
        ({"need": 0}, "breaker.need must be a whole number >= 1, got 0"),
    ],
)
def test_a_spec_checks_itself(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        CircuitSpec(**wrong)
    assert str(caught.value) == said


def test_what_may_be_left_out_may_be_none() -> None:
    assert CircuitSpec(consecutive=None, slow_s=None, heal_s=None) == CircuitSpec(consecutive=None)


def test_the_page_tells_the_defaults_in_force() -> None:
    page = (Path(__file__).parents[2] / "docs" / "resilience" / "breaker.md").read_text("utf-8")
    told = re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \| .+ \|$", page.partition("## Errors")[0], re.MULTILINE)
    rules = {one.name for one in fields(CircuitSpec)}
    assert {name: value for name, value in told if name in rules} == {
        one.name: str(one.default) for one in fields(CircuitSpec)
    }
