"""Everything that operators deploy, as text: rules, dashboards, and examples of what they are loaded with."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from holdfast.ops.alerts import ALERTS, Alert
from holdfast.ops.dashboards import DASHBOARDS
from holdfast.ops.examples import ALERTMANAGER, PROMETHEUS
from holdfast.ops.lint import Linter
from holdfast.ops.panels import grafana
from holdfast.ops.promql import aimed
from holdfast.ops.recording import RECORDS, aliases
from holdfast.ops.rule import Record
from holdfast.ops.slo import slo_records
from holdfast.telemetry.catalogue import METRICS
from holdfast.telemetry.catalogue_process import BUILD_INFO

RENDERED_BY = "# Rendered by `holdfast ops render`: change the code, not this file.\n"
_OURS = {series: metric for metric in METRICS for series in metric.series}


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where the files are for.

    Attributes:
        job: What Prometheus calls the job that scrapes Holdfast.
        namespace: What ``telemetry`` puts in front of every name; empty where it puts nothing.
        runbooks: Address of the folder with the runbooks.
        grafana: Address of Grafana; empty gives paths.
    """

    job: str = "holdfast"
    namespace: str = ""
    runbooks: str = "docs/runbooks"
    grafana: str = ""

    def named(self, name: str) -> str:
        """A name with the namespace, where it is one of ours."""
        return f"{self.namespace}_{name}" if self.namespace and name in _OURS else name

    def in_rule(self, expr: str) -> str:
        """An expression of a rule: what is scraped is asked of this job alone."""
        return aimed(expr, self.named, lambda name: "" if ":" in name else f"job={json.dumps(self.job)}")

    def in_panel(self, expr: str) -> str:
        """An expression of a panel: asked of what the reader picked."""
        picked = 'job=~"$job"'
        return aimed(expr, self.named, lambda name: picked if ":" in name else f'{picked}, instance=~"$instance"')


def rendered(place: Place) -> dict[str, str]:
    """Every file by its path, for ``place``."""
    rules = {"objectives": slo_records(), "recording": RECORDS, "aliases": aliases()}
    files = {f"prometheus/rules/{name}.yml": _rules(name, _recorded(place, records)) for name, records in rules.items()}
    files["prometheus/rules/alerts.yml"] = _rules("alerts", (_alert(place, alert) for alert in ALERTS))
    files["prometheus/prometheus.yml"] = RENDERED_BY + PROMETHEUS.replace("JOB", json.dumps(place.job))
    files["alertmanager/alertmanager.yml"] = RENDERED_BY + ALERTMANAGER
    for board in DASHBOARDS:
        text = grafana(board, place.in_panel, place.named(BUILD_INFO.name), place.runbooks)
        files[f"grafana/dashboards/{board.uid}.json"] = text
    return files


def problems() -> list[str]:
    """What the linter finds in the rules and the panels, one line each; empty when all is well."""
    linter = Linter()
    for record in (*slo_records(), *RECORDS):
        linter.record(record)
    for alert in ALERTS:
        linter.alert(alert)
    for board in DASHBOARDS:
        for panel in board.panels():
            for query in panel.queries:
                linter.panel(f"{board.uid}, {panel.title}", query.expr, query.legend)
    for record in aliases():
        linter.record(record, alias=True)
    return linter.problems


def stale(folder: Path, place: Place) -> list[str]:
    """What in ``folder`` is not what would be rendered now, one line each; empty when all is well."""
    if not folder.is_dir():
        return [f"there is no folder {folder}: run `holdfast ops render`"]
    files = rendered(place)
    found = []
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            found.append(f"{path} is stale: run `holdfast ops render`")
    ours = {folder / name for name in files}
    here = {path for parent in {path.parent for path in ours} if parent.is_dir() for path in parent.iterdir()}
    found += [f"{path} is rendered by nothing: remove it" for path in sorted(here - ours) if path.is_file()]
    return found


def write(folder: Path, place: Place) -> list[Path]:
    """Bring ``folder`` up to date; the files that were written."""
    written = []
    for name, text in rendered(place).items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            written.append(path)
    return written


def _recorded(place: Place, records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        labels = {"labels": dict(record.labels)} if record.labels else {}
        yield {"record": record.name, "expr": place.in_rule(record.expr), **labels}


def _alert(place: Place, alert: Alert) -> Mapping[str, Any]:
    return {
        "alert": alert.name,
        "expr": place.in_rule(alert.expr),
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{place.runbooks}/{alert.name}.md",
            "dashboard_url": f"{place.grafana}/d/holdfast-{alert.board}",
        },
    }


class _Dumper(yaml.SafeDumper):
    """Keeps the lines of an expression, and indents lists."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - its base's signature
        """Indent a list below its key."""
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _rules(name: str, rules: Iterable[Mapping[str, Any]]) -> str:
    groups = {"groups": [{"name": f"holdfast-{name}", "rules": list(rules)}]}
    return RENDERED_BY + yaml.dump(groups, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000)
