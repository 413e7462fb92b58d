"""Policies around a call: what its caller sees."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from inspect import iscoroutinefunction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.clock import NS, Clock
from holdfast.errors import (
    AttemptTimedOut,
    CircuitOpen,
    DeadlineExceeded,
    HoldfastError,
    QueueFull,
    RateLimited,
    Refused,
)
from holdfast.resilience import (
    Breaker,
    Budget,
    Bulkhead,
    Call,
    Deadline,
    Failure,
    FailureClass,
    Limit,
    Notice,
    Pipeline,
    Quota,
    Rate,
    Retry,
    Share,
    SharedNeed,
    State,
    Timeout,
    per,
    remaining_s,
    within,
)
from holdfast.resilience.order import Policy
from holdfast.testing import VirtualLoop, loop_clock

if TYPE_CHECKING:
    from tests.unit.pipelines import (
        AGAIN,
        SERVER,
        Failed,
        Target,
        failure_of,
        free,
        idle,
        made,
        now,
        outcomes,
        state_of,
    )
else:  # pytest puts a test's folder on the path, and mypy the project's
    from pipelines import AGAIN, SERVER, Failed, Target, failure_of, free, idle, made, now, outcomes, state_of

# How it is built


async def test_another_order_works_and_warns_where_it_is_written() -> None:
    with pytest.warns(UserWarning, match="tools is better in the order Breaker > Rate > Timeout") as warned:
        pipeline = Pipeline("tools", Rate(Limit("calls", per.second(1))), Breaker(), Timeout(total=1))
    assert warned[0].filename == __file__
    assert await pipeline(Target("answer")) == "answer"


async def test_a_guard_outside_of_the_retries_is_entered_once_for_all_attempts() -> None:
    with pytest.warns(UserWarning, match="better in the order Retry > Bulkhead"):
        pipeline = made(Bulkhead(1, queue=0), Retry(attempts=3))
    target = Target(SERVER, SERVER, "answer")
    assert await pipeline.on(AGAIN)(target) == "answer"
    assert pipeline.bulkhead is not None
    assert next(pipeline.bulkhead.views()).stats[:1] == (0,)
    first, second = await outcomes(pipeline, 2, Target(SERVER, 1.0))
    assert (first, type(second)) == ("answer", QueueFull)


@pytest.mark.parametrize(
    ("policies", "why"),
    [
        ((Retry(), Retry()), "two policies of one kind"),
        ((Rate(), Breaker(), Rate()), "two policies of one kind"),
        ((Retry(), Deadline(5)), "a Deadline comes first"),
        ((Timeout(total=1), Breaker()), "a Timeout comes last"),
    ],
)
def test_an_order_without_sense_is_refused(policies: tuple[Policy, ...], why: str) -> None:
    with pytest.raises(ValueError, match=f"the pipeline tools.*{why}"):
        Pipeline("tools", *policies)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Deadline(0), "deadline.seconds must be > 0, got 0"),
        (lambda: Timeout(idle=-1), "timeout.idle must be > 0, got -1"),
        (lambda: Breaker(closed_s=0), "breaker.closed_s must be > 0, got 0"),
        (lambda: Rate(max_wait_s=-1), "rate.max_wait_s must be >= 0, got -1"),
        (lambda: Rate(resume_per_s=0), "rate.resume_per_s must be >= 1, got 0"),
        (lambda: Rate(Limit("a", per.second(1)), Limit("a", per.second(2))), "rate.limits must differ in name or key"),
        (lambda: Bulkhead(0), "bulkhead.limit must be >= 1, got 0"),
        (lambda: Bulkhead(1, queue=-1), "bulkhead.max_queue must be >= 0, got -1"),
        (lambda: Bulkhead(1, max_wait_s=-1), "bulkhead.max_wait_s must be >= 0, got -1"),
    ],
)
def test_a_policy_checks_itself(make: Callable[[], Policy], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


# How it is called


async def test_arguments_go_through_and_the_answer_comes_back() -> None:
    async def add(a: int, *, b: int = 0) -> int:
        return a + b

    pipeline = made(Breaker(), Bulkhead(1))
    assert await pipeline(add, 1, b=2) == 3
    assert await pipeline.on(AGAIN)(add, 1) == 1
    wrapped = pipeline.wrap(add)
    assert await wrapped(2, b=3) == 5
    assert wrapped.__name__ == "add"
    assert iscoroutinefunction(wrapped)
    assert await pipeline.on(AGAIN).wrap(add)(4) == 4
    assert idle(pipeline)


def test_a_pipeline_may_be_used_in_one_loop_after_another() -> None:
    clock = Clock(lambda: round(asyncio.get_running_loop().time() * NS))
    pipeline = Pipeline("tools", Timeout(total=5), clock=clock)
    for _ in range(2):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(AttemptTimedOut):
            runner.run(pipeline(asyncio.sleep, 60))


async def test_a_pipeline_of_nothing_is_the_call_itself() -> None:
    assert await made()(Target("answer")) == "answer"
    with pytest.raises(Failed):
        await made()(Target(SERVER))
    async with made().guard():
        pass


async def test_a_call_is_judged_by_what_it_is_about() -> None:
    pipeline = made(Bulkhead(1, queue=0, key=per.user))
    async with pipeline.on(Call(user="ann")).guard():
        with pytest.raises(QueueFull):
            await pipeline.on(Call(user="ann"))(Target("answer"))
        assert await pipeline.on(Call(user="bob"))(Target("answer")) == "answer"


async def test_a_function_that_raises_before_it_can_be_awaited_is_a_failed_call() -> None:
    def broken() -> Awaitable[None]:
        raise Failed(SERVER)

    pipeline = made(Breaker(consecutive=1), Bulkhead(1))
    with pytest.raises(Failed):
        await pipeline(broken)
    assert state_of(pipeline) is State.OPEN
    assert idle(pipeline)


# A block


def test_a_block_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="the pipeline tools repeats calls, so it needs a function to call"):
        Pipeline("tools", Retry()).guard()


async def test_a_block_is_inside_the_guards_and_says_what_it_used() -> None:
    pipeline = made(
        Breaker(),
        Rate(Limit("requests", per.minute(10)), Limit("tokens", per.minute(100))),
        Bulkhead(1),
    )
    assert pipeline.bulkhead is not None
    call = Call(costs={"tokens": 40})
    async with pipeline.guard(call) as passage:
        assert free(pipeline) == [9, 60]
        assert next(pipeline.bulkhead.views()).stats.in_use == 1
        passage.adjust(tokens=25)
        assert free(pipeline) == [9, 75]
    async with pipeline.guard(call) as passage:
        passage.adjust(tokens=140, requests=2)
    assert free(pipeline) == [7, -65]
    assert idle(pipeline)


async def test_a_limit_with_another_name_cannot_be_adjusted() -> None:
    pipeline = made(Rate(Limit("tokens", per.minute(100))))
    with pytest.raises(ValueError, match="no limit is called requests, words"):
        async with pipeline.guard() as passage:
            passage.adjust(words=1, requests=1, tokens=1)
    assert free(pipeline) == [99]


async def test_a_block_that_fails_tells_the_breaker_and_raises_its_own_error() -> None:
    pipeline, error = made(Breaker(consecutive=1), Bulkhead(1)), Failed(SERVER)
    with pytest.raises(Failed) as raised:
        async with pipeline.guard():
            raise error
    assert raised.value is error
    assert state_of(pipeline) is State.OPEN
    with pytest.raises(CircuitOpen):
        async with pipeline.guard():
            raise AssertionError("it was run")
    assert idle(pipeline)


@pytest.mark.parametrize(("deadline_s", "total_s", "error"), [(2, 5, DeadlineExceeded), (5, 2, AttemptTimedOut)])
async def test_a_block_has_the_shorter_of_both_limits(
    deadline_s: float, total_s: float, error: type[Exception]
) -> None:
    pipeline = made(Deadline(deadline_s), Bulkhead(1), Timeout(total=total_s))
    with pytest.raises(error):
        async with pipeline.guard():
            await asyncio.sleep(60 if remaining_s(loop_clock()) == 2 else 0)
    assert now() == pytest.approx(2, abs=0.01)
    assert idle(pipeline)


async def test_a_blocks_deadline_holds_while_it_waits_to_begin() -> None:
    pipeline = made(Deadline(2), Rate(Limit("calls", per.minute(1)), max_wait_s=100))
    await pipeline(Target("answer"))
    with pytest.raises(RateLimited):
        async with pipeline.guard():
            raise AssertionError("it was run")
    assert now() == 0


# Whose error it is


async def test_the_callers_own_exception_comes_back_as_itself_with_a_note_for_each_attempt() -> None:
    errors = [Failed(SERVER) for _ in range(3)]
    errors[0].add_note("the caller's own")
    with pytest.raises(Failed) as raised:
        await made(Retry(attempts=3)).on(AGAIN)(Target(*errors))
    assert raised.value is errors[2]
    first, second, third = raised.value.__notes__
    assert first.startswith("attempt 1 of 3: server after 0 s, again in 0.0")
    assert second.startswith("attempt 2 of 3: server after 0 s, again in 0.")
    assert third == "attempt 3 of 3: server after 0 s, not again: attempts"


async def test_an_exception_that_is_raised_anew_each_time_has_each_note_once() -> None:
    error = Failed(SERVER)
    with pytest.raises(Failed):
        await made(Retry(attempts=4)).on(AGAIN)(Target(error))
    assert [note.split(":")[0] for note in error.__notes__] == [f"attempt {n} of 4" for n in (1, 2, 3, 4)]


async def test_without_retries_an_exception_has_no_notes() -> None:
    error = Failed(SERVER)
    with pytest.raises(Failed):
        await made(Breaker(), Timeout(total=1))(Target(error))
    assert not hasattr(error, "__notes__")


async def test_a_refusal_says_who_refused_whose_share_why_and_for_how_long() -> None:
    pipeline = made(Rate(Limit("tokens", per.minute(6), key=per.user), max_wait_s=0))
    call = Call(user="ann@example.org", costs={"tokens": 6})
    await pipeline.on(call)(Target("answer"))
    refused = await failure_of(pipeline.on(call)(Target("answer")))
    assert isinstance(refused, RateLimited)
    assert (refused.guard, refused.key_class, refused.reason, refused.retry_after_s) == ("rate", "user", "wait", 60)
    assert refused.detail == "the limit on tokens by user of tools is used up: try again in 60 s"
    never = await failure_of(pipeline.on(call._replace(costs={"tokens": 7}))(Target("answer")))
    assert isinstance(never, RateLimited)
    assert (never.reason, never.retry_after_s) == ("never", None)
    assert never.detail.endswith("it asks for more than the limit ever holds")


async def test_a_queue_of_a_limit_that_is_full_says_so() -> None:
    pipeline = made(Rate(Limit("calls", per.second(1)), max_queue=1))
    *fine, refused = sorted(await outcomes(pipeline, 3, Target("answer")), key=lambda one: isinstance(one, Refused))
    assert fine == ["answer", "answer"]
    assert (refused.reason, refused.key_class) == ("full", "all")


async def test_an_open_circuit_says_for_how_long() -> None:
    pipeline = made(Breaker(consecutive=1, open_s=5, jitter=0))
    await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
    await asyncio.sleep(2)
    target = Target("answer")
    refused = await failure_of(pipeline.on(AGAIN)(target))
    assert isinstance(refused, CircuitOpen)
    assert (refused.guard, refused.key_class, refused.reason, refused.retry_after_s) == ("breaker", "target", "open", 3)
    assert refused.detail == "the circuit breaker of tools:claude lets nobody through for 3 s"
    assert target.at == []
    assert pipeline.breaker is not None
    [(circuit, _)] = pipeline.breaker.circuits()
    circuit.force_open(round(now() * NS))
    forced = await failure_of(pipeline.on(AGAIN)(target))
    assert isinstance(forced, CircuitOpen)
    assert (forced.reason, forced.retry_after_s) == ("forced_open", None)
    assert forced.detail.endswith("lets nobody through until it is reset")


async def test_a_full_bulkhead_says_how_full() -> None:
    pipeline = made(Bulkhead(1, queue=1, max_wait_s=2, key=per.agent))
    answers = await outcomes(pipeline, 3, Target(5.0), Call(agent="helper"))
    full, late = sorted((one for one in answers if isinstance(one, QueueFull)), key=lambda one: one.reason)
    assert (full.guard, full.key_class, full.reason) == ("bulkhead", "agent", "full")
    assert full.detail == "tools:helper is full: 1 running, 1 waiting of at most 1"
    assert (late.reason, late.detail) == ("timeout", "tools:helper is full: no place came free in time")
    assert full.retry_after_s is not None


# Retries


async def test_a_retry_draws_anew_from_every_guard_inside() -> None:
    pipeline = made(Retry(attempts=4), Breaker(), Rate(Limit("calls", per.minute(10))), Bulkhead(1))
    target = Target(SERVER, SERVER, "answer")
    assert await pipeline.on(AGAIN)(target) == "answer"
    assert len(target.at) == 3
    assert free(pipeline) == [7]
    assert pipeline.breaker is not None
    assert [view.calls for view in pipeline.breaker.views(round(now() * NS))] == [3]


@pytest.mark.parametrize(
    ("error", "repeatable", "attempts"),
    [
        (Failed(SERVER), True, 4),
        (Failed(SERVER), False, 1),
        (ConnectionRefusedError(), False, 4),
        (Failed(FailureClass.OVERLOADED), True, 3),
        (Failed(FailureClass.INVALID), True, 1),
        (Failed(FailureClass.UNKNOWN), True, 1),
    ],
)
async def test_what_is_made_again_and_how_often(error: Exception, repeatable: bool, attempts: int) -> None:  # noqa: FBT001 - a column of the table above
    target = Target(error)
    assert await failure_of(made(Retry(attempts=4)).on(Call(repeatable=repeatable))(target)) is error
    assert len(target.at) == attempts


async def test_a_time_the_target_named_is_waited_for_and_never_cut_short() -> None:
    target = Target(Failed(FailureClass.RATE_LIMITED, 3), "answer")
    assert await made(Retry(slow_base_s=1)).on(AGAIN)(target) == "answer"
    assert 3.5 <= target.at[1] <= 4


async def test_a_wait_that_does_not_fit_the_deadline_is_not_begun() -> None:
    for seconds, attempts in ((4.4, 1), (4.6, 2)):
        began, target = now(), Target(Failed(SERVER, 4), "answer")
        with suppress(Failed):
            await made(Deadline(seconds), Retry(min_useful_s=0.5)).on(AGAIN)(target)
        assert len(target.at) == attempts
        assert now() - began == (0 if attempts == 1 else 4)


async def test_every_attempt_keeps_within_the_one_deadline() -> None:
    pipeline = made(Deadline(5), Retry(attempts=10, min_useful_s=0), Timeout(total=2))
    target = Target(60.0)
    with pytest.raises((DeadlineExceeded, AttemptTimedOut)):
        await pipeline.on(AGAIN)(target)
    assert len(target.at) == 3
    assert now() <= 5.01


@pytest.mark.parametrize("wait_out", [False, True])
async def test_our_own_refusals_are_waited_out_only_where_that_is_asked_for(wait_out: bool) -> None:  # noqa: FBT001 - pytest hands it over
    pipeline = made(
        Retry(wait_out=wait_out, budget=Budget(cap=1, ratio=0, floor_per_s=0)),
        Rate(Limit("calls", per.minute(2)), max_wait_s=0),
    )
    target = Target("answer")
    answers = await outcomes(pipeline, 4, target, Call())
    refused = [one for one in answers if isinstance(one, RateLimited)]
    assert len(refused) == (0 if wait_out else 2)
    for error in refused:
        assert error.__notes__ == ["attempt 1 of 4: refused after 0 s, not again: not_retryable"]
    # Beyond the second all come from refusals, 30 s and more later; the budget, of one, has paid for none of them.
    assert target.at[:2] == [0, 0]
    assert all(at >= 30 for at in target.at[2:])


async def test_a_custom_judge_is_not_asked_about_what_was_not_the_calls_doing() -> None:
    asked: list[BaseException] = []

    def judge(error: BaseException, _now_s: float) -> Failure:
        asked.append(error)
        return Failure(SERVER, None, retryable=True, harmless=True)

    pipeline = made(Retry(), Breaker(consecutive=1), Rate(Limit("calls", per.minute(1)), max_wait_s=0), classify=judge)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pipeline(Target(60.0)))
        await asyncio.sleep(1)
        task.cancel()
    assert state_of(pipeline) is State.CLOSED
    with pytest.raises(RateLimited):
        await pipeline(Target("answer"))
    assert asked == []


async def test_a_judge_that_raises_leaves_no_guard_behind_and_is_noted() -> None:
    def judge(error: BaseException, now_s: float) -> Failure:
        raise KeyError("what?")

    pipeline = made(Retry(), Breaker(consecutive=1), Bulkhead(1), classify=judge)
    error = Failed(SERVER)
    target = Target(error)
    assert await failure_of(pipeline.on(AGAIN)(target)) is error
    assert error.__notes__[0] == "classify raised KeyError('what?')"
    assert len(target.at) == 1
    assert idle(pipeline)
    assert state_of(pipeline) is State.OPEN, "what nobody understands is no success"


async def test_a_key_that_raises_leaves_no_guard_behind() -> None:
    def broken(call: Call) -> str:
        raise KeyError(call.user)

    pipeline = made(Breaker(account=broken), Bulkhead(1))
    with pytest.raises(KeyError):
        await pipeline(Target(Failed(FailureClass.AUTH)))
    assert idle(pipeline)
    with pytest.warns(UserWarning, match="better in the order"):
        pipeline = made(Bulkhead(1), Breaker(account=broken))
    with pytest.raises(KeyError):
        await pipeline(Target(Failed(FailureClass.AUTH)))
    assert idle(pipeline)
    with pytest.raises(KeyError):
        await made(Rate(gate=broken))(Target(Failed(FailureClass.RATE_LIMITED, 1)))


# Deadlines and timeouts


@pytest.mark.parametrize(("deadline_s", "total_s", "error"), [(2, 5, DeadlineExceeded), (5, 2, AttemptTimedOut)])
async def test_whichever_limit_is_shorter_says_so(
    deadline_s: float, total_s: float, error: type[HoldfastError]
) -> None:
    seen: list[Notice] = []
    pipeline = made(Deadline(deadline_s), Breaker(), Timeout(total=total_s), sink=seen.append)
    late = await failure_of(pipeline(Target(60.0)))
    assert type(late) is error
    assert now() == pytest.approx(2, abs=0.01)
    assert [(one.name, dict(one.facts)) for one in seen] == (
        [("deadline.exceeded", {})] if error is DeadlineExceeded else [("timeout.fired", {"phase": "total"})]
    )
    assert "tools" in str(late)


async def test_a_deadline_from_outside_is_kept_too_and_is_not_ours() -> None:
    pipeline = made(Deadline(60), Retry(), Breaker(), Timeout(total=60))
    with pytest.raises(AttemptTimedOut, match="took too long"):
        async with within(loop_clock(), 3, AttemptTimedOut):
            await pipeline.on(AGAIN)(Target(60.0))
    assert now() == pytest.approx(3, abs=0.01)
    assert idle(pipeline)


async def test_a_cancellation_from_outside_stays_one() -> None:
    pipeline = made(Deadline(60), Retry(), Breaker(consecutive=1), Rate(), Bulkhead(1), Timeout(total=60))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pipeline.on(AGAIN)(Target(60.0)))
        await asyncio.sleep(1)
        task.cancel()
    assert task.cancelled()
    assert idle(pipeline)
    assert state_of(pipeline) is State.CLOSED


async def test_nothing_is_begun_after_the_deadline_and_nothing_is_paid_for_it() -> None:
    """Its turn comes in the very moment that its time is over, and before it can be stopped."""
    pipeline = made(
        Deadline(2.995),
        Breaker(consecutive=1),
        Rate(Limit("calls", Quota(1, 2_995_000_000, 1))),
        Timeout(total=5),
    )
    target = Target("answer")
    await pipeline(target)
    assert isinstance(await failure_of(pipeline(target)), DeadlineExceeded)
    assert len(target.at) == 1
    assert free(pipeline) == [1]
    assert state_of(pipeline) is State.CLOSED
    assert idle(pipeline)


async def test_a_pipeline_inside_of_a_deadline_that_has_passed_sends_nothing() -> None:
    pipeline = made(Breaker(), Rate(Limit("calls", per.minute(5))))
    target = Target("answer")

    async def turn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await pipeline(target)

    with pytest.raises(DeadlineExceeded, match="the turn's"):
        async with within(loop_clock(), 1, lambda: DeadlineExceeded("the turn's")):
            await turn()
    assert target.at == []
    assert idle(pipeline)


async def hang(pipeline: Pipeline) -> None:
    async with pipeline.guard():
        await asyncio.sleep(60)


@pytest.mark.parametrize(("total_s", "evidence"), [(None, "none"), (8, "none"), (7, "fail"), (3, "fail")])
async def test_an_attempt_that_the_deadline_cut_short_tells_of_its_target_what_it_had_time_for(
    total_s: float | None, evidence: str
) -> None:
    """At least half of the time that the attempt may take says that the target is slow; less says nothing."""
    for block in (False, True):
        pipeline = made(Deadline(3.5), Breaker(consecutive=1), Timeout(total=total_s))
        await asyncio.sleep(1)
        await failure_of(hang(pipeline) if block else pipeline(Target(60.0)))
        assert state_of(pipeline) is (State.OPEN if evidence == "fail" else State.CLOSED), block


async def test_what_a_call_answers_after_it_was_stopped_is_its_answer() -> None:
    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "all the same"

    pipeline = made(Breaker(consecutive=1), Timeout(total=1))
    assert await pipeline(stubborn) == "all the same"
    assert state_of(pipeline) is State.CLOSED


# What is told


def facts(notice: Notice) -> tuple[Any, ...]:
    return notice.name, notice.key_class, notice.call, notice.attempt, dict(notice.facts)


async def test_a_call_that_goes_well_tells_nothing() -> None:
    seen: list[Notice] = []
    pipeline = made(
        Deadline(5), Retry(), Breaker(), Rate(Limit("calls", per.second(1))), Bulkhead(1), Timeout(total=1),
        sink=seen.append,
    )  # fmt: skip
    await pipeline(Target("answer"))
    assert seen == []


async def test_retries_tell_of_each_wait_and_of_giving_up() -> None:
    seen: list[Notice] = []
    pipeline = made(Retry(attempts=2), sink=seen.append)
    await pipeline.on(AGAIN)(Target("answer"))
    await asyncio.sleep(1)
    await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
    [scheduled, gave_up] = seen
    wait_s = scheduled.facts["wait_s"]
    assert facts(scheduled) == ("retry.scheduled", "target", 2, 1, {"failure": "server", "wait_s": wait_s})
    assert isinstance(wait_s, float)
    assert 0 < wait_s < 0.1
    assert facts(gave_up) == ("retry.gave_up", "target", 2, 2, {"failure": "server", "reason": "attempts"})
    assert (scheduled.at_ns, scheduled.pipeline) == (NS, "tools")


async def test_an_empty_budget_is_told_of() -> None:
    seen: list[Notice] = []
    pipeline = made(Retry(attempts=9, budget=Budget(ratio=0, floor_per_s=0, cap=2)), sink=seen.append)
    target = Target(SERVER)
    await failure_of(pipeline.on(AGAIN)(target))
    assert len(target.at) == 3
    assert [one.name for one in seen] == ["retry.scheduled"] * 2 + ["budget.empty", "retry.gave_up"]
    assert (seen[-2].attempt, seen[-1].facts["reason"]) == (3, "budget")


async def test_each_target_has_a_budget_of_its_own() -> None:
    pipeline = made(Retry(attempts=2, budget=Budget(ratio=0, floor_per_s=0, cap=1)))
    for name, attempts in (("a", 2), ("a", 1), ("b", 2)):
        target = Target(SERVER)
        await failure_of(pipeline.on(AGAIN._replace(target=name))(target))
        assert len(target.at) == attempts


async def test_a_breaker_tells_of_moves_and_refusals() -> None:
    seen: list[Notice] = []
    pipeline = made(Breaker(consecutive=1, open_s=4, jitter=0, need=1), sink=seen.append)
    bound = pipeline.on(AGAIN)
    await failure_of(bound(Target(SERVER)))
    await failure_of(bound(Target("answer")))
    await asyncio.sleep(4)
    await bound(Target("answer"))
    assert [facts(one) for one in seen] == [
        ("breaker.moved", "target", 0, 0, moved("closed", "open", "consecutive", 4)),
        (
            "breaker.refused", "target", 2, 1,
            {"circuit": "tools:claude", "reason": "open", "retry_after_s": 4, "observed": False},
        ),
        ("breaker.moved", "target", 0, 0, moved("open", "half_open", "break_over", None)),
        ("breaker.moved", "target", 0, 0, moved("half_open", "closed", "probes_ok", None)),
    ]  # fmt: skip


def moved(was: str, state: str, reason: str, retry_after_s: float | None, circuit: str = "tools:claude") -> Any:
    return {"circuit": circuit, "was": was, "state": state, "reason": reason, "retry_after_s": retry_after_s}


async def test_a_rate_tells_of_waits_and_refusals_and_a_bulkhead_of_queues() -> None:
    seen: list[Notice] = []
    pipeline = made(
        Rate(Limit("calls", per.second(1), key=per.user), max_queue=1),
        Bulkhead(1, queue=1, max_wait_s=1.5, key=per.agent),
        sink=seen.append,
    )
    answers = await outcomes(pipeline, 3, Target(1.2), Call(user="ann@example.org", agent="helper"))
    assert sum(one == "answer" for one in answers) == 2
    assert [facts(one) for one in seen] == [
        (
            "rate.refused", "user", 3, 1,
            {"limit": "calls", "reason": "full", "retry_after_s": 2, "observed": False},
        ),
        ("rate.waited", "all", 2, 1, {"waited_s": 1}),
        ("bulkhead.queued", "agent", 2, 1, {"bulkhead": "tools:helper", "waited_s": pytest.approx(0.2)}),
    ]  # fmt: skip
    assert "ann" not in repr(seen), "a key may be a person"
    seen.clear()
    await asyncio.sleep(10)
    await outcomes(made(Bulkhead(1, queue=0), sink=seen.append), 2, Target(1.0))
    assert [facts(one) for one in seen] == [
        ("bulkhead.refused", "all", 2, 1, {"bulkhead": "tools", "reason": "full", "observed": False})
    ]


async def test_a_sink_that_raises_is_counted_and_ignored() -> None:
    def sink(notice: Notice) -> None:
        raise OSError(notice.name)

    pipeline = made(
        Retry(attempts=3), Breaker(consecutive=2), Rate(Limit("calls", per.second(9))), Bulkhead(1, queue=0), sink=sink
    )
    answers = await outcomes(pipeline, 2, Target(SERVER))
    assert {type(one) for one in answers} <= {Failed, CircuitOpen, QueueFull}
    assert pipeline.tell.sink_errors >= 4
    assert idle(pipeline)


async def test_a_sink_may_use_the_pipeline_it_watches() -> None:
    seen: list[tuple[str, Any]] = []

    def sink(notice: Notice) -> None:
        assert pipeline.breaker is not None
        [view] = pipeline.breaker.views(notice.at_ns)
        seen.append((notice.name, view.state))
        if notice.facts.get("state") == "open":
            pipeline.reconfigure(Breaker(consecutive=1, open_s=60), Bulkhead(2))
            [(circuit, _)] = pipeline.breaker.circuits()
            circuit.reset(notice.at_ns)

    pipeline = made(Breaker(consecutive=1), Bulkhead(1), sink=sink)
    await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
    assert seen == [("breaker.moved", State.OPEN), ("breaker.moved", State.CLOSED)]
    assert await pipeline.on(AGAIN)(Target("answer")) == "answer"
    assert idle(pipeline)
    assert pipeline.tell.sink_errors == 0


# Settings that change


async def test_other_settings_keep_what_was_seen_taken_and_queued() -> None:
    retry = Retry(attempts=1)
    pipeline = made(
        Deadline(60),
        retry,
        Breaker(consecutive=3),
        Rate(Limit("calls", per.minute(10))),
        Bulkhead(1),
        Timeout(total=60),
    )
    bound = pipeline.on(AGAIN)
    for _ in range(2):
        await failure_of(bound(Target(SERVER)))
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(bound(Target(30.0))) for _ in range(2))
        await asyncio.sleep(1)
        pipeline.reconfigure(
            Deadline(5), Retry(attempts=2), Breaker(consecutive=2), Rate(Limit("calls", per.minute(20))), Bulkhead(2),
            Timeout(total=2),
        )  # fmt: skip
        await asyncio.sleep(0)
        assert pipeline.bulkhead is not None
        assert pipeline.breaker is not None
        assert next(pipeline.bulkhead.views()).stats[:3] == (2, 0, 2), "room was made for who waited"
        assert free(pipeline) == [16], "of ten, four had been taken"
        assert [view.failed for view in pipeline.breaker.views(round(now() * NS))] == [2]
        first.cancel()
        second.cancel()
    refused = await failure_of(bound(Target(SERVER)))
    assert isinstance(refused, CircuitOpen), "the third failure in a row opened it, by rules that ask for two"
    assert [note.split(",")[0] for note in refused.__notes__] == [
        "attempt 1 of 2: server after 0 s",
        "attempt 2 of 2: refused after 0 s",
    ]


async def test_a_deadline_and_a_timeout_hold_from_the_next_call_on() -> None:
    pipeline = made(Deadline(60), Timeout(total=50))
    async with asyncio.TaskGroup() as group:
        old = group.create_task(pipeline(Target(40.0)))
        await asyncio.sleep(1)
        pipeline.reconfigure(Deadline(5), Timeout(total=2))
        with pytest.raises(AttemptTimedOut):
            await pipeline(Target(40.0))
        assert now() == pytest.approx(3, abs=0.01)
    assert old.result() == "answer"


async def test_more_places_in_a_rates_queue_are_there_at_once() -> None:
    def rate(queue: int) -> Rate:
        return Rate(Limit("calls", per.second(1)), max_queue=queue)

    pipeline = made(rate(0))
    pipeline.reconfigure(rate(5))
    assert await outcomes(pipeline, 4, Target("answer")) == ["answer"] * 4


class Elsewhere(Share):
    replicas = 1

    async def take(self, needs: Sequence[SharedNeed]) -> None:
        raise AssertionError(needs)

    def refund(self, needs: Sequence[SharedNeed]) -> None:
        raise AssertionError(needs)

    def charge(self, needs: Sequence[SharedNeed]) -> None:
        raise AssertionError(needs)


async def test_other_policies_are_refused_and_nothing_is_changed() -> None:
    rate = Rate(Limit("calls", per.minute(1)), max_wait_s=0)
    pipeline = made(Breaker(consecutive=1), rate)
    for policies in (
        (Breaker(consecutive=9),),
        (rate, Breaker(consecutive=9)),
        (Breaker(consecutive=9), rate, Bulkhead(1)),
        (Breaker(consecutive=9, key=per.user), rate),
        (Breaker(consecutive=9), Rate(Limit("tokens", per.minute(1)))),
        (Breaker(consecutive=9), Rate(Limit("calls", per.minute(1), key=per.user))),
        (Breaker(consecutive=9), Rate(Limit("calls", per.minute(1)), share=Elsewhere())),
    ):
        with pytest.raises(ValueError, match=r"make a new (one|pipeline) for (others|another)"):
            pipeline.reconfigure(*policies)
    await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
    assert state_of(pipeline) is State.OPEN


async def test_calls_count_on_for_notices() -> None:
    seen: list[Notice] = []
    pipeline = made(Retry(attempts=3, base_s=5), sink=seen.append)
    await outcomes(pipeline, 3, Target(SERVER))
    by_call = {n: [one.attempt for one in seen if one.call == n] for n in (1, 2, 3)}
    assert by_call == {n: [1, 2, 3] for n in (1, 2, 3)}
    assert all(one.at_ns <= other.at_ns for one, other in pairwise(seen))


async def test_a_clock_and_a_judge_are_there_where_none_are_given() -> None:
    pipeline = Pipeline("real", Breaker(consecutive=1), Rate(Limit("calls", per.second(9))), Bulkhead(1))
    with pytest.raises(Failed):
        await pipeline(Target(Failed(SERVER)))
    with pytest.raises(CircuitOpen):
        await pipeline(Target("answer"))
