"""Guards at work together in a pipeline: breaker, rate, gate and bulkhead."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.clock import NS
from holdfast.errors import CircuitOpen, QueueFull, RateLimited, Refused
from holdfast.resilience import (
    Adaptive,
    Breaker,
    Bulkhead,
    Call,
    CircuitSpec,
    Deadline,
    FailureClass,
    Limit,
    LimitView,
    Notice,
    Pipeline,
    Quota,
    Rate,
    Retry,
    State,
    per,
)
from holdfast.resilience.circuit import Circuit

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

ANN = Call(target="claude", credential="ann's")


def circuits(pipeline: Pipeline) -> dict[str, Circuit]:
    assert pipeline.breaker is not None
    return {circuit.name: circuit for circuit, _ in pipeline.breaker.circuits()}


def states(pipeline: Pipeline) -> dict[str, State]:
    return {name: circuit.state(round(now() * NS)) for name, circuit in circuits(pipeline).items()}


def limits(pipeline: Pipeline) -> dict[str, int]:
    assert pipeline.bulkhead is not None
    return {view.name: view.stats.limit for view in pipeline.bulkhead.views()}


# Observed


async def test_an_observed_breaker_lets_everybody_through_and_tells_whom_it_would_not_have() -> None:
    seen: list[Notice] = []
    pipeline = made(Breaker(consecutive=1, open_s=5, mode="observe"), sink=seen.append)
    await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
    assert await outcomes(pipeline, 3, Target(1.0)) == ["answer"] * 3
    assert [(one.name, one.facts.get("observed")) for one in seen] == [("breaker.moved", None)] + [
        ("breaker.refused", True)
    ] * 3
    assert state_of(pipeline) is State.OPEN, "who was let through all the same tells nothing"
    await asyncio.sleep(10)
    assert await outcomes(pipeline, 3, Target(1.0)) == ["answer"] * 3
    assert len(seen) == 4 + 1 + 2, "one is a probe, and two would have been refused"
    assert idle(pipeline)


async def test_an_observed_breaker_lets_a_closed_credential_through() -> None:
    seen: list[Notice] = []
    pipeline = made(Breaker(mode="observe"), sink=seen.append)
    await failure_of(pipeline.on(ANN)(Target(FailureClass.AUTH)))
    assert await pipeline.on(ANN)(Target("answer")) == "answer"
    assert [(one.name, one.key_class) for one in seen] == [
        ("breaker.moved", "credential"),
        ("breaker.refused", "credential"),
    ]
    assert idle(pipeline)


async def test_an_observed_rate_lets_everybody_through_at_once_and_takes_nothing_more() -> None:
    seen: list[Notice] = []
    pipeline = made(Rate(Limit("calls", Quota(1, 10 * NS, 2)), max_wait_s=20, mode="observe"), sink=seen.append)
    assert await outcomes(pipeline, 5, Target("answer")) == ["answer"] * 5
    assert now() == 0
    assert [(one.name, one.facts["reason"], one.facts["observed"]) for one in seen] == [
        ("rate.refused", "wait", True)
    ] * 3
    assert free(pipeline) == [0]
    async with pipeline.guard() as passage:
        passage.adjust(calls=7)
    assert free(pipeline) == [0], "it has taken nothing that could be corrected"


async def test_an_observed_gate_lets_everybody_through() -> None:
    seen: list[Notice] = []
    pipeline = made(Rate(mode="observe"), Bulkhead(1), sink=seen.append)
    await failure_of(pipeline.on(AGAIN)(Target(Failed(FailureClass.RATE_LIMITED, 30))))
    assert await outcomes(pipeline, 3, Target(1.0)) == ["answer"] * 3
    assert now() == 3
    assert {one.facts.get("observed") for one in seen if one.name == "rate.refused"} == {True}


async def test_an_observed_bulkhead_lets_everybody_in_and_frees_what_it_gave() -> None:
    seen: list[Notice] = []
    pipeline = made(Bulkhead(Adaptive(start=1), queue=5, mode="observe"), sink=seen.append)
    assert pipeline.bulkhead is not None
    assert await outcomes(pipeline, 3, Target(1.0)) == ["answer"] * 3
    assert now() == 1
    assert [(one.name, one.facts.get("observed")) for one in seen[:2]] == [("bulkhead.refused", True)] * 2
    assert idle(pipeline)


# The credential


@pytest.mark.parametrize("kind", [FailureClass.AUTH, FailureClass.QUOTA])
async def test_a_refused_credential_is_closed_for_every_target_and_no_other_credential_is(kind: FailureClass) -> None:
    pipeline = made(Retry(), Breaker(closed_s=600))
    await failure_of(pipeline.on(ANN._replace(repeatable=True))(Target(kind)))
    await asyncio.sleep(599)
    for target in ("claude", "another"):
        refused = await failure_of(pipeline.on(ANN._replace(target=target))(Target("answer")))
        assert isinstance(refused, CircuitOpen)
        assert (refused.key_class, refused.reason, refused.retry_after_s) == ("credential", "forced_open", 1)
        assert refused.detail == "the circuit breaker of tools:credential:ann's lets nobody through for 1 s"
    assert await pipeline.on(ANN._replace(credential="bob's"))(Target("answer")) == "answer"
    assert await pipeline.on(Call(target="claude"))(Target("answer")) == "answer"
    assert states(pipeline)["tools:claude"] is State.CLOSED
    await asyncio.sleep(1)
    assert await pipeline.on(ANN)(Target("answer")) == "answer"


async def test_a_credential_stays_closed_for_as_long_as_the_target_said() -> None:
    pipeline = made(Breaker(closed_s=600))
    await failure_of(pipeline.on(ANN)(Target(Failed(FailureClass.QUOTA, 30))))
    await asyncio.sleep(29.9)
    assert isinstance(await failure_of(pipeline.on(ANN)(Target("answer"))), CircuitOpen)
    await asyncio.sleep(0.1)
    assert await pipeline.on(ANN)(Target("answer")) == "answer"


async def test_probes_decide_on_a_closed_credential() -> None:
    pipeline = made(Breaker(closed_s=10, need=2))
    bound, account = pipeline.on(ANN), "tools:credential:ann's"
    await failure_of(bound(Target(FailureClass.AUTH)))
    await asyncio.sleep(10)
    one, other = await outcomes(pipeline, 2, Target(1.0), ANN)
    assert (one, type(other)) == ("answer", CircuitOpen), "one probe at a time"
    assert states(pipeline)[account] is State.HALF_OPEN
    await failure_of(bound(Target(FailureClass.AUTH)))
    assert states(pipeline)[account] is State.FORCED_OPEN
    await asyncio.sleep(10)
    for _ in range(2):
        await bound(Target("answer"))
    assert states(pipeline)[account] is State.CLOSED
    assert idle(pipeline)


async def test_a_failing_model_does_not_close_its_credential() -> None:
    pipeline = made(Breaker(closed_s=10, consecutive=1))
    bound, account = pipeline.on(ANN), "tools:credential:ann's"
    await failure_of(bound(Target(FailureClass.AUTH)))
    await asyncio.sleep(10)
    await failure_of(bound(Target(SERVER)))
    assert states(pipeline) == {"tools:claude": State.OPEN, account: State.HALF_OPEN}
    for name, state in (("b", State.HALF_OPEN), ("c", State.CLOSED)):
        assert await pipeline.on(ANN._replace(target=name))(Target("answer")) == "answer"
        assert states(pipeline)[account] is state, "only answers count, and two are needed"
    for name in "defg":
        await failure_of(pipeline.on(ANN._replace(target=name))(Target(SERVER)))
    assert states(pipeline)[account] is State.CLOSED, "not even when it has failed often"
    assert idle(pipeline)


async def test_an_open_circuit_takes_no_probe_of_a_credential() -> None:
    pipeline = made(Breaker(closed_s=10, consecutive=1, open_s=60))
    await failure_of(pipeline.on(ANN)(Target(SERVER)))
    await failure_of(pipeline.on(ANN._replace(target="b"))(Target(FailureClass.AUTH)))
    await asyncio.sleep(10)
    assert isinstance(await failure_of(pipeline.on(ANN)(Target("answer"))), CircuitOpen)
    assert circuits(pipeline)["tools:credential:ann's"].inflight == 0
    assert await pipeline.on(ANN._replace(target="b"))(Target("answer")) == "answer"


async def test_without_an_account_a_refused_credential_closes_nothing() -> None:
    pipeline = made(Breaker(account=None, consecutive=1))
    await failure_of(pipeline.on(ANN)(Target(FailureClass.AUTH)))
    assert states(pipeline) == {"tools:claude": State.CLOSED}


# What counts as slow


async def test_a_stream_is_as_slow_as_its_first_part() -> None:
    async def parts(first_s: float) -> AsyncIterator[int]:
        for number in range(10):
            await asyncio.sleep(1 if number else first_s)
            yield number

    for first_s, state in ((1.9, State.CLOSED), (2.0, State.OPEN)):
        pipeline = made(Breaker(slow_s=2, slow_ratio=1, min_calls=3, consecutive=None))
        for _ in range(3):
            assert [part async for part in pipeline.stream(parts, first_s)] == [*range(10)]
        assert state_of(pipeline) is state


async def test_a_blocks_answer_has_arrived_when_it_first_did() -> None:
    pipeline = made(Breaker(slow_s=2, slow_ratio=1, min_calls=1, consecutive=None))
    async with pipeline.guard() as passage:
        for _ in range(5):
            await asyncio.sleep(1)
            passage.arrived()
    assert state_of(pipeline) is State.CLOSED


async def test_a_call_is_as_slow_as_it_took_without_its_wait() -> None:
    for lasts_s, state in ((1.9, State.CLOSED), (2.0, State.OPEN)):
        pipeline = made(Breaker(slow_s=2, slow_ratio=1, min_calls=3, consecutive=None), Bulkhead(1))
        await outcomes(pipeline, 3, Target(lasts_s))
        assert state_of(pipeline) is state


# A probe that an inner guard stops


async def half_open(pipeline: Pipeline, call: Call) -> None:
    await failure_of(pipeline.on(call)(Target(SERVER)))
    await asyncio.sleep(5)
    assert states(pipeline)[f"tools:{call.target}"] is State.HALF_OPEN


@pytest.mark.parametrize("how", ["refused", "cancelled", "timed out"])
@pytest.mark.parametrize("slow_s", [None, 1])
async def test_a_probe_that_finds_the_bulkhead_full_gives_its_place_back_and_says_nothing(
    how: str, slow_s: float | None
) -> None:
    waits = how != "refused"
    pipeline = made(Breaker(consecutive=1, open_s=5, jitter=0, slow_s=slow_s), Bulkhead(1, queue=waits, max_wait_s=2))
    await half_open(pipeline, AGAIN)
    async with pipeline.guard(Call(target="another")), asyncio.TaskGroup() as group:
        probe = group.create_task(failure_of(pipeline.on(AGAIN)(Target("answer"))))
        await asyncio.sleep(1)
        if how == "cancelled":
            assert circuits(pipeline)["tools:claude"].inflight == 1
            probe.cancel()
    if how != "cancelled":
        assert isinstance(probe.result(), QueueFull)
    circuit = circuits(pipeline)["tools:claude"]
    assert (circuit.state(round(now() * NS)), circuit.inflight) == (State.HALF_OPEN, 0)
    for _ in range(2):
        assert await pipeline.on(AGAIN)(Target("answer")) == "answer"
    assert states(pipeline)["tools:claude"] is State.CLOSED


async def test_a_probe_that_finds_the_rate_spent_gives_its_place_back_and_says_nothing() -> None:
    pipeline = made(Breaker(consecutive=1, open_s=5, jitter=0), Rate(Limit("calls", per.minute(1)), max_wait_s=0))
    await half_open(pipeline, AGAIN)
    for _ in range(3):
        assert isinstance(await failure_of(pipeline.on(AGAIN)(Target("answer"))), RateLimited)
        assert circuits(pipeline)["tools:claude"].inflight == 0
    await asyncio.sleep(60)
    assert await pipeline.on(AGAIN)(Target("answer")) == "answer"


async def test_who_needs_much_is_not_overtaken_by_who_needs_little() -> None:
    pipeline = made(Rate(Limit("tokens", Quota(1, NS, 3))))
    much, little = Target("answer"), Target("answer")
    await pipeline(Target("answer"))
    async with asyncio.TaskGroup() as group:
        group.create_task(pipeline.on(Call(costs={"tokens": 3}))(much))
        await asyncio.sleep(0)
        group.create_task(pipeline(little))
    assert (much.at, little.at) == ([1], [2])


async def test_what_was_used_beyond_the_estimate_is_owed_by_whoever_has_the_key_now() -> None:
    pipeline = made(Rate(Limit("tokens", per.minute(10), key=per.user)), max_keys=9)
    ann = Call(user="ann", costs={"tokens": 5})
    async with pipeline.guard(ann) as passage:
        await asyncio.sleep(60)
        await pipeline.on(Call(user="bob"))(Target("answer"))
        assert len(free(pipeline)) == 1, "hers was full again, and was forgotten"
        passage.adjust(tokens=30)
    assert free(pipeline) == [9, -15]


async def test_a_wait_in_the_bulkhead_that_the_deadline_ends_is_refused() -> None:
    """So its caller is told that nothing was sent."""
    pipeline = made(Deadline(1.995), Bulkhead(1, max_wait_s=10))
    async with asyncio.TaskGroup() as group:
        group.create_task(failure_of(pipeline(Target(60.0))))
        await asyncio.sleep(0)
        refused = await failure_of(pipeline(Target("answer")))
    assert isinstance(refused, QueueFull)
    assert refused.reason == "timeout"


async def test_who_is_refused_by_the_bulkhead_pays_no_rate() -> None:
    pipeline = made(Rate(Limit("calls", per.minute(5))), Bulkhead(1, queue=0))
    async with pipeline.guard():
        for _ in range(20):
            assert isinstance(await failure_of(pipeline(Target("answer"))), QueueFull)
    assert free(pipeline) == [4]


# The gate


async def test_after_a_429_nothing_goes_out_before_the_named_time_then_one_and_then_ever_more() -> None:
    pipeline = made(Rate(resume_per_s=4, max_wait_s=100))
    assert pipeline.rate is not None
    target = Target("answer")
    await failure_of(pipeline.on(AGAIN)(Target(Failed(FailureClass.RATE_LIMITED, 3))))
    await outcomes(pipeline, 200, target)
    assert len(target.at) == 200
    assert target.at[:5] == [3, 3.25, 3.5, 3.75, 4]
    seconds = Counter(int(at) for at in target.at)
    assert [seconds[second] for second in (3, 4, 5, 6, 7)] == [4, 8, 16, 32, 64]
    assert await pipeline.on(Call(target="another"))(Target("answer")) == "answer"
    await asyncio.sleep(20)
    assert len(pipeline.rate._gates) == 0, "nothing is remembered of it"
    began = now()
    await outcomes(pipeline, 1_000, target)
    assert now() == began


async def test_a_gate_is_shut_for_its_own_target_alone_and_anew_while_it_opens() -> None:
    pipeline = made(Rate(resume_per_s=2, max_wait_s=100))
    limited = Target(Failed(FailureClass.RATE_LIMITED, 3))
    await failure_of(pipeline.on(AGAIN)(limited))
    await failure_of(pipeline.on(AGAIN)(limited))
    assert now() == 3
    other = await outcomes(pipeline, 50, Target("answer"), Call(target="another"))
    assert (other, now()) == (["answer"] * 50, 3)
    target = Target("answer")
    await outcomes(pipeline, 3, target)
    assert target.at == [6, 6.5, 7]


async def test_how_fast_a_gate_opens_may_change() -> None:
    pipeline = made(Rate(resume_per_s=1, max_wait_s=60))
    pipeline.reconfigure(Rate(resume_per_s=5, max_wait_s=60))
    await failure_of(pipeline.on(AGAIN)(Target(Failed(FailureClass.RATE_LIMITED, 3))))
    target = Target("answer")
    await outcomes(pipeline, 3, target)
    assert target.at == pytest.approx([3, 3.2, 3.4])


async def test_a_time_that_nobody_can_wait_for_refuses_at_once() -> None:
    seen: list[Notice] = []
    pipeline = made(Rate(max_wait_s=20), sink=seen.append)
    await failure_of(pipeline.on(AGAIN)(Target(Failed(FailureClass.RATE_LIMITED, 45))))
    refused = await failure_of(pipeline.on(AGAIN)(Target("answer")))
    assert isinstance(refused, RateLimited)
    assert (refused.key_class, refused.reason, refused.retry_after_s) == ("target", "wait", 45)
    gated, _ = seen
    assert (gated.name, gated.key_class, dict(gated.facts)) == ("rate.gated", "target", {"retry_after_s": 45})


async def test_a_target_is_believed_for_ten_minutes_at_most() -> None:
    pipeline = made(Rate())
    await failure_of(pipeline.on(AGAIN)(Target(Failed(FailureClass.RATE_LIMITED, 1e9))))
    refused = await failure_of(pipeline.on(AGAIN)(Target("answer")))
    assert isinstance(refused, RateLimited)
    assert refused.retry_after_s == 600


@pytest.mark.parametrize("failure", [Failed(FailureClass.RATE_LIMITED), Failed(FailureClass.OVERLOADED, 5)])
async def test_nothing_else_shuts_a_gate(failure: Failed) -> None:
    pipeline = made(Rate(max_wait_s=0))
    await failure_of(pipeline.on(AGAIN)(Target(failure)))
    assert await pipeline.on(AGAIN)(Target("answer")) == "answer"


async def test_retries_come_back_no_earlier_than_the_gate_opens() -> None:
    pipeline = made(Retry(slow_base_s=1), Rate(resume_per_s=1, max_wait_s=60))
    target = Target(*(Failed(FailureClass.RATE_LIMITED, 3) for _ in range(5)), "answer")
    assert await outcomes(pipeline, 5, target) == ["answer"] * 5
    late = sorted(target.at)[5:]
    assert late[0] >= 3
    assert late[1] - late[0] >= 0.99


# What changes while a call waits


async def test_a_gate_that_is_shut_holds_back_who_waits_for_a_limit() -> None:
    pipeline = made(Rate(Limit("calls", per.second(1)), max_wait_s=60))
    limited, target = Target(Failed(FailureClass.RATE_LIMITED, 3)), Target("answer")
    async with asyncio.TaskGroup() as group:
        group.create_task(failure_of(pipeline.on(AGAIN)(limited)))
        group.create_task(outcomes(pipeline, 3, target))
    assert target.at == [3, 4, 5]
    assert free(pipeline) == [0], "each was paid for once"


async def test_a_gate_that_is_shut_holds_back_who_waits_in_the_bulkhead() -> None:
    pipeline = made(Rate(Limit("calls", per.minute(10)), max_wait_s=60), Bulkhead(1))

    async def limited() -> None:
        await asyncio.sleep(1)
        raise Failed(FailureClass.RATE_LIMITED, 3)

    target = Target("answer")
    async with asyncio.TaskGroup() as group:
        group.create_task(failure_of(pipeline.on(AGAIN)(limited)))
        group.create_task(outcomes(pipeline, 3, target))
        await asyncio.sleep(2)
        assert idle(pipeline), "nobody holds a place while they wait for the gate"
    assert target.at == [4, 4.05, 4.1]
    assert free(pipeline) == [6], "each was paid for once"


async def test_a_circuit_that_opens_refuses_who_waits_inside_of_it() -> None:
    pipeline = made(Breaker(consecutive=1, open_s=5, jitter=0), Rate(Limit("calls", per.minute(10))), Bulkhead(1))

    async def fails() -> None:
        await asyncio.sleep(1)
        raise Failed(SERVER)

    target = Target("answer")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(failure_of(pipeline.on(AGAIN)(fails)))
        others = group.create_task(outcomes(pipeline, 3, target))
    assert isinstance(first.result(), Failed)
    assert [type(one) for one in others.result()] == [CircuitOpen] * 3
    assert target.at == []
    assert free(pipeline) == [9]
    assert idle(pipeline)


async def test_a_credential_that_is_closed_refuses_who_waits_inside_of_it() -> None:
    pipeline = made(Breaker(), Bulkhead(1))

    async def unpaid() -> None:
        await asyncio.sleep(1)
        raise Failed(FailureClass.QUOTA)

    async with asyncio.TaskGroup() as group:
        group.create_task(failure_of(pipeline.on(ANN)(unpaid)))
        await asyncio.sleep(0)
        same = group.create_task(outcomes(pipeline, 1, Target("answer"), ANN._replace(target="b")))
        other = group.create_task(outcomes(pipeline, 1, Target("answer"), ANN._replace(credential="bob's")))
    assert isinstance(same.result()[0], CircuitOpen)
    assert other.result() == ["answer"]
    assert idle(pipeline)


async def test_a_circuit_that_is_reset_lets_those_who_wait_go_on_waiting_where_they_stand() -> None:
    pipeline = made(Breaker(), Bulkhead(1))
    first, second, third, late = targets = [Target(1.0) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for target in (first, second, third):
            group.create_task(pipeline.on(AGAIN)(target))
        await asyncio.sleep(0.5)
        circuits(pipeline)["tools:claude"].reset(round(now() * NS))
        group.create_task(pipeline.on(AGAIN)(late))
    assert [target.at for target in targets] == [[0], [1], [2], [3]]
    assert idle(pipeline)


# The bulkhead's own limit


def adaptive(start: int = 8, **bounds: int) -> Bulkhead:
    return Bulkhead(Adaptive(start=start, **bounds), queue=100, key=per.target)


async def test_signs_of_overload_at_once_are_one_and_successes_under_load_bring_the_limit_back() -> None:
    seen: list[Notice] = []
    pipeline = made(adaptive(10), sink=seen.append)
    await outcomes(pipeline, 10, Target(Failed(FailureClass.OVERLOADED)))
    assert limits(pipeline) == {"tools:claude": 7}
    [notice] = seen
    assert (notice.name, notice.key_class, dict(notice.facts)) == (
        "adaptive.moved",
        "target",
        {"bulkhead": "tools:claude", "was": 10, "limit": 7, "reason": "overloaded"},
    )
    await outcomes(pipeline, 20, Target(1.0))
    assert limits(pipeline)["tools:claude"] > 7
    assert seen[-1].facts["reason"] == "succeeded"


@pytest.mark.parametrize("kind", [SERVER, FailureClass.INVALID, FailureClass.AUTH])
async def test_other_failures_leave_the_limit_alone(kind: FailureClass) -> None:
    pipeline = made(adaptive())
    await outcomes(pipeline, 8, Target(kind))
    assert limits(pipeline) == {"tools:claude": 8}


async def test_who_is_cancelled_or_never_made_leaves_the_limit_alone() -> None:
    with pytest.warns(UserWarning, match="better in the order"):
        pipeline = made(Bulkhead(Adaptive(start=2, min=1)), Rate(Limit("calls", per.minute(2)), max_wait_s=0))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pipeline(Target(60.0))) for _ in range(2)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
    assert isinstance(await failure_of(pipeline(Target("answer"))), RateLimited)
    assert limits(pipeline) == {"tools": 2}


async def test_after_a_break_the_limit_of_the_same_key_begins_at_its_floor() -> None:
    seen: list[Notice] = []
    pipeline = made(Breaker(consecutive=1, open_s=5, jitter=0, need=1), adaptive(8, min=2), sink=seen.append)
    async with pipeline.guard(Call(target="another")):
        await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
        await asyncio.sleep(5)
        await pipeline.on(AGAIN)(Target("answer"))
        assert limits(pipeline) == {"tools:another": 8, "tools:claude": 2}
    assert seen[-1].facts["reason"] == "slow_start"


@pytest.mark.parametrize(
    ("breaker", "bulkhead"), [(per.target, per.tenant), (None, None), (per.target, per.target)], ids=str
)
async def test_no_other_break_restarts_a_limit(breaker: Any, bulkhead: Any) -> None:
    """Neither one by another key, nor that of a credential."""
    pipeline = made(
        Breaker(consecutive=1, open_s=5, closed_s=5, jitter=0, need=1, key=breaker),
        Bulkhead(Adaptive(start=8, min=2), key=bulkhead),
    )
    kinds = [FailureClass.QUOTA] if breaker is bulkhead else [FailureClass.QUOTA, SERVER]
    same = ANN._replace(tenant=ANN.target)
    for kind in kinds:
        await failure_of(pipeline.on(same)(Target(kind)))
        await asyncio.sleep(5)
        await pipeline.on(same)(Target("answer"))
        assert State.OPEN not in states(pipeline).values()
    assert {*limits(pipeline).values()} == {8}


async def test_a_limit_may_change_to_one_that_finds_itself_and_back() -> None:
    pipeline = made(Bulkhead(4))
    await pipeline(Target("answer"))
    pipeline.reconfigure(Bulkhead(Adaptive(start=9, min=2, max=20)))
    assert limits(pipeline) == {"tools": 4}, "from where it is"
    await failure_of(pipeline(Target(FailureClass.OVERLOADED)))
    assert limits(pipeline) == {"tools": 2}
    pipeline.reconfigure(Bulkhead(Adaptive(start=9, min=5, max=20)))
    assert limits(pipeline) == {"tools": 5}
    pipeline.reconfigure(Bulkhead(3))
    await outcomes(pipeline, 9, Target(1.0))
    await failure_of(pipeline(Target(FailureClass.OVERLOADED)))
    assert limits(pipeline) == {"tools": 3}, "a fixed one stays fixed"


# What an operator sees


async def test_circuits_limits_and_bulkheads_can_be_looked_at() -> None:
    pipeline = made(
        Breaker(consecutive=2, slow_s=1, special={"b": CircuitSpec(consecutive=1)}),
        Rate(Limit("calls", per.minute(30)), Limit("calls", Quota(1, NS, 1), key=per.user), max_wait_s=100),
        Bulkhead(1, queue=7, key=per.target),
    )
    assert pipeline.breaker is not None
    assert pipeline.rate is not None
    assert pipeline.bulkhead is not None
    await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
    await failure_of(pipeline.on(AGAIN._replace(target="b", user="bob"))(Target(SERVER)))
    async with pipeline.guard(Call(target="c")), asyncio.TaskGroup() as group:
        waiting = group.create_task(pipeline.on(Call(target="c"))(Target("answer")))
        await asyncio.sleep(0.5)
        a, b, c = pipeline.breaker.views(round(now() * NS))
        assert a == ("tools:claude", State.CLOSED, "target", None, 1, 1, 0, 0)
        assert (b.name, b.state) == ("tools:b", State.OPEN)
        assert b.retry_after_s is not None
        assert (c.calls, c.inflight) == (0, 2)
        assert [*pipeline.rate.views(round(now() * NS))] == [
            LimitView("calls", "all", 30, 60, 30, 1, 0, 0),
            LimitView("calls", "user", 1, 1, 1, 2, 1, 1),
        ]
        waiting.cancel()
    *_, view = pipeline.bulkhead.views()
    assert (view.name, view.key_class, tuple(view.stats)) == ("tools:c", "target", (0, 0, 1, 7, 0, 0))


async def test_a_key_with_rules_of_its_own_keeps_them_when_others_change() -> None:
    def policies(calls: int) -> tuple[Breaker, Rate]:
        return (
            Breaker(consecutive=calls, special={"b": CircuitSpec(consecutive=1)}),
            Rate(Limit("calls", per.minute(calls), key=per.target, special={"b": per.minute(1)}), max_wait_s=0),
        )

    pipeline = made(*policies(5))
    for target in ("claude", "b"):
        await pipeline.on(Call(target=target))(Target("answer"))
    pipeline.reconfigure(*policies(7))
    assert free(pipeline) == [6, 0]
    assert isinstance(await failure_of(pipeline.on(Call(target="b"))(Target("answer"))), RateLimited)
    await asyncio.sleep(60)
    await failure_of(pipeline.on(Call(target="b"))(Target(SERVER)))
    await failure_of(pipeline.on(AGAIN)(Target(SERVER)))
    assert states(pipeline) == {"tools:claude": State.CLOSED, "tools:b": State.OPEN}


async def test_strangers_share_what_is_left_when_there_are_too_many_keys() -> None:
    pipeline = made(Breaker(key=per.user), Rate(Limit("calls", per.minute(1), key=per.user), max_wait_s=0), max_keys=3)
    answers = ["answer" if await pipeline.on(Call(user=f"user {n}"))(Target("answer")) else None for n in range(4)]
    assert answers == ["answer"] * 4
    for n in (0, 3, 4, 5):
        assert isinstance(await failure_of(pipeline.on(Call(user=f"user {n}"))(Target("answer"))), Refused)
    assert len(free(pipeline)) == 4
