"""Doubt, contradictions, and answers that rest on nothing."""

from typing import TYPE_CHECKING

import pytest

from holdfast.monitor import (
    Answer,
    AskUser,
    Call,
    Claim,
    ForceFinal,
    Monitor,
    MonitorSpec,
    Nudge,
    Outcome,
    RefuseFinish,
    State,
    Step,
    ToolRule,
)
from holdfast.monitor.words import claims, confidence

if TYPE_CHECKING:
    from tests.unit.monitor_runs import acting, call, found, fresh, kinds, monitor, norms, step, told
else:
    from monitor_runs import (  # pytest puts a test's folder on the path
        acting,
        call,
        found,
        fresh,
        kinds,
        monitor,
        norms,
        step,
        told,
    )

SURE = Answer(text="It is definitely Paris, guaranteed.")
UNSURE = Answer(text="Maybe it is Paris, perhaps Lyon. I am not sure, it could be either.")


def test_an_overconfident_answer_without_evidence_is_refused_once_and_then_marked() -> None:
    watched = acting()
    first = watched.before_finish(SURE)
    assert first is not None
    assert (first.state, first.rule) == (State.HUBRIS, "overconfident")
    [refusal] = first.interventions
    assert isinstance(refusal, RefuseFinish)
    assert refusal.check == "the answer is stated as certain, and no call supports it"
    assert "Paris" not in refusal.check, "the check is named, never the answer"
    second = watched.before_finish(SURE)
    assert second is not None
    assert second.interventions == ()
    assert watched.unverified == refusal.check
    assert watched.outcome(answered=True) is Outcome.DONE_UNVERIFIED


def test_it_is_taken_once_there_is_evidence() -> None:
    watched = acting()
    watched.before_finish(SURE)
    watched.after_step(step(fresh(1)))
    assert watched.before_finish(SURE) is None
    assert watched.outcome(answered=True) is Outcome.DONE


@pytest.mark.parametrize("text", ["Paris.", "Certainly! How can I help?", "It is probably Paris.", ""])
def test_an_ordinary_answer_is_taken(text: str) -> None:
    assert acting().before_finish(Answer(text=text)) is None


def test_stated_confidence_counts_before_words() -> None:
    assert acting().before_finish(Answer(text="Paris.", confidence=0.95)) is not None
    assert acting().before_finish(Answer(text=SURE.text, confidence=0.8)) is None


def test_an_answer_is_not_refused_where_nothing_is_left_to_improve_it_with() -> None:
    watched = acting()
    watched.orders.final = State.SCARCITY
    verdict = watched.before_finish(SURE)
    assert verdict is not None
    assert verdict.interventions == ()
    assert watched.outcome(answered=True) is Outcome.DONE_UNVERIFIED


def test_in_shadow_an_answer_is_only_observed() -> None:
    watched = monitor()
    verdict = watched.before_finish(SURE)
    assert verdict is not None
    assert (verdict.rung, verdict.interventions) == (0, ())
    assert watched.outcome(answered=True) is Outcome.DONE


def test_claims_name_the_calls_that_support_them() -> None:
    watched = acting()
    watched.after_step(step(Call(tool="read", id="c1", result="a"), Call(tool="read", args=1, id="c2", error="")))
    good = Claim(subject="a", value="1", evidence=("c1",))
    failed = Claim(subject="b", value="2", evidence=("c2",))
    bare = Claim(subject="c", value="3")
    assert watched.before_finish(Answer(text="x", claims=(good,))) is None
    verdict = watched.before_finish(Answer(text="x", claims=(good, failed, bare)))
    assert verdict is not None
    assert verdict.rule == "unsupported"
    assert verdict.evidence.detail == "2 of 3 statements name no call that supports them"


def test_what_was_written_is_to_be_checked_where_a_check_exists() -> None:
    tools = {"edit": ToolRule(idempotent=False), "test": ToolRule(check=True)}
    watched = monitor("act", tools=tools)
    watched.after_step(step(call("edit", "a", "edited")))
    verdict = watched.before_finish(Answer(text="Done."))
    assert verdict is not None
    assert (verdict.rule, kinds(verdict)) == ("unchecked", ["refuse_finish"])
    watched.after_step(step(call("test", "all", "3 passed")))
    assert watched.before_finish(Answer(text="Done.")) is None
    watched.after_step(step(call("edit", "b", "edited")))
    assert watched.before_finish(Answer(text="Done.")) is not None
    without = monitor("act", tools={"edit": ToolRule(idempotent=False)})
    without.after_step(step(call("edit", "a", "edited")))
    assert without.before_finish(Answer(text="Done.")) is None, "there is nothing to check it with"


def test_an_agents_tasks_need_their_evidence() -> None:
    watched = acting(min_evidence=2)
    told(watched, [fresh(1), fresh(1)])
    verdict = watched.before_finish(Answer(text="Booked."))
    assert verdict is not None
    assert verdict.evidence.detail == "1 different calls succeeded, at least 2 are needed"
    watched.after_step(step(fresh(2)))
    assert watched.before_finish(Answer(text="Booked.")) is None


def test_what_is_needed_is_learnt_from_successes() -> None:
    usual = norms([5] * 30, evidence=3)
    watched = Monitor(MonitorSpec(mode="act"), usual)
    told(watched, [fresh(1), fresh(2)])
    assert watched.before_finish(Answer(text="Booked.")) is not None
    assert Monitor(MonitorSpec(mode="act"), norms([5] * 30)).before_finish(Answer(text="Booked.")) is None


def test_what_cannot_be_undone_needs_a_person_where_evidence_is_missing() -> None:
    watched = monitor("act", tools={"delete": ToolRule(irreversible=True)}, min_evidence=1)
    veto = watched.before_call(call("delete", "all"))
    assert veto is not None
    assert isinstance(veto.interventions[0], AskUser)
    watched.after_step(step(fresh(1)))
    assert watched.before_call(call("delete", "all")) is None


def test_an_unsure_answer_on_no_evidence_asks_or_abstains() -> None:
    asking = Monitor(MonitorSpec(mode="act"), human=True)
    verdict = asking.before_finish(UNSURE)
    assert verdict is not None
    assert verdict.state is State.PANIC
    assert isinstance(verdict.interventions[0], AskUser)
    verdict = acting().before_finish(UNSURE)
    assert verdict is not None
    assert isinstance(verdict.interventions[0], ForceFinal)
    watched = acting()
    watched.after_step(step(fresh(1)))
    assert watched.before_finish(UNSURE) is None


DOUBT = "Maybe this is it, perhaps not, I am not sure."


def test_doubt_counts_only_in_a_row_and_with_nothing_new() -> None:
    stale = [Step(text=f"{DOUBT} {word}") for word in ("Hm.", "Well.", "So.")]
    assert found(monitor(), stale[:1]) == []
    assert found(monitor(), stale[:2]) == ["panic.unsure WARN 2"]
    assert found(monitor(), [stale[0], Step(text="This is it, I have found it."), stale[1]]) == []
    assert found(monitor(), [step(fresh(n), text=DOUBT) for n in range(6)]) == []


def test_what_is_usual_for_an_agent_is_no_doubt() -> None:
    hesitant = Monitor(MonitorSpec(mode="shadow"), norms([9] * 30, confidence=0.3))
    assert found(hesitant, [Step(text=f"{DOUBT} {word}") for word in ("Hm.", "Well.", "So.")]) == []


def test_samples_that_disagree_are_panic() -> None:
    watched = acting()
    [[verdict]] = told(watched, [Step(agreement=0.4)])
    assert (verdict.state, verdict.rule, verdict.confidence) == (State.PANIC, "disagreement", 0.6)
    assert kinds(verdict) == ["nudge", "trusted_only"]
    assert found(acting(), [Step(agreement=0.5), Step(agreement=None)]) == []


def test_a_confused_agent_may_only_use_what_is_trusted() -> None:
    tools = {"docs": ToolRule(trusted=True)}
    watched = monitor("act", tools=tools)
    told(watched, [Step(agreement=0.1)])
    assert watched.before_call(call("docs")) is None
    assert watched.before_call(call("web")) is not None
    undeclared = monitor("act", tools={"pay": ToolRule(idempotent=False)})
    told(undeclared, [Step(agreement=0.1)])
    assert undeclared.before_call(call("web")) is None, "nobody said what is trusted: what writes is not"
    assert undeclared.before_call(call("pay")) is not None


def test_two_sources_that_disagree_are_told_and_have_to_be_in_the_answer() -> None:
    watched = acting()
    one = Claim(subject="Population of Oslo", value="709,000", source="atlas")
    other = Claim(subject="population of  oslo", value="1,100,000", source="wiki")
    assert told(watched, [Step(claims=(one,))]) == [[]]
    [[verdict]] = told(watched, [Step(claims=(other,))])
    assert (verdict.state, verdict.rule) == (State.NOVELTY, "contradiction")
    [nudge] = verdict.interventions
    assert isinstance(nudge, Nudge)
    assert "709,000 (atlas), but 1,100,000 (wiki)" in nudge.text
    refused = watched.before_finish(Answer(text="Oslo has 709000 inhabitants."))
    assert refused is not None
    assert (refused.rule, kinds(refused)) == ("untold", ["refuse_finish"])
    assert watched.before_finish(Answer(text="709,000 by the atlas, 1100000 by wiki.")) is None
    assert watched.before_finish(Answer(text="709,000 by the atlas, 51100000 by wiki.")) is not None


def test_sources_that_disagree_again_and_again_do_not_stop_a_run() -> None:
    watched = acting(wait_steps=1)
    for subject in "abcdefgh":
        both = tuple(Claim(subject=f"size of {subject}", value=value, source=value) for value in ("1", "2"))
        [[verdict]] = told(watched, [Step(claims=both)])
        assert (verdict.rung, kinds(verdict)) == (1, ["nudge"])
    assert watched.breaker.tripped is None


def test_a_source_may_correct_itself_and_doubtful_statements_are_not_held() -> None:
    def about(value: str, source: str, sure: float = 1.0) -> Step:
        return Step(claims=(Claim(subject="status of order", value=value, source=source, confidence=sure),))

    assert found(monitor(), [about("open", "a"), about("closed", "a")]) == []
    assert found(monitor(), [about("open", "a", 0.2), about("closed", "b")]) == []
    assert found(monitor(), [about("open", "a"), about("OPEN", "b")]) == []
    assert found(monitor(), [about("open", "a"), about("closed", "b"), about("lost", "c")]) == [
        "novelty.contradiction WARN 2"
    ]


def test_plain_statements_in_results_are_compared() -> None:
    steps = [
        call("atlas", "oslo", "The population of Oslo is 709,000."),
        call("wiki", "oslo", "Population of Oslo is 1,100,000"),
    ]
    assert found(monitor(), steps) == ["novelty.contradiction WARN 2"]
    assert found(monitor(), [steps[0], call("wiki", "oslo", "The population of Oslo is 709000")]) == []


def test_what_words_say_of_confidence() -> None:
    assert confidence("Paris.") == 0.7
    assert confidence("maybe Paris, maybe Lyon, perhaps") == 0.4, "each word once, and no rounding error"
    assert confidence("definitely, certainly, absolutely, clearly") == 1.0
    assert confidence("maybe possibly perhaps might could") == 0.1
    assert confidence("mightily") == 0.7
    assert confidence("  ") is None


def test_only_short_texts_with_a_plain_subject_make_statements() -> None:
    assert [(each.subject, each.value) for each in claims("The price of A12 is not 5.", "x")] == [
        ("price of a12", "not 5")
    ]
    assert claims("It is 5", "x") == ()
    assert claims("The price of A is 5. " + "x" * 600, "x") == ()
