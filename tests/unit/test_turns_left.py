"""Turns that others left, or that were lost here without anybody saying so, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from holdfast.clock import NS
from holdfast.errors import AgentFailed, InDoubt, NotOwner, StoreUnavailable, TurnCancelled
from holdfast.events import TurnSuspended
from holdfast.replica import Keeper, keeper
from holdfast.store import Claim, MemoryStore, NewTurn, Past, TurnRecord, Unit
from holdfast.testing import loop_clock
from holdfast.turn import Turn

if TYPE_CHECKING:
    from tests.unit.house import House, Scripted, outcome_of
else:
    from house import House, Scripted, outcome_of

LEASE_S = 5.0


class Store(MemoryStore):
    """Counts what it is asked, and takes its time over it, or is away."""

    def __init__(self) -> None:
        super().__init__(loop_clock())
        self.beats_at: list[float] = []
        self.starts = 0
        self.claim_s = 0.0
        self.to_purge = 0
        self.away = False

    async def beat(self, replica: str) -> list[str]:
        self.beats_at.append(loop_clock().now() / NS)
        return await super().beat(replica)

    async def claim(self, replica: str, agents: Collection[str], lease_s: float, limit: int) -> list[TurnRecord]:
        await asyncio.sleep(self.claim_s)
        return await super().claim(replica, agents, lease_s, limit)

    async def start(self, claim: Claim, window_tokens: int) -> tuple[Past, ...] | None:
        self.starts += 1
        if self.away:
            raise StoreUnavailable
        return await super().start(claim, window_tokens)

    async def purge(self, before_ns: int, limit: int) -> int:
        del before_ns
        await asyncio.sleep(0.3)
        purged = min(self.to_purge, limit)
        self.to_purge -= purged
        return purged


def asked(session: str = "talk", **changes: Any) -> NewTurn:
    turn = NewTurn(
        principal="anna",
        session_id=session,
        agent="scripted",
        trace_id="t" * 32,
        request_id="r",
        source_ip="",
        message="hello",
        owner="dead",
        accepted_ns=loop_clock().wall_ns(),
    )
    return msgspec.structs.replace(turn, **changes)


def unit(key: str = "pay-1") -> Unit:
    return Unit(kind="tool", key=key, attempt=1, name="pay", effect="once", digest=b"", begun_ns=0)


async def answers(_turn: Turn) -> str:
    await asyncio.sleep(1)
    return "done"


async def waits(_turn: Turn) -> str:
    await asyncio.sleep(90)
    return "done"


@asynccontextmanager
async def kept(house: House, behave: Any = answers) -> AsyncIterator[asyncio.TaskGroup]:
    """A replica that lives."""
    house.agents["scripted"] = Scripted(behave)
    async with asyncio.TaskGroup() as group:
        one = Keeper("one", house.turns, house.agents, house.drain, lease_s=LEASE_S, keep_s=60)
        async with one.keeping(group.create_task):
            yield group


async def ending_of(house: House, turn: TurnRecord, within_s: float = 20) -> tuple[str, str | None]:
    async with asyncio.timeout(within_s):
        ending = (await house.turns.ended(turn.turn_id)).ending
    assert ending is not None
    return ending.outcome, ending.error


async def test_turns_behind_one_in_doubt_keep_nobody_from_being_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of other sessions, and not the one that they wait for."""
    monkeypatch.setattr(keeper, "MOST_RESUMED", 2)
    store = Store()
    house = House(store=store)
    first = (await store.accept(asked(), 0)).turn
    await store.put_unit(Claim(first.turn_id, "dead", 1), unit())
    await store.suspend(Claim(first.turn_id, "dead", 1), unit())
    behind = [(await store.accept(asked(), 0)).turn for _ in range(3)]
    others = [(await store.accept(asked(f"other {n}"), 0)).turn for n in range(3)]
    async with kept(house):
        for turn in others:
            assert await ending_of(house, turn) == ("success", None)
        assert await store.resolve(first.turn_id, "tool", "pay-1", b"1", 0)
        for turn in (first, *behind):
            assert await ending_of(house, turn) == ("success", None)
    assert house.turns.queued == set()


async def test_a_turn_whose_agent_is_served_no_more_can_be_stopped() -> None:
    store = Store()
    house = House(store=store)
    turn = (await store.accept(asked(agent="gone"), 0)).turn
    async with kept(house):
        with pytest.raises(TimeoutError):
            await ending_of(house, turn)
        assert await house.turns.cancel(turn.turn_id)
        assert await ending_of(house, turn) == ("cancelled", "turn_cancelled")
    assert await store.forget("anna", "talk")


async def test_a_stopped_turn_that_is_taken_over_neither_waits_nor_asks_its_agent() -> None:
    store = Store()
    house = House(store=store)
    first, second = [(await store.accept(asked(), 0)).turn for _ in range(2)]
    await store.suspend(Claim(first.turn_id, "dead", 1), unit())
    assert await store.cancel(second.turn_id)
    entered = []

    async def notes(turn: Turn) -> str:
        entered.append(turn.ids.turn_id)
        return "done"

    async with kept(house, notes):
        assert await ending_of(house, second) == ("cancelled", "turn_cancelled")
    assert entered == []


async def test_a_run_that_lost_its_turn_is_stopped_when_it_comes_back_to_the_same_server() -> None:
    store = Store()
    house = House(store=store)
    async with kept(house, waits) as group:
        begun = house.begin(group, waits)
        turn_id = (await begun.accepted).turn_id
        lost = msgspec.structs.replace(await record(store, turn_id), owner="dead", generation=2)
        store._turns[turn_id].record = lost  # Another server took it over, and died.
        with pytest.raises(NotOwner):
            await begun
        await asyncio.sleep(2)
        assert house.turns.live[turn_id].journal.claim == Claim(turn_id, "one", 3)
        assert await house.turns.cancel(turn_id)
        assert await ending_of(house, lost, 1) == ("cancelled", "turn_cancelled")
    assert (house.turns.live, house.turns.orphans) == ({}, {})


async def record(store: MemoryStore, turn_id: str) -> TurnRecord:
    found = await store.turn(turn_id)
    assert found is not None
    return found


async def test_a_turn_that_is_to_be_stopped_is_stopped_though_nobody_was_told() -> None:
    """Another process wrote it into the file."""
    store = Store()
    house = House(store=store)
    async with kept(house) as group:
        begun = house.begin(group, waits)
        turn_id = (await begun.accepted).turn_id
        store.listen(None)
        assert await store.cancel(turn_id)
        store.listen(house.turns.heard)
        async with asyncio.timeout(LEASE_S / keeper.BEATS + 0.1):
            assert isinstance(await outcome_of(begun), TurnCancelled)


async def test_a_replica_lives_before_it_takes_a_turn_and_however_long_its_other_work_takes() -> None:
    store = Store()
    store.claim_s, store.to_purge = 7.0, 100_000
    house = House(store=store)
    async with kept(house):
        assert store.beats_at == [0]
        await asyncio.sleep(60)
    gaps = [later - before for before, later in zip(store.beats_at, store.beats_at[1:], strict=False)]
    assert max(gaps) <= LEASE_S / keeper.BEATS + 0.01


async def test_a_long_purge_keeps_nobody_from_being_gone_on_with() -> None:
    store = Store()
    store.to_purge = 1_000_000
    house = House(store=store)
    async with kept(house):
        await asyncio.sleep(3)
        turn = (await store.accept(asked(), 0)).turn
        assert await ending_of(house, turn, 5) == ("success", None)
        assert store.to_purge > 0
        await asyncio.sleep(1_200)
    assert store.to_purge == 0


@pytest.mark.parametrize("raised", [InDoubt("another turn"), NotOwner()], ids=lambda error: type(error).__name__)
async def test_what_an_agent_heard_of_another_turn_ends_its_own(raised: Exception) -> None:
    house = House()

    async def hears(_turn: Turn) -> str:
        raise raised

    with pytest.raises(AgentFailed):
        await house.ask(hears)
    assert [ending.error for ending in await house.endings()] == ["agent_failed"]


async def test_an_error_that_tells_of_half_a_surrogate_pair_ends_its_turn() -> None:
    house = House()

    async def odd(_turn: Turn) -> str:
        raise AgentFailed("half a pair: \ud83d")

    with pytest.raises(AgentFailed):
        await house.ask(odd)
    assert [ending.detail for ending in await house.endings()] == ["half a pair: ?"]


async def test_a_turn_that_waits_for_its_session_outlasts_a_store_that_is_away_for_a_while() -> None:
    store = Store()
    house = House(store=store)
    async with asyncio.TaskGroup() as group:
        first, second = [house.begin(group, waits, waits=True) for _ in range(2)]
        await second.accepted
        await asyncio.sleep(1)
        store.away = True
        await asyncio.sleep(9)
        store.away = False
        assert (await second).reply == "done"
        third = house.begin(group, waits, waits=True)
        fourth = house.begin(group, waits, waits=True)
        await asyncio.sleep(1)
        store.away = True
        assert isinstance(await outcome_of(fourth), StoreUnavailable)
        store.away = False
        await third
    assert (await first).reply == "done"
    assert [claim.turn_id for claim in house.turns.orphans] == [(await house.stored())[3].turn_id]


async def test_a_turn_that_ends_wakes_the_one_behind_it_alone() -> None:
    store = Store()
    house = House(store=store)

    async def quick(_turn: Turn) -> str:
        await asyncio.sleep(0.01)
        return "done"

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            house.begin(group, quick, waits=True)
    assert loop_clock().now() < 2 * NS
    assert store.starts < 400


async def test_what_was_told_before_the_store_went_away_is_kept_when_it_is_back() -> None:
    house = House()
    house.faults.at_end = StoreUnavailable("down")

    async def says(turn: Turn) -> str:
        turn.say("so far")
        return "done"

    with pytest.raises(StoreUnavailable):
        await house.ask(says)
    house.faults.at_end = None
    (turn,) = await house.stored()
    async with kept(house):
        await ending_of(house, turn)
    told = [event.name for event in await house.turns.told_so_far(turn.turn_id, 0)]
    assert told == ["turn.started", "text.delta", TurnSuspended.name, "turn.started", "turn.ended"]
