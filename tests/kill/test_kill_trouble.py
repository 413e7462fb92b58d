"""The store is full, locked or away while turns run: clear errors, nothing half-committed, and it goes on by itself."""

import asyncio
import json
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.store import SQLiteStore

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer, find
    from tests.kill.load import LINES, MANY, REPLY, Crowd, count, done, effects
    from tests.kill.matrix import sqlite
    from tests.kill.replica import Replica
else:
    from load import LINES, MANY, REPLY, Crowd, count, done, effects
    from matrix import sqlite
    from replica import Replica
    from servers import PostgresServer, find

pytestmark = [pytest.mark.slow, pytest.mark.sockets]
TURNS = 30


@asynccontextmanager
async def half_way(folder: Path, store: str) -> AsyncIterator[Crowd]:
    """Turns that are half done; at the end each has ended as it should, without a restart, and so has a new one."""
    async with Replica(folder, store, "load", settings=MANY) as replica:
        crowd = Crowd(replica, TURNS)
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.ask_all())
            while done(folder) < LINES * TURNS / 2:  # noqa: ASYNC110 - another process decides when
                await asyncio.sleep(0.005)
            yield crowd
        async with asyncio.TaskGroup() as group:
            replies = [group.create_task(crowd.come_back(name)) for name in (*crowd.names, "new")]
        assert {reply.result() for reply in replies} == {REPLY}
        assert await count(replica, "ended") == TURNS + 1
        assert await count(replica, "running") == await count(replica, "in_doubt") == 0
        happened = effects(folder)
        assert {happened[name, "pay"] for name in (*crowd.names, "new")} == {1}
        assert await replica.stop() == 0


async def refused(crowd: Crowd) -> None:
    """A new turn gets a clear answer, and is not begun."""
    answer = await crowd._replica.ask("load", {"run": "new"}, key="new")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert effects(crowd._replica.folder)["new", "add"] == 0


async def test_a_full_disk(tmp_path: Path) -> None:
    async with half_way(tmp_path, sqlite(tmp_path)) as crowd:
        pid = crowd._replica.pid
        free = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, ((tmp_path / "holdfast.db-wal").stat().st_size, free[1]))
        try:
            await refused(crowd)
            await asyncio.sleep(1)
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, free)
    assert await wrong_with(tmp_path / "holdfast.db") == []


async def test_a_database_that_somebody_else_locks(tmp_path: Path) -> None:
    async with half_way(tmp_path, sqlite(tmp_path)) as crowd:
        with closing(sqlite3.connect(tmp_path / "holdfast.db", timeout=20)) as other:
            other.execute("BEGIN IMMEDIATE")
            await refused(crowd)
            other.execute("ROLLBACK")
    assert await wrong_with(tmp_path / "holdfast.db") == []


async def test_a_database_that_is_started_anew(tmp_path: Path) -> None:
    if find("initdb") is None or find("postgres") is None:
        pytest.skip("PostgreSQL is not installed: it is not started anew")
    server = PostgresServer()
    try:
        server.initialise()
        server.start()
        async with half_way(tmp_path, server.url) as crowd:
            server.end(signal.SIGINT)
            await refused(crowd)
            await asyncio.to_thread(server.start)
    finally:
        server.clean_up()


async def wrong_with(path: Path) -> list[str]:
    store = SQLiteStore(path)
    await store.open()
    try:
        return await store.check()
    finally:
        await store.close()


async def test_copies_taken_at_any_moment_open_and_their_turns_end(tmp_path: Path) -> None:
    """The files as a power cut would leave them; the server is stopped for as long as they are copied."""
    copies = []
    async with Replica(tmp_path, sqlite(tmp_path), "load", settings=MANY) as replica:
        crowd = Crowd(replica, 300)
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.ask_all())
            for number in range(1, 9):
                while done(tmp_path) < LINES * 300 * number / 9:  # noqa: ASYNC110 - another process decides when
                    await asyncio.sleep(0.002)
                copies.append(await asyncio.to_thread(copy, replica, tmp_path / f"copy-{number}"))
    for number, home in enumerate(copies):
        assert await wrong_with(home / "holdfast.db") == []
        if number % 4 == 1:
            await finish(home)


def copy(replica: Replica, to: Path) -> Path:
    to.mkdir()
    replica.signal(signal.SIGSTOP)
    try:
        for name in ("holdfast.db", "holdfast.db-wal", "outside.jsonl"):
            (to / name).write_bytes((replica.folder / name).read_bytes())
    finally:
        replica.signal(signal.SIGCONT)
    return to


async def finish(home: Path) -> None:
    """A server that is started on a copy ends its turns."""
    before = effects(home)
    async with Replica(home, sqlite(home), "load", settings=MANY) as replica:
        kept = await turns(replica)
        assert kept
        crowd = Crowd(replica, 0)
        async with asyncio.TaskGroup() as group:
            replies = [group.create_task(crowd.come_back(name)) for name in kept]
        assert {reply.result() for reply in replies} == {REPLY}
        assert await count(replica, "ended") == len(kept)
    happened = effects(home)
    assert {happened[name, "pay"] for name in kept} == {1}
    assert all(happened[name, "add"] == 1 for name in kept if before[name, "pay"])


async def turns(replica: Replica) -> list[str]:
    """The names of the turns that are there."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "200"} | ({} if cursor is None else {"cursor": cursor})
        page = (await replica.http.get("/v1/turns", params=query)).json()
        found += [json.loads(turn["message"])["run"] for turn in page["turns"]]
        cursor = page["next"]
        if cursor is None:
            return found
