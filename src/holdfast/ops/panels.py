"""
Dashboards as objects, and as Grafana takes them.

A panel says what it shows and why one would look; names, colours and places are the same everywhere. Expressions are
aimed at the job and the instance that the reader has picked.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Aim = Callable[[str], str]
"""Makes an expression ask for the job, the instance and the namespace that are meant."""

TAG = "holdfast"
WIDE = 24
"""Columns of a dashboard."""

Unit = Literal["s", "percentunit", "reqps", "ops", "short", "bytes", "none"]
Kind = Literal["timeseries", "stat", "table", "bargauge", "state-timeline"]


@dataclass(frozen=True, slots=True)
class Query:
    """
    One question of a panel.

    Attributes:
        expr: PromQL, without job and instance.
        legend: What each series is called; ``{{label}}`` is filled in.
    """

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """
    One panel.

    Attributes:
        title: What it shows.
        description: What it means, and what to think of it.
        unit: Of its values, as Grafana calls it.
        queries: What it asks.
        width: Of ``WIDE`` columns.
        steps: From which value on it has which colour; green below the first, unless that is None.
        stacked: Whether the series add up to something.
        least, most: The ends of its axis; None leaves them to the values.
    """

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 12
    steps: tuple[tuple[float | None, str], ...] = ()
    stacked: bool = False
    least: float | None = 0
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Dashboard:
    """
    One dashboard.

    Attributes:
        name: Its uid is this behind ``holdfast-``.
        title: What people call it.
        description: What one sees in it.
        rows: Panels under their headings.
    """

    name: str
    title: str
    description: str
    rows: Mapping[str, tuple[Panel, ...]]

    @property
    def uid(self) -> str:
        """What links call it; it never changes."""
        return f"holdfast-{self.name}"

    def panels(self) -> Iterator[Panel]:
        """Every panel."""
        for row in self.rows.values():
            yield from row


TURN_FAILED = 'outcome=~"error|timeout"'
TURN_JUDGED = 'outcome=~"success|error|timeout"'
"""Turns that say something about how well we do: refused, cancelled and blocked ones do not."""

CALL_FAILED = 'status=~"error|timeout"'
CALL_MADE = 'status=~"ok|error|timeout"'
"""Calls that were made; refused and denied ones were not."""


def rate(selected: str, by: str = "") -> str:
    """PromQL for how often these counters count each second, apart by ``by`` where it is given."""
    kept = f" by ({by}) " if by else ""
    return f"sum{kept}(rate({selected}[$__rate_interval]))"


def share(part: str, whole: str, by: str = "") -> str:
    """PromQL for the share of ``part`` in ``whole``."""
    return f"{rate(part, by)} / {rate(whole, by)}"


def quantiles(metric: str, by: str = "", legend: str = "", *shares: float) -> tuple[Query, ...]:
    """Queries for these shares of a histogram, such as 0.5 and 0.99, apart by ``by`` where it is given."""
    kept = ", ".join(filter(None, (by, "le")))
    buckets = rate(f"{metric}_bucket", kept)
    return tuple(
        Query(f"histogram_quantile({share:g}, {buckets})", " ".join(filter(None, (legend, f"p{share * 100:g}"))))
        for share in shares
    )


def grafana(dashboard: Dashboard, aim: Aim, names: str, runbooks: str) -> str:
    """
    The file that Grafana reads.

    Args:
        dashboard: What to show.
        aim: Aims its expressions.
        names: The metric that every process has, whose ``job`` and ``instance`` can be picked.
        runbooks: Address of the runbooks.
    """
    source = {"type": "prometheus", "uid": "${datasource}"}
    model = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": f"{dashboard.description} Rendered by `holdfast ops render`: change the code, not this file.",
        "tags": [TAG],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": _links(runbooks),
        "templating": {"list": _variables(names, source)},
        "annotations": {"list": []},
        "panels": list(_laid_out(dashboard, aim, source)),
    }
    return json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def _links(runbooks: str) -> list[dict[str, Any]]:
    boards = {"type": "dashboards", "tags": [TAG], "title": "Holdfast", "asDropdown": True}
    pages = {"type": "link", "title": "Runbooks", "url": runbooks, "tags": [], "targetBlank": True}
    return [{**boards, "includeVars": True, "keepTime": True}, pages]


def _variables(names: str, source: dict[str, str]) -> list[dict[str, Any]]:
    def variable(name: str, label: str, query: str) -> dict[str, Any]:
        return {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": source,
            "query": {"query": query, "refId": name},
            "refresh": 2,  # when the time range changes, so that processes of the past can be picked
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"text": ["All"], "value": ["$__all"]},
        }

    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        variable("job", "Job", f"label_values({names}, job)"),
        variable("instance", "Instance", f'label_values({names}{{job=~"$job"}}, instance)'),
    ]


def _laid_out(dashboard: Dashboard, aim: Aim, source: dict[str, str]) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for heading, panels in dashboard.rows.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": heading,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": WIDE, "h": 1},
        }
        left, top, height = 0, top + 1, 0
        for panel in panels:
            number += 1
            if left + panel.width > WIDE:
                left, top = 0, top + height
            height = 4 if panel.kind == "stat" else 8
            yield {
                "id": number,
                "gridPos": {"x": left, "y": top, "w": panel.width, "h": height},
                **_shown(panel, aim, source),
            }
            left += panel.width
        top += height


def _shown(panel: Panel, aim: Aim, source: dict[str, str]) -> dict[str, Any]:
    given = panel.steps if panel.steps[:1] and panel.steps[0][0] is None else ((None, "green"), *panel.steps)
    steps = [{"color": color, "value": value} for value, color in given]
    ends = {"min": panel.least, "max": panel.most}
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        **{name: end for name, end in ends.items() if end is not None},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    now = panel.kind in {"stat", "table", "bargauge"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": aim(query.expr),
                "legendFormat": query.legend,
                "instant": now,
                "range": not now,
                "exemplar": not now and "_bucket" in query.expr,
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for index, query in enumerate(panel.queries)
        ],
    }


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[Kind, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": _LAST, "colorMode": "value", "graphMode": "none", "textMode": "auto"},
    "table": {"showHeader": True},
    "bargauge": {"reduceOptions": _LAST, "orientation": "horizontal", "displayMode": "basic"},
    "state-timeline": {"showValue": "never", "mergeValues": True, "rowHeight": 0.9},
}
