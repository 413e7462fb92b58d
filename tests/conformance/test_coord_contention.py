"""Several processes that want the same units get them all, and not one more."""

import asyncio
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.clock import Clock, token_hex
from holdfast.coord import open_coord

if TYPE_CHECKING:
    from tests.conformance.contender import PLENTY, SCARCE
    from tests.conformance.servers import Server
else:
    from contender import PLENTY, SCARCE  # pytest puts a test's folder on the path, and mypy the project's
    from servers import Server

PROCESSES = 3
SECONDS = 1.0


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_server")


@pytest.mark.sockets
async def test_processes_together_are_admitted_as_often_as_the_limit_says(server: Server) -> None:
    """At most the burst and the rate's; at least that, less what came while an answer was under way, and less one."""
    namespace, pipe = token_hex(8), asyncio.subprocess.PIPE
    command = [sys.executable, str(Path(__file__).parent / "contender.py"), server.url, namespace, str(SECONDS)]
    processes = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(PROCESSES)]
    try:
        for process in processes:
            assert process.stdout
            assert await process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write(b"go\n")
        told = [json.loads((await process.communicate())[0]) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()

    admitted = sum(one["admitted"] for one in told)
    begun, all_there = min(one["begun"] for one in told), max(one["begun"] for one in told)
    some_left, ended = min(one["ended"] for one in told), max(one["ended"] for one in told)
    slowest = max(one["slowest"] for one in told)
    rate = Fraction(SCARCE.num, SCARCE.den_ns)
    assert admitted <= SCARCE.burst + (ended - begun) * rate
    if slowest * rate < SCARCE.burst:  # Else the limit may have been full meanwhile, and units lost.
        assert admitted >= SCARCE.burst + (some_left - all_there - slowest) * rate - 1

    coord = open_coord(server.url, Clock(), timeout_s=10, namespace=namespace)
    await coord.open()
    refused = await coord.take([PLENTY._replace(cost=PLENTY.burst), SCARCE])
    assert refused is None or refused.wait_ns < 10_000_000, "what was refused has cost nothing elsewhere"
    await coord.close()
