"""A turn that goes from server to server: it is given up only where they die of it."""

from typing import TYPE_CHECKING

import pytest

from holdfast.events import TurnSuspended
from holdfast.journal import encode
from holdfast.replica.turns import MOST_OWNERS
from holdfast.store import Said, TurnRecord
from holdfast.testing.store_words import ask, claim_of
from holdfast.turn import Turn

if TYPE_CHECKING:
    from tests.unit.house import House, Scripted
else:
    from house import House, Scripted  # pytest puts a test's folder on the path

LEFT = TurnSuspended(session_id="s", turn_id="t", trace_id="t", agent="scripted", because="handed_over")


async def talks(turn: Turn) -> str:
    return f"{turn.message} to you"


@pytest.mark.parametrize(
    ("died", "left", "ends"),
    [
        (MOST_OWNERS - 1, 0, "question to you"),
        (MOST_OWNERS, 0, "turn_abandoned"),
        (0, 3 * MOST_OWNERS, "question to you"),
        (MOST_OWNERS - 1, MOST_OWNERS, "question to you"),
        (MOST_OWNERS, MOST_OWNERS, "turn_abandoned"),
    ],
)
async def test_a_turn_is_given_up_after_servers_that_died_and_not_after_ones_that_left(
    died: int, left: int, ends: str
) -> None:
    house = House(name="last")
    house.agents["scripted"] = Scripted(talks)
    record: TurnRecord = (await ask(house.store, agent="scripted")).turn
    for number in range(1, left + died + 1):
        if number <= left:
            said = Said(number, encode([(number, LEFT.name, LEFT)]))
            await house.store.suspend(claim_of(record), said=said)
        name = "last" if number == left + died else f"r{number}"
        (record,) = await house.store.claim(name, ["scripted"], 5, 1)
    assert record.generation == 1 + died + left
    await house.turns.resume(record)
    found = await house.store.turn(record.turn_id)
    assert found is not None
    assert found.ending is not None
    assert (found.ending.error or found.ending.reply) == ends
