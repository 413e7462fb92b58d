"""The embedded store: its file, its one thread, and what goes wrong with either."""

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import Misconfigured, StoreUnavailable
from holdfast.store import MemoryStore, SQLiteStore, StoreSpec, open_store, worker
from holdfast.store.sqlite_file import Durability
from holdfast.testing.store_words import ask, numbers, talk

if TYPE_CHECKING:
    from tests.unit.sqlite_stores import Held, asked, opened
else:
    from sqlite_stores import Held, asked, opened  # pytest puts a test's folder on the path, mypy the project's

pytestmark = pytest.mark.sockets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


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
            await talk(store)
            assert mode(path.parent) == 0o700
            files = {file.name: mode(file) for file in path.parent.iterdir()}
    assert files == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_it_writes_ahead_and_leaves_one_file_behind(path: Path) -> None:
    async with opened(path) as store:
        await talk(store)
        with sqlite3.connect(path) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.close()
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]


async def test_what_was_kept_is_there_after_it_was_closed(path: Path) -> None:
    async with opened(path) as store:
        first = await talk(store)
    for n in (2, 3):
        async with opened(path) as store:
            await talk(store)
            assert await numbers(store) == list(range(1, n + 1))
            assert (await store.turns("anna", "talk", 1, 2)) == [first]


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.parent.mkdir()
    empty(path)
    async with opened(path) as store:
        await talk(store)


async def test_a_file_called_memory_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        async with opened(Path(":memory:")) as store:
            await talk(store)
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
    await talk(store)
    await store.close()


async def test_it_is_closed_before_it_is_opened_and_after_and_closing_twice_is_fine(path: Path) -> None:
    store = SQLiteStore(path)
    await still_closed(store)
    await store.open()
    await store.open()
    assert threads() == 1
    await talk(store)
    await store.close()
    await still_closed(store)
    await store.open()
    assert await numbers(store) == [1]
    await store.close()


async def test_closing_finishes_what_was_asked_for(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    async with asyncio.TaskGroup() as group:
        for n in range(20):
            group.create_task(ask(store, f"s{n}"))
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


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
async def test_what_a_commit_survives_is_set(path: Path, durability: Durability, synchronous: int) -> None:
    store = SQLiteStore(path, durability=durability)
    await store.open()
    assert await store._worker.run(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (synchronous,)
    assert store.lasts
    await store.close()
