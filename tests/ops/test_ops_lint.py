"""What would be silently wrong is found, and said in one line; and nothing of ours is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.ops.alerts import ALERTS
from holdfast.ops.lint import Linter, known_names
from holdfast.ops.render import problems
from holdfast.ops.rule import Record

ALERT = replace(ALERTS[0], name="X", summary="", description="")


def panel(expr: str, legend: str = "") -> list[str]:
    linter = Linter()
    linter.panel("X", expr, legend)
    return linter.problems


def alert(expr: str, says: str = "") -> list[str]:
    linter = Linter()
    linter.alert(replace(ALERT, expr=expr, description=says))
    return linter.problems


def record(*records: Record) -> list[str]:
    linter = Linter()
    for one in records:
        linter.record(one)
    return linter.problems


def test_our_rules_and_panels_are_clean() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("sum(agent_nothing)", "there is no agent_nothing"),
        ("sum(rate(agent_turns[5m]))", "there is no agent_turns"),
        ('sum(agent_ready{pod="a"})', "agent_ready has no label pod; it has instance, job"),
        ('sum(rate(agent_turns_total{outcome="ok"}[5m]))', "agent_turns_total never has outcome ok"),
        ('sum(rate(agent_turns_total{outcome=~"error|failed"}[5m]))', "agent_turns_total never has outcome failed"),
        (
            'sum(rate(agent_turn_duration_seconds_bucket{le="3.0"}[5m]))',
            "agent_turn_duration_seconds_bucket never has le 3.0",
        ),
        ("sum by (pod) (agent_ready)", "sum by pod, which is not among instance, job"),
        ("sum(rate(agent_ready[5m]))", "rate() of what is no counter"),
        ("sum(rate(agent_turn_duration_seconds_sum[1m]))", ""),
        ("sum(agent_turns_total)", "shows a counter that is not rated"),
        ("rate(agent_turns_total[5m])", "shows every process's counter by itself: aggregate it"),
        ("rate(sum(agent_turns_total))", "rate() needs a range of one name's series"),
        ("sum(rate(agent_turns_total[30s]))", "[30s] holds fewer than four scrapes"),
        ("sum(rate(agent_turns_total[$__rate_interval]))", ""),
        (
            "histogram_quantile(0.9, sum(rate(agent_turn_duration_seconds_bucket[5m])))",
            "histogram_quantile() needs the label le",
        ),
        ("guess(agent_ready)", "there is no function guess that this linter knows"),
        (
            "sum by (agent) (rate(agent_turns_total[5m])) / sum by (tool) (rate(agent_tool_calls_total[5m]))",
            "/ joins series by agent with series by tool",
        ),
        (
            "sum by (job) (agent_ready) and sum(up)",
            "and joins series by job with series by nothing",
        ),
        ("sum by (job) (agent_ready) * on (job) sum(up)", "* on job, which is not among nothing"),
        ("sum by (job) (agent_ready) * on (job) group_left () sum by (job) (up)", ""),
        ("agent_ready +", "cannot be read: expected an expression, got ''"),
    ],
)
def test_a_panel(expr: str, problem: str) -> None:
    assert panel(expr)[:1] == ([f"X: {problem}"] if problem else [])


def test_a_legend_speaks_of_labels_there_are() -> None:
    expr = "sum by (agent) (rate(agent_turns_total[5m]))"
    assert panel(expr, "{{agent}} of {{ agent }}") == []
    assert panel(expr, "{{outcome}}") == ["X: has the legend {{outcome}}; there is agent"]


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("up == 0", ""),
        ("absent(up)", ""),
        ("up == 0 and agent_ready", ""),
        ("up == 0 or absent(up)", ""),
        ("sum(up)", "compares with nothing, so it would always fire"),
        ("up == 0 or agent_ready", "compares with nothing, so it would always fire"),
        ("1 > 2", "is a number, not series"),
        ("topk(3, agent_ready) > 1", "uses topk, which changes its series from one moment to the next"),
        (
            "histogram_quantile(0.9, sum by (le) (rate(agent_turn_duration_seconds_bucket[5m]))) > 300",
            "compares with 300, but no quantile is above the last bucket, 300",
        ),
        ("histogram_quantile(0.9, sum by (le) (rate(agent_turn_duration_seconds_bucket[5m]))) > 299", ""),
    ],
)
def test_an_alert(expr: str, problem: str) -> None:
    assert alert(expr) == ([f"X: {problem}"] if problem else [])


def test_what_an_alert_says_is_of_labels_that_are_left() -> None:
    expr = "sum by (job, agent) (rate(agent_turns_total[5m])) > 1"
    assert alert(expr, "{{ $labels.agent }} of {{ $labels.job }}: {{ $value }}") == []
    assert alert(expr, "{{ $labels.outcome }}") == ["X: speaks of the label outcome; there is agent, job"]
    assert alert("absent(up == 1)", "{{ $labels.job }}") == ["X: speaks of the label job; there is nothing"]
    assert alert('absent(up{job="a"})', "{{ $labels.job }}") == []


def test_a_recorded_name_is_known_from_then_on_with_its_labels() -> None:
    made = Record("agent:turns:rate5m", "sum by (job) (rate(agent_turns_total[5m]))", {"slo": "x"})
    assert record(made, Record("agent:twice:rate5m", "sum by (slo) (agent:turns:rate5m)")) == []
    assert record(made, Record("agent:twice:rate5m", "sum by (agent) (agent:turns:rate5m)")) == [
        "agent:twice:rate5m: sum by agent, which is not among job, slo"
    ]
    assert record(Record("agent:twice:rate5m", "sum by (slo) (agent:turns:rate5m)")) == [
        "agent:twice:rate5m: there is no agent:turns:rate5m",
        "agent:twice:rate5m: is a number, not series",
    ]


@pytest.mark.parametrize(
    ("name", "expr", "problem"),
    [
        ("turns", "sum(rate(agent_turns_total[5m]))", "must be called level:metric:operation_window"),
        ("agent:turns:rate5m", "sum(agent_turns_total)", "records a counter that is not rated"),
        ("agent:turns:rate5m", "1 + 1", "is a number, not series"),
    ],
)
def test_a_recording_rule(name: str, expr: str, problem: str) -> None:
    assert record(Record(name, expr)) == [f"{name}: {problem}"]


def test_a_recording_rule_may_not_take_a_name_that_is_scraped() -> None:
    linter = Linter()
    linter.record(Record("agent_ready", "sum by (job) (up)"), alias=True)
    assert linter.problems == ["agent_ready: stands for other series too, by instance, job"]


def test_an_alias_keeps_a_counter_as_it_is() -> None:
    linter = Linter()
    linter.record(Record("old_turns", "sum without (agent) (agent_turns_total)"), alias=True)
    linter.panel("X", "sum(rate(old_turns[5m]))", "")
    assert linter.problems == []


def test_every_name_on_the_page_is_known_but_those_python_adds() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    from holdfast.telemetry import Metrics

    metrics = Metrics("0", ["a"], objectives={"x": 0.9})
    metrics.begin_model("p", "m")
    metrics.begin_routes([("GET", "/", ["200"])])
    page = metrics.page()[0].decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    ours = [sample for sample in samples if sample.name.startswith("agent_")]
    assert ours
    known = known_names()
    for sample in ours:
        assert set(sample.labels) | {"job", "instance"} == known[sample.name].labels
        for label, values in known[sample.name].values.items():
            assert sample.labels[label] in values
    asked_for = {name for name in known if name.startswith("process_")}
    assert asked_for <= {sample.name for sample in samples}
