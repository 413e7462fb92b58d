"""The policies on the way of tool and model calls, as the settings make them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import pytest

from holdfast.clock import NS
from holdfast.errors import AttemptTimedOut, CircuitOpen, ModelUnavailable, QueueFull, RateLimited, Shed
from holdfast.events import Event, ModelFinished, ToolFinished
from holdfast.guard import Attempt, Estimate, Guard, GuardSpec, ModelKey, Policies, ToolLimits, Who
from holdfast.resilience import Notice, Priority, State
from holdfast.testing import loop_clock

WIDE = {"user_tools_per_s": 1_000_000, "tools_per_s": 1_000_000, "tool_per_s": 1_000_000}


class Watched:
    """The guard of one turn, what it told, and what its policies told."""

    def __init__(self, spec: GuardSpec | None = None) -> None:
        self.notices: list[Notice] = []
        self.events: list[Event] = []
        self.policies = Policies(spec or GuardSpec(), loop_clock(), self.notices.append)

    def guard(self, user: str = "ada", agent: str = "assistant") -> Guard:
        return Guard(self.policies, self.events.append, Who(user, agent))

    @property
    def bulkhead(self) -> tuple[int, int]:
        """In use, and queued, for tools."""
        guard = self.policies.tool.bulkhead
        assert guard is not None
        stats = [view.stats for view in guard.views()]
        return sum(one.in_use for one in stats), sum(one.queued for one in stats)

    def state(self, name: str) -> State:
        breakers = [pipeline.breaker for pipeline in self.policies.pipelines if pipeline.breaker is not None]
        views = [view for guard in breakers for view in guard.views(self.policies.clock.now())]
        [state] = [view.state for view in views if view.name == name]
        return state


async def slow() -> str:
    await asyncio.sleep(10)
    return "done"


async def fails() -> str:
    raise ConnectionError("the tool's own server is away")


def search(guard: Guard, call: Callable[[], Awaitable[str]] = slow, name: str = "search") -> Awaitable[str]:
    return guard.tool(name, {}, "id", call)


async def settled(seconds: float = 0.001) -> None:
    await asyncio.sleep(seconds)


async def test_of_300_slow_tool_calls_100_run_and_the_others_wait_their_turn() -> None:
    watched = Watched(GuardSpec(**WIDE))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(search(watched.guard()))) for _ in range(300)]
        await settled()
        assert watched.bulkhead == (100, 200)
        await settled(10)
        assert watched.bulkhead == (100, 100)
    assert {task.result() for task in tasks} == {"done"}
    assert watched.bulkhead == (0, 0)


async def test_the_1101st_slow_tool_call_is_refused_and_who_is_cancelled_frees_its_place() -> None:
    watched = Watched(GuardSpec(**WIDE))
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_awaited(search(watched.guard()))) for _ in range(1_101)]
    await settled()
    assert watched.bulkhead == (100, 1_000)
    with pytest.raises(QueueFull, match="100 running, 1000 waiting of at most 1000") as refused:
        await tasks[-1]
    assert (refused.value.guard, refused.value.key_class, refused.value.reason) == ("bulkhead", "agent", "full")
    for task in tasks[:-1]:
        task.cancel()
    await asyncio.wait(tasks)
    assert watched.bulkhead == (0, 0)
    rejected = [event for event in watched.events if isinstance(event, ToolFinished) and event.status == "rejected"]
    assert [event.error for event in rejected] == ["queue_full"]
    assert await search(watched.guard()) == "done"


async def test_nobody_waits_longer_than_the_queue_allows() -> None:
    watched = Watched(GuardSpec(tool_concurrent=1, tool_wait_s=5, **WIDE))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(_awaited(search(watched.guard())))
        await settled()
        began = watched.policies.clock.now()
        with pytest.raises(QueueFull, match="no place came free in time"):
            await search(watched.guard())
        assert watched.policies.clock.now() - began == 5 * NS
    assert first.result() == "done"


async def test_one_agents_slow_tools_do_not_take_anothers_places() -> None:
    watched = Watched(GuardSpec(tool_concurrent=1, tool_queue=0, **WIDE))
    async with asyncio.TaskGroup() as group:
        group.create_task(_awaited(search(watched.guard(agent="one"))))
        await settled()
        assert await search(watched.guard(agent="other")) == "done"


async def test_a_tool_that_keeps_failing_is_left_alone_and_the_others_are_not() -> None:
    watched = Watched()
    for _ in range(5):
        with pytest.raises(ConnectionError):
            await search(watched.guard(), fails)
    with pytest.raises(CircuitOpen, match="tool:search") as refused:
        await search(watched.guard())
    assert refused.value.retry_after_s is not None
    assert 48 <= refused.value.retry_after_s <= 72
    assert await search(watched.guard(), name="other") == "done"
    moved = [notice.facts for notice in watched.notices if notice.name == "breaker.moved"]
    assert [(facts["circuit"], facts["state"]) for facts in moved] == [("tool:search", "open")]


async def test_a_tool_may_have_limits_of_its_own() -> None:
    own = ToolLimits(timeout_s=3, per_s=2, breaker_failures=1, breaker_open_s=7)
    watched = Watched(GuardSpec(tools={"search": own}, tool_wait_s=0))
    with pytest.raises(AttemptTimedOut, match="search took longer than 3 s"):
        await search(watched.guard())
    with pytest.raises(CircuitOpen) as refused:
        await search(watched.guard())
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s <= 8.4
    await asyncio.sleep(9)

    async def quick() -> str:
        return "quick"

    assert await search(watched.guard(), quick) == "quick"
    assert await search(watched.guard(), quick) == "quick"
    with pytest.raises(RateLimited, match="by tool"):
        await search(watched.guard(), quick)
    assert await search(watched.guard(), quick, "other") == "quick"


async def test_one_users_tool_calls_spend_neither_the_tools_share_nor_anybody_elses() -> None:
    watched = Watched(GuardSpec(user_tools_per_s=5, tool_per_s=20, tools_per_s=20, tool_wait_s=0))

    async def quick() -> str:
        return "quick"

    async def tries(user: str, count: int) -> int:
        done = 0
        for _ in range(count):
            with suppress(RateLimited):
                done += await search(watched.guard(user), quick) == "quick"
        return done

    assert await tries("greedy", 50) == 5
    assert await tries("ada", 5) == 5
    assert await tries("grace", 5) == 5
    assert await tries("mary", 5) == 5
    assert {(notice.key_class, notice.facts["reason"]) for notice in watched.notices} == {("user", "wait")}


async def test_a_model_call_is_made_again_within_its_budget_and_each_attempt_is_told() -> None:
    watched = Watched()
    sent = 0

    async def call(attempt: Attempt) -> str:
        nonlocal sent
        sent += 1
        attempt.used(3, 1)
        if sent < 3:
            raise ModelUnavailable("the provider is away")
        return "hello"

    guard = watched.guard()
    assert await guard.model(ModelKey("sim", "small"), None, call) == "hello"
    assert [e.status for e in watched.events if isinstance(e, ModelFinished)] == ["error", "error", "ok"]
    assert (guard.usage().model_calls, guard.usage().input_tokens) == (3, 9)
    assert [notice.name for notice in watched.notices] == ["retry.scheduled", "retry.scheduled"]


@pytest.mark.parametrize(("mode", "state"), [("enforce", "open"), ("observe", "closed")])
async def test_how_a_model_is_its_circuit_tells_where_circuits_refuse(
    mode: Literal["enforce", "observe"], state: str
) -> None:
    watched = Watched(GuardSpec(attempts=1, breaker_failures=2, mode=mode))
    key, other = ModelKey("sim", "small", "c0ffee"), ModelKey("sim", "large", "c0ffee")

    async def call(_attempt: Attempt) -> str:
        raise ModelUnavailable("the provider is away")

    assert watched.policies.model_state(key.target, "sim@c0ffee") == "closed"
    for _ in range(2):
        with suppress(ModelUnavailable):
            await watched.guard().model(key, None, call)
    assert watched.policies.model_state(key.target, "sim@c0ffee") == state
    assert watched.policies.model_state(other.target, "sim@c0ffee") == "closed"


async def test_a_model_whose_credential_is_refused_is_no_better_than_that() -> None:
    policies = Watched().policies
    breaker = policies.model.breaker
    assert breaker is not None
    assert breaker.follow("model:credential:sim@c0ffee", "forced_open", None)
    assert policies.model_state("sim:small@c0ffee", "sim@c0ffee") == "forced_open"
    assert policies.model_state("sim:small@decaf", "sim@decaf") == "closed"


async def test_tokens_are_reserved_by_estimate_and_put_right_by_what_was_used() -> None:
    watched = Watched(GuardSpec(model_tokens_per_minute=1_000, model_wait_s=0, attempts=1))

    async def call(attempt: Attempt) -> str:
        attempt.used(150, 50)
        return "hello"

    guard, key = watched.guard(), ModelKey("sim", "small")
    for _ in range(2):
        await guard.model(key, Estimate(800), call)  # 800 are reserved, and 600 given back.
    await guard.model(key, Estimate(600), call)
    with pytest.raises(RateLimited, match="tokens by credential") as refused:
        await guard.model(key, Estimate(900), call)
    assert refused.value.retry_after_s == pytest.approx((900 - 400) * 60 / 1_000)


async def test_an_estimate_above_what_the_limit_ever_holds_takes_all_of_it() -> None:
    watched = Watched(GuardSpec(model_tokens_per_minute=1_000, model_wait_s=0, attempts=1))

    async def call(_attempt: Attempt) -> str:
        return "hello"

    assert await watched.guard().model(ModelKey("sim", "small"), Estimate(50_000), call) == "hello"
    with pytest.raises(RateLimited):
        await watched.guard().model(ModelKey("sim", "small"), Estimate(1), call)


async def test_observing_refuses_nothing_and_tells_what_it_would_have_refused() -> None:
    watched = Watched(
        GuardSpec(mode="observe", tool_concurrent=1, tool_queue=0, user_tools_per_s=1, breaker_failures=1)
    )
    with pytest.raises(ConnectionError):
        await search(watched.guard(), fails)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_awaited(search(watched.guard()))) for _ in range(3)]
    assert {task.result() for task in tasks} == {"done"}
    told = {notice.name for notice in watched.notices if notice.facts.get("observed")}
    assert told == {"breaker.refused", "rate.refused", "bulkhead.refused"}
    assert watched.bulkhead == (0, 0)


async def test_turns_are_admitted_by_user_and_altogether() -> None:
    watched = Watched(GuardSpec(user_per_s=1, user_burst=2, all_per_s=1, all_burst=3))
    for user in ("ada", "ada"):
        async with watched.policies.admit(user, Priority.INTERACTIVE):
            pass
    with pytest.raises(RateLimited, match="turns by user") as by_user:
        async with watched.policies.admit("ada", Priority.INTERACTIVE):
            raise AssertionError
    async with watched.policies.admit("grace", Priority.INTERACTIVE):
        pass
    with pytest.raises(RateLimited, match="turns by all") as by_all:
        async with watched.policies.admit("mary", Priority.INTERACTIVE):
            raise AssertionError
    assert by_user.value.retry_after_s == by_all.value.retry_after_s == 1
    await asyncio.sleep(1)
    async with watched.policies.admit("mary", Priority.INTERACTIVE):
        pass


async def test_a_turn_that_is_shed_spends_nothing() -> None:
    watched = Watched(GuardSpec(turns=1, user_per_s=1, user_burst=10))
    inside, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with watched.policies.admit("ada", Priority.INTERACTIVE):
            inside.set()
            await leave.wait()

    refused = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(hold())
        await inside.wait()
        waiting = [group.create_task(_admitted(watched.policies)) for _ in range(6)]
        await settled()
        leave.set()
    refused = sum(task.result() == "shed" for task in waiting)
    assert refused > 0
    rate = watched.policies.ingress.rate
    assert rate is not None
    [by_user] = [view for view in rate.views(watched.policies.clock.now()) if view.key_class == "user"]
    assert by_user.exhausted == 0
    assert [notice.name for notice in watched.notices].count("shed") == refused


async def _admitted(policies: Policies) -> str:
    try:
        async with policies.admit("ada", Priority.BATCH):
            return "in"
    except Shed as shed:
        return shed.guard


async def _awaited(call: Awaitable[str]) -> str:
    return await call
