"""The embedded store: its file, its one thread, and what goes wrong with either."""

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from holdfast.errors import Misconfigured, StoreUnavailable
from holdfast.store import MemoryStore, SQLiteStore, StoreSpec, TurnRecord, open_store, sqlite, worker
from holdfast.testing import make_turn

pytestmark = pytest.mark.sockets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def say(store: SQLiteStore, session_id: str = "talk", **changes: object) -> TurnRecord:
    turn = make_turn(await store.recall("anna", session_id, 0), session_id=session_id, **changes)
    await store.record(turn)
    return turn


async def numbers(store: SQLiteStore, session_id: str = "talk") -> list[int]:
    return [turn.number for turn in await store.turns("anna", session_id, 1_000, None) or []][::-1]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def threads() -> int:
    return sum(thread.name == "holdfast-sqlite" and thread.is_alive() for thread in threading.enumerate())


def test_the_url_names_the_store() -> None:
    store = open_store(StoreSpec(url="sqlite:some/where.db"))
    assert isinstance(store, SQLiteStore)
    assert store.path == Path("some/where.db")
    assert isinstance(open_store(StoreSpec(url="memory:")), MemoryStore)


async def test_what_it_writes_is_nobody_elses_to_read(path: Path) -> None:
    with umask(0):
        async with opened(path) as store:
            await say(store)
            assert mode(path.parent) == 0o700
            files = {file.name: mode(file) for file in path.parent.iterdir()}
    assert files == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_it_writes_ahead_and_leaves_one_file_behind(path: Path) -> None:
    async with opened(path) as store:
        await say(store)
        with sqlite3.connect(path) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.close()
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


async def test_what_was_kept_is_there_after_it_was_closed(path: Path) -> None:
    async with opened(path) as store:
        first = await say(store)
    for n in (2, 3):
        async with opened(path) as store:
            await say(store)
            assert await numbers(store) == list(range(1, n + 1))
            assert (await store.turns("anna", "talk", 1, 2)) == [first]


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.parent.mkdir()
    empty(path)
    async with opened(path) as store:
        await say(store)


async def test_a_file_called_memory_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        async with opened(Path(":memory:")) as store:
            await say(store)
    assert (tmp_path / ":memory:").stat().st_size > 0
    async with opened(Path(":memory:")) as store:
        assert await numbers(store) == [1, 2]


def empty(path: Path) -> None:
    path.touch()


def read_only(path: Path) -> None:
    path.chmod(0o400)


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def not_a_database(path: Path) -> None:
    path.write_text("Dear diary, this is no database at all. " * 100)


def with_foreign_tables(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE sessions (something TEXT)")
    db.close()


def folder(path: Path) -> None:
    path.mkdir()


def under_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file, and no folder")


def under_a_kernels_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to("/proc/self")


def content(path: Path) -> object:
    """What is in the file; of a database, what is in its tables."""
    if not path.is_file():
        return None
    with suppress(sqlite3.Error):
        return asked(path, "PRAGMA user_version"), asked(path, "SELECT sql FROM sqlite_master")
    return path.read_bytes()


UNUSABLE = [
    (newer, "newer version of Holdfast"),
    (not_a_database, "not a database"),
    (with_foreign_tables, "already exists"),
    (folder, "directory"),
    (under_a_file, "directory|exists"),
    (under_a_kernels_folder, "No such file|denied"),
]


@pytest.mark.parametrize(("make", "said"), UNUSABLE, ids=[make.__name__ for make, _ in UNUSABLE])
async def test_a_file_that_cannot_be_used_is_refused_in_one_line_and_left_as_it_was(
    make: Callable[[Path], None], said: str, path: Path
) -> None:
    path.parent.mkdir()
    make(path)
    before = content(path)
    store = SQLiteStore(path)
    with pytest.raises(Misconfigured, match=said) as refused:
        await store.open()
    assert refused.value.detail.startswith("store.url: ")
    assert str(path) in refused.value.detail
    assert "\n" not in refused.value.detail
    assert content(path) == before
    await still_closed(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
async def test_a_file_that_may_not_be_written_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    read_only(path)
    with pytest.raises(Misconfigured, match="denied"):
        await SQLiteStore(path).open()


async def still_closed(store: SQLiteStore) -> None:
    """As after a failed start: it answers that it is closed, at once, and leaves no thread."""
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.ping()
        await store.close()
        await gone()


async def gone() -> None:
    """Return once no thread of a store runs."""
    for thread in threading.enumerate():
        if thread.name == "holdfast-sqlite":
            await asyncio.to_thread(thread.join, 5)
    assert threads() == 0


async def test_a_store_that_could_not_be_opened_can_be_opened_later(path: Path) -> None:
    path.parent.mkdir()
    folder(path)
    store = SQLiteStore(path)
    with pytest.raises(Misconfigured):
        await store.open()
    path.parent.joinpath(path.name).rmdir()
    await store.open()
    await say(store)
    await store.close()


async def test_it_is_closed_before_it_is_opened_and_after_and_closing_twice_is_fine(path: Path) -> None:
    store = SQLiteStore(path)
    await still_closed(store)
    await store.open()
    await store.open()
    assert threads() == 1
    await say(store)
    await store.close()
    await still_closed(store)
    await store.open()
    assert await numbers(store) == [1]
    await store.close()


async def test_closing_finishes_what_was_asked_for(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    turns = [make_turn(await store.recall("anna", f"s{n}", 0), session_id=f"s{n}") for n in range(20)]
    async with asyncio.TaskGroup() as group:
        for turn in turns:
            group.create_task(store.record(turn))
        await asyncio.sleep(0)
        group.create_task(store.close())
        group.create_task(store.close())
    async with opened(path) as again:
        assert len(await again.sessions("anna", 100, None)) == 20


async def test_an_opening_that_is_cancelled_leaves_no_thread(path: Path) -> None:
    store = SQLiteStore(path)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.open())
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    await still_closed(store)
    async with opened(path):
        pass


class Held:
    """Keeps the database's thread busy until it is let go, so that jobs gather behind it."""

    def __init__(self, store: SQLiteStore) -> None:
        self._worker = store._worker
        self._loop = asyncio.get_running_loop()
        self._taken = asyncio.Event()
        self._go = threading.Event()
        self.commits: list[str] = []

    async def __aenter__(self) -> Self:
        self._running = self._loop.create_task(self._worker.run(self._wait))
        await self._taken.wait()
        return self

    def _wait(self, db: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self._taken.set)
        assert self._go.wait(10)
        db.set_trace_callback(lambda sql: self.commits.append(sql) if sql == "COMMIT" else None)

    def let_go(self) -> None:
        self._go.set()

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._running


async def turns_for(store: SQLiteStore, names: str) -> list[TurnRecord]:
    return [make_turn(await store.recall("anna", name, 0), session_id=name) for name in names]


async def results(group: asyncio.TaskGroup, *asked: Any) -> list[Any]:
    """Ask for all of it at once, in this order; what each comes to."""

    async def one(call: Any) -> Any:
        try:
            return await call
        except Exception as error:  # noqa: BLE001 - what it came to is what is asked
            return type(error)

    return [group.create_task(one(call)) for call in asked]


async def test_jobs_that_gather_share_a_commit(path: Path) -> None:
    async with opened(path) as store:
        turns = await turns_for(store, "abcdefgh")
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, *(store.record(turn) for turn in turns))
            await asyncio.sleep(0)
            held.let_go()
        assert [task.result() for task in asked] == [None] * 8
        await store.ping()
    assert len(held.commits) == 3  # The one that held the thread, the eight, and the ping.


async def test_a_group_has_its_bounds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_GROUP", 3)
    async with opened(path) as store:
        turns = await turns_for(store, "abcdefgh")
        async with Held(store) as held, asyncio.TaskGroup() as group:
            await results(group, *(store.record(turn) for turn in turns))
            await asyncio.sleep(0)
            held.let_go()
    assert len(held.commits) == 1 + 3


async def test_one_that_fails_takes_no_other_of_its_group_with_it(path: Path) -> None:
    async with opened(path) as store:
        a, b, c = await turns_for(store, "abc")
        again = msgspec.structs.replace(a, message="again")
        late = msgspec.structs.replace(b, number=7)
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, *(store.record(turn) for turn in (a, again, late, b, c)))
            await asyncio.sleep(0)
            held.let_go()
        assert [task.result() for task in asked] == [None, StoreUnavailable, StoreUnavailable, None, None]
        assert len(held.commits) == 2
        assert [await numbers(store, name) for name in "abc"] == [[1], [1], [1]]
        assert (await store.turns("anna", "a", 1, None)) == [a]


async def test_jobs_see_what_came_before_them_in_their_group(path: Path) -> None:
    async with opened(path) as store:
        (first,) = await turns_for(store, "a")
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(
                group, store.record(first), store.recall("anna", "a", 10), store.forget("anna", "a"), store.keys()
            )
            await asyncio.sleep(0)
            held.let_go()
        assert asked[1].result().turns == 1
        assert asked[2].result() is True


async def test_a_group_that_cannot_be_committed_keeps_nothing_and_says_so_to_each(path: Path) -> None:
    def forbid(action: int, name: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT" else sqlite3.SQLITE_OK

    async with opened(path) as store:
        turns = await turns_for(store, "abc")
        async with Held(store) as held, asyncio.TaskGroup() as group:
            forbidden = store._worker.run(lambda db: db.set_authorizer(forbid))
            asked = await results(group, forbidden, *(store.record(turn) for turn in turns))
            await asyncio.sleep(0)
            held.let_go()
        assert [task.result() for task in asked] == [StoreUnavailable] * 4
        assert len({id(task) for task in asked}) == 4
        await recover(store, lambda db: db.set_authorizer(None))
        assert await store.sessions("anna", 10, None) == []
        for turn in turns:
            await store.record(turn)


async def recover(store: SQLiteStore, job: Callable[[sqlite3.Connection], object]) -> None:
    """Put the database right again, by the thread that owns it; its own transaction still fails."""
    with suppress(StoreUnavailable):
        await store._worker.run(job)


async def test_a_full_disk_is_told_and_when_there_is_room_again_it_goes_on(path: Path) -> None:
    async with opened(path) as store:
        await say(store)
        await store._worker.run(lambda db: db.execute("PRAGMA max_page_count = 1"))
        with pytest.raises(StoreUnavailable, match="full"):
            await say(store, "big", message="x" * 1_000_000)
        assert await numbers(store) == [1]
        assert await store.turns("anna", "big", 1, None) is None
        await store._worker.run(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
        await say(store, "big", message="x" * 1_000_000)
        await say(store)
        assert await numbers(store) == [1, 2]


async def test_a_full_disk_takes_its_whole_group_and_nothing_of_it_is_kept(path: Path) -> None:
    """SQLite rolls back by itself then: no job of the group may be told that it was kept."""
    async with opened(path) as store:
        a, b = await turns_for(store, "ab")
        big = msgspec.structs.replace(b, message="x" * 3_000_000)
        await store._worker.run(lambda db: db.execute("PRAGMA cache_size = 5"))
        await store._worker.run(lambda db: db.execute("PRAGMA max_page_count = 40"))
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, store.record(a), store.record(big))
            await asyncio.sleep(0)
            held.let_go()
        kept = [await store.turns("anna", name, 1, None) is not None for name in "ab"]
        assert [task.result() is None for task in asked] == kept
        assert not kept[1]


async def test_while_another_process_writes_callers_wait_and_then_are_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.02)
    async with opened(path) as store:
        turn = make_turn(await store.recall("anna", "talk", 0))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.record(turn)
        other.execute("COMMIT")
        other.close()
        await store.record(turn)
        assert await numbers(store) == [1]


async def test_who_waits_for_another_process_goes_on_once_it_has_written(path: Path) -> None:
    loop, began = asyncio.get_running_loop(), asyncio.Event()

    def tell(sql: str) -> None:
        if sql.startswith("BEGIN"):
            loop.call_soon_threadsafe(began.set)

    async with opened(path) as store, asyncio.TaskGroup() as group:
        turn = make_turn(await store.recall("anna", "talk", 0))
        await store._worker.run(lambda db: db.set_trace_callback(tell))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        recording = group.create_task(store.record(turn))
        await began.wait()
        await asyncio.sleep(0)
        assert not recording.done()
        other.execute("COMMIT")
        other.close()
        await recording


async def test_what_is_forgotten_is_not_in_the_file_either(path: Path) -> None:
    async with opened(path) as store:
        await say(store)
        await say(store)
        await store.forget("anna", "talk")
    assert asked(path, "SELECT count(*) FROM turns") == [(0,)]


async def test_a_table_that_is_gone_is_told_by_every_call(path: Path) -> None:
    async with opened(path) as store:
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE turns")
        other.close()
        for call in (say(store), say(store)):
            with pytest.raises(StoreUnavailable, match="no such table"):
                await call
        await store.ping()
        assert await store.sessions("anna", 10, None) == []


async def test_a_cancelled_caller_harms_nobody_and_its_job_is_done_or_not(path: Path) -> None:
    async with opened(path) as store:
        a, b, c = await turns_for(store, "abc")
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, store.record(a), store.record(b), store.record(c))
            await asyncio.sleep(0)
            asked[1].cancel()
            await asyncio.sleep(0)
            held.let_go()
        assert [task.cancelled() for task in asked] == [False, True, False]
        assert [await numbers(store, name) for name in "abc"] == [[1], [1], [1]]


async def test_a_store_whose_thread_hangs_is_closed_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLOSE_S", 0.02)
    store = SQLiteStore(path)
    await store.open()
    held = Held(store)
    async with held:
        with pytest.raises(StoreUnavailable, match="did not close"):
            await store.close()
        held.let_go()
    await still_closed(store)


async def test_two_stores_share_a_file(path: Path) -> None:
    """Of two that record the same turn one is told that it came too late."""
    async with opened(path) as one, opened(path) as two:
        await say(one)
        await say(two)
        both = [make_turn(await store.recall("anna", "talk", 0)) for store in (one, two)]
        async with asyncio.TaskGroup() as group:
            asked = await results(group, one.record(both[0]), two.record(both[1]))
        assert {task.result() for task in asked} == {None, StoreUnavailable}
        assert await numbers(one) == await numbers(two) == [1, 2, 3]
        assert await one.forget("anna", "talk")
        assert await two.turns("anna", "talk", 1, None) is None


WRITER = """
import asyncio, sys
from holdfast.store import SQLiteStore
from holdfast.testing import make_turn

async def main(path, name, turns):
    store = SQLiteStore(path)
    await store.open()
    for n in range(turns):
        await store.record(make_turn(await store.recall("anna", name, 0), session_id=name))
        print(n + 1, flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def writer(path: Path, name: str, turns: int) -> subprocess.Popen[str]:
    source = str(Path(worker.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(turns)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


async def test_processes_that_open_a_new_file_at_once_and_write_to_it(path: Path) -> None:
    """One of them makes the tables; the others wait, and find them made."""
    writers = [writer(path, f"s{n}", 10) for n in range(3)]
    for process in writers:
        process.communicate(timeout=30)
    assert [process.returncode for process in writers] == [0] * 3
    async with opened(path) as store:
        assert [await numbers(store, f"s{n}") for n in range(3)] == [list(range(1, 11))] * 3


async def test_what_was_told_as_kept_survives_a_kill(path: Path) -> None:
    process = writer(path, "talk", 100_000)
    assert process.stdout is not None
    told = 0
    while told < 25:
        told = int(process.stdout.readline())
    process.kill()
    told = max([told, *(int(line) for line in process.stdout.read().split())])
    process.wait(timeout=30)
    process.stdout.close()
    async with opened(path) as store:
        kept = await numbers(store)
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) >= told
        await say(store)


async def test_a_copy_taken_on_the_way_opens(path: Path, tmp_path: Path) -> None:
    """As after a power cut: the files as they are at some moment, the log among them."""
    async with opened(path) as store:
        for n in range(1, 31):
            await say(store)
            if n % 10 == 0:
                copied = tmp_path / f"copy-{n}"
                shutil.copytree(path.parent, copied)
                async with opened(copied / path.name) as copy:
                    assert await numbers(copy) == list(range(1, n + 1))
        full = (path.parent / "store.db-wal").read_bytes()
        torn = tmp_path / "torn"
        shutil.copytree(path.parent, torn)
        (torn / "store.db-shm").unlink()
        (torn / "store.db-wal").write_bytes(full[: len(full) - 1_000])
        async with opened(torn / path.name) as copy:
            kept = await numbers(copy)
            assert kept == list(range(1, len(kept) + 1))
            assert 0 < len(kept) < 30


async def test_steps_that_are_missing_are_made_up_and_a_step_that_fails_makes_none(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a newer version brings more steps: all of them, or none."""
    package = tmp_path / "package"
    shutil.copytree(Path(sqlite.__file__).parent / "migrations", package / "migrations")
    async with opened(path) as store:
        await say(store)
    monkeypatch.setattr(sqlite, "_PACKAGE", package)
    second, third = (package / "migrations" / name for name in ("0002_more.sql", "0003_most.sql"))
    second.write_text("CREATE TABLE more (a TEXT);\nINSERT INTO more VALUES ('x;y');\n")
    third.write_text("CREATE TABLE most (a TEXT);\nCREATE TABLE more (a TEXT);\n")
    with pytest.raises(Misconfigured, match="more already exists"):
        await SQLiteStore(path).open()
    assert asked(path, "PRAGMA user_version") == [(1,)]
    assert asked(path, "SELECT name FROM sqlite_master WHERE name LIKE 'mo%'") == []
    third.write_text("CREATE TABLE most (a TEXT);\n")
    for _ in range(2):
        async with opened(path) as store:
            assert await numbers(store) == [1]
    assert asked(path, "PRAGMA user_version") == [(3,)]
    assert asked(path, "SELECT a FROM more") == [("x;y",)]


def asked(path: Path, sql: str) -> list[Any]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()
