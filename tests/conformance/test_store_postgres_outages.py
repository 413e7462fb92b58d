"""A store on PostgreSQL keeps what it was asked to while connections break, servers start anew and answers are lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it has no annotations
import pytest

from holdfast.clock import token_hex
from holdfast.errors import NotOwner, StoreUnavailable
from holdfast.store import Account, Cap, Hold, Said, Settled, Standing, Store
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_link import Link
from holdfast.store.postgres_url import address
from holdfast.testing.store_words import ALL, LONG_S, ask, claim_of, make_ending, make_key, make_unit, read

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer
else:
    from servers import PostgresServer  # pytest puts a test's folder on the path, and mypy the project's

PATIENCE_S = 30.0
AGENTS = ("assistant",)
pytestmark = pytest.mark.sockets


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


# Outages.


async def talk(store: Store, session: str) -> int:
    """Turns of a session, one after the other; how many were not taken."""
    refused = 0
    for n in range(10):
        try:
            turn = (await ask(store, session, owner=session)).turn
        except StoreUnavailable:
            refused += 1
            continue
        if turn.state == "queued":  # One before it was kept, though nobody was told.
            await store.suspend(claim_of(turn))
            return refused
        unit = make_unit(f"call {n}")
        await insist(store.put_unit, claim_of(turn), unit, Said(1, b"[]"))
        await insist(store.end_turn, claim_of(turn), make_ending(), Said(2, b"[]"))
        assert (await insist(read, store, turn)).state == "ended"
    return refused


async def insist(write: Callable[..., Awaitable[Any]], *values: object) -> Any:
    """Again, where the second connection was killed as well; it may have been done then, and its owner is none."""
    lost = False
    while True:
        try:
            return await write(*values)
        except StoreUnavailable:
            lost = True
        except NotOwner:
            assert lost
            return None


async def test_connections_that_are_killed_cost_no_turn_that_was_accepted(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holdfast'"
    async with opened(url, pool_size=4) as store, beside(url) as other:
        async with asyncio.TaskGroup() as group:
            talks = [group.create_task(talk(store, f"s{n}")) for n in range(16)]
            while not all(task.done() for task in talks):
                await other.fetch(f"{kill} ORDER BY random() LIMIT 1")
                await asyncio.sleep(0.03)
        assert await store.check() == []
        await until(lambda: released(store))
        assert await store.find_turns(None, ["running", "queued"], 100, None) == []


async def released(store: PostgresStore) -> bool:
    """Whether nobody owns what its owner was not told of, as its next beat gives it back, and all of it was ended."""
    for n in range(16):
        await store.beat(f"s{n}")
    for turn in await store.claim("heir", AGENTS, LONG_S, 100):
        await store.end_turn(claim_of(turn), make_ending(outcome="cancelled"))
    return not await store.find_turns(None, ["running", "queued"], 1, None)


async def test_a_server_that_is_started_again_under_load(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store:
        heard: list[tuple[str, str]] = []
        store.listen(lambda *what: heard.append(what))
        turn = (await ask(store)).turn
        unit = make_unit()
        async with asyncio.TaskGroup() as group:
            putting = [group.create_task(put_for_ever(store, turn)) for _ in range(8)]
            await asyncio.sleep(0.1)
            postgres_server.end(signal.SIGINT)
            with pytest.raises(StoreUnavailable, match="PostgreSQL"):
                await store.ping()
            postgres_server.start()
            await until(lambda: works(store))
            await store.put_unit(claim_of(turn), unit)
            for task in putting:
                task.cancel()
        assert await store.check() == []

        async def told() -> bool:
            await store.cancel(turn.turn_id)
            return ("cancelled", turn.turn_id) in heard

        await until(told)
        await store.end_turn(claim_of(turn), make_ending())


async def put_for_ever(store: Store, turn: Any) -> None:
    while True:
        try:
            await store.put_unit(claim_of(turn), make_unit(token_hex(4)), Said(1, b"[]"))
        except StoreUnavailable:
            await asyncio.sleep(0.02)


async def works(store: Store) -> bool:
    await store.ping()
    return True


async def test_who_hears_hears_again_once_its_connection_was_killed(postgres_server: PostgresServer) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store, beside(url) as other:
        heard: list[tuple[str, str]] = []
        store.listen(lambda *what: heard.append(what))
        turn = (await ask(store)).turn
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND query LIKE $1"

        async def told() -> bool:
            await store.cancel(turn.turn_id)
            return bool(heard)

        for _ in range(2):
            assert await other.fetch(kill, f"%{address(url).schema}%")
            heard.clear()
            await until(told)


# Answers that are lost.


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The answer to the next statement of a name is lost, once it was done."""
    names: list[str] = []
    whole = Link._ask

    async def ask_and_lose(self: Link, name: str, values: Sequence[object]) -> list[Any]:
        rows = await whole(self, name, values)
        if name in names:
            names.remove(name)
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return rows

    monkeypatch.setattr(Link, "_ask", ask_and_lose)
    return names.append


async def test_what_can_be_repeated_is_and_does_no_harm(
    postgres_server: PostgresServer, lose: Callable[[str], None]
) -> None:
    async with opened(somewhere(postgres_server)) as store:
        turn, doubtful, ended = [(await ask(store, name)).turn for name in ("one", "two", "three")]
        for name in ("start", "put_unit", "suspend", "suspend_in_doubt", "end_turn", "cancel", "beat", "add_key"):
            lose(name)
        assert await store.start(claim_of(turn), ALL) == ()
        assert await store.put_unit(claim_of(turn), make_unit(), Said(1, b"[]")) is False
        assert (await store.units(turn.turn_id), await store.said(turn.turn_id, 0)) == ([make_unit()], [Said(1, b"[]")])
        await store.suspend(claim_of(turn))
        assert (await read(store, turn)).state == "queued"
        await store.suspend(claim_of(doubtful), make_unit())
        assert (await read(store, doubtful)).state == "in_doubt"
        await store.end_turn(claim_of(ended), make_ending())
        assert (await read(store, ended)).state == "ended"
        assert await store.cancel(turn.turn_id)
        await store.beat("a")
        await store.add_key(make_key("k"))
        assert len(await store.keys()) == 1
        for stale in (turn, doubtful, ended):
            with pytest.raises(NotOwner):
                await store.end_turn(claim_of(stale), make_ending())
        caps = [Cap(Account("all", "", "2026-11"), 10, None)]
        for name in ("reserve", "settle", "write_off"):
            lose(name)
        for call in ("one", "two"):
            assert (await store.reserve(Hold(call, "C-1", "a", 5, 6), caps))[0]
        await store.settle([Settled("one", 3, 4)])
        assert await store.standings([caps[0].account]) == [Standing(caps[0].account, 3, 4, 5, 6)]
        await store.leave("a")
        await store.write_off(-1)
        assert await store.standings([caps[0].account]) == [Standing(caps[0].account, 8, 10)]
        assert await store.check() == []


async def test_a_repeated_end_is_not_taken_for_another_owners(
    postgres_server: PostgresServer, lose: Callable[[str], None]
) -> None:
    """Whoever lost the turn hears so, though its first attempt was lost on the way."""
    async with opened(somewhere(postgres_server)) as store:
        turn = (await ask(store)).turn
        (claimed,) = await store.claim("b", AGENTS, LONG_S, 1)
        await store.end_turn(claim_of(claimed), make_ending())
        writes: dict[str, Callable[[], Awaitable[None]]] = {
            "end_turn": lambda: store.end_turn(claim_of(turn), make_ending()),
            "suspend": lambda: store.suspend(claim_of(turn)),
            "suspend_in_doubt": lambda: store.suspend(claim_of(turn), make_unit()),
        }
        for name, write in writes.items():
            lose(name)
            with pytest.raises(NotOwner):
                await write()


async def test_a_turn_whose_owner_was_not_told_is_given_back_by_its_next_beat(
    postgres_server: PostgresServer, lose: Callable[[str], None]
) -> None:
    async with opened(somewhere(postgres_server)) as store:
        await store.beat("a")
        lose("accept")
        with pytest.raises(StoreUnavailable):
            await ask(store, key="k")
        (kept,) = await store.find_turns(None, ["running"], 9, None)
        assert (await ask(store, key="k")).again
        assert await store.claim("b", AGENTS, LONG_S, 9) == []
        await store.beat("a")
        lose("claim")
        with pytest.raises(StoreUnavailable):
            await store.claim("b", AGENTS, LONG_S, 9)
        await store.beat("b")
        (claimed,) = await store.claim("c", AGENTS, LONG_S, 9)
        assert (claimed.turn_id, claimed.generation) == (kept.turn_id, 3)
        await store.beat("b")
        assert (await read(store, kept)).owner == "c"


async def test_a_turn_whose_caller_went_away_while_it_was_kept_is_given_back_too(
    postgres_server: PostgresServer,
) -> None:
    url = somewhere(postgres_server)
    async with opened(url) as store, beside(url) as other, beside(url) as onlooker:
        await store.end_turn(claim_of((await ask(store)).turn), make_ending())
        await store.beat("a")
        async with other.transaction():
            await other.execute("SELECT FROM sessions FOR UPDATE")
            asked = asyncio.get_running_loop().create_task(ask(store))
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%accept(%'"
            await until(lambda: onlooker.fetchval(waiting))
            asked.cancel()
            await asyncio.wait([asked])
        await until(lambda: store.find_turns(None, ["running"], 9, None))
        await store.beat("a")
        assert len(await store.claim("b", AGENTS, LONG_S, 9)) == 1


async def test_a_server_that_lets_nobody_in_for_now_is_one_that_is_away(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while its password is changed: what was served goes on once it does."""
    async with opened(somewhere(postgres_server)) as store:

        async def refuse(*_: object) -> Any:
            raise asyncpg.InvalidPasswordError("password authentication failed")

        with monkeypatch.context() as patched:
            patched.setattr(Link, "_ask", refuse)
            with pytest.raises(StoreUnavailable, match="refused us"):
                await store.ping()
        await store.ping()
