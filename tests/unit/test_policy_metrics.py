"""The series of the policies: what is counted, what is read, and what never becomes a label."""

from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from holdfast.errors import Refused
from holdfast.events import CallStatus, FallbackUsed, ModelFinished, TextDelta, ToolFinished, TurnIds
from holdfast.guard import GuardSpec, Policies
from holdfast.guard.spec import ToolLimits
from holdfast.resilience import Call, FailureClass, Notice, Priority, State
from holdfast.telemetry import OTHER, Metrics
from holdfast.telemetry.catalogue_policies import BULKHEAD as BULKHEAD_LABEL
from holdfast.telemetry.catalogue_policies import RESOURCE, STATES
from holdfast.telemetry.policies import CREDENTIAL
from holdfast.testing import loop_clock

STATE = "agent_circuit_breaker_state"
TRANSITIONS = "agent_circuit_breaker_transitions_total"
BREAKER = "agent_circuit_breaker_rejections_total"
RATE = "agent_rate_limit_rejections_total"
BULKHEAD = "agent_bulkhead_rejections_total"
RETRIES = "agent_retries_total"
TIMEOUTS = "agent_timeouts_total"
FALLBACKS = "agent_fallbacks_total"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("0", ["assistant"])


def series(metrics: Metrics, name: str) -> dict[Any, float]:
    """Every series of this name, by its labels' values, after a scrape."""
    metrics.page()
    found = {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }
    return {labels[0] if len(labels) == 1 else labels: value for labels, value in found.items()}


def counted(metrics: Metrics, name: str) -> dict[Any, float]:
    """Those that are not 0."""
    return {labels: value for labels, value in series(metrics, name).items() if value}


def tell(metrics: Metrics, name: str, pipeline: str = "tool", key_class: str = "tool", **facts: object) -> None:
    metrics.policies.told(name, pipeline, key_class, facts)


def moved(metrics: Metrics, circuit: str, was: str, state: str) -> None:
    tell(metrics, "breaker.moved", circuit=circuit, was=was, state=state, reason="reset", retry_after_s=None)


def watch(
    metrics: Metrics, circuits: Iterable[tuple[str, str]] = (), *bulkheads: tuple[str, int, int, int, int]
) -> None:
    metrics.policies.watch(lambda: circuits, lambda: bulkheads)


def state_of(metrics: Metrics, resource: str) -> str:
    """The one state whose series is 1."""
    of_it = {state: value for (label, state), value in series(metrics, STATE).items() if label == resource}
    assert set(of_it) == set(STATES)
    (found,) = [state for state, value in of_it.items() if value == 1]
    assert sum(of_it.values()) == 1
    return str(found)


# Circuits


@pytest.mark.parametrize("state", State)
def test_every_state_is_one_of_three(metrics: Metrics, state: State) -> None:
    watch(metrics, [("tool:calculate", state.value)])
    assert state_of(metrics, "tool:calculate") == {"forced_open": "open", "disabled": "closed"}.get(
        state.value, state.value
    )


def test_a_circuit_is_read_anew_for_each_page(metrics: Metrics) -> None:
    circuits = [("tool:calculate", "open")]
    watch(metrics, circuits)
    assert state_of(metrics, "tool:calculate") == "open"
    circuits[:] = [("tool:calculate", "half_open")]
    assert state_of(metrics, "tool:calculate") == "half_open"
    circuits.clear()  # only one that is closed and remembers nothing is forgotten
    assert state_of(metrics, "tool:calculate") == "closed"


def test_of_circuits_that_share_a_label_the_worst_is_shown(metrics: Metrics) -> None:
    for states in (("open", "closed", "half_open"), ("half_open", "closed", "open")):
        watch(metrics, [(f"model:lab:large@{n}", state) for n, state in enumerate(states)])
        assert state_of(metrics, "model:lab:large") == "open"
    watch(metrics, [("model:lab:large@1", "half_open"), ("model:lab:large@2", "closed")])
    assert state_of(metrics, "model:lab:large") == "half_open"


@pytest.mark.parametrize(
    ("circuit", "resource"),
    [
        ("model:anthropic:claude@1a2b", "model:anthropic:claude"),
        ("model:anthropic:claude", "model:anthropic:claude"),
        ("model:lab:large@2026-05@1a2b", "model:lab:large@2026-05"),
        ("model:credential:anthropic@1a2b", "model:credential"),
        ("model:credential:anthropic@", "model:credential"),
        ("tool:mail@home", "tool:mail@home"),
        ("tool:(overflow)", "tool:(overflow)"),
        ("tool", "tool"),
    ],
)
def test_a_credential_is_no_label(metrics: Metrics, circuit: str, resource: str) -> None:
    watch(metrics, [(circuit, "open")], (circuit, 1, 1, 1, 1))
    moved(metrics, circuit, "closed", "open")
    tell(metrics, "breaker.refused", circuit=circuit, reason="open", observed=False)
    tell(metrics, "bulkhead.refused", bulkhead=circuit, reason="full", observed=False)
    tell(metrics, "bulkhead.queued", bulkhead=circuit, waited_s=1.0)
    assert state_of(metrics, resource) == "open"
    assert counted(metrics, TRANSITIONS) == {(resource, "open"): 1}
    assert counted(metrics, BREAKER) == {resource: 1}
    assert counted(metrics, BULKHEAD) == {(resource, "full"): 1}
    assert counted(metrics, "agent_bulkhead_wait_seconds_count") == {resource: 1}
    assert "1a2b" not in metrics.page()[0].decode()


def test_a_move_counts_where_it_changes_what_is_shown(metrics: Metrics) -> None:
    path = ["closed", "open", "half_open", "open", "forced_open", "half_open", "closed", "disabled", "closed"]
    for was, state in pairwise(path):
        moved(metrics, "tool:calculate", was, state)
    assert counted(metrics, TRANSITIONS) == {
        ("tool:calculate", "open"): 2,
        ("tool:calculate", "half_open"): 2,
        ("tool:calculate", "closed"): 1,
    }


def test_a_circuit_has_its_series_before_it_first_opens(metrics: Metrics) -> None:
    watch(metrics, [("tool:calculate", "closed")], ("tool:assistant", 0, 1, 0, 1))
    for resource in (CREDENTIAL, "tool:calculate"):
        assert {state: series(metrics, TRANSITIONS)[resource, state] for state in STATES} == dict.fromkeys(STATES, 0)
        assert series(metrics, BREAKER)[resource] == 0
    assert series(metrics, BULKHEAD) == {("tool:assistant", "full"): 0, ("tool:assistant", "timeout"): 0}


def test_resources_are_bounded_and_none_changes_its_label(metrics: Metrics) -> None:
    circuits = [(f"tool:{n}", "closed") for n in range(3 * RESOURCE.bound)]
    watch(metrics, circuits)
    labels = set(series(metrics, BREAKER))
    assert labels == {CREDENTIAL, OTHER, *(name for name, _ in circuits[: RESOURCE.bound - 1])}
    assert state_of(metrics, OTHER) == "closed"
    for name, _ in reversed(circuits):
        tell(metrics, "breaker.refused", circuit=name, reason="open", observed=False)
    assert counted(metrics, BREAKER) == {**dict.fromkeys(labels - {CREDENTIAL}, 1), OTHER: 2 * RESOURCE.bound + 1}
    circuits[-1] = (circuits[-1][0], "open")
    assert state_of(metrics, OTHER) == "open"
    circuits.pop()
    assert state_of(metrics, OTHER) == "closed"


# Limits and bulkheads


def test_rate_limits_are_told_by_whose_they_are(metrics: Metrics) -> None:
    assert series(metrics, RATE) == {"global": 0, "user": 0, "tool": 0, OTHER: 0}
    for key_class in ("all", "user", "tool", "credential", "target"):
        tell(metrics, "rate.refused", key_class=key_class, limit="calls", reason="wait", observed=False)
    assert series(metrics, RATE) == {"global": 1, "user": 1, "tool": 1, OTHER: 2}


def test_bulkheads_are_read_anew_and_those_that_share_a_label_add_up(metrics: Metrics) -> None:
    watch(metrics, (), ("model:lab:large@1", 1, 10, 3, 4), ("model:lab:large@2", 2, 20, 5, 8), ("tool:a", 0, 7, 1, 9))
    wanted = {"queue_size": (3, 0), "queue_limit": (30, 7), "in_use": (8, 1), "limit": (12, 9)}
    for _ in range(2):
        for name, (models, tools) in wanted.items():
            assert series(metrics, f"agent_bulkhead_{name}") == {"model:lab:large": models, "tool:a": tools}
    watch(metrics)
    for name in wanted:
        assert series(metrics, f"agent_bulkhead_{name}") == {}


def test_bulkheads_are_bounded(metrics: Metrics) -> None:
    many = 2 * BULKHEAD_LABEL.bound
    watch(metrics, (), *((f"tool:{n}", 0, 0, 1, 1) for n in range(many)))
    in_use = series(metrics, "agent_bulkhead_in_use")
    assert len(in_use) == BULKHEAD_LABEL.bound + 1
    assert in_use[OTHER] == many - BULKHEAD_LABEL.bound


def test_a_wait_for_a_place_is_told_in_seconds(metrics: Metrics) -> None:
    for waited_s in (0.5, 2.5):
        tell(metrics, "bulkhead.queued", bulkhead="tool:a", waited_s=waited_s)
    assert series(metrics, "agent_bulkhead_wait_seconds_sum") == {"tool:a": 3}
    assert series(metrics, "agent_bulkhead_wait_seconds_bucket")["tool:a", "0.5"] == 1


def test_what_would_only_have_been_refused_is_not_counted(metrics: Metrics) -> None:
    for name in ("breaker.refused", "rate.refused", "bulkhead.refused"):
        tell(metrics, name, circuit="tool:a", bulkhead="tool:a", limit="calls", reason="full", observed=True)
    assert [counted(metrics, name) for name in (BREAKER, RATE, BULKHEAD)] == [{}, {}, {}]


# Retries, timeouts, fallbacks


def test_a_failure_that_a_retry_may_help_is_counted_by_what_was_decided(metrics: Metrics) -> None:
    assert series(metrics, RETRIES) == {("model", word): 0 for word in ("scheduled", "gave_up", "budget_empty")}
    for _ in range(3):
        tell(metrics, "retry.scheduled", "model", "target", failure="server", wait_s=0.1)
    for reason in ("attempts", "no_time", "not_retryable"):
        tell(metrics, "retry.gave_up", "model", "target", failure="server", reason=reason)
    tell(metrics, "budget.empty", "model", "target", failure="server")
    tell(metrics, "retry.gave_up", "model", "target", failure="server", reason="budget")
    assert series(metrics, RETRIES) == {
        ("model", "scheduled"): 3,
        ("model", "gave_up"): 2,
        ("model", "budget_empty"): 1,
    }


STATUSES: tuple[CallStatus, ...] = ("ok", "error", "timeout", "denied", "cancelled", "rejected")


def test_timeouts_and_fallbacks_are_counted_from_what_a_turn_tells(metrics: Metrics) -> None:
    ids = TurnIds("s", "s-1", "t" * 32, "assistant")
    assert series(metrics, TIMEOUTS) == {"model": 0, "tool": 0}
    assert series(metrics, FALLBACKS) == {"model": 0}
    for status in STATUSES:
        metrics.observe(
            ids,
            ModelFinished(call=1, provider="p", model="m", status=status, duration_s=1, first_token_s=0.5),
        )
        for _ in range(2):
            metrics.observe(ids, ToolFinished(call_id="c", tool="t", status=status, duration_s=1))
    metrics.observe(ids, TextDelta(text="hello"))
    metrics.observe(ids, FallbackUsed(via="p:small", because="overloaded"))
    assert series(metrics, TIMEOUTS) == {"model": 1, "tool": 2}
    assert series(metrics, FALLBACKS) == {"model": 1}


def test_notices_that_are_no_metric_change_nothing(metrics: Metrics) -> None:
    before = metrics.page()[0]
    for name in ("shed", "rate.waited", "rate.gated", "adaptive.moved", "share.moved", "hedge.won", "of tomorrow"):
        tell(metrics, name, reason="full", observed=False)
    ours = [line for line in before.splitlines() if line.startswith(b"agent_")]
    assert [line for line in metrics.page()[0].splitlines() if line.startswith(b"agent_")] == ours


# What the policies themselves tell


class Broken(Exception):
    """What the target of a test does."""

    def __init__(self, failure_class: FailureClass) -> None:
        self.failure_class = failure_class


async def test_the_policies_of_a_process_tell_what_is_counted_here(metrics: Metrics) -> None:
    def sink(notice: Notice) -> None:
        metrics.policies.told(notice.name, notice.pipeline, notice.key_class, notice.facts)

    spec = GuardSpec(
        attempts=2, breaker_failures=2, tools={"rare": ToolLimits(per_s=1)}, tool_wait_s=0, user_per_s=1, user_burst=1
    )
    policies = Policies(spec, loop_clock(), sink)
    model = Call(target="lab:large@1a2b", credential="lab@1a2b", repeatable=True)

    async def fail(kind: FailureClass) -> None:
        raise Broken(kind)

    for _ in range(3):
        with suppress(Broken, Refused):
            await policies.model.run(model, lambda: fail(FailureClass.SERVER))
    with suppress(Broken):
        other = model._replace(target="lab:small@1a2b")
        await policies.model.run(other, lambda: fail(FailureClass.AUTH))
    for _ in range(2):
        with suppress(Refused):
            async with policies.tool.guard(Call(tool="rare")):
                pass
    for _ in range(2):
        with suppress(Refused):
            async with policies.admit("ada", Priority.INTERACTIVE):
                pass
    assert counted(metrics, TRANSITIONS) == {("model:lab:large", "open"): 1, (CREDENTIAL, "open"): 1}
    assert counted(metrics, BREAKER) == {"model:lab:large": 2}
    assert counted(metrics, RATE) == {"tool": 1, "user": 1}
    assert counted(metrics, RETRIES) == {("model", "scheduled"): 1, ("model", "gave_up"): 1}
