"""``holdfast ops``: what is in ``deploy/`` is what would be rendered, and Prometheus' own tools take it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from holdfast.cli import main
from holdfast.ops import render
from holdfast.ops.alerts import ALERTS
from holdfast.ops.lint import Linter
from holdfast.ops.promql import selectors
from holdfast.ops.render import Place, rendered, stale, write
from holdfast.ops.rule import Record
from holdfast.ops.slo import slo_records
from holdfast.telemetry.catalogue import METRICS

if TYPE_CHECKING:
    from tests.ops.conftest import Promtool

ROOT = Path(__file__).resolve().parents[2]
OURS = {series for metric in METRICS for series in metric.series}


@pytest.fixture
def ops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in an empty folder: its exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["holdfast", "ops", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def rules(text: str) -> list[Any]:
    [group] = yaml.safe_load(text)["groups"]
    found: list[Any] = group["rules"]
    return found


def every_expr(place: Place) -> list[str]:
    files = rendered(place)
    asked = [rule["expr"] for name, text in files.items() if "/rules/" in name for rule in rules(text)]
    for name, text in files.items():
        if name.endswith(".json"):
            model = json.loads(text)
            asked += [target["expr"] for panel in model["panels"] for target in panel.get("targets", ())]
    return asked


def test_what_is_committed_is_what_would_be_rendered() -> None:
    assert stale(ROOT / "deploy", Place()) == []


def test_rendering_writes_once_and_checking_agrees(ops: Callable[..., Any]) -> None:
    code, out, err = ops("render")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"deploy/{name} written" for name in rendered(Place())]
    assert ops("render") == (0, "", "")
    assert ops("check") == (0, "OK: deploy is what would be rendered\n", "")


def test_what_is_stale_missing_or_left_over_is_named(ops: Callable[..., Any]) -> None:
    assert ops("check") == (2, "", "holdfast: there is no folder deploy: run `holdfast ops render`\n")
    ops("render")
    rules = Path("deploy/prometheus/rules")
    (rules / "alerts.yml").write_text("old")
    (rules / "aliases.yml").unlink()
    (rules / "mine.yml").write_text("new")
    code, out, err = ops("check")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "holdfast: deploy/prometheus/rules/aliases.yml is stale: run `holdfast ops render`",
        "deploy/prometheus/rules/alerts.yml is stale: run `holdfast ops render`",
        "deploy/prometheus/rules/mine.yml is rendered by nothing: remove it",
    ]
    assert ops("render")[1].splitlines() == [f"{rules}/aliases.yml written", f"{rules}/alerts.yml written"]


def test_a_rule_that_is_wrong_is_one_line_and_nothing_is_written(
    ops: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "RECORDS", (Record("agent:x:rate5m", "sum(rate(agent_nothing_total[5m]))"),))
    for command in ("render", "check"):
        code, out, err = ops(command)
        assert (code, out) == (2, "")
        assert err.splitlines()[0] == "holdfast: agent:x:rate5m: there is no agent_nothing_total"
        assert "Traceback" not in err
    assert not Path("deploy").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--namespace", "a-b"], "--namespace must be letters, digits and underscores, got 'a-b'"),
        (["--namespace", "1a"], "--namespace must be letters, digits and underscores, got '1a'"),
        (["--job", " "], "--job must not be blank"),
        (["--job", "a\nb"], "--job must not be blank, and must be printable"),
        (["--out", "file"], "cannot write to file"),
    ],
)
def test_what_cannot_be_is_one_line(ops: Callable[..., Any], words: list[str], says: str) -> None:
    Path("file").write_text("")
    code, out, err = ops("render", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_it_is_rendered_for_a_place_of_ones_own(ops: Callable[..., Any]) -> None:
    words = ["--out", "mine", "--job", "agents", "--namespace", "security_agent"]
    words += ["--runbooks", "https://runbooks.example/holdfast/", "--grafana", "https://grafana.example/"]
    assert ops("render", *words)[0] == 0
    assert ops("check", *words)[0] == 0
    assert ops("check", "--out", "mine")[0] == 2
    alert = rules(Path("mine/prometheus/rules/alerts.yml").read_text())[3]
    assert 'security_agent_agent_turns_total{job="agents", outcome="success"}' in alert["expr"]
    assert alert["annotations"]["runbook_url"] == "https://runbooks.example/holdfast/HoldfastTurnsFailing.md"
    assert alert["annotations"]["dashboard_url"] == "https://grafana.example/d/holdfast-overview"
    assert (
        yaml.safe_load(Path("mine/prometheus/prometheus.yml").read_text())["scrape_configs"][0]["job_name"] == "agents"
    )


def test_what_is_scraped_is_asked_of_the_job_alone_and_with_its_namespace() -> None:
    asked = [selector for expr in every_expr(Place(job="agents", namespace="ns")) for selector in selectors(expr)]
    for selector in asked:
        jobs = [matcher.value for matcher in selector.matchers if matcher.label == "job"]
        assert selector.name not in OURS, "a name without its namespace"
        if ":" not in selector.name:
            assert jobs in (["agents"], ["$job"])
    assert {selector.name.removeprefix("ns_") for selector in asked} & OURS


@pytest.mark.parametrize("job", ["holdfast", 'a"b', "a\\b", "a: b # c", "ä"])
def test_a_job_may_be_called_anything(job: str, promtool: Promtool, tmp_path: Path) -> None:
    write(tmp_path, Place(job=job))
    promtool("check", "rules", *sorted((tmp_path / "prometheus" / "rules").iterdir()))
    found = yaml.safe_load((tmp_path / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert found["scrape_configs"][0]["job_name"] == job


@pytest.mark.parametrize("namespace", ["", "security_agent"])
def test_promtool_takes_the_rules_and_the_configuration(namespace: str, promtool: Promtool, tmp_path: Path) -> None:
    write(tmp_path, Place(namespace=namespace))
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted((tmp_path / "prometheus/rules").iterdir()))
    assert said.count("SUCCESS") == 4
    promtool("check", "config", tmp_path / "prometheus" / "prometheus.yml")


def test_every_alert_says_what_the_checklist_asks_for() -> None:
    found = rules(rendered(Place())["prometheus/rules/alerts.yml"])
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert re.fullmatch(r"Holdfast[A-Z][A-Za-z]+", rule["alert"])
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"}, {"severity": "info"})
        assert re.fullmatch(r"\d+m", rule["for"])
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
        assert "$value" not in str(rule["labels"])
        for text in (rule["annotations"]["summary"], rule["annotations"]["description"]):
            assert text.endswith(".")
        assert re.findall(r"\$value(?! \| humanize)", rule["annotations"]["description"]) == []


def test_what_users_feel_pages_and_causes_do_not() -> None:
    pages = {alert.name for alert in ALERTS if alert.severity == "page"}
    assert pages == {"HoldfastAbsent", "HoldfastBudgetBurnsFast", "HoldfastTurnsFailing"}


# Alertmanager


@pytest.fixture
def alertmanager(deploy: Path) -> Path:
    return deploy / "alertmanager" / "alertmanager.yml"


def test_amtool_takes_the_example_and_sends_each_alert_where_it_belongs(
    tool: Callable[[str], str], alertmanager: Path
) -> None:
    subprocess.run([tool("amtool"), "check-config", alertmanager], check=True, capture_output=True, timeout=60)
    receivers = {"page": "pager", "ticket": "tickets", "info": "nobody"}
    for severity, receiver in receivers.items():
        words = ["config", "routes", "test", f"--config.file={alertmanager}", f"severity={severity}", "alertname=X"]
        said = subprocess.run([tool("amtool"), *words], check=True, capture_output=True, text=True, timeout=60).stdout
        assert said.strip() == receiver


def test_what_is_inhibited_and_by_what_are_alerts_with_these_labels(alertmanager: Path) -> None:
    by_name = {alert.name: alert for alert in ALERTS}
    for rule in yaml.safe_load(alertmanager.read_text("utf-8"))["inhibit_rules"]:
        for [matcher] in (rule["source_matchers"], rule["target_matchers"]):
            alert = by_name[matcher.removeprefix("alertname = ")]
            linter = Linter()
            for record in slo_records():
                linter.record(record)
            spoken = "".join(f"{{{{ $labels.{label} }}}}" for label in rule.get("equal", ()))
            linter.alert(replace(alert, description=spoken))
            assert linter.problems == []
