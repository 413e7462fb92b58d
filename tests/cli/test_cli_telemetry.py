"""The variables that other systems' operators know, by what `holdfast serve` then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Process, Start, Until

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(http: httpx2.Client, server: Process) -> Any:
    answer = http.post(f"{server.url}/chat", json={"message": "What is 17*23?"}, headers={"traceparent": CALLER})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_trace_events_are_written_where_it_is_said(
    folder: Path, serve: Start, http: httpx2.Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_TRACE_JSONL_PATH", "told/here.jsonl")
    server, path = serve(), folder / "told" / "here.jsonl"
    server.wait_for(r"traces +told/here\.jsonl")
    turn_id = ask(http, server)["turn_id"]
    until(lambda: path.exists() and "turn.ended" in path.read_text())
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert {event["turn_id"] for event in events} == {turn_id}
    assert "tool.call" in {event["event"] for event in events}
    assert not (folder / "data" / "logs").exists()


def test_a_namespace_goes_in_front_of_every_metric(
    serve: Start, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METRICS_NAMESPACE", "security_agent")
    server = serve()
    ask(http, server)
    page = http.get(f"{server.url}/metrics").text
    assert 'security_agent_agent_turns_total{agent="assistant",outcome="success"} 1.0' in page
    assert "\nagent_turns_total" not in page


def test_observability_that_is_off_leaves_the_log_alone(
    folder: Path, serve: Start, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_OBSERVABILITY_ENABLED", "false")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    server = serve()
    server.wait_for(r"traces +off")
    assert ask(http, server)["trace_id"] == CALLER.split("-")[1]
    server.wait_for('"event":"agent_complete"')
    page = http.get(f"{server.url}/metrics").text
    assert 'agent_turns_total{agent="assistant",outcome="success"} 1.0' not in page
    assert not (folder / "data" / "logs").exists()
