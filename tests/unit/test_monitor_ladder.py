"""What is done about a state, in which order, and when a run is given up."""

from typing import TYPE_CHECKING

import pytest

from holdfast.monitor import (
    AskUser,
    BlockCall,
    Budget,
    Call,
    HideTool,
    Monitor,
    MonitorSpec,
    Norms,
    Nudge,
    Outcome,
    Replan,
    State,
    Step,
    ToolRule,
    Wait,
)

if TYPE_CHECKING:
    from tests.unit.monitor_runs import acting, call, drive, failing, found, fresh, kinds, monitor, norms, step, told
else:
    from monitor_runs import (  # pytest puts a test's folder on the path
        acting,
        call,
        drive,
        failing,
        found,
        fresh,
        kinds,
        monitor,
        norms,
        step,
        told,
    )

SAME = call()
TOOLS = {"search": '{"q": "text"}', "read": ""}


def test_a_looping_agent_is_nudged_then_blocked_then_made_to_use_another_tool() -> None:
    watched = Monitor(MonitorSpec(mode="act"), tools=TOOLS)

    def agent(number: int) -> Call:
        return SAME if "search" in watched.orders.offered(TOOLS, watched.history) else fresh(number)

    verdicts = drive(watched, agent, 8)
    assert [kinds(each) for each in verdicts] == [
        ["nudge", "block_call"],
        ["nudge", "block_call", "hide_tool", "force_other"],
    ]
    assert [each.step for each in verdicts] == [3, 5]
    assert watched.state is State.NONE, "three new steps ended it"
    assert watched.outcome(answered=True) is Outcome.DONE
    assert watched.before_call(SAME) is None, "and what was ordered for it"


def test_one_that_ignores_everything_gets_a_partial_answer_and_a_latched_breaker() -> None:
    watched = Monitor(MonitorSpec(mode="act"), tools=TOOLS, run="turn-1")
    watched.open_items = ("compare prices",)
    verdicts = drive(watched, lambda _: SAME, 50)
    assert [each.rung for each in verdicts] == [2, 3, 4, 5]
    assert [each.step for each in verdicts] == [3, 5, 7, 9], "two steps between rungs, and a known call fires at two"
    report = verdicts[-1].stopped()
    assert report is not None
    assert report.why == "3 interventions in a row did not help"
    assert report.done == ("search(same): nothing found",)
    assert (report.open_items, report.resume) == (("compare prices",), "turn-1")
    assert report.frequencies == {"deadlock": 4}
    assert report.recommendations == ("give the agent more, and more different, tools",)
    assert "search(same)" in report.text()
    assert "compare prices" in report.text()
    assert watched.outcome(answered=False) is Outcome.STOPPED_PARTIAL
    for verdict in (watched.before_call(fresh(1)), *watched.after_step(step(fresh(1)))):
        assert verdict is not None
        assert verdict.stopped() is not None
        assert verdict.standing
    watched.breaker.reset()
    assert watched.before_call(fresh(1)) is None


def test_a_breaker_that_was_latched_before_stops_the_next_run_too() -> None:
    first = acting()
    drive(first, lambda _: SAME, 50)
    second = Monitor(MonitorSpec(mode="act"), breaker=first.breaker)
    assert second.before_call(fresh(1)) is not None
    assert second.outcome(answered=False) is Outcome.TRIPPED


def test_a_run_that_was_stopped_with_nothing_done_is_tripped() -> None:
    watched = acting()
    drive(watched, lambda _: failing(), 50)
    assert watched.breaker.tripped
    assert watched.outcome(answered=False) is Outcome.TRIPPED


def test_a_blocked_call_gets_an_explanation_and_other_calls_run() -> None:
    watched = acting()
    told(watched, [SAME] * 3)
    veto = watched.before_call(SAME)
    assert veto is not None
    assert veto.standing
    [block] = veto.interventions
    assert isinstance(block, BlockCall)
    assert "search was called in the same way 3 times" in block.explanation
    assert watched.before_call(call(args="other")) is None


def test_in_shadow_everything_is_seen_and_nothing_done() -> None:
    watched = monitor(mode="shadow")
    verdicts = drive(watched, lambda _: SAME, 30)
    assert {(each.rung, each.interventions) for each in verdicts} == {(0, ())}
    assert {each.state for each in verdicts} == {State.DEADLOCK, State.STALL}
    assert watched.breaker.tripped is None
    assert watched.before_call(SAME) is None


def test_auto_acts_once_there_are_enough_successes() -> None:
    assert not Monitor(MonitorSpec(), Norms()).acts
    assert not Monitor(MonitorSpec(), norms([5] * 29)).acts
    assert Monitor(MonitorSpec(), norms([5] * 30)).acts
    assert not Monitor(MonitorSpec(mode="shadow"), norms([5] * 30)).acts


def test_a_warning_opens_with_a_nudge_and_the_point_of_stopping_with_a_block() -> None:
    warned = acting()
    [*_, [verdict]] = told(warned, [call(args=f"order {n}", result="not found") for n in (1, 2, 3)])
    assert (verdict.rung, kinds(verdict)) == (1, ["nudge"])
    stopped = acting()
    [*_, [verdict]] = told(stopped, [SAME] * 3)
    assert (verdict.rung, kinds(verdict)) == (2, ["nudge", "block_call"])


def test_of_two_states_at_once_only_the_first_is_acted_upon() -> None:
    watched = acting(stale_warn=2, stale_stop=2)
    [*_, verdicts] = told(watched, [SAME] * 3)
    assert [each.state for each in verdicts] == [State.DEADLOCK]


def test_counters_look_only_at_steps_since_the_last_intervention() -> None:
    watched = acting()
    made = [failing("abcdefgh"[n], f"{'ABCDEFGH'[n]}Error") for n in range(8)]
    assert found(watched, made) == ["thrash.err WARN 3", "thrash.err WARN 6"]


def test_one_that_calls_a_hidden_tool_in_ever_new_ways_is_stopped_too() -> None:
    watched = Monitor(MonitorSpec(mode="act"), tools=TOOLS)
    words = [first + second for first in "abcdef" for second in "abcdef"]
    verdicts = drive(watched, lambda number: failing(words[number], f"{words[number]}Error"), 30)
    assert watched.breaker.tripped == "3 interventions in a row did not help"
    assert verdicts[-1].step <= 18


def test_a_person_is_asked_where_there_is_one() -> None:
    for human, kind in ((True, AskUser), (False, Replan)):
        watched = acting(human=human)
        verdicts = drive(watched, lambda _: SAME, 8)
        assert verdicts[-1].rung == 4
        assert any(isinstance(each, kind) for each in verdicts[-1].interventions)


def test_a_failing_tool_is_explained_then_taken_away_until_another_one_succeeds() -> None:
    watched = Monitor(MonitorSpec(mode="act"), tools=TOOLS)
    watched.after_step(step(call(args="good", result="found it")))
    verdicts = drive(watched, lambda n: failing("abcdefgh"[n], f"{'ABCDEFGH'[n]}Error"), 6)
    [nudge] = verdicts[0].interventions
    assert isinstance(nudge, Nudge)
    assert '{"q": "text"}' in nudge.text
    assert "A call of it that worked: good" in nudge.text
    assert [each for each in verdicts[1].interventions if isinstance(each, HideTool)] == [
        HideTool(tool="search", steps=None)
    ]
    assert watched.orders.offered(TOOLS, watched.history) == ("read",)
    watched.after_step(step(fresh(1)))
    assert watched.orders.offered(TOOLS, watched.history) == ("search", "read")


def test_an_agents_only_tool_is_not_taken_away() -> None:
    watched = Monitor(MonitorSpec(mode="act"), tools={"search": ""}, goal="find it")
    verdicts = drive(watched, lambda _: SAME, 6)
    assert kinds(verdicts[-1]) == ["nudge", "block_call", "replan"]
    [replan] = [each for each in verdicts[-1].interventions if isinstance(each, Replan)]
    assert "Goal: find it" in replan.summary
    assert "search(same): nothing found" in replan.summary


def test_a_hidden_tool_comes_back_after_its_steps() -> None:
    watched = Monitor(MonitorSpec(mode="act"), tools=TOOLS)
    drive(watched, lambda _: SAME, 5)
    offers = []
    for number in range(4):
        offers.append("search" in watched.orders.offered(TOOLS, watched.history))
        watched.after_step(step(call("read", "same", "text 1"), text=f"{number}"))
    assert offers == [False, False, False, True]


def test_states_that_take_turns_trip_the_breaker() -> None:
    watched = acting(wait_steps=1, reopen_steps=1, failed_in_a_row=50, failed_in_all=50, close_steps=1)
    errors = [failing("abcdef"[n], f"{'ABCDEF'[n]}Error") for n in range(6)]
    block = [[SAME] * 3, [fresh(1)], errors[:3], [fresh(2)], [call(args="z", result="q")] * 3, [fresh(3)], errors[3:]]
    verdicts = [each for steps in block for each in told(watched, steps) if each]
    assert [each[0].state for each in verdicts] == [State.DEADLOCK, State.THRASH] * 2
    assert watched.breaker.tripped == "the agent goes back and forth between deadlock and thrash"
    assert "look for instructions that contradict each other" in watched.report().recommendations


def test_six_failures_in_all_trip_it_though_others_helped() -> None:
    watched = acting(failed_in_a_row=50, failed_in_all=2, reopen_steps=3)
    for name in "ab":
        same = [call(args=name)] * 5
        drive(watched, same.__getitem__, 5)
        told(watched, [fresh(n) for n in range(12)])
    assert watched.breaker.tripped == "2 interventions did not help"


def test_an_intervention_that_helped_ends_the_row_of_failures() -> None:
    watched = acting()
    drive(watched, lambda _: SAME, 5)
    assert watched.breaker.in_a_row == 1
    told(watched, [fresh(n) for n in range(10)])
    assert (watched.breaker.in_a_row, watched.breaker.in_all) == (0, 1)


def test_talk_alone_ends_no_episode_and_no_row_of_failures() -> None:
    watched = acting()
    drive(watched, lambda _: SAME, 5)
    told(watched, [Step(text=f"I will do it differently now, {word}.") for word in "abcdefghij"])
    told(watched, [Call(tool="search", args=word, result="Not run.", blocked=True) for word in "abc"])
    assert watched.state is State.DEADLOCK
    assert watched.breaker.in_a_row == 1
    assert watched.before_call(SAME) is not None


def test_a_call_that_must_not_be_made_twice_is_stopped_before_it_runs() -> None:
    tools = {"pay": ToolRule(idempotent=False)}
    watched = monitor(mode="act", tools=tools)
    pay = call("pay", "10 EUR", "paid")
    assert watched.before_call(pay) is None
    assert watched.before_call(pay) is None, "a sibling in the same message has not run yet"
    watched.after_step(step(pay))
    veto = watched.before_call(pay)
    assert veto is not None
    assert (veto.rule, kinds(veto)) == ("again", ["block_call"])
    assert watched.before_call(call("pay", "20 EUR", "paid")) is None
    watched.after_step(step(fresh(1)))
    assert watched.before_call(pay) is None, "something new may be a reason"


def test_a_call_that_failed_may_be_made_again_even_where_twice_would_be_bad() -> None:
    watched = monitor(mode="act", tools={"pay": ToolRule(idempotent=False)})
    watched.after_step(step(failing("10 EUR", "card declined", tool="pay")))
    assert watched.before_call(call("pay", "10 EUR")) is None


def test_it_is_stopped_after_an_intervention_too() -> None:
    watched = monitor(mode="act", tools={"pay": ToolRule(idempotent=False)})
    pay = call("pay", "10 EUR", "ok")
    told(watched, [pay])
    watched.history.since = watched.history.steps
    assert watched.before_call(pay) is not None


def test_polls_keep_their_distance() -> None:
    watched = monitor(mode="act", tools={"status": ToolRule(repeatable="poll", poll_every_s=5)})
    poll = call("status", "job", "pending")
    assert watched.before_call(poll, now=0) is None
    watched.after_step(step(poll, at=1_000_000_000))
    veto = watched.before_call(poll, now=3_000_000_000)
    assert veto is not None
    assert veto.interventions == (Wait(seconds=3.0),)
    assert watched.before_call(poll, now=6_000_000_000) is None


def test_budgets_are_told_then_finished_then_answered() -> None:
    watched = acting(Budget(tokens=1_000), tools={"save": ToolRule(finish=True)})
    verdicts = [each for n in range(60) for each in watched.after_step(step(fresh(n), tokens=16))]
    levels = [(each.rule, each.rung, each.step, kinds(each)) for each in verdicts[:3]]
    assert levels == [
        ("used", 1, 44, ["nudge"]),
        ("used", 2, 54, ["nudge", "finish_only"]),
        ("used", 3, 60, ["force_final"]),
    ]
    assert watched.before_call(call("save")) is not None
    assert watched.breaker.tripped is None


def test_when_only_finishing_is_left_tools_that_finish_still_run() -> None:
    watched = acting(Budget(tokens=1_000), tools={"save": ToolRule(finish=True)})
    told(watched, [step(fresh(n), tokens=10) for n in range(86)])
    assert watched.before_call(call("save")) is None
    assert watched.before_call(call("search")) is not None


def test_the_last_step_that_fits_is_the_answer() -> None:
    watched = acting(Budget(steps=4))
    verdicts = [each for n in range(3) for each in watched.after_step(step(fresh(n)))]
    assert [(each.rule, kinds(each)) for each in verdicts] == [("last", ["force_final"])]
    assert verdicts[0].step == 3


def test_a_budget_does_not_wait_for_the_agent_to_react() -> None:
    watched = acting(Budget(tokens=100))
    [*_, loop] = told(watched, [step(SAME, tokens=20)] * 3)
    assert [each.state for each in loop] == [State.DEADLOCK]
    [more] = told(watched, [step(fresh(1), tokens=18)])
    assert [each.state for each in more] == [State.SCARCITY], "one step after the other"
    both = acting(Budget(tokens=100))
    [*_, two] = told(both, [step(SAME, tokens=24)] * 3)
    assert [each.state for each in two] == [State.SCARCITY, State.DEADLOCK]


def test_a_budget_of_which_nothing_is_left_stops_the_run() -> None:
    watched = acting(Budget(nanodollars=100))
    [[verdict]] = told(watched, [step(fresh(1), nanodollars=100)])
    assert verdict.stopped() is not None
    assert watched.outcome(answered=False) is Outcome.STOPPED_PARTIAL


def test_a_forecast_from_past_successes_tells_early() -> None:
    spec = MonitorSpec(mode="shadow")
    long = Monitor(spec, norms([10] * 30), budget=Budget(steps=12))
    assert not any("scarcity" in each for each in found(long, [fresh(n) for n in range(6)]))
    short = Monitor(spec, norms([20] * 30), budget=Budget(steps=12))
    assert found(short, [fresh(n) for n in range(6)]) == ["scarcity.forecast WARN 3"]


def test_a_call_that_cannot_end_in_time_is_not_started() -> None:
    watched = acting(Budget(wall_s=100))
    slow = Call(tool="crawl", args="a", result="a page", duration_s=30)
    watched.after_step(step(slow, at=30_000_000_000))
    assert watched.before_call(Call(tool="crawl", args="b"), now=60_000_000_000) is None
    veto = watched.before_call(Call(tool="crawl", args="b"), now=80_000_000_000)
    assert veto is not None
    assert (veto.rule, kinds(veto)) == ("late", ["block_call"])
    assert watched.before_call(Call(tool="other"), now=80_000_000_000) is None


@pytest.mark.parametrize(
    ("steps", "answered", "outcome"),
    [
        ([Step(failure="rate_limited")], False, Outcome.RATE_LIMITED),
        ([Step(failure="overloaded")], False, Outcome.PROVIDER_DOWN),
        ([Step(failure="overloaded"), step(fresh(1))], True, Outcome.DONE),
        ([], False, Outcome.NOT_STARTED),
        ([step(failing())], False, Outcome.NOT_STARTED),
        ([step(fresh(1))], False, Outcome.STOPPED_PARTIAL),
        ([Step(text="hello")], True, Outcome.DONE),
    ],
)
def test_how_a_run_ended(steps: list[Step], outcome: Outcome, *, answered: bool) -> None:
    watched = acting()
    told(watched, steps)
    assert watched.outcome(answered=answered) is outcome


def test_what_failed_last_is_open_until_a_call_of_that_tool_succeeds() -> None:
    watched = acting()
    told(watched, [failing("a"), fresh(1)])
    assert watched.report().open_items == ("search(a): keyerror",)
    told(watched, [call(args="b", result="found")])
    assert watched.report().open_items == ()


def test_a_run_that_waits_for_a_person_needs_one() -> None:
    assert acting().outcome(answered=False, waiting=True) is Outcome.NEEDS_HUMAN


def test_a_success_is_what_norms_learn_from() -> None:
    watched = acting()
    told(watched, [step(fresh(1), tokens=10), step(fresh(2), tokens=20), step(failing(), tokens=5)])
    assert watched.success() == (3, 35, 2, None)
