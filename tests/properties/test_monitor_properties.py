"""Whatever a run does: one alert for each episode, time to react, and what is not the agent's never counts."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.monitor import (
    BlockCall,
    Budget,
    Call,
    Monitor,
    MonitorSpec,
    Norms,
    State,
    Step,
    StopPartial,
    Success,
    ToolRule,
    Verdict,
)
from holdfast.monitor.steps import WORLD

SPEC = MonitorSpec(mode="act", tools={"poll": ToolRule(repeatable="poll", poll_every_s=0)})
SHADOW = SPEC.model_copy(update={"mode": "shadow"})
TOOLS = ("read", "write", "test")

calls = st.builds(
    Call,
    tool=st.sampled_from(TOOLS),
    args=st.sampled_from(["a", "b", {"q": 1}, {"q": 2}]),
    result=st.sampled_from(["one", "two", "three 3", "three 4", "ok", "", "KeyError: x"]),
    error=st.sampled_from([None, None, None, "", "invalid"]),
)
steps = st.builds(
    Step,
    text=st.sampled_from(["", "I will look at it once more."]),
    calls=st.lists(calls, max_size=3).map(tuple),
    tokens=st.integers(0, 50),
    agreement=st.sampled_from([None, None, None, 0.2]),
)
runs = st.lists(steps, max_size=60)
budgets = st.builds(Budget, steps=st.none() | st.integers(1, 60), tokens=st.none() | st.integers(1, 2_000))
usual = st.sampled_from([Norms(), Norms(Success(5, 100, 1) for _ in range(30))])
away = st.builds(Call, tool=st.sampled_from(TOOLS), args=st.integers(0, 2), error=st.sampled_from(sorted(WORLD)))


def play(watched: Monitor, run: Sequence[Step]) -> list[Verdict]:
    """Run it as an adapter does: what is blocked is answered and does not run; a run that is stopped ends."""
    verdicts: list[Verdict] = []
    for step in run:
        made = []
        for call in step.calls:
            veto = watched.before_call(call)
            blocks = [each for each in veto.interventions if isinstance(each, BlockCall)] if veto is not None else []
            made.append(Call(tool=call.tool, args=call.args, result="no", blocked=True) if blocks else call)
        told = watched.after_step(Step(text=step.text, calls=tuple(made), tokens=step.tokens, agreement=step.agreement))
        verdicts += told
        if watched.breaker.tripped is not None:
            break
    return verdicts


def seen(watched: Monitor, run: Sequence[Step]) -> list[tuple[Any, ...]]:
    """What it says of a run, without the numbers of its steps."""
    return [
        (verdict.state, verdict.rule, verdict.severity, verdict.evidence.count, verdict.rung)
        for step in run
        for verdict in watched.after_step(step)
    ]


@settings(max_examples=200)
@given(runs, budgets, usual)
def test_the_agent_always_has_time_to_react(run: list[Step], budget: Budget, norms: Norms) -> None:
    """Interventions lie at least ``wait_steps`` apart, whatever their states; only a budget does not wait."""
    verdicts = play(Monitor(SPEC, norms, budget=budget), run)
    acted = [each.step for each in verdicts if each.state is not State.SCARCITY and not each.standing]
    assert all(later - earlier >= SPEC.wait_steps for earlier, later in pairwise(acted))


@settings(max_examples=200)
@given(runs, usual)
def test_rungs_go_up_one_after_the_other_while_a_state_is_open(run: list[Step], norms: Norms) -> None:
    """An episode opens at rung one or two, and goes up with each further intervention."""
    rung: dict[State, int] = {}
    for verdict in play(Monitor(SPEC, norms), run):
        stopped = verdict.stopped() is not None
        if verdict.opened:
            assert verdict.rung == int(verdict.severity) or stopped
        else:
            assert verdict.rung > rung[verdict.state]
            assert stopped or verdict.rung <= max(rung[verdict.state] + 2, int(verdict.severity))
        rung[verdict.state] = verdict.rung


@settings(max_examples=200)
@given(runs, budgets, usual)
def test_a_run_that_trips_is_latched_and_leaves_a_report(run: list[Step], budget: Budget, norms: Norms) -> None:
    """The last verdict of a stopped run carries the report, and no other one does."""
    watched = Monitor(SPEC, norms, budget=budget)
    verdicts = play(watched, run)
    ended = [each for each in verdicts if each.stopped() is not None]
    assert len(ended) == (watched.breaker.tripped is not None)
    if ended:
        assert verdicts[-1] is ended[0]
        assert all(isinstance(each, StopPartial) for each in ended[0].interventions)
        [again] = watched.after_step(Step(calls=(Call(tool="new", result="quite new"),)))
        assert again.stopped() is not None
    assert watched.breaker.in_a_row <= SPEC.failed_in_a_row
    assert watched.breaker.in_all <= SPEC.failed_in_all


@settings(max_examples=200)
@given(runs, usual)
def test_in_shadow_nothing_is_ordered_and_each_alert_is_told_once(run: list[Step], norms: Norms) -> None:
    """On rung 0 there are no interventions, and an open state is told again only as it gets worse."""
    watched = Monitor(SHADOW, norms)
    worst: dict[State, int] = {}
    for verdict in play(watched, run):
        assert (verdict.rung, verdict.interventions) == (0, ())
        assert verdict.opened or verdict.severity > worst[verdict.state]
        worst[verdict.state] = verdict.severity
    assert watched.breaker.tripped is None
    assert not watched.orders.blocked


@settings(max_examples=200)
@given(runs)
def test_steps_that_bring_news_always_end_an_episode(run: list[Step]) -> None:
    """Three new steps that are no errors close whatever is open, and lift what was ordered for it."""
    watched = Monitor(SPEC)
    play(watched, run)
    if watched.breaker.tripped is None:
        for number in range(SPEC.close_steps):
            watched.after_step(Step(calls=(Call(tool=f"new {'abc'[number]}", result=f"news {'abc'[number]}"),)))
        assert watched.state is State.NONE
        assert not watched.orders.blocked
        assert not watched.orders.trusted


@settings(max_examples=200)
@given(runs, st.data())
def test_parallel_identical_calls_count_once(run: list[Step], data: st.DataObject) -> None:
    """Repeating a message's calls within the message changes nothing."""
    doubled = [
        Step(
            text=step.text,
            calls=step.calls * data.draw(st.integers(1, 3)),
            tokens=step.tokens,
            agreement=step.agreement,
        )
        for step in run
    ]
    assert seen(Monitor(SHADOW), doubled) == seen(Monitor(SHADOW), run)


@settings(max_examples=200)
@given(runs, st.data())
def test_what_a_provider_did_never_changes_anything(run: list[Step], data: st.DataObject) -> None:
    """Failed model calls between the steps, and calls whose failure is the world's beside others, leave no trace."""
    disturbed: list[Step] = []
    for step in run:
        disturbed += [Step(failure=kind) for kind in data.draw(st.lists(st.sampled_from(sorted(WORLD)), max_size=2))]
        failed = tuple(data.draw(st.lists(away, max_size=2))) if step.calls else ()
        disturbed.append(
            Step(text=step.text, calls=(*failed, *step.calls), tokens=step.tokens, agreement=step.agreement)
        )
    assert seen(Monitor(SHADOW), disturbed) == seen(Monitor(SHADOW), run)


@given(st.lists(st.sampled_from(["pending", "ok", "12 % done", "13 % done"]), max_size=60))
def test_a_poll_within_its_time_never_fires(answers: list[str]) -> None:
    """However often it is asked, and whatever it says."""
    assert seen(Monitor(SHADOW), [Step(calls=(Call(tool="poll", args="job", result=each),)) for each in answers]) == []


@given(st.integers(1, 40))
def test_a_run_that_only_brings_news_is_left_alone(length: int) -> None:
    """A success of any length, without norms, is never disturbed."""
    run = [Step(calls=(Call(tool="read", args="x" * n, result="y" * n),), text="Reading on.") for n in range(1, length)]
    assert seen(Monitor(SPEC), run) == []


@settings(max_examples=100)
@given(runs, budgets)
def test_a_budget_is_never_found_empty_without_a_word(run: list[Step], budget: Budget) -> None:
    """Where each step needs no more than the one before, the answer is asked for before nothing is left."""
    even = [Step(text=step.text, calls=step.calls, tokens=10) for step in run]
    verdicts = play(Monitor(SPEC, budget=budget), even)
    spent = [each for each in verdicts if each.standing and each.stopped() is not None]
    if spent and spent[0].step > 1:
        assert any(each.state is State.SCARCITY and each.rung == 3 for each in verdicts)
