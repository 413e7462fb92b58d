"""Both stores behave alike, and the suite that says so can tell one that does not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from holdfast.store import Conversation, MemoryStore, SessionSummary, SQLiteStore, Store, StoredKey, TurnRecord
from holdfast.testing import STORE_CHECKS, check_store

Check = Callable[[Store], Awaitable[None]]
checks = pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@checks
async def test_the_store_in_memory(check: Check) -> None:
    async with opened(MemoryStore()) as store:
        await check(store)


@checks
@pytest.mark.sockets
async def test_the_store_in_sqlite(check: Check, tmp_path: Path) -> None:
    async with opened(SQLiteStore(tmp_path / "new" / "store.db")) as store:
        await check(store)


async def test_the_whole_suite_runs_on_stores_of_its_own() -> None:
    made: list[MemoryStore] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[Store]:
        made.append(MemoryStore())
        yield made[-1]

    await check_store(make)
    assert len(made) == len(STORE_CHECKS)


class Sharing(MemoryStore):
    """Forgets whose session it is."""

    async def recall(self, principal: str, session_id: str, window_tokens: int) -> Conversation:
        del principal
        return await super().recall("anna", session_id, window_tokens)

    async def record(self, turn: TurnRecord) -> None:
        await super().record(msgspec.structs.replace(turn, principal="anna"))

    async def turns(self, principal: str, session_id: str, limit: int, before: int | None) -> list[TurnRecord] | None:
        del principal
        return await super().turns("anna", session_id, limit, before)


class Overwriting(MemoryStore):
    """Takes a turn whatever came before it."""

    async def record(self, turn: TurnRecord) -> None:
        session = self._sessions.pop((turn.principal, turn.session_id), None)
        earlier = [] if session is None else session.turns
        for number, old in enumerate([*earlier, turn], 1):
            await super().record(msgspec.structs.replace(old, number=number))


class Skipping(MemoryStore):
    """Pages by time alone."""

    async def sessions(self, principal: str, limit: int, before: tuple[int, str] | None) -> list[SessionSummary]:
        return await super().sessions(principal, limit, before and (before[0], ""))


class Reviving(MemoryStore):
    """Lets a revoked key be added again."""

    async def add_key(self, key: StoredKey) -> None:
        self._keys.pop(key.id, None)
        await super().add_key(key)


class Remembering(MemoryStore):
    """Does not forget."""

    async def forget(self, principal: str, session_id: str) -> bool:
        return (principal, session_id) in self._sessions


@pytest.mark.parametrize("broken", [Sharing, Overwriting, Skipping, Reviving, Remembering])
async def test_a_broken_store_is_found_out(broken: type[MemoryStore]) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[Store]:
        yield broken()

    with pytest.raises(AssertionError, match="wanted"):
        await check_store(make)
