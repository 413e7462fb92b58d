"""The store on PostgreSQL is a store; what it is refused is an outage, and nothing is kept by halves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it has no annotations
import pytest

from holdfast.clock import token_hex
from holdfast.errors import Misconfigured, StoreUnavailable
from holdfast.store import Account, Cap, Hold, Said, Store, StoreSpec, open_store, postgres_link
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_schema import migrate, steps
from holdfast.store.postgres_url import address
from holdfast.testing import STORE_CHECKS
from holdfast.testing.store_words import LONG_S, ask, claim_of, make_ending, make_key, make_unit, read

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer
else:
    from servers import PostgresServer  # pytest puts a test's folder on the path, and mypy the project's

PATIENCE_S = 30.0
AGENTS = ("assistant",)
pytestmark = pytest.mark.sockets

Check = Callable[[Store], Awaitable[None]]


def somewhere(server: PostgresServer) -> str:
    """The address of a schema of its own."""
    return f"{server.url}?search_path=s{token_hex(8)}"


@asynccontextmanager
async def opened(url: str, pool_size: int = 8) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, pool_size)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_the_store_in_postgres(check: Check, postgres_server: PostgresServer) -> None:
    async with opened(somewhere(postgres_server)) as store:
        await check(store)
        assert await store.check() == []


@asynccontextmanager
async def beside(url: str) -> AsyncIterator[Any]:
    """A connection of somebody else to the store's schema."""
    where = address(url)
    connection = await asyncpg.connect(where.url, server_settings={"search_path": where.schema})
    try:
        yield connection
    finally:
        await connection.close()


async def until(done: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if await done():
                    return
            except StoreUnavailable:
                pass
            await asyncio.sleep(0.02)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for an answer."""
    monkeypatch.setattr(postgres_link, "ANSWER_S", 0.5)


# Opening.


async def test_many_may_open_a_new_schema_at_once(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    stores = [PostgresStore(url) for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        for store in stores:
            group.create_task(store.open())
    await stores[0].add_key(make_key("k"))
    assert [key.id for key in await stores[7].keys()] == ["k"]
    for store in stores:
        await store.open()
        await store.close()
        await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await stores[0].ping()


async def test_a_schema_says_which_version_it_was_and_is(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    store = PostgresStore(url)
    assert [await store.migrate() for _ in range(2)] == [(0, len(steps())), (len(steps()), len(steps()))]
    async with beside(url) as other:
        await other.execute("INSERT INTO schema_version VALUES (99)")
    for refused in (store.migrate, store.open):
        with pytest.raises(Misconfigured, match="made by a newer version of Holdfast"):
            await refused()


async def test_what_version_1_kept_comes_back_and_cost_nothing(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = somewhere(postgres_server)
    schema, first = address(url).schema, steps()[:1]
    async with beside(url) as other:
        with monkeypatch.context() as before:
            before.setattr("holdfast.store.postgres_schema.steps", lambda: first)
            assert await migrate(other, schema) == (0, 1)
        await other.execute("INSERT INTO sessions VALUES ('c0ffee', 'anna', 'talk', 1, 1000, 1000)")
        await other.execute(
            "INSERT INTO turns (turn_id, conversation_id, number, principal, session_id, agent, trace_id, request_id, "
            "source_ip, message, started_ns, streams, digest, state, outcome, reply, detail, model_calls, tool_calls, "
            "input_tokens, output_tokens, format, tokens, duration_ns, messages) VALUES ('c0ffee-1', 'c0ffee', 1, "
            "'anna', 'talk', 'assistant', 'trace', 'request', '192.0.2.1', 'why?', 1000, false, '', 'ended', "
            "'success', 'so', '', 2, 1, 30, 4, 'plain', 10, 50, 'm')"
        )
        await other.execute(
            "INSERT INTO units (turn_id, kind, key, attempt, name, effect, state, digest, model_calls, tool_calls, "
            "input_tokens, output_tokens, begun_ns) VALUES ('c0ffee-1', 'tool', 'call', 1, 'search', 'once', 'failed', "
            "'', 0, 0, 0, 0, 1000)"
        )
        assert await migrate(other, schema) == (1, len(steps()))
    async with opened(url) as store:
        turn = await store.turn("c0ffee-1")
        assert turn is not None
        assert turn.ending is not None
        assert (turn.ending.reply, turn.ending.usage.output_tokens, turn.ending.usage.cost_nanos) == ("so", 4, 0)
        assert [unit.usage.cost_nanos for unit in await store.units("c0ffee-1")] == [0]
        assert [past.messages for past in (await ask(store, accepted_ns=3_000)).past or ()] == [b"m"]
        assert await store.check() == []


async def test_without_a_schema_in_the_address_it_is_called_holdfast(postgres_server: PostgresServer) -> None:
    async with opened(postgres_server.url), beside(postgres_server.url) as other:
        assert await other.fetchval("SELECT count(*) FROM holdfast.turns") == 0


async def test_who_may_not_make_a_schema_may_use_one(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    schema, role = address(url).schema, f"r{token_hex(4)}"
    theirs = url.replace("holdfast@", f"{role}@")
    async with beside(url) as other:
        await other.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON DATABASE postgres FROM PUBLIC")
        with pytest.raises(Misconfigured, match=r"store\.url: PostgreSQL refused us: permission denied"):
            await PostgresStore(theirs).open()
        await PostgresStore(url).migrate()
        await other.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        await other.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
    async with opened(theirs) as store:
        assert (await ask(store)).turn.number == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("/postgres", "/nowhere"), Misconfigured),
        (("holdfast@", "nobody:hunter2@"), Misconfigured),
        (("holdfast@", "holdfast:hunter2@[::"), Misconfigured),
        (("holdfast@127.0.0.1", "holdfast:hunter2@127.0.0.1:1,127.0.0.1"), None),
        (("?search_path=", "?password=hunter2&search_path=No-name"), Misconfigured),
        (("?search_path=", "?password=hunter2&search_path=pg_"), Misconfigured),
        (("?search_path=", "?hunter2=1&search_path="), StoreUnavailable),
    ],
)
async def test_an_address_that_is_wrong_says_so_and_shows_no_password(
    postgres_server: PostgresServer, change: tuple[str, str], error: type[Exception] | None
) -> None:
    url = somewhere(postgres_server).replace(*change)
    assert "hunter2" not in repr(StoreSpec.model_validate({"url": url}))
    if error is None:
        async with opened(url) as store:
            assert "hunter2" not in repr(store)
        return
    with pytest.raises(error) as refused:
        await open_store(StoreSpec.model_validate({"url": url})).open()
    assert change[1].startswith("?hunter2") or "hunter2" not in str(refused.value)


async def test_no_server_is_an_outage_and_not_a_mistake(postgres_server: PostgresServer) -> None:
    url = postgres_server.url.replace(str(postgres_server.port), "1")
    with pytest.raises(StoreUnavailable, match="PostgreSQL cannot be reached"):
        await PostgresStore(url).open()


# Several at once.


async def test_turns_that_are_accepted_at_once_in_one_session_are_all_kept(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store, beside(url) as other, beside(url) as onlooker:
        await ask(store)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%accept(%'"
        async with asyncio.TaskGroup() as group, other.transaction():
            await other.execute("SELECT FROM sessions FOR UPDATE")
            asked = [group.create_task(ask(store)) for _ in range(4)]
            async with asyncio.timeout(PATIENCE_S):
                while await onlooker.fetchval(waiting) < len(asked):  # noqa: ASYNC110 - the server does not tell
                    await asyncio.sleep(0.01)
        assert sorted(task.result().turn.number for task in asked) == [2, 3, 4, 5]


async def test_what_another_replica_is_claiming_is_left_to_it_at_once(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store, beside(url) as other:
        turn = (await ask(store)).turn
        rest = (await ask(store, "other")).turn
        async with other.transaction():
            await other.execute("UPDATE turns SET owner = 'x', generation = 2 WHERE turn_id = $1", turn.turn_id)
            assert [claimed.turn_id for claimed in await store.claim("b", AGENTS, LONG_S, 9)] == [rest.turn_id]


# What the server refuses.


@pytest.mark.usefixtures("hasty")
async def test_a_row_that_somebody_holds_is_an_outage_for_who_needs_it(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    async with opened(url, pool_size=2) as store, beside(url) as other:
        turn = (await ask(store)).turn
        async with other.transaction():
            await other.execute("SELECT FROM turns FOR UPDATE")
            for write in (
                lambda: store.put_unit(claim_of(turn), make_unit(), Said(1, b"[]")),
                lambda: store.end_turn(claim_of(turn), make_ending(), Said(1, b"[]")),
                lambda: store.suspend(claim_of(turn), make_unit()),
            ):
                with pytest.raises(StoreUnavailable, match=r"statement timeout|did not answer within 0\.5 s"):
                    await write()
            await store.ping()
        assert (await read(store, turn), await store.units(turn.turn_id)) == (turn, [])
        assert await store.said(turn.turn_id, 0) == []
        await store.put_unit(claim_of(turn), make_unit())


@pytest.mark.usefixtures("hasty")
async def test_who_comes_when_every_connection_is_busy_is_told_so(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    async with opened(url, pool_size=1) as store, beside(url) as other:
        turn = (await ask(store)).turn
        async with other.transaction(), asyncio.TaskGroup() as group:
            await other.execute("SELECT FROM turns FOR UPDATE")
            held = [group.create_task(failing(store.put_unit(claim_of(turn), make_unit()))) for _ in range(4)]
            await asyncio.wait(held)
        assert any("all 1 are busy" in task.result() for task in held)
        await store.put_unit(claim_of(turn), make_unit())


async def failing(write: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        await write
    return refused.value.detail


@pytest.mark.parametrize("table", ["units", "said", "turns", "sessions"])
async def test_a_full_disk_keeps_nothing_by_halves(postgres_server: PostgresServer, table: str) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store, beside(url) as other:
        turn = (await ask(store)).turn
        await other.execute(f"""
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END $$;
            CREATE TRIGGER full_disk AFTER INSERT OR UPDATE ON {table} EXECUTE FUNCTION full_disk()
        """)
        writes: dict[str, Callable[[], Awaitable[object]]] = {
            "units": lambda: store.put_unit(claim_of(turn), make_unit(), Said(1, b"[]")),
            "said": lambda: store.put_unit(claim_of(turn), make_unit(), Said(1, b"[]")),
            "turns": lambda: store.end_turn(claim_of(turn), make_ending(), Said(1, b"[]")),
            "sessions": lambda: ask(store, "new"),
        }
        with pytest.raises(StoreUnavailable, match="No space left on device"):
            await writes[table]()
        assert await store.find_turns(None, ["queued", "running", "ended"], 9, None) == [turn]
        assert (await store.units(turn.turn_id), await store.said(turn.turn_id, 0)) == ([], [])
        assert await store.check() == []
        await other.execute(f"DROP TRIGGER full_disk ON {table}")
        await writes[table]()


async def test_a_name_that_no_index_can_hold_is_refused(postgres_server: PostgresServer) -> None:
    async with opened(somewhere(postgres_server)) as store:
        turn = (await ask(store)).turn
        with pytest.raises(Exception, match="a name is too long to be kept"):
            await store.put_unit(claim_of(turn), make_unit(token_hex(10_000)))


# Looking it over.


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("UPDATE sessions SET turns = 7", "not numbered from 1 to their count"),
        ("UPDATE turns SET principal = 'x'", "turns of another session than their conversation"),
        ("UPDATE turns SET turn_id = 'x'", "turns with another id than their place: x"),
        ("UPDATE turns SET state = 'in_doubt', owner = NULL", "turns in doubt without a unit in doubt"),
        ("UPDATE turns SET unpurged_ns = 1", "turns that wait to be purged or told and have not ended"),
        ("UPDATE turns SET state = 'ended', owner = NULL, outcome = 'error'", "ended turns that do not say how"),
        ("UPDATE accounts SET held_nanos = 7", "accounts that hold something else than calls do: user anna 2026-11"),
        ("DELETE FROM holds", "accounts that hold something else than calls do: user anna 2026-11"),
    ],
)
async def test_a_look_over_finds_what_is_wrong(postgres_server: PostgresServer, damage: str, complaint: str) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store, beside(url) as other:
        await ask(store)
        await store.reserve(Hold("h", "C-1", "a", 5, 6), [Cap(Account("user", "anna", "2026-11"), None, None)])
        assert await store.check() == []
        await other.execute(damage)
        assert any(complaint in text for text in await store.check())


async def test_a_look_over_finds_turns_that_run_too_soon_and_calls_that_never_end(
    postgres_server: PostgresServer,
) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store, beside(url) as other:
        first, _ = (await ask(store)).turn, (await ask(store)).turn
        await store.put_unit(claim_of(first), make_unit())
        await other.execute("UPDATE turns SET state = 'running'")
        (found,) = await store.check()
        assert found == f"turns that run before an earlier one has ended: {first.conversation_id}-2"
        await store.end_turn(claim_of(first), make_ending())
        await other.execute("UPDATE units SET state = 'begun'")
        assert await store.check() == [f"ended turns with a unit that is begun: {first.turn_id}"]
