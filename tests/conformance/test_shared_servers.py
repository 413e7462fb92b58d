"""Server processes that share their limits and the moves of their breakers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from holdfast.clock import NS, Clock
from holdfast.sim import running_simulator

if TYPE_CHECKING:
    from tests.conformance.servers import RedisServer

pytestmark = [pytest.mark.sockets, pytest.mark.slow]
RATE, BURST = 20, 20
SECONDS = 3.0


class Server:
    """A server process with the assistant on a simulated provider."""

    def __init__(self, folder: Path, **settings: object) -> None:
        named = {f"HOLDFAST_{name.upper()}": str(value) for name, value in settings.items()}
        given = {"HOLDFAST_STORE__URL": "memory:", "HOLDFAST_RESILIENCE__ATTEMPTS": "1", **named}
        command = [sys.executable, "-m", "holdfast", "serve", "--port", "0", "--metrics-port", "0"]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **given},
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

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        with self.process.stdout:
            return self.process.wait(20)


@pytest.fixture
def pair(tmp_path: Path, redis_server: RedisServer) -> Iterator[Any]:
    """Two servers on one Redis; keywords are settings of both."""
    with ExitStack() as running:

        def pair(**settings: object) -> tuple[Server, Server]:
            shared = {"coord__url": redis_server.url, "coord__namespace": f"n{Clock().now()}", **settings}
            servers = Server(tmp_path, **shared), Server(tmp_path, **shared)
            for server in servers:
                running.callback(server.stop)
            return servers

        yield pair


async def admitted(url: str, until: float, clients: int = 8) -> list[int]:
    """The status of every answer that as many clients get from one server until then, asking without a pause."""
    codes: list[int] = []
    limits, clock = httpx2.Limits(max_connections=None), Clock()
    async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False, limits=limits) as http:

        async def ask(number: int) -> None:
            while clock.now() < until:
                body = {"message": "What is 2*3?", "user_id": f"{number}-{len(codes)}"}
                codes.append((await http.post("/chat", json=body)).status_code)
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(ask(number))
    return codes


LIMITS = {"resilience__all_per_s": RATE, "resilience__all_burst": BURST}


async def test_two_servers_admit_together_no_more_than_one_would(pair: Any) -> None:
    servers = pair(**LIMITS)
    clock = Clock()
    began = clock.now()
    until = began + round(SECONDS * NS)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(admitted(server.url, until)) for server in servers]
    lasted_s = (clock.now() - began) / NS
    codes = [code for task in asking for code in task.result()]
    assert set(codes) == {200, 429}
    most = BURST + RATE * lasted_s
    assert codes.count(200) <= most + 1
    assert codes.count(200) >= 0.8 * (BURST + RATE * SECONDS), "and hardly fewer"
    assert all(200 in task.result() for task in asking), "both had some of them"


async def test_a_redis_that_is_killed_and_comes_back_fails_no_request(pair: Any, redis_server: RedisServer) -> None:
    servers = pair(**LIMITS)
    clock = Clock()
    await asyncio.sleep(1.5)  # They count each other every second.
    began = clock.now()
    until = began + round(3 * SECONDS * NS)

    async def outage() -> None:
        await asyncio.sleep(SECONDS)
        redis_server.end(signal.SIGKILL)
        await asyncio.sleep(SECONDS)
        await asyncio.to_thread(redis_server.start)

    async with asyncio.TaskGroup() as group:
        group.create_task(outage())
        asking = [group.create_task(admitted(server.url, until)) for server in servers]
    lasted_s = (clock.now() - began) / NS
    codes = [code for task in asking for code in task.result()]
    assert set(codes) == {200, 429}, "no answer but yes and not now"
    # A burst from Redis, one from the processes' parts of it, and one from a Redis that came back knowing nothing. A
    # process may find out up to 2.4 s later than the other that it is back, and has its part in the meantime.
    assert codes.count(200) <= 3 * BURST + RATE * (lasted_s + 2.4) + 1
    assert codes.count(200) >= 0.7 * RATE * 3 * SECONDS


async def test_a_breaker_that_opens_in_one_process_opens_in_the_other(pair: Any) -> None:
    with running_simulator([{"say": "hello"}]) as sim:
        sim.add_fault("server_error")
        model = {"llm__model": "anthropic:claude-sonnet-5-5", "llm__base_url": sim.url, "llm__api_key": "k"}
        one, other = pair(**model)
        async with httpx2.AsyncClient(timeout=20, trust_env=False) as http:

            async def ask(server: Server) -> Any:
                return (await http.post(f"{server.url}/chat", json={"message": "hello"})).json()["code"]

            assert [await ask(one) for _ in range(6)] == 5 * ["model_unavailable"] + ["circuit_open"]
            async with asyncio.timeout(10):
                while (await state(http, other)) != "open":  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(0.02)
            assert await ask(other) == "circuit_open"
            assert len(sim.requests) == 5

            name = next(iter(await breakers(http, one)))
            assert (await http.post(f"{one.url}/v1/breakers/{name}/reset")).status_code == 200
            async with asyncio.timeout(10):
                while (await state(http, other)) != "closed":  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(0.02)


async def test_a_target_is_tried_by_one_process_at_a_time(pair: Any) -> None:
    with running_simulator([{"say": "hello"}]) as sim:
        model = {"llm__model": "anthropic:claude-sonnet-5-5", "llm__base_url": sim.url, "llm__api_key": "k"}
        servers = pair(**model, resilience__breaker_open_s=1, resilience__breaker_successes=1)
        async with httpx2.AsyncClient(timeout=20, trust_env=False) as http:

            async def ask(server: Server) -> int:
                return (await http.post(f"{server.url}/chat", json={"message": "hello"})).status_code

            sim.add_fault("server_error", times=5)
            assert {await ask(servers[0]) for _ in range(5)} == {503}
            async with asyncio.timeout(10):
                while (await state(http, servers[1])) != "half_open":  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)  # Both breaks are over: the longest is 1.2 s.
            sim.requests.clear()
            sim.add_fault({"kind": "slow_first_token", "seconds": 0.5})
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(server)) for server in servers for _ in range(10)]
            assert sim.max_in_flight == 1
            codes = [task.result() for task in tasks]
            assert codes.count(200) == len(sim.requests) >= 1


async def breakers(http: httpx2.AsyncClient, server: Server) -> dict[str, str]:
    found = (await http.get(f"{server.url}/v1/breakers")).json()["breakers"]
    return {one["name"]: one["state"] for one in found}


async def state(http: httpx2.AsyncClient, server: Server) -> str | None:
    return next(iter((await breakers(http, server)).values()), None)
