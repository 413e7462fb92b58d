"""Server processes that share a budget: together they spend what fits, and what one of them died of counts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from holdfast.clock import NS, Clock
from holdfast.sim import running_simulator

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer

pytestmark = [pytest.mark.sockets, pytest.mark.slow]
INPUT, OUTPUT = 1_000, 200
RESERVED = 200
"""Tokens of an answer: as many as it may have."""

MODEL = "openai-chat:tiny"
PRICES = json.dumps({"openai:tiny": {"input_usd": 1, "output_usd": 10}})
CALL_NANOS = 1_000 * INPUT + 10_000 * OUTPUT
PATIENCE_S = 30


class Server:
    """A server process with the assistant on a simulated provider."""

    def __init__(self, folder: Path, sim_url: str, **settings: object) -> None:
        given: dict[str, object] = {
            "llm__model": MODEL,
            "llm__base_url": f"{sim_url}/v1",
            "llm__api_key": "k",
            "llm__max_output_tokens": RESERVED,
            "budget__prices": PRICES,
            "budget__wait_s": 60,
            "resilience__attempts": 1,
            "store__lease_s": 0.5,
            "telemetry__jsonl_path": "",
            **settings,
        }
        command = [sys.executable, "-m", "holdfast", "serve", "--port", "0", "--metrics-port", "0"]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **{f"HOLDFAST_{name.upper()}": str(value) for name, value in given.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"API +(http://\S+)", said):
                self.url = found[1]
            if "Ctrl-C" in line:
                return
        raise AssertionError(said)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()


Pair = Callable[..., tuple[Server, Server]]


@pytest.fixture
def sim() -> Iterator[Any]:
    script = [{"say": "Fine.", "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT}}]
    with running_simulator(script) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, sim: Any) -> Iterator[Pair]:
    """Two servers on one store; keywords are settings of both."""
    url = f"sqlite:{tmp_path}/shared.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = f"{server.url}?search_path=budgets_{Clock().now()}"
    with ExitStack() as running:

        def pair(**settings: object) -> tuple[Server, Server]:
            servers = []
            for _ in range(2):
                servers.append(Server(tmp_path, sim.url, store__url=url, **settings))
                running.callback(servers[-1].stop)
            return servers[0], servers[1]

        yield pair


async def until(done: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait across the border of a process, where nothing can tell us."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            came = done()
            if came if isinstance(came, bool) else await came:
                return
            await asyncio.sleep(0.03)


async def budgets_of(server: Server, done: Callable[[Any], bool]) -> Any:
    """What one server says of budgets, once it is ``done``."""
    found: list[Any] = []
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as http:

        async def look() -> bool:
            found[:] = (await http.get("/v1/budgets")).json()["budgets"]
            return bool(found) and done(found)

        await until(look)
    return found


async def test_fifty_turns_at_once_on_a_budget_that_fits_ten_spend_what_fits(pair: Pair, sim: Any) -> None:
    """On two servers: no call more is sent than fits, and so many are that no other would have fitted."""
    limit_usd = 10.5 * CALL_NANOS / NS
    servers = pair(budget__all_usd_per_day=limit_usd, resilience__user_per_s=1_000, resilience__user_burst=1_000)

    async def ask(http: httpx2.AsyncClient, n: int) -> tuple[int, Any]:
        body = {"message": "x" * 4 * INPUT, "user_id": f"user {n}", "agent": "assistant"}
        response = await http.post(f"{servers[n % 2].url}/chat", json=body)
        return response.status_code, response.json()

    limits = httpx2.Limits(max_connections=None)
    client = httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False, limits=limits)
    async with client as http, asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(http, n)) for n in range(50)]
    answers = [task.result() for task in asked]
    assert Counter(status for status, _ in answers) == {200: 10, 402: 40}
    assert len(sim.requests) == 10
    for status, body in answers:
        if status == 200:
            assert body["usage"]["cost_usd"] == CALL_NANOS / NS
        else:
            assert (body["code"], body["guard"], body["key_class"]) == ("budget_exhausted", "budget", "all")
            assert 0 < body["retry_after"] <= 86_400
    for server in servers:
        (budget,) = await budgets_of(server, lambda found: found[0]["reserved"] == 0)
        assert budget["spent"] == pytest.approx(10 * CALL_NANOS / NS)
        assert budget["left"] == pytest.approx(0.5 * CALL_NANOS / NS)


async def test_what_a_server_held_that_was_killed_counts_and_its_call_is_booked_again(pair: Pair, sim: Any) -> None:
    one, other = pair(budget__user_tokens_per_day=1_000_000)
    sim.add_fault({"kind": "hang"}, times=1)
    async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        body = {"message": "hello", "user_id": "anna", "agent": "assistant"}
        turn_id = (await http.post(f"{one.url}/v1/turns", json=body)).json()["turn_id"]
        await until(lambda: sim.in_flight > 0)
        (held,) = await budgets_of(other, lambda found: found[0]["reserved"] > 0)
        assert (held["spent"], held["left"]) == (0, 1_000_000 - held["reserved"])
        one.stop(signal.SIGKILL)
        turn: dict[str, Any] = {}

        async def ended() -> bool:
            turn.update((await http.get(f"{other.url}/v1/turns/{turn_id}")).json())
            return bool(turn["state"] == "ended")

        await until(ended)
    assert (turn["outcome"], turn["generation"]) == ("success", 2)
    assert [unit["attempt"] for unit in turn["units"]] == [1, 2]
    (spent,) = await budgets_of(other, lambda found: found[0]["reserved"] == 0 and found[0]["spent"] > INPUT + OUTPUT)
    assert spent["spent"] == held["reserved"] + INPUT + OUTPUT
    assert turn["usage"]["input_tokens"] == INPUT
