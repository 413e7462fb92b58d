"""The embedded store's tables brought up to date, looked over, and copied."""

import asyncio
import shutil
import sqlite3
import stat
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import Misconfigured, StoreUnavailable
from holdfast.events import Usage
from holdfast.store import Account, Cap, Ending, Hold, Past, Said, SQLiteStore, TurnRecord, sqlite_file
from holdfast.testing.store_words import ALL, ask, claim_of, make_unit, numbers, talk

if TYPE_CHECKING:
    from tests.unit.sqlite_stores import Held, asked, opened
else:
    from sqlite_stores import Held, asked, opened  # pytest puts a test's folder on the path, mypy the project's

pytestmark = pytest.mark.sockets

STEPS = resources.files("holdfast.store") / "migrations" / "sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


def made_by_version_1(path: Path) -> None:
    """As version 1 left it: anna's two turns in ``talk``, of which one failed, and a key."""
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript((STEPS / "0001_conversations_and_keys.sql").read_text(encoding="utf-8"))
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO sessions VALUES ('c0ffee', 'anna', 'talk', 2, 1000, 2000)")
        told = ("assistant", "trace", "request", "192.0.2.1")
        db.executemany(
            f"INSERT INTO turns VALUES ({', '.join('?' * 19)})",
            [
                ("c0ffee", 1, *told, "why?", "so", "success", None, 2, 1, 30, 4, "plain", b"\0messages", 10, 1000, 50),
                ("c0ffee", 2, *told, "and?", "", "timeout", "deadline_exceeded", 1, 0, 3, 0, "", None, 0, 2000, 70),
            ],
        )
        db.execute("INSERT INTO api_keys VALUES ('k', 'anna', 'admin', x'00', 5, NULL, NULL)")
    db.close()


def as_version_1_kept_it(number: int, message: str, started_ns: int, ending: Ending) -> TurnRecord:
    return TurnRecord(
        turn_id=f"c0ffee-{number}",
        conversation_id="c0ffee",
        number=number,
        principal="anna",
        session_id="talk",
        agent="assistant",
        trace_id="trace",
        request_id="request",
        source_ip="192.0.2.1",
        message=message,
        started_ns=started_ns,
        state="ended",
        ending=ending,
    )


async def test_what_version_1_kept_comes_back_as_turns_that_ended(path: Path) -> None:
    made_by_version_1(path)
    usage = Usage(model_calls=2, tool_calls=1, input_tokens=30, output_tokens=4)
    first = Ending(outcome="success", reply="so", usage=usage, format="plain", tokens=10, duration_ns=50)
    usage = Usage(model_calls=1, input_tokens=3)
    second = Ending(outcome="timeout", error="deadline_exceeded", usage=usage, duration_ns=70)
    wanted = [as_version_1_kept_it(2, "and?", 2_000, second), as_version_1_kept_it(1, "why?", 1_000, first)]
    for _ in range(2):
        async with opened(path) as store:
            assert await store.turns("anna", "talk", 10, None) == wanted
            assert await store.turn("c0ffee-1") == wanted[1]
            assert await store.find_turns("anna", ["ended"], 10, None) == wanted
            assert [s.turns for s in await store.sessions("anna", 10, None)] == [2]
            assert [key.id for key in await store.keys()] == ["k"]
            assert await store.claim("b", ["assistant"], 60.0, 10) == []
            assert await store.take_webhooks(10, 60.0) == []
            assert await store.purge(2**62, 10) == 0
            assert await store.check() == []
    async with opened(path) as store:
        third = await ask(store, accepted_ns=3_000)
        assert (third.turn.turn_id, third.turn.state) == ("c0ffee-3", "running")
        assert third.past == (Past(message="why?", reply="so", format="plain", messages=b"\0messages"),)
        assert await store.check() == []


async def test_what_version_2_kept_comes_back_and_cost_nothing(path: Path) -> None:
    """Its calls and events too; and what is large is last in its row, as it was."""
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        for step in sorted(entry.name for entry in STEPS.iterdir())[:2]:
            db.executescript((STEPS / step).read_text(encoding="utf-8"))
        db.execute("PRAGMA user_version = 2")
        db.execute("INSERT INTO sessions VALUES ('c0ffee', 'anna', 'talk', 1, 1000, 1000)")
        db.execute(
            "INSERT INTO turns VALUES ('c0ffee', 1, 'anna', 'ended', NULL, 1, 0, 0, NULL, x'', 1000, 1050, NULL, NULL, "
            "0, 'assistant', 'trace', 'request', '192.0.2.1', 'why?', 'success', 'so', NULL, '', 2, 1, 30, 4, NULL, "
            "NULL, NULL, 'plain', 10, 50, x'006d')"
        )
        db.execute(
            "INSERT INTO units VALUES (1, 'c0ffee', 1, 'tool', 'call', 1, 'search', 'once', 'done', x'0061736b6564', "
            "0, 0, 0, 0, 1000, 1010, x'7b7d', x'01', NULL)"
        )
        db.execute("INSERT INTO said VALUES ('c0ffee', 1, 1, x'5b5d')")
    db.close()
    usage = Usage(model_calls=2, tool_calls=1, input_tokens=30, output_tokens=4, cost_nanos=0)
    ending = Ending(outcome="success", reply="so", usage=usage, format="plain", tokens=10, duration_ns=50)
    async with opened(path) as store:
        assert await store.turn("c0ffee-1") == as_version_1_kept_it(1, "why?", 1_000, ending)
        assert await store.units("c0ffee-1") == [make_unit(state="done", result=b"\1", ended_ns=1_010)]
        assert await store.said("c0ffee-1", 0) == [Said(1, b"[]")]
        assert (await ask(store, accepted_ns=3_000)).past == (
            Past(message="why?", reply="so", format="plain", messages=b"\0m"),
        )
        assert await store.check() == []
    *_, (_, last, *_) = asked(path, "PRAGMA table_info(turns)")
    assert last == "messages"


async def test_the_tables_are_the_same_whichever_version_they_began_with(path: Path, tmp_path: Path) -> None:
    made_by_version_1(path)
    new = tmp_path / "new" / "store.db"
    for file in (path, new):
        async with opened(file):
            pass
    tables = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    assert asked(path, tables) == asked(new, tables)
    assert asked(path, "PRAGMA user_version") == asked(new, "PRAGMA user_version")


async def test_a_step_that_fails_leaves_everything_as_it_was(path: Path) -> None:
    made_by_version_1(path)
    with sqlite3.connect(path) as db:
        db.execute("CREATE VIEW turn_records AS SELECT 1")
    db.close()
    before = asked(path, "SELECT name, sql FROM sqlite_master ORDER BY name"), asked(path, "SELECT * FROM turns")
    with pytest.raises(Misconfigured, match="turn_records already exists"):
        await SQLiteStore(path).open()
    after = asked(path, "SELECT name, sql FROM sqlite_master ORDER BY name"), asked(path, "SELECT * FROM turns")
    assert after == before
    assert asked(path, "PRAGMA user_version") == [(1,)]


async def test_steps_that_are_missing_are_made_up_and_a_step_that_fails_makes_none(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a newer version brings more steps: all of them, or none."""
    package = tmp_path / "package"
    shutil.copytree(str(STEPS), package / "migrations" / "sqlite")
    async with opened(path) as store:
        await talk(store)
    monkeypatch.setattr(sqlite_file, "_PACKAGE", package)
    steps = len(list((package / "migrations" / "sqlite").glob("*.sql")))
    names = f"{steps + 1:04}_more.sql", f"{steps + 2:04}_most.sql"
    more, most = (package / "migrations" / "sqlite" / name for name in names)
    more.write_text("CREATE TABLE more (a TEXT);\nINSERT INTO more VALUES ('x;y');\n")
    most.write_text("CREATE TABLE most (a TEXT);\nCREATE TABLE more (a TEXT);\n")
    with pytest.raises(Misconfigured, match="more already exists"):
        await SQLiteStore(path).open()
    assert asked(path, "PRAGMA user_version") == [(steps,)]
    assert asked(path, "SELECT name FROM sqlite_master WHERE name LIKE 'mo%'") == []
    most.write_text("CREATE TABLE most (a TEXT);\n")
    for _ in range(2):
        async with opened(path) as store:
            assert await numbers(store) == [1]
    assert asked(path, "PRAGMA user_version") == [(steps + 2,)]
    assert asked(path, "SELECT a FROM more") == [("x;y",)]


WRONG = [
    ("UPDATE turns SET outcome = NULL WHERE number = 1", "ended turns that do not say how: C-1"),
    ("UPDATE turns SET state = 'running', owner = 'a' WHERE number = 1", "turns that say how they ended and have not"),
    ("UPDATE turns SET owner = NULL WHERE number = 2", "running turns without an owner: C-2"),
    ("UPDATE turns SET owner = 'a' WHERE number = 1", "turns with an owner that have ended or are in doubt: C-1"),
    ("UPDATE turns SET state = 'running' WHERE number = 3", "turns that run before an earlier one has ended: C-3"),
    (
        "UPDATE turns SET state = 'in_doubt', owner = NULL WHERE number = 2",
        "turns in doubt without a unit in doubt",
    ),
    ("UPDATE units SET state = 'begun' WHERE number = 1", "ended turns with a unit that is begun: C-1"),
    ("UPDATE turns SET state = 'asleep' WHERE number = 3", "turns in a state there is not: C-3"),
    ("UPDATE units SET state = 'asleep'", "units in a state there is not: C-1 tool call"),
    ("UPDATE sessions SET turns = 4", "numbered from 1 to their count: C"),
    ("DELETE FROM turns WHERE number = 2", "numbered from 1 to their count: C"),
    ("DELETE FROM turns WHERE number = 1", "row None of units belongs to a row of turns there is not|units belongs"),
    ("UPDATE turns SET principal = 'ben' WHERE number = 3", "turns of another principal than their session: C-3"),
    ("DELETE FROM sessions", "turns belongs to a row of sessions there is not"),
    ("UPDATE turns SET webhook_due_ns = 1 WHERE number = 2", "turns that say how they ended and have not: C-2"),
    ("UPDATE accounts SET held_nanos = 7", "accounts that hold something else than calls do: user anna 2026-11"),
    ("DELETE FROM holds", "accounts that hold something else than calls do: user anna 2026-11"),
]


@pytest.mark.parametrize(("change", "complaint"), WRONG)
async def test_a_check_finds_what_cannot_be(path: Path, change: str, complaint: str) -> None:
    async with opened(path) as store:
        first = (await ask(store)).turn
        await store.put_unit(claim_of(first), make_unit(state="in_doubt"))
        await store.end_turn(claim_of(first), Ending(outcome="success"))
        await ask(store)
        await ask(store)
        await store.reserve(Hold("h", "C-1", "a", 5, 6), [Cap(Account("user", "anna", "2026-11"), None, None)])
        assert await store.check() == []
        with sqlite3.connect(path) as other:
            other.execute(change)
        other.close()
        found = " ".join(await store.check()).replace(first.conversation_id, "C")
        assert any(part in found for part in complaint.split("|")), found


async def test_a_check_names_a_few_and_counts_the_others(path: Path) -> None:
    async with opened(path) as store:
        for _ in range(8):
            await talk(store)
        with sqlite3.connect(path) as other:
            other.execute("UPDATE turns SET owner = 'a'")
        other.close()
        (found,) = await store.check()
    assert found.count("-") == 5
    assert found.endswith(" and 3 more")


async def test_a_file_there_is_not_is_not_checked_nor_copied_nor_made(path: Path, tmp_path: Path) -> None:
    store = SQLiteStore(path)
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await store.check()
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await store.backup(tmp_path / "copy.db")
    assert files(tmp_path) == []


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def not_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("Dear diary, this is no database at all. " * 100)


async def test_a_copy_is_made_while_others_write(path: Path, tmp_path: Path) -> None:
    copies = [tmp_path / f"copy-{n}.db" for n in range(5)]
    async with opened(path) as store, asyncio.TaskGroup() as group:

        async def write(name: str) -> None:
            while len(made) < len(copies):
                await talk(store, name, message="x" * 3_000)

        made: list[int] = []
        for name in "abcd":
            group.create_task(write(name))
        for copied in copies:
            kept = len(await numbers(store, "a"))
            await store.backup(copied)
            made.append(kept)
    for copied, kept in zip(copies, made, strict=True):
        assert stat.S_IMODE(copied.stat().st_mode) == 0o600
        async with opened(copied) as copy:
            assert await copy.check() == []
            assert len(await numbers(copy, "a")) >= kept
            assert (await ask(copy, "a", accepted_ns=9_000)).turn.owner == "a"
    assert files(tmp_path) == [*(file.name for file in copies), "data"]


async def test_a_copy_waits_for_no_one_and_nobody_for_it(path: Path, tmp_path: Path) -> None:
    async with opened(path) as store:
        await talk(store)
        async with Held(store) as held:
            await store.backup(tmp_path / "copy.db")
            assert await store.check() == []
            held.let_go()
    await store.backup(tmp_path / "later.db")
    async with opened(tmp_path / "copy.db") as copy:
        assert await numbers(copy) == [1]


async def test_a_copy_never_takes_anothers_place(path: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    async with opened(path) as store:
        for place in (there, tmp_path / "no" / "folder", tmp_path):
            with pytest.raises(Misconfigured, match="cannot copy"):
                await store.backup(place)
        assert there.read_text() == "mine"
        (tmp_path / "half.part").write_text("another copy is being made")
        with pytest.raises(Misconfigured, match="cannot copy"):
            await store.backup(tmp_path / "half")
        assert (tmp_path / "half.part").exists()


async def test_a_copy_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    not_a_database(path)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SQLiteStore(path).backup(tmp_path / "copy.db")
    assert files(tmp_path) == ["data"]
    assert await SQLiteStore(path).check() == ["it cannot be read: file is not a database"]


async def test_a_copy_is_read_as_it_was_though_its_session_goes_on(path: Path, tmp_path: Path) -> None:
    async with opened(path) as store:
        turn = (await ask(store)).turn
        await store.backup(tmp_path / "copy.db")
        await store.end_turn(claim_of(turn), Ending(outcome="success"))
        await talk(store)
    async with opened(tmp_path / "copy.db") as copy:
        assert await copy.turn(turn.turn_id) == turn
        (claimed,) = await copy.claim("b", ["assistant"], 60.0, 10)
        assert await copy.start(claim_of(claimed), ALL) == ()
