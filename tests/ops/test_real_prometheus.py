"""
A real Prometheus scrapes a real Holdfast under a mix of good, failing and slow turns: every rule and panel has data.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import yaml

from holdfast.ops.alerts import ALERTS
from holdfast.ops.dashboards import DASHBOARDS
from holdfast.ops.render import Place
from holdfast.sim import running_simulator

if TYPE_CHECKING:
    from holdfast.sim import Simulator

pytestmark = pytest.mark.slow

PATIENCE_S = 45.0
DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNBOOKS = sorted(f"runbooks/{page.name}" for page in (DOCS / "runbooks").glob("*.md"))
QUERY = re.compile(r"^ *```promql\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
TWO_TOOLS = "What is 17*23, and which files are here?"
PANELS = [
    pytest.param(place_and_query, id=f"{board.name}: {panel.title} {index}")
    for board in DASHBOARDS
    for panel in board.panels()
    for index, place_and_query in enumerate(panel.queries)
]
SETTINGS = {
    "HOLDFAST_STORE__URL": "memory:",
    "HOLDFAST_LLM__MODEL": "anthropic:claude-sim",
    "HOLDFAST_LLM__API_KEY": "any",
    "HOLDFAST_LLM__FALLBACKS": "demo",
    "HOLDFAST_RESILIENCE__TOOL_CONCURRENT": "1",
    "HOLDFAST_RESILIENCE__MODEL_S": "4",
    "HOLDFAST_RESILIENCE__FIRST_TOKEN_S": "4",
    "HOLDFAST_RESILIENCE__TOOL_S": "1",
    "HOLDFAST_RESILIENCE__USER_BURST": "40",
}
AGENTS = """
import asyncio

async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"

async def broken(turn):
    raise LookupError("as meant")

async def busy(turn):
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(turn.tool(nap, seconds=0.2))
    try:
        await turn.tool(nap, seconds=5)
    except Exception:
        return "done, but for one"
"""


def until(done: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait across the border of a process, where nothing can tell us."""
    for _ in range(int(patience_s / 0.1)):
        with suppress(httpx2.HTTPError):
            if done():
                return
        time.sleep(0.1)  # noqa: TID251 - another process decides when
    raise AssertionError("it did not come about")


@contextmanager
def running(folder: Path, name: str, words: list[str], more: dict[str, str] | None = None) -> Iterator[Path]:
    """A process; the file with what it says."""
    said = folder / f"{name}.log"
    with said.open("w") as out:
        process = subprocess.Popen(
            words, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(more or {})}
        )
        try:
            yield said
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    rules: list[Any] = [
        {"when": {"text_contains": "slowly"}, "say": "At last.", "first_token": 2.5},
        {"when": {"text_contains": "fail"}, "fault": "server_error"},
    ]
    with running_simulator(rules) as sim:
        yield sim


@pytest.fixture(scope="module")
def holdfast(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server is."""
    folder = tmp_path_factory.mktemp("holdfast")
    (folder / "agents.py").write_text(AGENTS)
    words = [
        sys.executable,
        "-m",
        "holdfast",
        "serve",
        "agents.py:broken",
        "agents.py:busy",
        "--port",
        "0",
        "--metrics-port",
        "0",
    ]
    with running(folder, "holdfast", words, {**SETTINGS, "HOLDFAST_LLM__BASE_URL": sim.url}) as said:
        until(lambda: re.search(r"API +http", said.read_text()))
        found = re.search(r"API +(http://\S+)", said.read_text())
        assert found is not None
        yield found[1]


@pytest.fixture(scope="module")
def prometheus(
    tool: Callable[[str], str], deploy: Path, holdfast: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where a Prometheus is that scrapes it, with the configuration as rendered but for the times and addresses."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(deploy / "prometheus" / "rules" / "*.yml")]
    del config["alerting"]
    [scraped] = config["scrape_configs"]
    scraped["static_configs"] = [{"targets": [holdfast.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    at = f"127.0.0.1:{free_port()}"
    words = [
        tool("prometheus"),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={at}",
    ]
    with running(folder, "prometheus", words):
        until(lambda: httpx2.get(f"http://{at}/-/ready", trust_env=False).status_code == 200)
        yield f"http://{at}"


@pytest.fixture(scope="module")
def asked(holdfast: str, prometheus: str) -> str:
    """Prometheus, once the load has run and every rule has been evaluated after it."""
    with httpx2.Client(base_url=holdfast, timeout=30, trust_env=False) as http:
        load(http)
        while_turns_run = threading.Thread(target=load, args=(http,))
        while_turns_run.start()
        until(lambda: all(has_data(prometheus, name) for name in recorded(prometheus)))
        while_turns_run.join()
    return prometheus


def load(http: httpx2.Client) -> None:
    """Good, failing and slow turns, and what the policies refuse."""

    def ask(message: str, **more: str) -> int:
        return http.post("/chat", json={"message": message, **more}).status_code

    def stream(message: str) -> None:
        body = {"message": message, "agent": "assistant"}
        with http.stream("POST", "/chat", json=body, headers={"accept": "text/event-stream"}) as answer:
            answer.read()

    for number in range(4):
        assert ask(TWO_TOOLS, agent="assistant") == 200
        assert ask("Read the file missing.txt", agent="assistant") == 200
        stream(f"hello {number}")
    assert ask("fail, please", agent="assistant") == 200, "the fallback answers"
    assert ask("anything", agent="broken", user_id="other") == 500
    assert ask("anything", agent="busy") == 200
    stream("answer slowly")
    http.post("/v1/breakers/tool%3Acalculate/force-open")
    assert ask(TWO_TOOLS, agent="assistant") == 200
    http.post("/v1/breakers/tool%3Acalculate/reset")
    assert {ask("hello", agent="broken", user_id="eager") for _ in range(60)} == {429, 500}
    assert http.get("/v1/sessions", headers={"host": "elsewhere"}).status_code == 403


def query(prometheus: str, expr: str) -> list[dict[str, Any]]:
    answer = httpx2.get(f"{prometheus}/api/v1/query", params={"query": expr}, trust_env=False).json()
    assert answer["status"] == "success", f"{expr}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def has_data(prometheus: str, expr: str) -> bool:
    """Whether there is a number."""
    return any(not math.isnan(float(series["value"][1])) for series in query(prometheus, expr))


def rules(prometheus: str) -> list[dict[str, Any]]:
    groups = httpx2.get(f"{prometheus}/api/v1/rules", trust_env=False).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded(prometheus: str) -> set[str]:
    return {rule["name"] for rule in rules(prometheus) if rule["type"] == "recording"}


def test_every_rule_is_loaded_and_evaluated_without_an_error(asked: str) -> None:
    found = rules(asked)
    assert {rule["name"] for rule in found if rule["type"] == "alerting"} == {alert.name for alert in ALERTS}
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


def test_every_recording_rule_has_data(asked: str) -> None:
    names = recorded(asked)
    assert len(names) > 30
    assert [name for name in sorted(names) if not has_data(asked, name)] == []


@pytest.mark.parametrize("asks", PANELS)
def test_every_panel_has_data(asks: Any, asked: str) -> None:
    expr = Place().in_panel(asks.expr)
    for name, value in {"$__rate_interval": "1m", "$job": "holdfast", "$instance": ".+"}.items():
        expr = expr.replace(name, value)
    until(lambda: has_data(asked, expr), 30)


@pytest.mark.parametrize("name", ["promql.md", "triage.md", "slo.md", *RUNBOOKS])
def test_every_query_in_the_documents_is_answered(name: str, asked: str) -> None:
    """Those that ask what is wrong now may find nothing; of the others, each has data."""
    for expr in QUERY.findall((DOCS / name).read_text("utf-8")):
        found = query(asked, expr)
        finds = name == "promql.md" and not re.search(r"[<>=] ?\d+(?:\.\d+)?\s*$", expr.strip())
        assert found or not finds, expr


def test_what_the_dashboards_ask_is_what_grafana_is_given(deploy: Path) -> None:
    for board in DASHBOARDS:
        model = json.loads((deploy / "grafana" / "dashboards" / f"{board.uid}.json").read_text("utf-8"))
        shown = [target["expr"] for panel in model["panels"] for target in panel.get("targets", ())]
        assert shown == [Place().in_panel(asks.expr) for panel in board.panels() for asks in panel.queries]


def test_the_numbers_are_those_of_the_load(asked: str) -> None:
    """What was counted is what was asked: two rounds of the load."""

    def total(expr: str) -> float:
        [series] = query(asked, expr)
        return float(series["value"][1])

    assert total('sum(agent_turns_total{agent="broken", outcome="error"})') > 2 * 35
    assert total("sum(agent_requests_failed)") == total('sum(agent_turns_total{outcome=~"error|timeout"})')
    assert total('sum(agent_tool_calls_total{tool="read_file", status="error"})') == 8
    assert (
        total('sum(agent_turn_first_token_seconds_count) - sum(agent_turn_first_token_seconds_bucket{le="2.0"})') == 2
    )
    assert total('agent:slo_errors:ratio_rate5m{slo="availability"}') > 0.5
    assert total('agent:error_budget_remaining:ratio{slo="availability"}') < 0
    assert query(asked, 'ALERTS{alertname="HoldfastBudgetBurnsFast", slo="availability"}')
