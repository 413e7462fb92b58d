"""The embedded store's one thread: jobs that share a commit, and what becomes of them."""

import asyncio
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import KeyReused, NotOwner, StoreUnavailable, Unprocessable
from holdfast.store import Heard, SQLiteStore, worker
from holdfast.store.sqlite_steps import SQL
from holdfast.testing.store_words import (
    AGENTS,
    HALF_A_PAIR,
    LONG_S,
    ask,
    claim_of,
    make_ending,
    make_unit,
    numbers,
    read,
    talk,
)

if TYPE_CHECKING:
    from tests.unit.sqlite_stores import Held, opened, results
else:
    from sqlite_stores import Held, opened, results  # pytest puts a test's folder on the path, mypy the project's

pytestmark = pytest.mark.sockets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


async def test_jobs_that_gather_share_a_commit(path: Path) -> None:
    async with opened(path) as store:
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, *(ask(store, name) for name in "abcdefgh"))
            await asyncio.sleep(0)
            held.let_go()
        assert [task.result().turn.number for task in asked] == [1] * 8
        await store.ping()
    assert len(held.commits) == 3  # The one that held the thread, the eight, and the ping.


async def test_a_group_has_its_bounds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_GROUP", 3)
    async with opened(path) as store, Held(store) as held, asyncio.TaskGroup() as group:
        await results(group, *(ask(store, name) for name in "abcdefgh"))
        await asyncio.sleep(0)
        held.let_go()
    assert len(held.commits) == 1 + 3


async def test_one_that_fails_takes_no_other_of_its_group_with_it(path: Path) -> None:
    async with opened(path) as store:
        turn = (await ask(store, key="k", digest=b"1")).turn
        stale = claim_of(turn)._replace(generation=7)
        unit, late = make_unit(), make_unit("late")
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(
                group,
                store.put_unit(claim_of(turn), unit),
                store.put_unit(stale, late),
                ask(store, "new", key="k", digest=b"2"),
                store.end_turn(stale, make_ending()),
                ask(store, "b"),
                store.end_turn(claim_of(turn), make_ending()),
                ask(store, "half", message=HALF_A_PAIR),
            )
            await asyncio.sleep(0)
            held.let_go()
        came_to = [task.result() for task in asked]
        assert came_to[:4] == [False, NotOwner, KeyReused, NotOwner]
        assert came_to[5:] == [None, Unprocessable]
        assert len(held.commits) == 2
        assert [await numbers(store, name) for name in ("talk", "new", "b")] == [[1], [], [1]]
        assert [session.session_id for session in await store.sessions("anna", 10, None)] == ["talk", "b"]
        assert [kept.key for kept in await store.units(turn.turn_id)] == ["call"]
        assert (await read(store, turn)).state == "ended"
        assert await store.check() == []


async def test_one_that_fails_alone_leaves_nothing_behind(path: Path) -> None:
    async with opened(path) as store:
        turn = (await ask(store, key="k", digest=b"1")).turn
        for refused, call in (
            (KeyReused, ask(store, "new", key="k", digest=b"2")),
            (NotOwner, store.put_unit(claim_of(turn)._replace(owner="b"), make_unit())),
        ):
            with pytest.raises(refused):
                await call
        await talk(store, "other")
        assert [await numbers(store, name) for name in ("talk", "new", "other")] == [[1], [], [1]]


async def test_jobs_see_what_came_before_them_in_their_group(path: Path) -> None:
    async with opened(path) as store:
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(
                group, ask(store), ask(store), store.turns("anna", "talk", 9, None), store.forget("anna", "else")
            )
            await asyncio.sleep(0)
            held.let_go()
        assert [task.result().turn.state for task in asked[:2]] == ["running", "queued"]
        assert [turn.number for turn in asked[2].result()] == [2, 1]
        assert asked[3].result() is False


async def test_a_group_that_cannot_be_committed_keeps_nothing_and_says_so_to_each(path: Path) -> None:
    def forbid(action: int, name: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT" else sqlite3.SQLITE_OK

    heard: list[tuple[Heard, str]] = []
    async with opened(path) as store:
        turn = (await ask(store)).turn
        store.listen(lambda what, turn_id: heard.append((what, turn_id)))
        async with Held(store) as held, asyncio.TaskGroup() as group:
            forbidden = store._worker.run(lambda db: db.set_authorizer(forbid))
            ending = store.end_turn(claim_of(turn), make_ending())
            asked = await results(group, forbidden, ending, *(ask(store, name) for name in "abc"))
            await asyncio.sleep(0)
            held.let_go()
        assert [task.result() for task in asked] == [StoreUnavailable] * 5
        assert len({id(task) for task in asked}) == 5
        assert heard == []
        await recover(store, lambda db: db.set_authorizer(None))
        assert await store.turn(turn.turn_id) == turn
        assert len(await store.sessions("anna", 10, None)) == 1
        for name in "abc":
            await talk(store, name)


async def recover(store: SQLiteStore, job: Callable[[sqlite3.Connection], object]) -> None:
    """Put the database right again, by the thread that owns it; its own transaction still fails."""
    with suppress(StoreUnavailable):
        await store._worker.run(job)


async def test_a_cancelled_caller_harms_nobody_and_its_job_is_done_or_not(path: Path) -> None:
    async with opened(path) as store:
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, ask(store, "a"), ask(store, "b"), ask(store, "c"))
            await asyncio.sleep(0)
            asked[1].cancel()
            await asyncio.sleep(0)
            held.let_go()
        assert [task.cancelled() for task in asked] == [False, True, False]
        assert [await numbers(store, name) for name in "abc"] == [[1], [1], [1]]


async def test_a_turn_that_its_owner_did_not_wait_for_is_free_after_its_next_beat(path: Path) -> None:
    """Nobody would run it: its owner lives, and does not know of it."""
    async with opened(path) as store:
        free = (await ask(store, "free")).turn
        await store.suspend(claim_of(free))
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, ask(store, "x"), store.claim("a", AGENTS, LONG_S, 10), ask(store, "y"))
            await asyncio.sleep(0)
            asked[0].cancel()
            asked[1].cancel()
            await asyncio.sleep(0)
            held.let_go()
        await store.ping()
        await store.beat("a")
        claimed = await store.claim("b", AGENTS, LONG_S, 10)
        assert sorted((turn.session_id, turn.generation) for turn in claimed) == [("free", 3), ("x", 2)]
        assert (await read(store, asked[2].result().turn)).owner == "a"


async def test_who_listens_is_told_though_the_caller_is_gone(path: Path) -> None:
    """Others may wait for that turn to end."""
    heard: list[tuple[Heard, str]] = []
    async with opened(path) as store:
        turn = (await ask(store)).turn
        store.listen(lambda what, turn_id: heard.append((what, turn_id)))
        async with Held(store) as held, asyncio.TaskGroup() as group:
            asked = await results(group, store.end_turn(claim_of(turn), make_ending()))
            await asyncio.sleep(0)
            asked[0].cancel()
            await asyncio.sleep(0)
            assert heard == []
            held.let_go()
        await store.ping()
        assert heard == [("ended", turn.turn_id)]


async def test_what_is_asked_often_reads_no_more_than_it_has_to(path: Path) -> None:
    """Whole tables are large: every statement finds its rows through an index."""

    def plans(db: sqlite3.Connection) -> dict[str, str]:
        found = {}
        for name, statement in SQL.items():
            values = (None,) * (2 if "?1" in statement else statement.count("?"))
            found[name] = "; ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values))
        return found

    async with opened(path) as store:
        found = await store._worker.run(plans)
    scans = {
        name for name, plan in found.items() if re.search(r"SCAN (turns|sessions|units|said)(?! USING INDEX)", plan)
    }
    assert scans == set()
    assert {name for name, plan in found.items() if "SCAN turns USING INDEX turns_open" in plan} == {
        "find_open",
        "free",
        "release_all",
        "to_stop",
    }


async def test_a_webhook_that_was_told_is_not_told_again_by_one_that_was_slow(path: Path) -> None:
    async with opened(path) as store:
        turn = await talk(store, webhook="https://example.com/")
        assert await store.take_webhooks(10, 60.0) == [(turn, 0)]
        await store.webhook_told(turn.turn_id, None)
        await store.webhook_told(turn.turn_id, 0.0)
        assert await store.take_webhooks(10, 60.0) == []
