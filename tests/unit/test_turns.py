"""Those who wait for a turn, and what their waiting costs others, in virtual time."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import HandedOver, InDoubt, TurnCancelled
from holdfast.resilience import Priority
from holdfast.store import Claim, MemoryStore, NewTurn, Unit
from holdfast.testing import loop_clock
from holdfast.turn import Turn

if TYPE_CHECKING:
    from tests.unit import house as houses
    from tests.unit.house import House, outcome_of
else:
    import house as houses  # pytest puts a test's folder on the path
    from house import House, outcome_of


async def slow(_turn: Turn) -> str:
    await asyncio.sleep(10)
    return "done"


async def test_turns_that_wait_for_their_session_are_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(houses, "WIDE", houses.WIDE.model_copy(update={"turns": 2}))
    house = House()
    async with asyncio.TaskGroup() as group:
        queue = [house.begin(group, slow, waits=True, priority=Priority.BATCH) for _ in range(5)]
        await asyncio.sleep(1)
        assert [(await turn.accepted).state for turn in queue] == ["running", *["queued"] * 4]
        other = house.begin(group, slow, who="bob")
        await asyncio.sleep(9.5)
        assert (await other).reply == "done"
        assert (await queue[-1]).reply == "done"
    assert loop_clock().now() / 1e9 < 51


async def test_whoever_stops_waiting_does_no_harm_to_the_turn() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        begun = house.begin(group, slow)
        for waited_for in (begun.accepted, begun.answer):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await waited_for
        await asyncio.sleep(11)
    assert [ending.outcome for ending in await house.endings()] == ["success"]


def elsewhere() -> NewTurn:
    return NewTurn(
        principal="anna",
        session_id="talk",
        agent="scripted",
        trace_id="t" * 32,
        request_id="r",
        source_ip="",
        message="hello",
        owner="other",
        accepted_ns=0,
        key="k",
        digest=b"d",
    )


async def test_whoever_waits_for_a_turn_that_runs_elsewhere_is_sent_away_when_this_server_stops() -> None:
    store = MemoryStore(loop_clock())
    house = House(store=store)
    record = (await store.accept(elsewhere(), 1_000)).turn
    async with asyncio.TaskGroup() as group:
        again = house.begin(group, slow, key="k", digest=b"d")
        told = group.create_task(watched(house, record.turn_id))
        assert (await again.accepted).turn_id == record.turn_id
        assert again.again
        group.create_task(house.drain.stop())
        came = await outcome_of(again)
        assert await told == []
    assert isinstance(came, HandedOver)
    assert house.drain.in_progress == 0


async def watched(house: House, turn_id: str) -> list[object]:
    return [event async for batch in house.turns.watch(turn_id, 0, 1_000) for event in batch]


async def test_whoever_waits_for_a_turn_in_doubt_is_told_so_unless_it_is_to_be_stopped() -> None:
    store = MemoryStore(loop_clock())
    house = House(store=store)
    record = (await store.accept(elsewhere(), 1_000)).turn
    unit = Unit(kind="tool", key="x", attempt=1, name="pay", effect="once", digest=b"", begun_ns=0)
    await store.suspend(Claim(record.turn_id, "other", 1), unit)
    with pytest.raises(InDoubt, match=record.turn_id):
        await house.turns.ended(record.turn_id)
    assert await watched(house, record.turn_id) == []
    assert await house.turns.cancel(record.turn_id)
    with pytest.raises(TimeoutError):  # It is claimed now, to be ended: that is worth waiting for.
        async with asyncio.timeout(9):
            await house.turns.ended(record.turn_id)


async def test_a_turn_that_is_cancelled_while_it_runs_is_told_as_such_to_all_who_wait() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        first = house.begin(group, slow, key="k", digest=b"d")
        record = await first.accepted
        again = house.begin(group, slow, key="k", digest=b"d")
        await again.accepted
        assert await house.turns.cancel(record.turn_id)
        came = [await outcome_of(turn) for turn in (first, again)]
    assert [type(each) for each in came] == [TurnCancelled, TurnCancelled]
    assert not await house.turns.cancel(record.turn_id)
