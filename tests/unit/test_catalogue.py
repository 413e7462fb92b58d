"""The catalogue of metrics: names that operators rely on, and a page that has them all and nothing else."""

import re
import shutil
import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import Metric as Exposed
from prometheus_client.parser import text_string_to_metric_families

from holdfast.events import CallStatus, ModelFinished, ToolFinished, TurnEnded, TurnIds, TurnStarted, Usage
from holdfast.telemetry import OTHER, Metrics
from holdfast.telemetry.catalogue import METRICS, Label, Metric
from holdfast.telemetry.catalogue_process import LABEL_OVERFLOW, SLO_OBJECTIVE
from holdfast.telemetry.terms import UNITS

NAMES = """
agent_http_requests_total                counter    method:6 route:60 code:24
agent_http_request_duration_seconds      histogram  method:6 route:60
agent_turns_resumed_total                counter    agent:30
agent_turns_suspended_total              counter    agent:30 because:4
agent_turns_total                        counter    agent:30 outcome:7
agent_turn_duration_seconds              histogram  agent:30
agent_turn_first_token_seconds           histogram  agent:30
agent_turns_in_progress                  gauge      agent:30
agent_sessions_active                    gauge
agent_steps_total                        counter    agent:30
agent_turn_llm_calls                     histogram  agent:30
agent_turn_tool_calls                    histogram  agent:30
agent_llm_calls_total                    counter    provider:5 model:12 status:6
agent_llm_duration_seconds               histogram  provider:5 model:12
agent_llm_first_token_seconds            histogram  provider:5 model:12
agent_llm_tokens_total                   counter    provider:5 model:12 type:2
agent_llm_cached_tokens_total            counter    provider:5 model:12 type:2
agent_llm_reasoning_tokens_total         counter    provider:5 model:12
agent_llm_cost_usd_total                 counter    provider:5 model:12
agent_tool_calls_total                   counter    agent:30 tool:60 status:6
agent_tool_duration_seconds              histogram  tool:60
agent_auth_failures_total                counter    reason:6
agent_critical_states_total              counter    state:8
agent_protocol_overrides_total           counter    protocol:12
agent_monitor_trips_total                counter    state:8
agent_state_turns                        gauge      state:8
agent_circuit_breaker_state              gauge      resource:40 state:3
agent_circuit_breaker_transitions_total  counter    resource:40 to:3
agent_circuit_breaker_rejections_total   counter    resource:40
agent_rate_limit_rejections_total        counter    limiter:3
agent_bulkhead_queue_size                gauge      bulkhead:30
agent_bulkhead_queue_limit               gauge      bulkhead:30
agent_bulkhead_in_use                    gauge      bulkhead:30
agent_bulkhead_limit                     gauge      bulkhead:30
agent_bulkhead_rejections_total          counter    bulkhead:30 reason:2
agent_bulkhead_wait_seconds              histogram  bulkhead:30
agent_retries_total                      counter    operation:10 outcome:3
agent_timeouts_total                     counter    operation:10
agent_fallbacks_total                    counter    operation:10
agent_event_loop_lag_seconds             histogram
agent_ready                              gauge
agent_health_check_state                 gauge      check:12 state:3
agent_health_check_age_seconds           gauge      check:12
agent_build_info                         gauge      version:1 python:1 config_hash:1
agent_slo_objective_ratio                gauge      slo:8
agent_traces_total                       counter    decision:5
agent_telemetry_dropped_total            counter    signal:4 reason:6
agent_trace_events_total                 counter
agent_metric_label_overflow_total        counter    metric:60
"""
"""What dashboards and alerts of others may ask for. A name that changes here breaks them."""

PERSONAL = {"session", "session_id", "user", "user_id", "turn", "turn_id", "trace_id", "principal", "key", "message"}
MANY = 200


def every(of: str = "") -> list[object]:
    return [pytest.param(metric, id=metric.name) for metric in METRICS if of in ("", metric.kind)]


def flooded(namespace: str = "") -> Metrics:
    """After more names of everything than there is room for, through every way in."""
    made = Metrics("1.2.3", ["assistant"], namespace=namespace, config_hash="c0ffee", objectives={"errors": 0.99})
    made.begin_routes([("POST", "/chat", ("200", "422"))])
    made.watch_sessions(lambda: 3)
    made.loop_lag.observe(0.1)
    statuses: tuple[CallStatus, ...] = ("ok", "error", "timeout", "denied", "cancelled", "rejected")
    for n in range(MANY):
        ids, status = TurnIds(f"s{n}", f"t{n}", f"{n:032x}", f"agent-{n}"), statuses[n % 6]
        finished = TurnEnded(**ids._asdict(), outcome="success", reply="", usage=Usage(), duration_s=1)
        model = ModelFinished(
            call=1,
            provider=f"p{n}",
            model=f"m{n}",
            status=status,
            duration_s=1,
            first_token_s=1,
            output_tokens=2,
            cache_read_tokens=1,
            reasoning_tokens=1,
            cost_nanos=1,
        )
        tool = ToolFinished(call_id=f"c{n}", tool=f"tool-{n}", status=status, duration_s=1)
        for event in (TurnStarted(**ids._asdict()), model, tool, finished):
            made.observe(ids, event)
        made.answered(f"BREW{n}", f"/{n}", n, 1)
        made.auth_failed(f"reason-{n}")
        made.checked([(f"check-{n}", "degraded", 1.5)])
        made.dropped.labels(f"signal-{n}", f"reason-{n}").inc()
        made.traces.labels(f"decision-{n}").inc()
        about = {"circuit": f"tool:{n}", "was": "closed", "state": "open", "bulkhead": f"tool:{n}"}
        for notice in ("breaker.moved", "breaker.refused", "rate.refused", "bulkhead.refused", "bulkhead.queued"):
            made.policies.told(notice, "tool", f"class-{n}", {**about, "reason": f"why-{n}", "waited_s": 1})
        made.policies.told("retry.scheduled", f"pipeline-{n}", "target", {})
    made.policies.watch(
        lambda: [(f"tool:{n}", "half_open") for n in range(MANY)], lambda: [(f"b{n}", 1, 1, 1, 1) for n in range(MANY)]
    )
    return made


def families(metrics: Metrics) -> dict[str, Exposed]:
    found = text_string_to_metric_families(metrics.page()[0].decode())
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in found}


# The entries


def test_names_kinds_and_labels_stay_what_they_are() -> None:
    wanted = [" ".join(line.split()) for line in NAMES.strip().splitlines()]
    listed = [" ".join((m.name, m.kind, *(f"{of.name}:{of.bound}" for of in m.labels))) for m in METRICS]
    assert sorted(listed) == sorted(wanted)


@pytest.mark.parametrize("metric", every())
def test_an_entry_keeps_the_rules_of_names(metric: Metric) -> None:
    assert re.fullmatch(r"agent(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert "latency" not in metric.name
    assert [part for part in UNITS if f"_{part}" in metric.name] == [unit for unit in [metric.unit] if unit]
    assert metric.help.endswith(".")
    assert "\n" not in metric.help


@pytest.mark.parametrize("metric", every())
def test_labels_are_bounded_and_none_is_about_a_person(metric: Metric) -> None:
    assert not PERSONAL & set(metric.label_names)
    assert len(set(metric.label_names)) == len(metric.labels)
    for label in metric.labels:
        assert label.bound > 0
        assert len(set(label.values)) == len(label.values)
        assert len(label.values) in (0, label.bound)


@pytest.mark.parametrize("metric", every())
def test_a_histogram_has_edges_that_grow_and_nothing_else_has_any(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert all(one < next_ for one, next_ in pairwise(metric.buckets))


def test_the_objectives_are_bucket_edges() -> None:
    for metric in METRICS:
        if metric.kind == "histogram" and metric.unit == "seconds" and metric.buckets[-1] > 30:
            assert {2, 30} <= set(metric.buckets), metric.name


# What is exposed


def test_the_page_has_every_metric_of_the_catalogue_and_no_other() -> None:
    found = families(flooded())
    assert {name for name in found if not name.startswith(("process_", "python_"))} == {m.name for m in METRICS}
    for metric in METRICS:
        family = found[metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert {sample.name for sample in family.samples} == set(metric.series)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.label_names)
        if metric.buckets:
            edges = {float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels}
            assert edges == {*metric.buckets, float("inf")}


def test_every_metric_that_can_has_its_series_before_anything_happened() -> None:
    made = Metrics("1.2.3", ["assistant"])
    found = families(made)
    without = {m.name for m in METRICS if not found[m.name].samples}
    of_what_is_not_known_yet = {"http", "llm", "tool", "bulkhead", "slo", "health"}
    assert {name.split("_")[1] for name in without} == of_what_is_not_known_yet
    made.begin_routes([("POST", "/chat", ("200", "422"))])
    made.begin_model("anthropic", "claude")
    made.begin_agent("assistant", ["calculate"])
    made.checked([("store", "healthy", 1.5)])
    made.policies.watch(tuple, lambda: [("tool:assistant", 0, 1, 0, 1)])
    found = families(made)
    assert {m.name for m in METRICS if not found[m.name].samples} == {SLO_OBJECTIVE.name}


def test_no_flood_of_names_makes_more_labels_than_are_allowed() -> None:
    found = families(flooded())
    taken: defaultdict[tuple[str, Label], set[str]] = defaultdict(set)
    for metric in METRICS:
        for sample in found[metric.name].samples:
            for label in metric.labels:
                taken[metric.name, label].add(sample.labels[label.name])
    for (name, label), values in taken.items():
        assert len(values - {OTHER}) <= label.bound, (name, label)
        if label.values:
            assert values - {OTHER} == set(label.values), (name, label)
    full = {label.name for (_, label), values in taken.items() if len(values - {OTHER}) == label.bound > 1}
    assert {"agent", "provider", "model", "tool", "route", "resource", "bulkhead", "check", "operation"} <= full
    series = sum(len(found[metric.name].samples) for metric in METRICS)
    assert series < 25_000


def test_what_was_folded_is_counted_under_the_metric_it_was_for() -> None:
    found = families(flooded())
    folded = {one.labels["metric"]: one.value for one in found[LABEL_OVERFLOW.name].samples}
    agents = MANY - 29  # `assistant` was first, and 29 more were told apart.
    assert folded["agent_turns_total"] == folded["agent_turn_duration_seconds"] == agents
    assert folded["agent_turns_in_progress"] == 2 * agents
    assert folded["agent_tool_duration_seconds"] < folded["agent_tool_calls_total"] == agents
    assert folded["agent_llm_calls_total"] == MANY - 5
    assert folded["agent_slo_objective_ratio"] == 0
    with_labels = {metric.name for metric in METRICS if metric.labels} - {LABEL_OVERFLOW.name}
    assert set(folded) == with_labels
    quiet = families(Metrics("1", ["assistant"]))[LABEL_OVERFLOW.name].samples
    assert {sample.value for sample in quiet} == {0}


def test_a_namespace_goes_in_front_of_every_name_of_ours() -> None:
    found = families(flooded("security_agent"))
    ours = {name for name in found if not name.startswith(("process_", "python_"))}
    assert ours == {f"security_agent_{metric.name}" for metric in METRICS}
    assert ours == {metric.named("security_agent") for metric in METRICS}


# Names of other systems


def test_a_replaced_name_is_recorded_from_the_metric_that_replaces_it() -> None:
    recorded = [name for metric in METRICS for name, _ in metric.rules()]
    assert len(set(recorded)) == len(recorded)
    assert not set(recorded) & {series for metric in METRICS for series in metric.series}
    for metric in METRICS:
        for _, expr in metric.rules("ns"):
            assert set(re.findall(r"\w*agent_\w+", expr)) <= {f"ns_{series}" for series in metric.series}
            assert "METRIC" not in expr
    [turns] = [metric for metric in METRICS if metric.name == "agent_turn_duration_seconds"]
    assert turns.rules("ns")[0] == (
        "agent_turn_latency_seconds_bucket",
        "sum without (agent) (ns_agent_turn_duration_seconds_bucket)",
    )


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_for_replaced_names_are_promql(tmp_path: Path) -> None:
    rules = [rule for metric in METRICS for rule in metric.rules("ns")]
    lines = [f"  - {{record: {name}, expr: '{expr}'}}" for name, expr in rules]
    file = tmp_path / "rules.yml"
    file.write_text("\n".join(["groups:", "- name: aliases", "  rules:", *lines]))
    run = subprocess.run(["promtool", "check", "rules", file], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(rules)} rules found" in run.stdout
