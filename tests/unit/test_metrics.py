"""The series of requests, turns and calls: what is counted, when, and that it can be relied on."""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Any, Self, get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from holdfast.errors import ModelUnavailable, NotOwner, StoreUnavailable
from holdfast.events import (
    OUTCOMES,
    CallStatus,
    ModelFinished,
    ToolFinished,
    TurnEnded,
    TurnIds,
    TurnStarted,
    Usage,
)
from holdfast.guard import GuardSpec, Policies
from holdfast.telemetry import OTHER, Metrics
from holdfast.telemetry.catalogue_turns import AUTH_REASONS, BECAUSE
from holdfast.telemetry.labels import AGENT
from holdfast.testing import loop_clock
from holdfast.turn import Reply, Turn, unserved_turn

if TYPE_CHECKING:
    from tests.unit.house import House, outcome_of
else:
    from house import House, outcome_of  # pytest puts a test's folder on the path


def ids(agent: str = "assistant") -> TurnIds:
    return TurnIds("talk", "c-1", "t" * 32, agent)


def ended(outcome: Any = "success", agent: str = "assistant", **facts: Any) -> TurnEnded:
    known: dict[str, Any] = {"usage": Usage(), "duration_s": 1.0, "reply": ""} | facts
    return TurnEnded(**ids(agent)._asdict(), outcome=outcome, **known)


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("1.2.3", ["assistant"])
    made.begin_routes([("POST", "/chat", ("200", "422"))])
    made.policies.watch(lambda: [("tool:calculate", "closed")], lambda: [("tool:assistant", 0, 1, 0, 1)])
    return made


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_page_is_lean_and_says_what_it_is(metrics: Metrics) -> None:
    page, content_type = metrics.page()
    assert b"_created" not in page
    assert content_type.startswith("text/plain; version=0.0.4")


def test_a_counter_is_there_before_its_first_error(metrics: Metrics) -> None:
    for outcome in OUTCOMES:
        assert value(metrics, "agent_turns_total", agent="assistant", outcome=outcome) == 0
    assert value(metrics, "agent_http_requests_total", method="POST", route="/chat", code="200") == 0
    assert value(metrics, "agent_http_requests_total", method="POST", route="/chat", code="422") == 0
    assert value(metrics, "agent_telemetry_dropped_total", signal="events", reason="observer_error") == 0


def test_a_turn_is_counted_once_with_what_it_used(metrics: Metrics) -> None:
    metrics.observe(ids(), TurnStarted(**ids()._asdict()))
    assert value(metrics, "agent_turns_in_progress", agent="assistant") == 1
    metrics.observe(ids(), ModelFinished(call=1, provider="p", model="m", status="ok", duration_s=2, first_token_s=0.5))
    metrics.observe(ids(), ModelFinished(call=2, provider="p", model="m", status="ok", duration_s=2, first_token_s=9.0))
    metrics.observe(ids(), ended("timeout", duration_s=3.0, usage=Usage(model_calls=2, tool_calls=1)))
    for name, wanted in {
        "agent_turn_duration_seconds": 3,
        "agent_turn_first_token_seconds": 0.5,
        "agent_turn_llm_calls": 2,
        "agent_turn_tool_calls": 1,
    }.items():
        assert value(metrics, f"{name}_count", agent="assistant") == 1
        assert value(metrics, f"{name}_sum", agent="assistant") == wanted
    counted = {o: value(metrics, "agent_turns_total", agent="assistant", outcome=o) for o in OUTCOMES}
    assert {outcome for outcome, count in counted.items() if count} == {"timeout"}
    assert value(metrics, "agent_turns_in_progress", agent="assistant") == 0


def test_a_call_that_was_not_streamed_has_no_first_token(metrics: Metrics) -> None:
    metrics.observe(ids(), ModelFinished(call=1, provider="p", model="m", status="ok", duration_s=2))
    assert value(metrics, "agent_turn_first_token_seconds_count", agent="assistant") == 0
    assert value(metrics, "agent_llm_first_token_seconds_count", provider="p", model="m") is None


STATUSES: tuple[CallStatus, ...] = get_args(CallStatus)
MODEL: Any = {"provider": "p", "model": "m"}


def test_a_model_call_is_counted_by_how_it_ended_and_timed_if_it_was_sent(metrics: Metrics) -> None:
    for call, status in enumerate(STATUSES, 1):
        tokens: Any = {"input_tokens": 100, "output_tokens": 7} if status == "ok" else {}
        metrics.observe(ids(), ModelFinished(call=call, **MODEL, status=status, duration_s=2, **tokens))
    for status in STATUSES:
        assert value(metrics, "agent_llm_calls_total", **MODEL, status=status) == 1
    timed = set(STATUSES) - {"denied", "rejected"}
    assert value(metrics, "agent_llm_duration_seconds_count", **MODEL) == len(timed)
    assert value(metrics, "agent_llm_duration_seconds_sum", **MODEL) == 2 * len(timed)
    assert value(metrics, "agent_llm_tokens_total", **MODEL, type="input") == 100
    assert value(metrics, "agent_llm_tokens_total", **MODEL, type="output") == 7


def test_cached_and_reasoning_tokens_are_counted_beside_all_tokens_not_among_them(metrics: Metrics) -> None:
    told = ModelFinished(
        call=1,
        **MODEL,
        status="ok",
        duration_s=2,
        input_tokens=100,
        output_tokens=7,
        cache_read_tokens=60,
        cache_write_tokens=20,
        reasoning_tokens=4,
        cost_nanos=1_500_000_000,
    )
    for _ in range(2):
        metrics.observe(ids(), told)
    assert value(metrics, "agent_llm_tokens_total", **MODEL, type="input") == 200
    assert value(metrics, "agent_llm_tokens_total", **MODEL, type="output") == 14
    assert value(metrics, "agent_llm_cached_tokens_total", **MODEL, type="read") == 120
    assert value(metrics, "agent_llm_cached_tokens_total", **MODEL, type="write") == 40
    assert value(metrics, "agent_llm_reasoning_tokens_total", **MODEL) == 8
    assert value(metrics, "agent_llm_cost_usd_total", **MODEL) == 3


def test_each_call_has_a_first_token_and_a_turn_has_one(metrics: Metrics) -> None:
    for call, first in ((1, 0.5), (2, 9.0)):
        metrics.observe(ids(), ModelFinished(call=call, **MODEL, status="ok", duration_s=10, first_token_s=first))
    assert value(metrics, "agent_llm_first_token_seconds_sum", **MODEL) == 9.5
    assert value(metrics, "agent_turn_first_token_seconds_sum", agent="assistant") == 0.5


def test_a_step_is_a_model_call_that_was_answered(metrics: Metrics) -> None:
    for call, status in enumerate(STATUSES, 1):
        metrics.observe(ids(), ModelFinished(call=call, **MODEL, status=status, duration_s=2))
    assert value(metrics, "agent_steps_total", agent="assistant") == 1


def test_a_tool_call_is_counted_by_how_it_ended_and_timed_if_it_ran(metrics: Metrics) -> None:
    for status in STATUSES:
        metrics.observe(ids(), ToolFinished(call_id="c", tool="calculate", status=status, duration_s=0.5))
    for status in STATUSES:
        assert value(metrics, "agent_tool_calls_total", agent="assistant", tool="calculate", status=status) == 1
    assert value(metrics, "agent_tool_duration_seconds_sum", tool="calculate") == 0.5 * (len(STATUSES) - 2)


def test_what_is_served_and_configured_has_its_series_before_its_first_error(metrics: Metrics) -> None:
    metrics.begin_model("p", "m")
    metrics.begin_agent("assistant", ["calculate"])
    for status in STATUSES:
        assert value(metrics, "agent_llm_calls_total", **MODEL, status=status) == 0
        assert value(metrics, "agent_tool_calls_total", agent="assistant", tool="calculate", status=status) == 0
    assert value(metrics, "agent_llm_tokens_total", **MODEL, type="output") == 0
    assert value(metrics, "agent_llm_cached_tokens_total", **MODEL, type="read") == 0
    assert value(metrics, "agent_llm_cached_tokens_total", **MODEL, type="write") == 0
    assert value(metrics, "agent_llm_reasoning_tokens_total", **MODEL) == 0
    assert value(metrics, "agent_llm_cost_usd_total", **MODEL) == 0
    for name in ("agent_llm_duration_seconds", "agent_llm_first_token_seconds"):
        assert value(metrics, f"{name}_count", **MODEL) == 0
    assert value(metrics, "agent_tool_duration_seconds_count", tool="calculate") == 0
    assert value(metrics, "agent_steps_total", agent="assistant") == 0


# Exemplars


def test_durations_carry_the_id_of_a_trace_that_is_kept() -> None:
    kept: list[str | None] = [None]
    metrics = Metrics("0", ["assistant"], kept_trace_id=lambda: kept[0])

    def turn() -> None:
        metrics.observe(ids(), ModelFinished(call=1, **MODEL, status="ok", duration_s=2, first_token_s=0.5))
        metrics.observe(ids(), ToolFinished(call_id="c", tool="calculate", status="ok", duration_s=0.5))
        metrics.observe(ids(), ended())
        metrics.answered("POST", "/chat", 200, 1.0)

    turn()
    assert exemplars(metrics) == {}
    kept[0] = "ab" * 16
    turn()
    told = exemplars(metrics)
    assert set(told.values()) == {"ab" * 16}
    assert set(told) == {
        "agent_http_request_duration_seconds_bucket",
        "agent_turn_duration_seconds_bucket",
        "agent_turn_first_token_seconds_bucket",
        "agent_llm_duration_seconds_bucket",
        "agent_llm_first_token_seconds_bucket",
        "agent_tool_duration_seconds_bucket",
    }
    assert b"ab" * 16 not in metrics.page()[0], "the plain format has no place for them"


def exemplars(metrics: Metrics) -> dict[str, str]:
    page, content_type = metrics.page("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    return {
        sample.name: sample.exemplar.labels["trace_id"]
        for family in openmetrics_families(page.decode())  # type: ignore[no-untyped-call]  # it has no annotations
        for sample in family.samples
        if sample.exemplar
    }


# The process


def test_a_component_is_in_one_state_at_a_time(metrics: Metrics) -> None:
    metrics.checked([("store", "healthy", 4.0), ("coord", "degraded", None)])
    metrics.checked([("store", "unhealthy", 1.5), ("coord", "degraded", None)])
    assert value(metrics, "agent_health_check_age_seconds", check="store") == 1.5
    for check, found in {"store": "unhealthy", "coord": "degraded"}.items():
        for state in ("healthy", "degraded", "unhealthy"):
            assert value(metrics, "agent_health_check_state", check=check, state=state) == (state == found)


def test_it_says_what_runs_and_what_is_aimed_at() -> None:
    metrics = Metrics("1.2.3", [], config_hash="c0ffee", objectives={"availability": 0.999})
    build = {"version": "1.2.3", "python": platform.python_version(), "config_hash": "c0ffee"}
    assert value(metrics, "agent_build_info", **build) == 1
    assert value(metrics, "agent_slo_objective_ratio", slo="availability") == 0.999


def test_sessions_are_counted_when_the_page_is_asked_for(metrics: Metrics) -> None:
    talking = [1, 2, 3]
    metrics.watch_sessions(lambda: len(talking))
    assert value(metrics, "agent_sessions_active") == 3
    talking.clear()
    assert value(metrics, "agent_sessions_active") == 0


def test_a_request_that_was_not_let_in_is_counted_by_why(metrics: Metrics) -> None:
    for reason in AUTH_REASONS:
        assert value(metrics, "agent_auth_failures_total", reason=reason) == 0
        metrics.auth_failed(reason)
        assert value(metrics, "agent_auth_failures_total", reason=reason) == 1


def test_requests_are_counted_under_their_route_and_known_method(metrics: Metrics) -> None:
    metrics.answered("POST", "/chat", 200, 0.02)
    metrics.answered("BREW", OTHER, 405, 0.02)
    assert value(metrics, "agent_http_requests_total", method="POST", route="/chat", code="200") == 1
    assert value(metrics, "agent_http_requests_total", method=OTHER, route=OTHER, code="405") == 1
    assert value(metrics, "agent_http_request_duration_seconds_sum", method="POST", route="/chat") == 0.02


def test_agents_that_programs_make_at_will_do_not_become_labels_without_end(metrics: Metrics) -> None:
    """And none changes its label between its start and its end."""
    names = [f"agent-{n}" for n in range(AGENT.bound * 3)]
    for name in names:
        metrics.observe(ids(name), TurnStarted(**ids(name)._asdict()))
    for name in names:
        metrics.observe(ids(name), ended(agent=name))
    assert labels_of(metrics, "agent_turns_in_progress") == {"assistant", *names[: AGENT.bound - 1], OTHER}
    for agent in labels_of(metrics, "agent_turns_in_progress"):
        assert value(metrics, "agent_turns_in_progress", agent=agent) == 0
    assert value(metrics, "agent_turns_total", agent=OTHER, outcome="success") == 2 * AGENT.bound + 1


def labels_of(metrics: Metrics, name: str) -> set[str]:
    return {
        sample.labels["agent"]
        for family in metrics.registry.collect()
        if family.name == name
        for sample in family.samples
    }


def test_agents_that_are_served_have_their_names_before_any_that_a_program_makes() -> None:
    served = [f"agent-{n}" for n in range(AGENT.bound)]
    metrics = Metrics("0", served)
    metrics.observe(ids("made up"), TurnStarted(**ids("made up")._asdict()))
    metrics.observe(ids(served[-1]), ended(agent=served[-1]))
    assert value(metrics, "agent_turns_total", agent=served[-1], outcome="success") == 1
    assert value(metrics, "agent_turns_in_progress", agent=OTHER) == 1
    assert labels_of(metrics, "agent_turns_in_progress") == {*served, OTHER}


class Ending:
    """An agent that ends its turn in the way it is called."""

    name = "assistant"

    def __init__(self, way: str) -> None:
        self._way = way

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def answer(self, current: Turn) -> Reply:
        match self._way:
            case "raises":
                raise ValueError(current.message)
            case "raises one of ours":
                raise ModelUnavailable
            case "exits":
                raise SystemExit(1)
            case "panics":
                raise BaseExceptionGroup("both", [GeneratorExit()])
            case "is stopped" | "is stopped twice" | "takes too long" | "is handed over":
                await asyncio.sleep(1_000)
            case "answers no text":
                return Reply("\ud83d", "plain", b"", 1)
        return Reply("hello", "plain", b"", 1)


WAYS = {
    "answers": "success",
    "raises": "error",
    "raises one of ours": "error",
    "exits": "error",
    "panics": "error",
    "answers no text": "error",
    "takes too long": "timeout",
    "is stopped": "cancelled",
    "is stopped twice": "cancelled",
    "is stopped late": "success",
}
GIVEN_UP = {
    "is not stored": "store_unavailable",
    "hangs the store": "store_unavailable",
    "is taken over": "not_owner",
    "is handed over": "handed_over",
}


@pytest.mark.parametrize(("way", "outcome"), (WAYS | GIVEN_UP).items())
async def test_however_a_turn_ends_it_is_no_longer_in_progress(metrics: Metrics, way: str, outcome: str) -> None:
    house = House(turn_s=5, watch=[metrics.observe])
    house.store.lasts = True
    async with asyncio.TaskGroup() as group:
        begun = house.begin(group, Ending(way))
        turn_id = (await begun.accepted).turn_id
        assert value(metrics, "agent_turns_in_progress", agent="assistant") == 1
        match way:
            case "is stopped late":
                house.faults.end_s = 2
                await asyncio.sleep(1)
            case "is not stored":
                house.faults.at_end = StoreUnavailable("down")
            case "hangs the store":
                house.faults.end_s = 1_000
            case "is taken over":
                house.faults.at_end = NotOwner()
        for _ in range(way.startswith("is stopped") + way.endswith("twice")):
            await house.turns.cancel(turn_id)
            await asyncio.sleep(0)
        if way == "is handed over":
            for task in house.drain._running:
                task.cancel()
        await outcome_of(begun)
    assert value(metrics, "agent_turns_in_progress", agent="assistant") == 0
    counted = {o: value(metrics, "agent_turns_total", agent="assistant", outcome=o) for o in OUTCOMES}
    given_up = {b: value(metrics, "agent_turns_suspended_total", agent="assistant", because=b) for b in BECAUSE}
    assert {o: count for o, count in (counted | given_up).items() if count} == {outcome: 1}


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_however_an_unserved_turn_ends_it_is_no_longer_in_progress(
    metrics: Metrics, error: BaseException
) -> None:
    in_progress: list[float | None] = []

    async def run() -> None:
        async with unserved_turn(ids(), Policies(GuardSpec(), loop_clock()), [metrics.observe]):
            in_progress.append(value(metrics, "agent_turns_in_progress", agent="assistant"))
            raise error

    with pytest.raises(type(error)):
        await run()
    in_progress.append(value(metrics, "agent_turns_in_progress", agent="assistant"))
    assert in_progress == [1, 0]
