"""Two servers on one PostgreSQL: one is killed, stopped for a while, or started anew, and the other goes on."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

if TYPE_CHECKING:
    from tests.kill.balancer import Balancer
    from tests.kill.load import LINES, MANY, REPLY, Crowd, count, done, effects
    from tests.kill.matrix import InPostgres
    from tests.kill.replica import Replica, Settings
else:
    from balancer import Balancer
    from load import LINES, MANY, REPLY, Crowd, count, done, effects
    from matrix import InPostgres
    from replica import Replica, Settings

pytestmark = [pytest.mark.slow, pytest.mark.sockets]
TURNS = 100


@asynccontextmanager
async def two(folder: Path, store: str, **settings: str | None) -> AsyncIterator[tuple[Replica, Replica]]:
    both: Settings = {**MANY, **settings}
    async with Replica(folder, store, "load", settings=both) as a, Replica(folder, store, "load", settings=both) as b:
        yield a, b


async def half_done(folder: Path) -> None:
    while done(folder) < LINES * TURNS / 2:  # noqa: ASYNC110 - another process decides when
        await asyncio.sleep(0.005)


async def none_runs(replica: Replica) -> float:
    """Wait until no turn runs any more; how many seconds that took."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    while (await replica.http.get("/v1/turns?state=queued&state=running&limit=1")).json()["turns"]:  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.05)
    return clock() - begun


async def test_the_turns_of_a_killed_server_go_on_elsewhere_within_ten_seconds(
    tmp_path: Path, postgres: InPostgres
) -> None:
    async with two(tmp_path, postgres(tmp_path), STORE__LEASE_S=None) as (a, b):
        crowd = Crowd(a, TURNS)
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.ask_all())
            await half_done(tmp_path)
            a.signal(signal.SIGKILL)
        await a.died()
        over_s = await none_runs(b)
        print(f"killed with {TURNS - len(crowd.answered)} turns unanswered; over elsewhere after {over_s:.1f} s")  # noqa: T201 - the figure is what it is run for
        assert over_s < 10
        accepted = crowd.accepted
        crowd._replica = b
        async with asyncio.TaskGroup() as group:
            replies = [group.create_task(crowd.come_back(name)) for name in sorted(accepted)]
        assert {reply.result() for reply in replies} == {REPLY}
        happened = effects(tmp_path)
        assert {happened[name, "pay"] for name in accepted} == {1}


async def test_a_server_that_was_stopped_for_a_while_commits_nothing_any_more(
    tmp_path: Path, postgres: InPostgres
) -> None:
    async with two(tmp_path, postgres(tmp_path)) as (a, b):
        crowd = Crowd(b, TURNS)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(a.ask("load", {"run": name}, key=name)) for name in crowd.names]
            await half_done(tmp_path)
            a.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(1)
                await none_runs(b)
                in_doubt = await count(b, "in_doubt")
            finally:
                a.signal(signal.SIGCONT)
        answers = [task.result() for task in asked]
        refused = [answer.json() for answer in answers if answer.status_code != 200]
        assert {problem["code"] for problem in refused} <= {"not_owner", "in_doubt"}
        stale = sum(problem["code"] == "not_owner" for problem in refused)
        assert stale > 0
        async with asyncio.TaskGroup() as group:
            replies = [group.create_task(crowd.come_back(name)) for name in crowd.names]
        assert {reply.result() for reply in replies} == {REPLY}
        print(f"{stale} turns were refused to their former owner, {in_doubt} were in doubt")  # noqa: T201 - the figure is what it is run for
        assert await count(b, "ended") == TURNS
        happened = effects(tmp_path)
        assert {happened[name, "pay"] for name in crowd.names} == {1}


async def test_a_rolling_restart_fails_no_request(tmp_path: Path, postgres: InPostgres) -> None:
    settings = {"SHUTDOWN__LAME_DUCK_S": "0.6", "SHUTDOWN__DEADLINE_S": "5"}
    async with two(tmp_path, postgres(tmp_path), **settings) as pair, Balancer(pair).listening() as balancer:
        await balancer.all_ready()
        failed: list[str] = []
        served = 0
        over = asyncio.Event()

        async def ask_on(client: int, http: httpx2.AsyncClient) -> None:
            nonlocal served
            number = 0
            while not over.is_set():
                number += 1
                body = {"agent": "load", "message": json.dumps({"run": f"c{client}-{number}"})}
                try:
                    answer = await http.post("/chat", json=body, headers={"connection": "close"})
                    said = "" if answer.status_code == 200 else answer.text
                except httpx2.TransportError as error:
                    said = repr(error)
                served += 1
                failed.extend([said] if said else [])

        async with httpx2.AsyncClient(base_url=balancer.url, timeout=20) as http, asyncio.TaskGroup() as group:
            for client in range(8):
                group.create_task(ask_on(client, http))
            for _ in range(2):
                for replica in pair:
                    assert await replica.stop() == 0
                    await replica.start()
                    await balancer.all_ready()
            over.set()
        print(f"4 restarts, {served} requests, {len(failed)} failed")  # noqa: T201 - the figure is what it is run for
        assert failed == []
        assert served > 100
