"""What a server that is a process of its own tells a collector: there, other libraries' spans are recorded as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from tests.http.collector import Collector
else:
    from collector import Collector  # pytest puts a test's folder on the path, and mypy the project's

PATIENCE_S = 30


def test_a_request_is_one_trace_and_a_probe_none(tmp_path: Path) -> None:
    with Collector().listening() as collector:
        ports = {"HOLDFAST_SERVER__PORT": "0", "HOLDFAST_TELEMETRY__METRICS_PORT": "0"}
        environ = {**os.environ, **collector.environ, **ports, "HOLDFAST_TELEMETRY__TRACES_RATIO": "1"}
        words = [sys.executable, "-m", "holdfast", "serve"]
        with subprocess.Popen(words, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = next(line.split()[1] for line in process.stdout if line.split()[:1] == ["API"])
                with httpx2.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
                    assert http.get("/health/ready").status_code == 200
                    answer = http.post("/chat", json={"message": "What is 17*23?"})
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
    _, trace_id, span_id, _ = answer.headers["traceparent"].split("-")
    assert answer.json()["trace_id"] == trace_id
    assert {span.trace_id for span in collector.spans} == {trace_id}
    [root] = [span for span in collector.spans if not span.parent]
    assert (root.name, root.span_id) == ("POST /chat", span_id)
    assert [span.name for span in collector.spans if span.parent == span_id] == ["invoke_agent assistant"]
