"""
Keep what documents say of alerts and dashboards as those are.

``python docs/runbook_pages.py`` writes the head of each runbook, the list of all, and where each metric is used;
``--check`` writes nothing, names what is stale or missing, and exits with 1. The rest of a page is written by hand.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from holdfast.ops.alerts import ALERTS, Alert
from holdfast.ops.dashboards import DASHBOARDS
from holdfast.ops.promql import selectors
from holdfast.ops.recording import RECORDS
from holdfast.ops.slo import slo_records
from holdfast.telemetry.catalogue import METRICS

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "It is over when", "Escalation")
"""What every page has, in this order."""

BEGIN, END = "<!-- Rendered from the alerts by `make render`. -->\n", "<!-- From here on written by hand. -->\n"
_TITLES = {board.name: board.title for board in DASHBOARDS}


def pages() -> Iterator[tuple[str, str]]:
    """What belongs between the marks of each page, by its path."""
    rows = [f"| [{alert.name}]({alert.name}.md) | {alert.severity} | {_plain(alert.summary)} |" for alert in ALERTS]
    yield "docs/runbooks/README.md", "\n".join(["| alert | severity | says |", "|---|---|---|", *rows])
    for alert in ALERTS:
        yield f"docs/runbooks/{alert.name}.md", _head(alert)
    lines = [f"| `{name}` | {alerts} | {boards} |" for name, alerts, boards in uses()]
    yield "docs/promql.md", "\n".join(["| metric | alerts | dashboards |", "|---|---|---|", *lines])


def uses() -> Iterator[tuple[str, str, str]]:
    """Of each metric: the alerts that look at it, and the dashboards that show it, by way of recorded series too."""
    made_of: dict[str, set[str]] = {series: {metric.name} for metric in METRICS for series in metric.series}
    for record in (*slo_records(), *RECORDS):
        made_of[record.name] = made_of.get(record.name, set()) | _metrics(record.expr, made_of)
    alerts = [(f"[{alert.name}](runbooks/{alert.name}.md)", _metrics(alert.expr, made_of)) for alert in ALERTS]
    boards = [
        (board.title.removeprefix("Holdfast: "), set().union(*(_metrics(asks.expr, made_of) for asks in panel.queries)))
        for board in DASHBOARDS
        for panel in board.panels()
    ]
    for metric in METRICS:
        of_alerts, of_boards = (
            ", ".join(dict.fromkeys(name for name, used in users if metric.name in used)) for users in (alerts, boards)
        )
        yield metric.name, of_alerts, of_boards


def _metrics(expr: str, made_of: dict[str, set[str]]) -> set[str]:
    return set().union(*(made_of.get(selector.name, set()) for selector in selectors(expr)))


def main(arguments: list[str]) -> int:
    """Write what is stale, or with ``--check`` name it; the exit code."""
    parser = argparse.ArgumentParser(description="Keep what documents say of alerts and dashboards as those are.")
    parser.add_argument("--check", action="store_true", help="write nothing; name what is stale and exit with 1")
    check = parser.parse_args(arguments).check
    wrong = False
    for name, rendered in pages():
        path = ROOT / name
        old = path.read_text("utf-8") if path.exists() else ""
        before, begin, rest = old.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            wrong = True
            print(f"{name} is missing, or its marks are: write it as the others are")
        elif (new := f"{before}{BEGIN}\n{rendered}\n\n{END}{after}") != old:
            wrong = wrong or check
            if not check:
                path.write_text(new, "utf-8")
            print(f"{name} is stale: run `make render`" if check else f"{name} written")
    return 1 if wrong else 0


def _head(alert: Alert) -> str:
    minutes = alert.lasting.removesuffix("m")
    said = f"*{alert.severity}*, once this has held for {minutes} min; shown on *{_TITLES[alert.board]}*."
    return f"{said}\n\n```promql\n{alert.expr}\n```"


def _plain(text: str) -> str:
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"`\1`", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
