"""A server as a process of its own, that can be killed and started again on the same store."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx2

if TYPE_CHECKING:
    from tests.conformance.servers import free_port
else:
    sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))
    from servers import free_port

Settings = Mapping[str, str | None]
AGENTS = Path(__file__).parent / "agents.py"
PATIENCE_S = 30.0
SETTINGS = {
    "SERVER__SESSION_WAIT_S": "20",
    "STORE__LEASE_S": "0.5",
    "TELEMETRY__METRICS_PORT": "0",
    "TELEMETRY__JSONL_PATH": "",
    "TELEMETRY__LOG_LEVEL": "info",
    "SHUTDOWN__DEADLINE_S": "10",
    "RESILIENCE__USER_PER_S": "1000000",
    "RESILIENCE__USER_BURST": "1000000",
    "RESILIENCE__ALL_PER_S": "1000000",
    "RESILIENCE__TOOLS_PER_S": "1000000",
    "RESILIENCE__USER_TOOLS_PER_S": "1000000",
    "RESILIENCE__TOOL_PER_S": "1000000",
    "RESILIENCE__TOOL_CONCURRENT": "10000",
    "RESILIENCE__MODEL_CONCURRENT": "10000",
}


class Replica:
    """
    One server.

    Args:
        folder: Where it runs, writes its log, and its tools tell what they did.
        store: Its store's URL.
        agents: Those of agents.py that it serves.
        settings: More variables, without their prefix; a setting as None is left out.
    """

    def __init__(
        self, folder: Path, store: str, *agents: str, settings: Mapping[str, str | None] | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._targets = [f"{AGENTS}:{agent}" for agent in agents]
        known: Settings = {"STORE__URL": store, "SERVER__PORT": str(self.port), **SETTINGS}
        self._environ = {f"HOLDFAST_{name}": value for name, value in {**known, **(settings or {})}.items()}
        self._process: asyncio.subprocess.Process | None = None
        self.http = httpx2.AsyncClient(
            base_url=self.url, timeout=PATIENCE_S, limits=httpx2.Limits(max_connections=None)
        )
        self.log = folder / f"{self.port}.log"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        if self.runs:
            await self.kill()

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    async def start(self) -> None:
        """Start, and return once it listens."""
        environ = {name: value for name, value in (dict(os.environ) | self._environ).items() if value is not None}
        environ["KILL_FOLDER"] = str(self.folder)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "holdfast", "serve", *self._targets),
                cwd=self.folder,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_S):
            while line := await self._process.stdout.readline():
                if b"Ctrl-C stops" in line:
                    return
        raise RuntimeError(f"it did not start:\n{self.log.read_text()[-3_000:]}")

    async def died(self) -> int:
        """How it ended, once it has."""
        assert self._process
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.died()

    async def stop(self) -> int:
        """Ask it to stop, and wait until it has."""
        self.signal(signal.SIGTERM)
        return await self.died()

    async def ask(self, agent: str, message: Mapping[str, Any], *, key: str, streams: bool = False) -> httpx2.Response:
        """One turn, under a key of the caller's."""
        headers = {"idempotency-key": key, **({"accept": "text/event-stream"} if streams else {})}
        body = {"agent": agent, "message": json.dumps(message), "session_id": f"s-{key}"}
        return await self.http.post("/chat", json=body, headers=headers)
