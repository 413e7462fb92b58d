"""The dashboards as Grafana takes them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from holdfast.ops.alerts import ALERTS
from holdfast.ops.dashboards import DASHBOARDS
from holdfast.ops.panels import WIDE

NAMES = [board.name for board in DASHBOARDS]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest, deploy: Path) -> Any:
    return json.loads((deploy / "grafana" / "dashboards" / f"holdfast-{request.param}.json").read_text("utf-8"))


def panels(model: Any) -> list[Any]:
    return [panel for panel in model["panels"] if panel["type"] != "row"]


def test_every_alert_leads_to_one() -> None:
    assert {alert.board for alert in ALERTS} <= set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


def test_it_is_a_dashboard_and_not_wrapped_for_an_api(model: Any) -> None:
    assert "dashboard" not in model
    assert "id" not in model
    assert model["uid"].startswith("holdfast-")
    assert model["editable"] is False
    assert model["tags"] == ["holdfast"]
    assert model["description"]


def test_one_source_of_data_can_be_picked_and_everything_asks_that_one(model: Any) -> None:
    source, job, instance = model["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert [job["name"], instance["name"]] == ["job", "instance"]
    assert {job["refresh"], instance["refresh"]} == {2}, "they are read again when the time range changes"
    asked = {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == asked for panel in panels(model) for target in panel["targets"])
    assert all(each["datasource"] == asked for each in (*panels(model), job, instance))


def test_every_panel_says_what_it_shows_in_which_unit(model: Any) -> None:
    for panel in panels(model):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"], panel["title"]
        assert panel["type"] in {"timeseries", "stat", "table", "bargauge", "state-timeline"}, "none that is gone"
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None
        assert all(step["value"] is not None for step in steps[1:])
        assert all(low["value"] is None or low["value"] < high["value"] for low, high in pairwise(steps))


def test_titles_and_numbers_are_unique(model: Any) -> None:
    every = model["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    rows: list[set[str]] = []
    for panel in every:
        if panel["type"] == "row":
            rows.append(set())
        else:
            assert panel["title"] not in rows[-1]
            rows[-1].add(panel["title"])


def test_no_panel_lies_on_another_or_over_the_edge(model: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in model["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= WIDE
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_rates_follow_the_time_range_and_names_the_reader(model: Any) -> None:
    for panel in panels(model):
        for target in panel["targets"]:
            expr = target["expr"]
            assert 'job=~"$job"' in expr
            assert "rate(" not in expr.replace("ratio_rate", "") or "$__rate_interval" in expr or "increase(" in expr
            assert (target["instant"], target["range"]) == (
                panel["type"] in {"stat", "table", "bargauge"},
                not target["instant"],
            )


def test_links_lead_to_the_other_dashboards_and_to_the_runbooks(model: Any) -> None:
    boards, runbooks = model["links"]
    assert (boards["type"], boards["tags"]) == ("dashboards", ["holdfast"])
    assert runbooks["url"] == "docs/runbooks"
