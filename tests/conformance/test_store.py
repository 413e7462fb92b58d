"""The stores behave alike, and the suite that says so can tell one that does not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from holdfast.errors import NotOwner
from holdfast.store import (
    Accepted,
    Account,
    Cap,
    Claim,
    Ending,
    Hold,
    MemoryStore,
    NewTurn,
    Past,
    Said,
    SessionSummary,
    Settled,
    SQLiteStore,
    Standing,
    Store,
    StoredKey,
    TurnRecord,
    TurnState,
    Unit,
    UnitKind,
)
from holdfast.testing import STORE_CHECKS, check_store, loop_clock

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
    async with opened(MemoryStore(loop_clock())) as store:
        await check(store)


@checks
@pytest.mark.sockets
async def test_the_store_in_sqlite(check: Check, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "new" / "store.db")
    async with opened(store):
        await check(store)
        assert await store.check() == []


async def test_the_whole_suite_runs_on_stores_of_its_own() -> None:
    made: list[MemoryStore] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[Store]:
        made.append(MemoryStore(loop_clock()))
        yield made[-1]

    await check_store(make)
    assert len(made) == len(STORE_CHECKS)


class Sharing(MemoryStore):
    """Forgets whose session it is."""

    async def accept(self, turn: NewTurn, window_tokens: int) -> Accepted:
        return await super().accept(msgspec.structs.replace(turn, principal="anna"), window_tokens)

    async def turns(self, principal: str, session_id: str, limit: int, before: int | None) -> list[TurnRecord] | None:
        del principal
        return await super().turns("anna", session_id, limit, before)


class Trusting(MemoryStore):
    """Lets an earlier owner write."""

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        turn = self._turns.get(claim.turn_id)
        if turn is not None and turn.record.owner == claim.owner:
            claim = claim._replace(generation=turn.record.generation)
        return await super().put_unit(claim, unit, said)


class Meddling(MemoryStore):
    """Ends a turn whoever asks for it."""

    async def end_turn(self, claim: Claim, ending: Ending, said: Said | None = None) -> None:
        try:
            await super().end_turn(claim, ending, said)
        except NotOwner:
            turn = self._turns.get(claim.turn_id)
            if turn is None or turn.record.owner is None:
                raise
            await super().end_turn(Claim(claim.turn_id, turn.record.owner, turn.record.generation), ending, said)


class Hasty(MemoryStore):
    """Starts a turn before the earlier one has ended."""

    async def start(self, claim: Claim, window_tokens: int) -> tuple[Past, ...] | None:
        past = await super().start(claim, window_tokens)
        if past is None:
            self._turns[claim.turn_id].change(state="running")
        return past


class Repeating(MemoryStore):
    """Keeps a turn again for a key it has seen."""

    async def accept(self, turn: NewTurn, window_tokens: int) -> Accepted:
        self._by_key.clear()
        return await super().accept(turn, window_tokens)


class Generous(MemoryStore):
    """Gives a turn away while its owner lives."""

    async def claim(self, replica: str, agents: Collection[str], lease_s: float, limit: int) -> list[TurnRecord]:
        self._beats.clear()
        return await super().claim(replica, agents, lease_s, limit)


class Careless(MemoryStore):
    """Gives a turn on whose effect is in doubt."""

    async def suspend(self, claim: Claim, unit: Unit | None = None, said: Said | None = None) -> None:
        await super().suspend(claim, unit, said)
        self._release(self._turns[claim.turn_id])


class Settling(MemoryStore):
    """Goes on when the first of several effects is settled."""

    async def resolve(self, turn_id: str, kind: UnitKind, key: str, result: bytes | None, now_ns: int) -> bool:
        resolved = await super().resolve(turn_id, kind, key, result, now_ns)
        if resolved and self._turns[turn_id].record.state == "in_doubt":
            self._release(self._turns[turn_id])
        return resolved


class Nagging(MemoryStore):
    """Tells a webhook again and again."""

    async def webhook_told(self, turn_id: str, again_in_s: float | None) -> None:
        await super().webhook_told(turn_id, again_in_s or 0.0)


class Silent(MemoryStore):
    """Tells nobody who is to stop."""

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        await super().put_unit(claim, unit, said)
        return False


class Skipping(MemoryStore):
    """Pages by time alone."""

    async def sessions(self, principal: str, limit: int, before: tuple[int, str] | None) -> list[SessionSummary]:
        return await super().sessions(principal, limit, before and (before[0], ""))


class Leaping(MemoryStore):
    """Pages turns by time alone."""

    async def find_turns(
        self, principal: str | None, states: Collection[TurnState], limit: int, before: tuple[int, str] | None
    ) -> list[TurnRecord]:
        return await super().find_turns(principal, states, limit, before and (before[0], ""))


class Reviving(MemoryStore):
    """Lets a revoked key be added again."""

    async def add_key(self, key: StoredKey) -> None:
        self._keys.pop(key.id, None)
        await super().add_key(key)


class Remembering(MemoryStore):
    """Does not forget."""

    async def forget(self, principal: str, session_id: str) -> bool:
        return (principal, session_id) in self._sessions


class Greedy(MemoryStore):
    """Forgets what has not ended long enough ago."""

    async def purge(self, before_ns: int, limit: int) -> int:
        return await super().purge(before_ns * 2, limit)


class Hopeful(MemoryStore):
    """Holds on the accounts that have room, and forgets the others."""

    async def reserve(self, hold: Hold, caps: Sequence[Cap]) -> tuple[bool, tuple[Standing, ...]]:
        fits = [cap for cap in caps if self._standing(cap.account).fits(cap, hold)]
        _, standings = await super().reserve(hold, fits)
        return len(fits) == len(caps), standings


class Late(MemoryStore):
    """Looks, lets others do the same, and then holds."""

    async def reserve(self, hold: Hold, caps: Sequence[Cap]) -> tuple[bool, tuple[Standing, ...]]:
        fits = all(self._standing(cap.account).fits(cap, hold) for cap in caps)
        await asyncio.sleep(0)
        if not fits:
            return False, tuple(self._standing(cap.account) for cap in caps)
        return await super().reserve(hold, [cap._replace(tokens=None, nanos=None) for cap in caps])


class Lenient(MemoryStore):
    """Lets go of what the dead held."""

    async def write_off(self, lease_s: float) -> list[Hold]:
        lost = await super().write_off(lease_s)
        for hold in lost:
            self._add([Account("user", "anna", "2026-11-20")], -hold.tokens, held_tokens=0, held_nanos=0)
        return lost


class Impatient(MemoryStore):
    """Takes everybody for dead who is not known to live."""

    async def write_off(self, lease_s: float) -> list[Hold]:
        return await super().write_off(-lease_s)


class Doubling(MemoryStore):
    """Settles a hold as often as it is told to."""

    async def settle(self, settled: Sequence[Settled]) -> None:
        known = {one.id: self._holds[one.id] for one in settled if one.id in self._holds}
        await super().settle(settled)
        self._holds |= known


class Lingering(MemoryStore):
    """Keeps what a session spent that is no more."""

    def forget_session_account(self, conversation_id: str) -> None:
        del conversation_id


BROKEN = [
    Sharing,
    Trusting,
    Meddling,
    Hasty,
    Repeating,
    Generous,
    Careless,
    Settling,
    Nagging,
    Silent,
    Skipping,
    Leaping,
    Reviving,
    Remembering,
    Greedy,
    Hopeful,
    Late,
    Lenient,
    Impatient,
    Doubling,
    Lingering,
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_store_is_found_out(broken: type[MemoryStore]) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[Store]:
        yield broken(loop_clock())

    with pytest.raises(AssertionError, match="wanted"):
        await check_store(make)
