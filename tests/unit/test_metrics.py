"""The request and turn series: names, labels, and that they can be relied on."""

import asyncio
from contextlib import suppress
from typing import Any, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.errors import HoldfastError, ModelUnavailable, StoreUnavailable
from holdfast.events import OUTCOMES, ModelFinished, TurnEnded, TurnIds, TurnStarted, Usage
from holdfast.guard import GuardSpec, Policies
from holdfast.resilience import Turnstile
from holdfast.store import MemoryStore, TurnRecord
from holdfast.telemetry import OTHER, Metrics
from holdfast.telemetry.metrics import CALLS, MAX_AGENTS, SECONDS
from holdfast.testing import loop_clock
from holdfast.turn import Ask, Parts, Reply, Turn, turn, unserved_turn

CATALOGUE = {
    "agent_http_requests": ("counter", {"method", "route", "code"}),
    "agent_http_request_duration_seconds": ("histogram", {"method", "route"}),
    "agent_turns": ("counter", {"agent", "outcome"}),
    "agent_turn_duration_seconds": ("histogram", {"agent"}),
    "agent_turn_first_token_seconds": ("histogram", {"agent"}),
    "agent_turns_in_progress": ("gauge", {"agent"}),
    "agent_turn_llm_calls": ("histogram", {"agent"}),
    "agent_turn_tool_calls": ("histogram", {"agent"}),
    "agent_telemetry_dropped": ("counter", {"signal", "reason"}),
    "agent_ready": ("gauge", set()),
    "agent_circuit_breaker_state": ("gauge", {"resource", "state"}),
    "agent_circuit_breaker_transitions": ("counter", {"resource", "to"}),
    "agent_circuit_breaker_rejections": ("counter", {"resource"}),
    "agent_rate_limit_rejections": ("counter", {"limiter"}),
    "agent_bulkhead_queue_size": ("gauge", {"bulkhead"}),
    "agent_bulkhead_queue_limit": ("gauge", {"bulkhead"}),
    "agent_bulkhead_in_use": ("gauge", {"bulkhead"}),
    "agent_bulkhead_limit": ("gauge", {"bulkhead"}),
    "agent_bulkhead_rejections": ("counter", {"bulkhead", "reason"}),
    "agent_bulkhead_wait_seconds": ("histogram", {"bulkhead"}),
    "agent_retries": ("counter", {"operation", "outcome"}),
    "agent_timeouts": ("counter", {"operation"}),
    "agent_fallbacks": ("counter", {"operation"}),
}


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


def test_names_types_and_labels_are_those_of_the_catalogue(metrics: Metrics) -> None:
    page = metrics.page()[0].decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    for name, (kind, labels) in CATALOGUE.items():
        family = families[name]
        assert (family.type, family.name) == (kind, name)
        assert family.documentation.endswith(".")
        assert family.samples, f"{name} has no series before anything happened"
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels
    build = families["agent_build_info"].samples[0]
    assert (build.value, build.labels["version"]) == (1, "1.2.3")
    ours = {name for name in families if name.startswith("agent_")}
    assert ours == set(CATALOGUE) | {"agent_build_info"}
    assert "process_cpu_seconds" in families
    assert "python_gc_collections" in families


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


def test_the_objectives_are_bucket_edges_and_edges_grow() -> None:
    assert {2, 30} <= set(SECONDS)
    for edges in (SECONDS, CALLS):
        assert list(edges) == sorted(set(edges))


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


def test_requests_are_counted_under_their_route_and_known_method(metrics: Metrics) -> None:
    metrics.answered("POST", "/chat", 200, 0.02)
    metrics.answered("BREW", OTHER, 405, 0.02)
    assert value(metrics, "agent_http_requests_total", method="POST", route="/chat", code="200") == 1
    assert value(metrics, "agent_http_requests_total", method=OTHER, route=OTHER, code="405") == 1
    assert value(metrics, "agent_http_request_duration_seconds_sum", method="POST", route="/chat") == 0.02


def test_agents_that_programs_make_at_will_do_not_become_labels_without_end(metrics: Metrics) -> None:
    """And none changes its label between its start and its end."""
    names = [f"agent-{n}" for n in range(MAX_AGENTS * 3)]
    for name in names:
        metrics.observe(ids(name), TurnStarted(**ids(name)._asdict()))
    for name in names:
        metrics.observe(ids(name), ended(agent=name))
    assert labels_of(metrics, "agent_turns_in_progress") == {"assistant", *names[: MAX_AGENTS - 1], OTHER}
    for agent in labels_of(metrics, "agent_turns_in_progress"):
        assert value(metrics, "agent_turns_in_progress", agent=agent) == 0
    assert value(metrics, "agent_turns_total", agent=OTHER, outcome="success") == 2 * MAX_AGENTS + 1


def labels_of(metrics: Metrics, name: str) -> set[str]:
    return {
        sample.labels["agent"]
        for family in metrics.registry.collect()
        if family.name == name
        for sample in family.samples
    }


def test_an_agent_that_is_served_keeps_its_name_however_many_there_are() -> None:
    served = [f"agent-{n}" for n in range(MAX_AGENTS * 2)]
    metrics = Metrics("0", served)
    metrics.observe(ids(served[-1]), ended(agent=served[-1]))
    assert value(metrics, "agent_turns_total", agent=served[-1], outcome="success") == 1
    assert OTHER not in labels_of(metrics, "agent_turns_in_progress")


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
            case "is cancelled" | "is cancelled twice" | "takes too long":
                await asyncio.sleep(1_000)
            case "answers no text":
                return Reply("\ud83d", "plain", b"", 1)
        return Reply("hello", "plain", b"", 1)


class Broken(MemoryStore):
    """Fails, or hangs, at a record."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self._way = way

    async def record(self, turn: TurnRecord) -> None:
        match self._way:
            case "is not stored":
                raise StoreUnavailable("down")
            case "breaks the store":
                raise OSError("disk")
            case "hangs the store":
                await asyncio.sleep(1_000)
            case "is cancelled late" | "is cancelled twice":
                await asyncio.sleep(2)
        await super().record(turn)


WAYS = {
    "answers": "success",
    "raises": "error",
    "raises one of ours": "error",
    "exits": "error",
    "panics": "error",
    "answers no text": "error",
    "takes too long": "timeout",
    "is cancelled": "cancelled",
    "is cancelled twice": "cancelled",
    "is cancelled late": "success",
    "is not stored": "error",
    "breaks the store": "error",
    "hangs the store": "error",
}


@pytest.mark.parametrize(("way", "outcome"), WAYS.items())
async def test_however_a_turn_ends_it_is_no_longer_in_progress(metrics: Metrics, way: str, outcome: str) -> None:
    parts = Parts(Policies(GuardSpec(turn_s=5), loop_clock()), Broken(way), Turnstile(), 1, 1_000)
    ask = Ask(message="hello", principal="anna", session_id="talk", trace_id="t" * 32, request_id="r")

    async def run() -> None:
        with suppress(HoldfastError):
            await turn(ask, Ending(way), parts, [metrics.observe])

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await asyncio.sleep(1)
        if way.startswith("is cancelled"):
            task.cancel()
        if way == "is cancelled twice":
            await asyncio.sleep(1)
            task.cancel()
    assert value(metrics, "agent_turns_in_progress", agent="assistant") == 0
    counted = {o: value(metrics, "agent_turns_total", agent="assistant", outcome=o) for o in OUTCOMES}
    assert {o: count for o, count in counted.items() if count} == {outcome: 1}


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
