"""The steps of ``docs/howto/add-a-metric.md`` are what they say: its panel passes, and its names exist."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from holdfast.ops import lint
from holdfast.ops.lint import Linter
from holdfast.ops.panels import Panel
from holdfast.telemetry.catalogue import METRICS
from holdfast.telemetry.terms import Metric

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto" / "add-a-metric.md").read_text("utf-8")


@pytest.fixture
def made() -> dict[str, Any]:
    """What the page's code defines."""
    names: dict[str, Any] = {}
    for block in re.findall(r"^ +```python\n(.*?)^ +```", PAGE, re.MULTILINE | re.DOTALL):
        exec(dedent(block), names)
    return names


def test_its_panel_is_wrong_until_the_metric_is_in_the_catalogue(
    made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, panel = made["REPLIES"], made["panel"]
    assert isinstance(metric, Metric)
    assert isinstance(panel, Panel)
    [query] = panel.queries
    assert problems(query.expr, query.legend) != []
    monkeypatch.setattr(lint, "METRICS", (*METRICS, metric))
    assert problems(query.expr, query.legend) == []
    assert problems(query.expr.replace("bad", "ugly"), query.legend) != []


def problems(expr: str, legend: str) -> list[str]:
    linter = Linter()
    linter.panel("new", expr, legend)
    return linter.problems


def test_every_file_and_name_it_speaks_of_is_there() -> None:
    files = set(re.findall(r"`((?:tests|bench|src)?/?[a-z_]+/[a-z_/]+\.py)`", PAGE)) | {"bench/telemetry.py"}
    assert len(files) > 8
    missing = [name for name in files if not ((ROOT / name).exists() or (ROOT / "src" / "holdfast" / name).exists())]
    assert missing == []
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / "howto" / link).exists(), link
    assert "NAMES = " in (ROOT / "tests" / "unit" / "test_catalogue.py").read_text("utf-8")
    assert "def load(" in (ROOT / "tests" / "ops" / "test_real_prometheus.py").read_text("utf-8")
