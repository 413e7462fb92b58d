"""The events of a turn as messages, and whom its watchers ask, in virtual time."""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.clock import NS
from holdfast.events import ToolStarted
from holdfast.replica.turns import POLL_S
from holdfast.server.feed import KEEP_ALIVE_S, messages
from holdfast.store import Claim, Ending, NewTurn, Said, Unit
from holdfast.turn import Turn

if TYPE_CHECKING:
    from tests.unit.house import House
else:
    from house import House  # pytest puts a test's folder on the path


def sent(told: bytes) -> list[tuple[int | None, str]]:
    """Ids and names of the events in a stream."""
    found = []
    for message in told.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in message.splitlines() if not line.startswith(":"))
        if fields:
            found.append((int(fields["id"]) if "id" in fields else None, fields["event"]))
    return found


async def slow(turn: Turn) -> str:
    turn.say("one")
    await asyncio.sleep(2.5 * KEEP_ALIVE_S)
    return "done"


async def test_silence_is_filled_with_comments() -> None:
    house = House()
    async with asyncio.TaskGroup() as group:
        record = await house.begin(group, slow).accepted
        told = [(house.turns.clock.now() / NS, message) async for message in messages(house.turns, record, 0)]
    quiet = [message for message in told if message[1].startswith(b":")]
    assert quiet == [(KEEP_ALIVE_S, b": still here\n\n"), (2 * KEEP_ALIVE_S, b": still here\n\n")]
    assert sent(b"".join(message for _, message in told)) == [(1, "turn.started"), (2, "text.delta"), (3, "turn.ended")]


async def test_a_watcher_of_a_turn_that_runs_here_asks_the_store_nothing() -> None:
    house = House()
    asked: list[str] = []

    async def refuse(turn_id: str, *_: object) -> None:
        asked.append(turn_id)

    async with asyncio.TaskGroup() as group:
        record = await house.begin(group, slow).accepted
        store: Any = house.store
        store.turn = store.said = refuse
        told = b"".join([message async for message in messages(house.turns, record, 0)])
    assert sent(told)[-1] == (3, "turn.ended")
    assert asked == []


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
    )


async def test_a_turn_that_another_server_runs_is_followed_by_what_it_keeps() -> None:
    house = House()
    record = (await house.store.accept(elsewhere(), 1_000)).turn
    claim = Claim(record.turn_id, "other", 1)

    async def other() -> None:
        await asyncio.sleep(2 * KEEP_ALIVE_S + POLL_S / 2)
        house.store.listen(None)  # It is a database that tells nobody: they find out by themselves.
        ended = [[1, "turn.started", {}], [2, "turn.ended", {"error": None}]]
        await house.store.end_turn(claim, Ending(outcome="success"), Said(2, msgspec.json.encode(ended)))

    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        told = [(house.turns.clock.now() / NS, message) async for message in messages(house.turns, record, 0)]
    assert [message for _, message in told[:-1]] == [b": still here\n\n"] * 2
    at_s, last = told[-1]
    assert sent(last) == [(1, "turn.started"), (2, "turn.ended")]
    assert at_s <= 2 * KEEP_ALIVE_S + 2 * POLL_S


async def test_a_call_that_was_kept_before_an_earlier_one_waits_for_it() -> None:
    """Whoever watches from another server would never be shown the earlier one."""
    house = House()
    record = (await house.store.accept(elsewhere(), 1_000)).turn
    claim = Claim(record.turn_id, "other", 1)

    def said(*numbers: int) -> Said:
        return Said(numbers[-1], msgspec.json.encode([[n, "text.delta", {"text": str(n)}] for n in numbers]))

    async def other() -> None:
        for numbers in ((1, 2), (4,), (3,)):
            await asyncio.sleep(1.5 * POLL_S)
            unit = Unit(kind="tool", key=str(numbers), attempt=1, name="t", effect="pure", digest=b"", begun_ns=0)
            await house.store.put_unit(claim, unit, said(*numbers))
        await house.store.end_turn(claim, Ending(outcome="success"), said(6))

    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        told = [event.number async for batch in house.turns.watch(record.turn_id, 0, 60) for event in batch]
    assert told == [1, 2, 3, 4, 6]


async def test_json_within_an_event_stays_json_where_a_text_beside_it_is_no_unicode() -> None:
    house = House()

    async def looks(turn: Turn) -> str:
        turn.emit(ToolStarted(call_id="\ude00", tool="look", args=msgspec.Raw(b'{"at":[1]}')))
        return "done"

    async with asyncio.TaskGroup() as group:
        record = await house.begin(group, looks).accepted
        told = b"".join([message async for message in messages(house.turns, record, 0)])
    assert b'{"call_id":"?","tool":"look","args":{"at":[1]}}' in told.replace(b": ", b":").replace(b", ", b",")
