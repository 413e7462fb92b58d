"""Arize Phoenix, a viewer of traces that knows agents, shows a turn as what it is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.http.conftest import Connect, Serve

pytestmark = pytest.mark.slow

PATIENCE_S = 90.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[httpx2.Client]:
    """A running Phoenix."""
    command = shutil.which("phoenix")
    if command is None:
        pytest.skip("phoenix is not on the path: it comes with the package arize-phoenix")
    port = free_port()
    told = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    (tmp_path / "phoenix").mkdir()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([command, "serve"], env={**os.environ, **told}, stdout=quiet, stderr=quiet)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            wait_for(lambda: client.get("/healthz").status_code == 200)
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def wait_for(done: Any) -> None:
    """Wait across the border of a process, where nothing can tell us."""
    for _ in range(round(PATIENCE_S / 0.1)):
        try:
            if done():
                return
        except httpx2.TransportError:
            pass
        threading.Event().wait(0.1)
    raise AssertionError("it did not come about")


def test_a_turn_is_an_agent_with_its_model_calls_and_tools(
    phoenix: httpx2.Client, serve: Serve, connect: Connect
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": str(phoenix.base_url), "OTEL_BSP_SCHEDULE_DELAY": "50"}
    server = serve(environ, telemetry__content=True)
    answer = connect(server).ask("What is 17*23?", "talk", "assistant", headers=CALLER)
    found: dict[str, Any] = {}

    def all_there() -> bool:
        page = phoenix.get("/v1/projects/default/spans", params={"limit": 100})
        spans = page.json()["data"] if page.status_code == 200 else []
        found.update({span["id"]: span for span in spans if span["context"]["trace_id"] == TRACE})
        return len(found) == 5

    wait_for(all_there)
    kinds = sorted((span["name"], span["span_kind"]) for span in found.values())
    assert kinds == [
        ("POST /chat", "UNKNOWN"),
        ("chat demo", "LLM"),
        ("chat demo", "LLM"),
        ("execute_tool calculate", "TOOL"),
        ("invoke_agent assistant", "AGENT"),
    ]
    by_kind = {span["span_kind"]: span["attributes"] for span in found.values()}
    assert by_kind["AGENT"]["session.id"] == answer["session_id"]
    usage = answer["usage"]
    assert by_kind["AGENT"]["llm.token_count.prompt"] == usage["input_tokens"]
    assert by_kind["AGENT"]["llm.token_count.completion"] == usage["output_tokens"]
    assert by_kind["LLM"]["llm.model_name"] == "demo"
    assert by_kind["TOOL"]["tool.parameters.expression"] == "17*23"
    asked = phoenix.post("/graphql", json={"query": "{projects{edges{node{tokenCountTotal}}}}"}).json()
    [project] = asked["data"]["projects"]["edges"]
    assert project["node"]["tokenCountTotal"] == usage["input_tokens"] + usage["output_tokens"]
