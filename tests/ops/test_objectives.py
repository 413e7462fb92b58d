"""Objectives: what Prometheus records of them, and that a process counts the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.events import OUTCOMES, TurnEnded, TurnIds, Usage
from holdfast.ops.promql import selectors
from holdfast.ops.slo import BUDGET_LEFT, PAGES, SLOS, TICKETS, WINDOWS, Ratio, Within, error_ratio, slo_records
from holdfast.telemetry import Metrics
from holdfast.telemetry.catalogue_turns import TURN_DURATION, TURNS

if TYPE_CHECKING:
    from tests.ops.conftest import Play

JOB = 'job="holdfast", instance="a"'


def expects(expr: str, at: str, **values: float) -> dict[str, Any]:
    """What is recorded of each objective at a time."""
    name = expr.partition("{")[0]
    samples = [{"labels": f'{name}{{job="holdfast", slo="{slo}"}}', "value": value} for slo, value in values.items()]
    return {"expr": expr, "eval_time": at, "exp_samples": samples}


def scene(series: dict[str, str], *asked: dict[str, Any], name: str = "") -> dict[str, Any]:
    given = [{"series": each, "values": values} for each, values in series.items()]
    return {"name": name, "interval": "1m", "input_series": given, "promql_expr_test": list(asked)}


def test_there_are_those_that_were_promised() -> None:
    assert {slo.name: slo.objective for slo in SLOS} == {"availability": 0.999, "first_token": 0.95, "errors": 0.99}
    assert all(re.fullmatch(r"[A-Z0-9].*\.", slo.promise) for slo in SLOS)


def test_speeds_are_those_of_the_sre_workbook() -> None:
    assert [(burn.factor, burn.long, burn.short) for burn in PAGES] == [(14.4, "1h", "5m"), (6, "6h", "30m")]
    assert [(burn.factor, burn.long, burn.short) for burn in TICKETS] == [(3, "1d", "2h"), (1, "3d", "6h")]
    assert {window for burn in (*PAGES, *TICKETS) for window in (burn.long, burn.short)} == set(WINDOWS)


def test_ratios_weigh_events_and_not_time(play_rules: Play) -> None:
    """Half of a busy hour's turns failed, and none of a quiet one's: four in ten of all, and not a quarter."""
    busy_then_quiet = {
        f'agent_turns_total{{{JOB}, agent="a", outcome="success"}}': "0+3000x60 181500+1500x60",
        f'agent_turns_total{{{JOB}, agent="a", outcome="error"}}': "0+3000x60 180000+0x60",
        f'agent_slo_objective_ratio{{{JOB}, slo="availability"}}': "0.5x180",
    }
    per_window = {"5m": 0.0, "30m": 0.0, "3d": 0.4}
    asked = [
        {
            "expr": f"round({error_ratio(window)}, 0.01)",
            "eval_time": "2h",
            "exp_samples": [{"labels": '{job="holdfast", slo="availability"}', "value": value}],
        }
        for window, value in per_window.items()
    ]
    play_rules([scene(busy_then_quiet, *asked)])


def test_the_budget_is_full_at_first_used_up_at_the_objective_and_can_be_overdrawn(play_rules: Play) -> None:
    def story(bad: int) -> dict[str, str]:
        return {
            f'agent_turns_total{{{JOB}, agent="a", outcome="success"}}': f"0+{100 - bad}x60",
            f'agent_turns_total{{{JOB}, agent="a", outcome="timeout"}}': f"0+{bad}x60",
            f'agent_slo_objective_ratio{{{JOB}, slo="availability"}}': "0.9x60",
            'agent_slo_objective_ratio{job="holdfast", instance="b", slo="availability"}': "0.9x60",
        }

    def left(value: float) -> dict[str, Any]:
        labels = '{job="holdfast", slo="availability"}'
        return {
            "expr": f"round({BUDGET_LEFT}, 0.001)",
            "eval_time": "30m",
            "exp_samples": [{"labels": labels, "value": value}],
        }

    play_rules(
        [scene(story(bad), left(value), name=f"{bad} %") for bad, value in {0: 1, 5: 0.5, 10: 0, 20: -1}.items()]
    )


def test_a_budget_is_for_thirty_days() -> None:
    [left] = [record for record in slo_records() if record.name == BUDGET_LEFT]
    assert {selector.window for selector in selectors(left.expr)} == {"30d", None}


def test_nothing_was_bad_where_nothing_happened(play_rules: Play) -> None:
    quiet = {
        f'agent_turns_total{{{JOB}, agent="a", outcome="success"}}': "5x60",
        f'agent_turns_total{{{JOB}, agent="a", outcome="error"}}': "5x60",
        f'agent_slo_objective_ratio{{{JOB}, slo="availability"}}': "0.999x60",
    }
    ratios = [expects(error_ratio(window), "30m", availability=0) for window in WINDOWS]
    play_rules([scene(quiet, *ratios, expects(BUDGET_LEFT, "30m", availability=1))])


def test_what_is_not_scraped_any_more_is_not_recorded(play_rules: Play) -> None:
    series = {f'agent_turns_total{{{JOB}, agent="a", outcome="success"}}': "0+1x20"}
    play_rules([scene(series, {"expr": error_ratio("5m"), "eval_time": "50m", "exp_samples": []})])


# What a process counts


def count_of(metrics: Metrics) -> Any:
    def count(name: str, where: Mapping[str, str]) -> float:
        samples = [sample for family in metrics.registry.collect() for sample in family.samples]
        return sum(
            sample.value
            for sample in samples
            if sample.name == name and all(re.fullmatch(p, sample.labels[label]) for label, p in where.items())
        )

    return count


def ended(metrics: Metrics, outcome: Any, duration_s: float = 0.1) -> None:
    ids = TurnIds(session_id="s", turn_id="t", trace_id="0", agent="a")
    told = {**ids._asdict(), "reply": "", "usage": Usage(), "duration_s": duration_s}
    metrics.observe(ids, TurnEnded(outcome=outcome, **told))


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_errors_and_timeouts_are_bad_and_nothing_else_is(outcome: str) -> None:
    metrics = Metrics("0", ["a"])
    ended(metrics, outcome)
    availability = SLOS[0].indicator
    assert availability.counts(count_of(metrics)) == (outcome in {"error", "timeout"}, 1)


def test_a_pattern_matches_a_value_as_a_whole() -> None:
    metrics = Metrics("0", ["a"])
    for code, times in {200: 3, 500: 1, 503: 2}.items():
        for _ in range(times):
            metrics.answered("POST", "/chat", code, 0.1)
    metrics.answered("POST", "/v1/chat", 529, 0.1)
    metrics.answered("GET", "/v1/chats", 500, 0.1)
    errors = SLOS[2].indicator
    assert errors.counts(count_of(metrics)) == (4, 7)


def test_what_takes_as_long_as_it_may_is_good() -> None:
    metrics = Metrics("0", ["a"])
    for duration_s in (0.1, 2.0, 2.001, 400.0):
        ended(metrics, "success", duration_s)
    assert Within(TURN_DURATION, 2).counts(count_of(metrics)) == (2, 4)


def test_the_same_is_asked_of_prometheus() -> None:
    asked = Ratio(TURNS, bad={"outcome": "error|timeout"}, of={"agent": "a"}).rates("1h")
    assert asked == (
        'sum by (job) (rate(agent_turns_total{agent=~"a", outcome=~"error|timeout"}[1h]))',
        'sum by (job) (rate(agent_turns_total{agent=~"a"}[1h]))',
    )
    bad, events = Within(TURN_DURATION, 2).rates("1h")
    assert events == "sum by (job) (rate(agent_turn_duration_seconds_count[1h]))"
    assert bad == f'{events} - sum by (job) (rate(agent_turn_duration_seconds_bucket{{le="2.0"}}[1h]))'


@pytest.mark.parametrize("slo", [slo for slo in SLOS if isinstance(slo.indicator, Within)], ids=lambda slo: slo.name)
def test_a_bound_is_the_edge_of_a_bucket(slo: Any) -> None:
    assert slo.indicator.seconds in slo.indicator.histogram.buckets
