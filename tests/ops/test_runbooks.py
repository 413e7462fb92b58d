"""Every alert has its page, every page its alert; what pages tell one to type and to ask is right."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import runbook_pages

from holdfast.config import describe
from holdfast.ops.alerts import ALERTS
from holdfast.ops.lint import Linter
from holdfast.ops.promql import selectors
from holdfast.ops.recording import RECORDS
from holdfast.ops.slo import SLOS, slo_records
from holdfast.telemetry.catalogue import METRICS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "runbooks"
GUIDES = [FOLDER / "README.md", *(ROOT / "docs" / name for name in ("slo.md", "promql.md", "triage.md"))]
PAGES = sorted(set(FOLDER.glob("*.md")) - {FOLDER / "README.md"})
KEYS = {key.name: key for section in describe() for key in section.keys}
INSIDE = {"resilience.tools"}
QUERY = re.compile(r"^ *```promql\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def of(documents: list[Path]) -> list[object]:
    return [pytest.param(document, id=document.name) for document in documents]


def test_alerts_and_pages_are_one_to_one() -> None:
    assert [page.stem for page in PAGES] == sorted(alert.name for alert in ALERTS)


@pytest.mark.parametrize("page", of(PAGES))
def test_a_page_has_every_heading_in_order_with_something_below(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.stem}\n")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert tuple(parts[1::2]) == runbook_pages.HEADINGS
    assert all(part.strip() for part in parts[2::2])


def test_what_pages_say_of_alerts_is_what_alerts_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert runbook_pages.main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_is_stale_or_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runbook_pages, "ROOT", tmp_path)
    folder = tmp_path / "docs" / "runbooks"
    folder.mkdir(parents=True)
    for page in (*FOLDER.glob("*.md"), ROOT / "docs" / "promql.md"):
        (tmp_path / page.relative_to(ROOT)).write_text(page.read_text("utf-8"), "utf-8")
    lost, stale = folder / "HoldfastAbsent.md", folder / "HoldfastTurnsSlow.md"
    lost.unlink()
    stale.write_text(stale.read_text("utf-8").replace("> 60", "> 61"), "utf-8")
    assert runbook_pages.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "docs/runbooks/HoldfastAbsent.md is missing, or its marks are: write it as the others are",
        "docs/runbooks/HoldfastTurnsSlow.md is stale: run `make render`",
    ]
    assert "> 61" in stale.read_text("utf-8")
    assert runbook_pages.main([]) == 1
    assert "docs/runbooks/HoldfastTurnsSlow.md written" in capsys.readouterr().out
    assert stale.read_text("utf-8") == (FOLDER / stale.name).read_text("utf-8")


@pytest.mark.parametrize("document", of([*PAGES, *GUIDES]))
def test_every_query_asks_of_names_and_labels_there_are(document: Path) -> None:
    linter = Linter()
    for record in (*slo_records(), *RECORDS):
        linter.record(record)
    for query in QUERY.findall(document.read_text("utf-8")):
        linter.panel(document.name, query, "")
    assert linter.problems == []


@pytest.mark.parametrize("document", of([*PAGES, *GUIDES]))
def test_every_setting_and_metric_that_is_named_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    sections = "|".join(section.name for section in describe())
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)`", text))
    assert named <= set(KEYS) | INSIDE
    metrics = set(re.findall(r"`(agent_[a-z_]+)(?:\{[^`]*)?`", text))
    no_metrics = {"agent_start", "agent_complete", "agent_failed"}
    assert metrics - no_metrics <= {name for metric in METRICS for name in (metric.name, *metric.series)}


def test_every_series_that_is_recorded_is_told_of() -> None:
    told = (ROOT / "docs" / "slo.md").read_text("utf-8")
    for record in slo_records():
        name, _, window = record.name.partition(":ratio_rate")
        assert record.name in told or (name in told and f"`{window}`" in told), record.name


def test_nothing_is_counted_that_nobody_looks_at() -> None:
    """What no alert and no panel asks for costs, and is forgotten."""
    assert [metric for metric, alerts, boards in runbook_pages.uses() if not (alerts or boards)] == []


def test_every_objective_is_told_of() -> None:
    told = (ROOT / "docs" / "slo.md").read_text("utf-8")
    for slo in SLOS:
        assert f"| `{slo.name}` | {slo.objective * 100:g} % |" in told


def test_tuning_profiles_are_as_told_and_default_is_the_default() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(resilience\.\w+)` \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    assert len(rows) > 10
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    written = [tomllib.loads(block)["resilience"] for block in blocks]
    conservative, aggressive = ({f"resilience.{name}": float(value) for name, value in one.items()} for one in written)
    assert conservative == {name: float(first) for name, first, _, _ in rows}
    assert aggressive == {name: float(last) for name, _, _, last in rows}
    for name, _, default, _ in rows:
        assert float(default) == float(str(KEYS[name].default)), name


def test_the_cookbook_has_a_query_for_every_kind_of_thing_that_is_counted() -> None:
    asked = {
        selector.name
        for document in GUIDES
        for query in QUERY.findall(document.read_text("utf-8"))
        for selector in selectors(query)
    }
    kinds = ("agent_turn", "agent_llm", "agent_tool", "agent_circuit", "agent_rate", "agent_bulkhead", "agent_http")
    assert [kind for kind in (*kinds, "agent:slo") if not any(name.startswith(kind) for name in asked)] == []
