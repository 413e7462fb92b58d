"""A slow call is made once more, and whichever answers first is taken."""

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import pytest

from holdfast.clock import NS
from holdfast.errors import AttemptTimedOut, DeadlineExceeded, RateLimited
from holdfast.resilience import (
    Adaptive,
    Breaker,
    Budget,
    Bulkhead,
    Call,
    Deadline,
    Hedge,
    Limit,
    Notice,
    Pipeline,
    Rate,
    Retry,
    Share,
    State,
    Timeout,
    per,
    remaining_s,
)
from holdfast.resilience.hedge import Pace
from holdfast.testing import loop_clock

MODEL = Call(target="model", repeatable=True)


def time() -> float:
    return round(asyncio.get_running_loop().time(), 6)


class Step(NamedTuple):
    """How an attempt goes: it takes so long, then fails or not; once stopped, it tidies up for so long."""

    lasts_s: float
    error: Exception | None = None
    tidy_s: float = 0.0
    swallows: bool = False
    at_the_stop: Exception | None = None


class Target:
    """Each call goes as the next step says; all further ones as the last."""

    def __init__(self, *steps: Step | float) -> None:
        self.steps = [step if isinstance(step, Step) else Step(step) for step in steps]
        self.began: list[float] = []
        self.stopped: dict[int, float] = {}
        self.ended: dict[int, float] = {}

    async def __call__(self) -> int:
        n = len(self.began)
        step = self.steps[min(n, len(self.steps) - 1)]
        self.began.append(time())
        try:
            await asyncio.sleep(step.lasts_s)
            if step.error is not None:
                raise step.error
            return n
        except asyncio.CancelledError:
            self.stopped.setdefault(n, time())
            await asyncio.sleep(step.tidy_s)
            if step.at_the_stop is not None:
                raise step.at_the_stop from None
            if not step.swallows:
                raise
            return -1
        finally:
            self.ended[n] = time()


class Told(list[Notice]):
    """A sink that keeps what it takes in."""

    def __call__(self, notice: Notice) -> None:
        self.append(notice)

    def of(self, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        return [(notice.name, dict(notice.facts)) for notice in self if notice.name.startswith(prefix)]

    def names(self, prefix: str) -> list[str]:
        return [name for name, _ in self.of(prefix)]


def pipeline(*policies: Any, told: Told | None = None) -> Pipeline:
    return Pipeline("model", *policies, clock=loop_clock(), sink=told)


def at_rest(one: Pipeline) -> bool:
    places = one.bulkhead is None or all(
        not view.stats.in_use and not view.stats.queued for view in one.bulkhead.views()
    )
    calls = one.breaker is None or all(not view.inflight for view in one.breaker.views(0))
    return places and calls


@pytest.fixture
def complaints() -> Iterator[list[dict[str, Any]]]:
    """What the loop complains about: nothing may be in it at the end."""
    found: list[dict[str, Any]] = []
    yield found
    assert found == []


# Who is hedged, and when


@pytest.mark.parametrize("policies", [[], [Hedge(after_s=1)]], ids=["no hedge", "not repeatable"])
async def test_only_a_repeatable_call_is_hedged_and_only_where_the_policy_is(policies: list[Any]) -> None:
    target = Target(10)
    assert await pipeline(*policies).on(Call(target="model", repeatable=not policies))(target) == 0
    assert target.began == [0]


async def test_a_call_that_is_quick_enough_is_made_once() -> None:
    target, told = Target(0.999), Told()
    assert await pipeline(Hedge(after_s=1), told=told).on(MODEL)(target) == 0
    assert target.began == [0]
    assert told == []


async def test_a_slow_call_is_made_once_more_and_the_first_answer_is_taken() -> None:
    target, told = Target(10, 0.5), Told()
    one = pipeline(Hedge(after_s=1), told=told)
    assert await one.on(MODEL)(target) == 1
    assert target.began == [0, 1]
    assert time() == 1.5
    await one.aclose()
    assert target.stopped == {0: 1.5}
    await asyncio.sleep(60)
    assert told.of("hedge") == [
        ("hedge.started", {"after_s": 1}),
        ("hedge.won", {"lasted_s": 0.5}),
        ("hedge.wasted", {"lasted_s": 1.5, "may_be_billed": True}),
    ]
    assert {(notice.key_class, notice.call, notice.attempt) for notice in told} == {("target", 1, 1)}


async def test_a_hedge_that_is_slower_than_the_first_attempt_was_for_nothing() -> None:
    target, told = Target(1.2, 10), Told()
    one = pipeline(Hedge(after_s=1), told=told)
    assert await one.on(MODEL)(target) == 0
    assert time() == 1.2
    await one.aclose()
    assert target.stopped == {1: 1.2}
    assert told.names("hedge") == ["hedge.started", "hedge.wasted"]


async def test_further_hedges_come_as_long_after_each_other_and_no_more_than_allowed() -> None:
    target = Target(10)
    one = pipeline(Hedge(after_s=1, max=3))
    assert await one.on(MODEL)(target) == 0
    assert target.began == [0, 1, 2, 3]
    await one.aclose()
    assert target.stopped == {1: 10, 2: 10, 3: 10}


async def test_each_attempt_that_a_retry_makes_is_hedged_by_itself() -> None:
    target = Target(Step(1.5, ConnectionError()), Step(1, ConnectionError()), 10, 0.5)
    one = pipeline(Retry(), Hedge(after_s=1))
    assert await one.on(MODEL)(target) == 3
    assert len(target.began) == 4
    assert target.began[3] == pytest.approx(target.began[2] + 1)


async def test_the_time_before_a_hedge_begins_when_the_call_was_sent_not_while_it_waits_for_its_place() -> None:
    one = pipeline(Hedge(after_s=1), Bulkhead(2))
    busy = [asyncio.get_running_loop().create_task(one.on(Call("model"))(Target(5))) for _ in range(2)]
    await asyncio.sleep(0)
    target = Target(10, 0.1)
    assert await one.on(MODEL)(target) == 1
    assert target.began == [5, 6]
    assert [await task for task in busy] == [0, 0]


async def test_the_call_keeps_its_context_in_every_attempt() -> None:
    who: ContextVar[str] = ContextVar("who")
    seen: list[tuple[str, float | None]] = []

    async def ask() -> str:
        seen.append((who.get(), remaining_s(loop_clock())))
        await asyncio.sleep(3)
        return "answer"

    who.set("anna")
    assert await pipeline(Deadline(30), Hedge(after_s=1)).on(MODEL)(ask) == "answer"
    assert seen == [("anna", 30), ("anna", 29)]


# The end of a race


async def test_a_failure_that_may_pass_leaves_the_others_running(complaints: list[Any]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    one = pipeline(Hedge(after_s=1), told=(told := Told()))
    assert await one.on(MODEL)(Target(Step(2, ConnectionError()), 3)) == 1
    assert told.names("hedge") == ["hedge.started", "hedge.won"]
    told.clear()
    assert await one.on(MODEL)(Target(3, Step(1, ConnectionError()))) == 0
    assert told.names("hedge") == ["hedge.started"]


@pytest.mark.parametrize("loser", [0, 1])
async def test_a_failure_that_will_not_pass_ends_the_race(loser: int, complaints: list[Any]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    steps = [Step(9), Step(9)]
    steps[1 - loser] = Step(1.5, ValueError("no such model"))
    target = Target(*steps)
    one = pipeline(Retry(), Hedge(after_s=1))
    with pytest.raises(ValueError, match="no such model"):
        await one.on(MODEL)(target)
    ended = time()
    await one.aclose()
    assert target.stopped == {loser: ended}
    assert len(target.began) == 2


async def test_a_hedge_that_fails_for_good_is_not_taken_for_the_first_failure() -> None:
    """The retry that looks at the error looks at that one's class."""
    target = Target(Step(1.5, ConnectionError()), Step(1, ValueError("no")), 1)
    with pytest.raises(ValueError, match="no"):
        await pipeline(Retry(), Hedge(after_s=1)).on(MODEL)(target)
    assert len(target.began) == 2


async def test_where_all_fail_the_error_is_the_first_attempts_and_says_that_hedges_failed_too() -> None:
    target = Target(Step(3, ConnectionError("first")), Step(1, ConnectionResetError("hedge")))
    with pytest.raises(ConnectionError, match="first") as failed:
        await pipeline(Hedge(after_s=1)).on(MODEL)(target)
    assert failed.value.__notes__[0] == "a hedge of it failed too: network"
    assert time() == 3


async def test_a_call_that_fails_before_it_is_slow_fails_at_once() -> None:
    target = Target(Step(0.5, ConnectionError()))
    with pytest.raises(ConnectionError):
        await pipeline(Hedge(after_s=1)).on(MODEL)(target)
    assert time() == 0.5
    assert target.began == [0]


async def test_a_time_limit_holds_for_each_attempt_by_itself() -> None:
    target, told = Target(10, 10), Told()
    with pytest.raises(AttemptTimedOut):
        await pipeline(Hedge(after_s=1), Timeout(total=2), told=told).on(MODEL)(target)
    assert target.stopped == {0: 2, 1: 3}
    assert told.names("timeout") == ["timeout.fired", "timeout.fired"]


# What a hedge needs: the budget and every guard, at once


async def test_the_budget_of_retries_bears_hedges_too() -> None:
    one = pipeline(Retry(budget=Budget(ratio=0, floor_per_s=0, cap=2)), Hedge(after_s=1))
    assert await one.on(MODEL)(Target(5, 0.1)) == 1
    assert await one.on(MODEL)(Target(5, 0.1)) == 1
    assert await one.on(MODEL)(Target(5, 0.1)) == 0
    with pytest.raises(ConnectionError) as failed:
        await one.on(MODEL)(Target(Step(0, ConnectionError())))
    assert "budget" in failed.value.__notes__[-1]
    assert await one.on(MODEL._replace(target="other"))(Target(5, 0.1)) == 1


async def test_without_retries_hedges_have_a_budget_of_their_own_that_calls_pay_into() -> None:
    one = pipeline(Hedge(after_s=1, budget=Budget(ratio=0.5, floor_per_s=0, cap=1)))
    hedged = [await one.on(MODEL)(Target(5, 0.1)) for _ in range(6)]
    assert hedged == [1, 0, 1, 0, 1, 0]


async def test_a_hedge_does_not_queue_for_a_place() -> None:
    one = pipeline(Hedge(after_s=1, budget=Budget(ratio=0, floor_per_s=0, cap=1)), Bulkhead(1))
    assert one.bulkhead is not None
    assert await one.on(MODEL)(Target(5, 0.1)) == 0
    assert next(one.bulkhead.views()).stats[:2] == (0, 0)
    one.reconfigure(Hedge(after_s=1), Bulkhead(2))
    assert await one.on(MODEL)(Target(5, 0.1)) == 1, "what the budget did not pay for is still in it"
    await one.aclose()
    assert at_rest(one)


async def test_a_hedge_does_not_wait_for_units_and_one_that_cannot_be_paid_gives_them_back() -> None:
    requests = Limit("requests", per.minute(2))
    one = pipeline(Hedge(after_s=1, budget=Budget(ratio=0, floor_per_s=0, cap=1)), Rate(requests, max_wait_s=0))
    assert await one.on(MODEL)(Target(5, 0.1)) == 1
    with pytest.raises(RateLimited):
        await one.on(MODEL)(Target(1))
    await asyncio.sleep(30)
    target = Target(5)
    assert await one.on(MODEL)(target) == 0
    assert len(target.began) == 1, "the limit has no second unit"
    await asyncio.sleep(60)
    assert await one.on(MODEL)(Target(5)) == 0
    assert await one.on(MODEL)(Target(1)) == 0, "the budget was empty: its unit went back"


async def test_a_hedge_is_no_second_probe() -> None:
    one = pipeline(Hedge(after_s=1), Breaker(consecutive=1, open_s=5))
    assert one.breaker is not None
    with pytest.raises(ConnectionError):
        await one.on(MODEL)(Target(Step(0, ConnectionError())))
    await asyncio.sleep(10)
    target = Target(5)
    assert await one.on(MODEL)(target) == 0
    assert target.began == [10]
    assert at_rest(one)


# Those that lost


async def test_the_answer_does_not_wait_for_losers_and_their_place_is_theirs_until_they_end() -> None:
    one = pipeline(Hedge(after_s=1), Bulkhead(2))
    assert one.bulkhead is not None
    target = Target(Step(10, tidy_s=2), 0.5)
    assert await one.on(MODEL)(target) == 1
    assert time() == 1.5
    await asyncio.sleep(1.9)
    assert next(one.bulkhead.views()).stats.in_use == 1
    await one.aclose()
    assert time() == target.ended[0] == 3.5
    assert at_rest(one)


async def test_a_loser_has_used_its_units() -> None:
    one = pipeline(Hedge(after_s=1), Rate(Limit("requests", per.minute(3), key=per.target)))
    assert one.rate is not None
    assert await one.on(MODEL)(Target(10, 0.5)) == 1
    await one.aclose()
    assert await one.on(MODEL)(Target(0)) == 0
    assert next(one.rate.views(loop_clock().now())).exhausted == 1


@pytest.mark.parametrize(
    "loser",
    [Step(9), Step(9, at_the_stop=ConnectionError()), Step(9, swallows=True), Step(9, tidy_s=2)],
    ids=["stopped", "fails as it is stopped", "answers as it is stopped", "takes its time"],
)
async def test_a_loser_tells_the_guards_nothing(loser: Step, complaints: list[Any]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    one = pipeline(Hedge(after_s=1), Breaker(slow_s=1.4, min_calls=1, slow_ratio=0.1), Bulkhead(Adaptive(start=8)))
    assert one.breaker is not None
    assert one.bulkhead is not None
    assert await one.on(MODEL)(Target(loser, 0.1)) == 1
    await one.aclose()
    (circuit,) = one.breaker.views(loop_clock().now())
    assert (circuit.state, circuit.calls, circuit.failed, circuit.slow) == (State.CLOSED, 1, 0, 0)
    assert [view.stats.limit for view in one.bulkhead.views()] == [8]
    assert at_rest(one)


async def test_where_a_failure_ended_the_race_that_alone_is_told_to_the_guards() -> None:
    one = pipeline(Hedge(after_s=1), Breaker())
    assert one.breaker is not None
    with pytest.raises(ValueError, match="no"):
        await one.on(MODEL)(Target(Step(9, at_the_stop=ConnectionError()), Step(1, ValueError("no"))))
    await one.aclose()
    (circuit,) = one.breaker.views(loop_clock().now())
    assert (circuit.calls, circuit.failed) == (1, 1)


async def test_a_loser_that_is_not_gone_after_its_grace_is_stopped_again_and_told_of() -> None:
    one = pipeline(Hedge(after_s=1, grace_s=3), Bulkhead(2), told=(told := Told()))
    target = Target(Step(10, tidy_s=60), 0.5)
    assert await one.on(MODEL)(target) == 1
    await one.aclose()
    await asyncio.sleep(0)
    assert target.ended[0] == 4.5
    assert told.of("hedge.stuck") == [("hedge.stuck", {"lasted_s": 4.5})]
    assert at_rest(one)


async def test_a_loser_that_cannot_be_stopped_is_told_of_once_and_holds_nobody_up() -> None:
    async def deaf() -> int:
        if time() > 0:
            return 1
        ends = time() + 60
        while time() < ends:
            try:
                await asyncio.sleep(ends - time())
            except asyncio.CancelledError:
                continue
        return 0

    one = pipeline(Hedge(after_s=1, grace_s=3), Bulkhead(2), told=(told := Told()))
    assert await one.on(MODEL)(deaf) == 1
    await one.aclose()
    assert time() == 4
    await asyncio.sleep(55.9)
    assert told.names("hedge") == ["hedge.started", "hedge.won", "hedge.stuck"]
    assert not at_rest(one)
    await asyncio.sleep(0.2)
    assert told.of("hedge.wasted") == [("hedge.wasted", {"lasted_s": 60, "may_be_billed": True})]
    assert at_rest(one)


async def test_nothing_is_left_to_wait_for_where_nobody_lost() -> None:
    one = pipeline(Hedge(after_s=1))
    assert await one.on(MODEL)(Target(5)) == 0
    await asyncio.sleep(1)
    await one.aclose()
    await pipeline().aclose()
    assert time() == 6


# A caller who is stopped


@pytest.mark.parametrize("at", [0.5, 1.5])
async def test_who_stops_the_caller_stops_every_attempt(at: float) -> None:
    one = pipeline(Hedge(after_s=1), Breaker(), Bulkhead(2), told=(told := Told()))
    target = Target(10)
    loop = asyncio.get_running_loop()
    task = loop.create_task(one.on(MODEL)(target))
    loop.call_at(at, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    await one.aclose()
    assert target.stopped == dict.fromkeys(range(len(target.began)), at)
    assert at_rest(one)
    assert len(told.of("hedge.wasted")) == (2 if at > 1 else 0)


async def test_the_deadline_stops_every_attempt_and_tells_the_breaker_that_they_were_slow() -> None:
    one = pipeline(Deadline(3), Hedge(after_s=1), Breaker(), Bulkhead(2), Timeout(total=5))
    assert one.breaker is not None
    target = Target(10)
    with pytest.raises(DeadlineExceeded):
        await one.on(MODEL)(target)
    assert time() == 3
    await one.aclose()
    assert target.stopped == {0: 3, 1: 3}
    assert at_rest(one)
    (circuit,) = one.breaker.views(loop_clock().now())
    assert (circuit.calls, circuit.failed) == (1, 1), "the first had more than half of its time, the hedge had not"


async def test_no_hedge_is_started_once_the_deadline_has_passed() -> None:
    target = Target(10)
    with pytest.raises(DeadlineExceeded):
        await pipeline(Deadline(1.001), Hedge(after_s=1.002)).on(MODEL)(target)
    assert target.began == [0]


async def test_an_attempt_that_is_stopped_before_its_first_step_was_not_made() -> None:
    one = pipeline(Hedge(after_s=1), Breaker(), Rate(Limit("requests", per.minute(1)), max_wait_s=0), Bulkhead(1))
    target = Target(1)
    loop = asyncio.get_running_loop()
    task = loop.create_task(one.on(MODEL)(target))
    await asyncio.sleep(0)
    for other in asyncio.all_tasks() - {asyncio.current_task()}:
        other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert target.began == []
    assert at_rest(one)
    assert await one.on(MODEL)(target) == 0


# How long a target takes


def paced(times: list[int], at: int = 0) -> Pace:
    pace = Pace()
    for lasted in times:
        pace.add(lasted, at)
    return pace


def test_a_pace_is_known_after_twenty_calls_and_forgets_all_but_the_last_hundred() -> None:
    assert paced(list(range(1, 20))).p95_ns(0) is None
    assert paced(list(range(1, 21))).p95_ns(0) == 19
    assert paced(list(range(100, 0, -1))).p95_ns(0) == 95
    assert paced([*range(1, 101), *[7] * 95]).p95_ns(0) == 7
    assert paced([*range(1, 101), *[7] * 94]).p95_ns(0) == 95


def test_a_pace_is_unknown_after_an_hour_without_a_call() -> None:
    hour = 3_600 * NS
    pace = paced([5] * 50)
    assert not pace.quiescent(hour)
    assert pace.p95_ns(hour) == 5
    assert pace.quiescent(hour + 1)
    assert pace.p95_ns(hour + 1) is None
    pace.add(5, hour + 1)
    assert pace.p95_ns(hour + 1) is None
    assert Pace().quiescent(0)


async def learned(one: Pipeline, lasts_s: float, calls: int = 20, call: Call = MODEL) -> None:
    for _ in range(calls):
        await one.on(call)(Target(lasts_s))


async def test_the_time_before_a_hedge_is_what_nearly_all_calls_of_the_target_took() -> None:
    one = pipeline(Hedge())
    await learned(one, 2.0, 19)
    target = Target(60)
    assert await one.on(MODEL)(target) == 0
    assert len(target.began) == 1, "not enough is known"
    target = Target(60, 1)
    assert await one.on(MODEL)(target) == 1
    assert target.began[1] - target.began[0] == pytest.approx(2)
    other = Target(60)
    assert await one.on(MODEL._replace(target="other"))(other) == 0
    assert len(other.began) == 1, "nothing is known of another target"


async def test_calls_that_may_not_be_repeated_are_learned_from_and_those_that_fail_are_not() -> None:
    one = pipeline(Hedge(max_after_s=100))
    await learned(one, 2.0, 20, Call(target="model"))
    for _ in range(80):
        with pytest.raises(ConnectionError):
            await one.on(MODEL)(Target(Step(0.1, ConnectionError())))
    for _ in range(5):
        assert await one.on(MODEL)(Target(Step(2.5, ConnectionError()), 50)) == 1
    target = Target(60, 1)
    assert await one.on(MODEL)(target) == 1
    assert target.began[1] - target.began[0] == pytest.approx(2)


@pytest.mark.parametrize(("lasts_s", "after_s"), [(0.001, 0.05), (50, 30)])
async def test_a_time_found_out_stays_within_bounds(lasts_s: float, after_s: float) -> None:
    one = pipeline(Hedge(budget=Budget(cap=100)))
    await learned(one, lasts_s, 100, Call(target="model"))
    target = Target(100, 1)
    assert await one.on(MODEL)(target) == 1
    assert target.began[1] - target.began[0] == pytest.approx(after_s)


async def test_hedges_that_win_do_not_make_hedges_come_earlier() -> None:
    one = pipeline(Hedge(budget=Budget(cap=1000)))
    await learned(one, 2.0, 100)
    for _ in range(150):
        target = Target(60, 0.1)
        assert await one.on(MODEL)(target) == 1
        assert target.began[1] - target.began[0] >= 1.999999
    await learned(one, 1.0, 100)
    target = Target(60, 0.1)
    await one.on(MODEL)(target)
    assert target.began[1] - target.began[0] == pytest.approx(1), "but they do where the target has become faster"


# In a pipeline


SHARE: Share = object()  # type: ignore[assignment]  # it is never asked


@pytest.mark.parametrize(
    ("policies", "says"),
    [
        ([Hedge(), Retry()], "after Retry"),
        ([Breaker(), Hedge()], "before what guards"),
        ([Breaker(), Retry(), Hedge()], "before what guards"),
        ([Hedge(), Rate(share=SHARE)], "a share has to be asked"),
        ([Hedge(), Hedge()], "two policies of one kind"),
    ],
)
async def test_a_hedge_has_its_place_in_a_pipeline(policies: list[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pipeline(*policies)


async def test_a_block_cannot_be_hedged() -> None:
    with pytest.raises(ValueError, match="needs a function"):
        pipeline(Hedge()).guard(MODEL)


async def test_other_settings_hold_from_the_next_call_on() -> None:
    one = pipeline(Hedge(after_s=1))
    one.reconfigure(Hedge(after_s=2, max=2))
    target = Target(10)
    assert await one.on(MODEL)(target) == 0
    assert target.began == [0, 2, 4]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"after_s": 0}, "after_s"),
        ({"after_s": float("nan")}, "after_s"),
        ({"max": 0}, "max"),
        ({"min_after_s": 0}, "min_after_s"),
        ({"min_after_s": 2, "max_after_s": 1}, "max_after_s"),
        ({"grace_s": 0}, "grace_s"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"hedge.{wrong} must be"):
        Hedge(**settings)
