"""What goes wrong with the embedded store's file: a full disk, a lock, damage, a kill, a power cut."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import Misconfigured, StoreUnavailable
from holdfast.store import Said, SQLiteStore, sqlite_file, worker
from holdfast.testing.store_words import ask, claim_of, make_ending, make_unit, numbers, read, talk

if TYPE_CHECKING:
    from tests.unit.sqlite_stores import Held, asked, opened, results
else:
    from sqlite_stores import Held, asked, opened, results  # pytest puts a test's folder on the path

pytestmark = pytest.mark.sockets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


async def test_a_full_disk_is_told_and_when_there_is_room_again_it_goes_on(path: Path) -> None:
    async with opened(path) as store:
        turn = (await ask(store)).turn
        await store._worker.run(lambda db: db.execute("PRAGMA max_page_count = 1"))
        large = b"x" * 1_000_000
        for call in (
            ask(store, "big", message=large.decode()),
            store.put_unit(claim_of(turn), make_unit(result=large), Said(1, b"[]")),
            store.end_turn(claim_of(turn), make_ending(messages=large), Said(1, b"[]")),
            store.suspend(claim_of(turn), make_unit(result=large)),
        ):
            with pytest.raises(StoreUnavailable, match="full"):
                await call
        assert await store.turn(turn.turn_id) == turn
        assert (await store.units(turn.turn_id), await store.said(turn.turn_id, 0)) == ([], [])
        assert await store.turns("anna", "big", 1, None) is None
        await store._worker.run(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
        await store.end_turn(claim_of(turn), make_ending(messages=large))
        await talk(store, "big", message=large.decode())
        assert await store.check() == []


async def test_a_full_disk_takes_its_whole_group_and_nothing_of_it_is_kept(path: Path) -> None:
    """SQLite rolls back by itself then: no job of the group may be told that it was kept."""
    async with opened(path) as store:
        await store._worker.run(lambda db: db.execute("PRAGMA cache_size = 5"))
        await store._worker.run(lambda db: db.execute("PRAGMA max_page_count = 60"))
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, ask(store, "a"), ask(store, "b", message="x" * 3_000_000), ask(store, "c"))
            await asyncio.sleep(0)
            held.let_go()
        kept = [await store.turns("anna", name, 1, None) is not None for name in "abc"]
        assert [task.result() is not StoreUnavailable for task in asked] == kept
        assert not kept[1]


FILLS_UP = """
import asyncio, resource, signal, sys
from holdfast.errors import StoreUnavailable
from holdfast.store import SQLiteStore
from holdfast.testing.store_words import ask, claim_of, make_unit, numbers, talk

async def main(path):
    store = SQLiteStore(path)
    await store.open()
    turn = (await ask(store, "running")).turn
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
    kept = 0
    try:
        while True:
            await talk(store, message="x" * 30_000)
            kept += 1
    except StoreUnavailable as error:
        print(error.detail)
    try:
        await store.put_unit(claim_of(turn), make_unit(result=b"x" * 900_000))
    except StoreUnavailable as error:
        print(error.detail)
    print(len(await numbers(store)) - kept, len(await store.units(turn.turn_id)), await store.check())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.put_unit(claim_of(turn), make_unit(result=b"x" * 900_000))
    await talk(store, "more")
    print(await numbers(store, "more"), await store.check())
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


async def test_a_file_that_may_not_grow_is_told_and_nothing_is_half_written(path: Path) -> None:
    done = await asyncio.to_thread(child(FILLS_UP, path).communicate, timeout=30)
    first, second, then, later = done[0].splitlines()
    assert "full" in first or "I/O error" in first
    assert "full" in second or "I/O error" in second
    assert then in ("0 0 []", "1 0 []")  # One may have been accepted, and not ended.
    assert later == "[1] []"


async def test_while_another_process_writes_callers_wait_and_then_are_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.02)
    async with opened(path) as store:
        turn = (await ask(store)).turn
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        for call in (
            ask(store),
            store.put_unit(claim_of(turn), make_unit()),
            store.end_turn(claim_of(turn), make_ending()),
            store.beat("a"),
        ):
            with pytest.raises(StoreUnavailable, match="locked"):
                await call
        assert await read(store, turn) == turn  # Reading waits for no writer.
        other.execute("COMMIT")
        other.close()
        await store.end_turn(claim_of(turn), make_ending())
        assert await numbers(store) == [1]


async def test_who_waits_for_another_process_goes_on_once_it_has_written(path: Path) -> None:
    loop, began = asyncio.get_running_loop(), asyncio.Event()

    def tell(sql: str) -> None:
        if sql.startswith("BEGIN"):
            loop.call_soon_threadsafe(began.set)

    async with opened(path) as store, asyncio.TaskGroup() as group:
        await store._worker.run(lambda db: db.set_trace_callback(tell))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        accepting = group.create_task(ask(store))
        await began.wait()
        await asyncio.sleep(0)
        assert not accepting.done()
        other.execute("COMMIT")
        other.close()
        assert (await accepting).turn.number == 1


async def test_a_table_that_is_gone_is_told_by_every_call(path: Path) -> None:
    async with opened(path) as store:
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE turns")
        other.close()
        for call in (talk(store), talk(store)):
            with pytest.raises(StoreUnavailable, match="no such table"):
                await call
        await store.ping()
        assert await store.sessions("anna", 10, None) == []


async def test_damage_is_told_by_whoever_meets_it_and_by_a_check(path: Path) -> None:
    async with opened(path) as store:
        for n in range(50):
            await talk(store, f"s{n}", message="x" * 2_000)
    page = asked(path, "SELECT rootpage FROM sqlite_master WHERE name = 'sessions'")[0][0]
    with path.open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(b"\xde\xad\xbe\xef" * 1_024)
    async with opened(path) as store:
        with pytest.raises(StoreUnavailable, match="malformed"):
            await store.forget("anna", "s0")
        with pytest.raises(StoreUnavailable, match="malformed"):
            await ask(store, "new")
        await store.ping()
        assert await store.check() != []
        assert await store.keys() == []
    with path.open("r+b") as file:
        file.write(b"\0" * 100)
    with pytest.raises(Misconfigured, match="not a database"):
        await SQLiteStore(path).open()


async def test_what_is_forgotten_or_purged_is_not_in_the_file_either(path: Path) -> None:
    async with opened(path) as store:
        for name in ("talk", "kept"):
            turn = (await ask(store, name, key=name)).turn
            await store.put_unit(claim_of(turn), make_unit(state="done", result=b"1"), Said(1, b"[]"))
            await store.end_turn(claim_of(turn), make_ending())
        await store.forget("anna", "talk")
        assert await store.purge(2_000, 10) == 1
    counts = [asked(path, f"SELECT count(*) FROM {table}") for table in ("sessions", "turns", "units", "said")]
    assert counts == [[(1,)], [(1,)], [(0,)], [(0,)]]
    assert asked(path, "SELECT key FROM turns") == [(None,)]


async def test_two_stores_share_a_file(path: Path) -> None:
    """What one has claimed the other cannot write, and what both ask for is done once."""
    async with opened(path) as one, opened(path) as two:
        turns = [(await ask(one, f"s{n}", owner="one")).turn for n in range(30)]
        await two.beat("two")

        async def claim(store: SQLiteStore, replica: str) -> list[str]:
            return [t.turn_id for _ in range(10) for t in await store.claim(replica, ["assistant"], 60.0, 3)]

        await one.beat("uno")
        async with asyncio.TaskGroup() as group:
            both = [group.create_task(claim(one, "uno")), group.create_task(claim(two, "two"))]
        claimed = [turn_id for task in both for turn_id in task.result()]
        assert sorted(claimed) == sorted(turn.turn_id for turn in turns)
        async with asyncio.TaskGroup() as group:
            kept = [group.create_task(ask(store, key="k", digest=b"1")) for store in (one, two) * 5]
        assert [task.result().again for task in kept].count(False) == 1
        async with asyncio.TaskGroup() as group:
            many = [group.create_task(ask(store, "many")) for store in (one, two) * 5]
        assert sorted(task.result().turn.number for task in many) == list(range(1, 11))
        assert await two.check() == []


WRITER = """
import asyncio, sys
from holdfast.store import Said, SQLiteStore
from holdfast.testing.store_words import ask, claim_of, make_ending, make_unit, talk

async def speak(store, name, turns):
    for n in range(turns):
        turn = (await ask(store, name, message="x" * 3_000)).turn
        await store.put_unit(claim_of(turn), make_unit(), Said(1, b"[]"))
        await store.put_unit(claim_of(turn), make_unit(state="done", result=b"x" * 20_000), Said(2, b"[]"))
        await store.end_turn(claim_of(turn), make_ending(messages=b"x" * 20_000))
        print(turn.turn_id, flush=True)

async def main(path, turns, *names):
    store = SQLiteStore(path)
    await store.open()
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(speak(store, name, turns))
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
"""


def child(script: str, *words: object) -> subprocess.Popen[str]:
    source = str(Path(worker.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


async def test_processes_that_open_a_new_file_at_once_and_write_to_it(path: Path) -> None:
    """One of them makes the tables; the others wait, and find them made."""
    writers = [child(WRITER, path, 10, f"s{n}") for n in range(3)]
    for process in writers:
        await asyncio.to_thread(process.communicate, timeout=30)
    assert [process.returncode for process in writers] == [0] * 3
    async with opened(path) as store:
        assert [await numbers(store, f"s{n}") for n in range(3)] == [list(range(1, 11))] * 3
        assert await store.check() == []


async def test_what_was_told_as_kept_survives_a_kill(path: Path) -> None:
    process = child(WRITER, path, 100_000, "a", "b", "c")
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(25)]
    process.kill()
    told += process.stdout.read().split()
    process.wait(timeout=30)
    process.stdout.close()
    async with opened(path) as store:
        assert await store.check() == []
        await lost_nothing(store, told)
        claimed = await store.claim("b", ["assistant"], 60.0, 100)
        assert {turn.session_id for turn in claimed} <= set("abc")
        for turn in claimed:
            await store.end_turn(claim_of(turn), make_ending())
        await talk(store, "a")


async def lost_nothing(store: SQLiteStore, told: list[str]) -> None:
    for turn_id in told:
        turn = await store.turn(turn_id)
        assert turn is not None
        assert turn.state == "ended"
        assert [unit.state for unit in await store.units(turn_id)] == ["done"]
        assert [said.last for said in await store.said(turn_id, 0)] == [1, 2]


async def test_the_files_as_they_are_at_any_moment_open_and_recover(path: Path, tmp_path: Path) -> None:
    """As after a power cut. The log is copied too; a process that is stopped writes nothing meanwhile."""
    process = child(WRITER, path, 100_000, *"abcdef")
    assert process.stdout is not None
    told: list[str] = []
    copies = [tmp_path / f"copy-{n}" for n in range(12)]
    counts = []
    try:
        for copied in copies:
            told += [(await asyncio.to_thread(process.stdout.readline)).strip() for _ in range(17)]
            process.send_signal(signal.SIGSTOP)
            _, status = await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            shutil.copytree(path.parent, copied, ignore=shutil.ignore_patterns("*-shm"))
            process.send_signal(signal.SIGCONT)
            counts.append(len(told))
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stdout.close()
    for copied, count in zip(copies, counts, strict=True):
        async with opened(copied / path.name) as store:
            assert await store.check() == []
            await lost_nothing(store, told[:count])
            for turn in await store.claim("b", ["assistant"], 60.0, 100):
                await store.end_turn(claim_of(turn), make_ending())
            await talk(store, "a")
            assert await store.check() == []


async def test_a_log_that_is_torn_is_taken_up_to_its_tear(path: Path, tmp_path: Path) -> None:
    async with opened(path) as store:
        for _ in range(30):
            await talk(store)
        full = (path.parent / "store.db-wal").read_bytes()
        for lost in (1, 1_000, 30_000, 100_000):
            torn = tmp_path / f"torn-{lost}"
            shutil.copytree(path.parent, torn, ignore=shutil.ignore_patterns("*-shm"))
            (torn / "store.db-wal").write_bytes(full[:-lost])
            async with opened(torn / path.name) as copy:
                kept = await numbers(copy)
                assert kept == list(range(1, len(kept) + 1))
                assert 0 < len(kept) <= 30
                assert await copy.check() == []
