"""What the pages on traces and logs say is what the code does."""

import json
import re
from pathlib import Path

import handwritten
import pytest

from holdfast.telemetry.catalogue import LOG_EVENTS, TRACE_EVENTS

ROOT = Path(__file__).resolve().parents[2]
TELEMETRY = ROOT / "src" / "holdfast" / "telemetry"
LOGS = (ROOT / "docs" / "logs.md").read_text("utf-8")
TRACING = (ROOT / "docs" / "tracing.md").read_text("utf-8")
IDS = {"request_id", "trace_id", "session_id", "turn_id", "agent"}


def test_every_variable_that_is_looked_at_is_on_the_page() -> None:
    code = "".join(path.read_text("utf-8") for path in TELEMETRY.glob("*.py"))
    looked_at = set(re.findall(r'"(OTEL_[A-Z_]+[A-Z])"', code))
    assert {"OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_SDK_DISABLED"} <= looked_at
    assert looked_at <= set(re.findall(r"`(OTEL_[A-Z_]+)`", TRACING))


@pytest.mark.parametrize(("name", "default"), re.findall(r"`(OTEL_BSP_\w+)` \| .*: (\d+) \|", TRACING))
def test_a_bound_is_what_the_page_says(name: str, default: str) -> None:
    code = (TELEMETRY / "export.py").read_text("utf-8").replace("_", "")
    assert f'"{name}", {default})'.replace("_", "") in code


def test_the_examples_of_lines_and_events_have_the_fields_there_are() -> None:
    line, event = (json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", LOGS, re.DOTALL))
    fields = {one.name: {field.name for field in one.fields} for one in LOG_EVENTS}[line["event"]]
    assert list(line)[:3] == ["ts", "level", "event"]
    assert set(line) - {"ts", "level", "event"} - IDS <= fields
    assert set(line) >= IDS
    fields = {one.name: {field.name for field in one.fields} for one in TRACE_EVENTS}[event["event"]]
    assert list(event) == ["ts", "event", "trace_id", "session_id", "turn_id", "metadata"]
    assert set(event["metadata"]) <= fields


def test_a_page_without_its_markers_stops_the_rendering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs.md").write_text(LOGS.replace(": events.", ": happenings."), "utf-8")
    monkeypatch.setattr(handwritten, "DOCS", tmp_path)
    with pytest.raises(SystemExit, match=r"docs/logs.md must have the markers .*: events"):
        handwritten.logs_page()


def test_a_stale_table_is_rendered_anew_and_words_around_it_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs.md").write_text(LOGS.replace("| `agent_start` |", "| `agent_began` |"), "utf-8")
    monkeypatch.setattr(handwritten, "DOCS", tmp_path)
    assert handwritten.logs_page() == LOGS
