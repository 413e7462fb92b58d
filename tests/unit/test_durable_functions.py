"""An async function whose server dies: run again, it goes on with what was kept."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from pydantic import BaseModel

from holdfast.adapters import FunctionAgent, FunctionTurn
from holdfast.adapters.function import codec_of
from holdfast.errors import Diverged, HandedOver
from holdfast.events import ToolFinished
from holdfast.guard import Attempt
from holdfast.journal import DID_NOT_HAPPEN, UNKNOWN, Happened, effect
from holdfast.turn import Reply, Turn

if TYPE_CHECKING:
    from tests.crashes import Server, World, whole
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World, whole

MANY = 200
"""More moments than any of these turns has."""


async def no_model(_turn: Turn, _prompt: str, _instructions: str | None) -> str:
    raise AssertionError("this handler asks no model")


def answers(handler: Callable[[FunctionTurn], Any]) -> Callable[[Turn], Any]:
    async def answer(turn: Turn) -> Reply:
        return await FunctionAgent(handler, "a", no_model).answer(turn)

    return answer


async def test_wherever_its_server_dies_a_function_is_finished_and_nothing_happens_twice() -> None:
    doubts = 0
    for dies_at in range(1, MANY):
        world = World(dies_at)

        @effect("pure")
        async def pure(n: int) -> str:
            return await world.do("pure", n)  # noqa: B023 - it is called within this round

        async def once(n: int) -> str:
            return await world.do("once", n)  # noqa: B023 - the same

        async def handler(turn: FunctionTurn) -> str:
            first = await turn.tool(pure, n=1)
            several = await _both(turn.tool(once, n=2), turn.tool(pure, n=1), turn.tool(once, n=3))
            return "; ".join((first, *several, await turn.tool(once, n=4)))

        reply, asked = await whole(answers(handler), world)
        doubts += asked
        assert reply.text == "pure 1 done; once 2 done; pure 1 done; once 3 done; once 4 done"
        assert {world.did[f"once {n}"] for n in (2, 3, 4)} == {1}
        if world.moments < dies_at:
            break
    assert dies_at > 20
    assert doubts > 0


async def _both(*calls: Any) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


async def test_calls_are_known_by_what_they_ask_and_not_by_their_order() -> None:
    did: Counter[str] = Counter()

    async def fetch(what: str, tags: set[str]) -> str:
        did[what] += 1
        await asyncio.sleep(len(what))
        return f"{what} {did[what]}"

    world, order = World(), ["a", "bbb", "a", "cc"]

    async def handler(turn: FunctionTurn) -> str:
        tags = {str(n) for n in range(10)}
        return ", ".join(sorted(await _both(*(turn.tool(fetch, what=what, tags=tags) for what in order))))

    first = Server(world)
    reply = await first.run(answers(handler))
    ids = [event.call_id for event in first.events if isinstance(event, ToolFinished)]
    assert len(set(ids)) == 4
    order.reverse()
    again = await Server(world, generation=2).run(answers(handler))
    assert reply is not None
    assert again is not None
    assert again.text == reply.text
    assert did == {"a": 2, "bbb": 1, "cc": 1}


async def test_the_same_call_inside_several_tools_is_each_ones_own() -> None:
    did: Counter[str] = Counter()
    slow = {"one": 5.0, "two": 0.0}
    world = World()

    async def inner() -> str:
        did["inner"] += 1
        return f"{did['inner']}"

    async def handler(turn: FunctionTurn) -> str:
        @effect("pure")
        async def outer(name: str) -> str:
            await asyncio.sleep(slow[name])
            return f"{name} {await turn.tool(inner)}"

        return "; ".join(await _both(turn.tool(outer, name="one"), turn.tool(outer, name="two")))

    first = await Server(world).run(answers(handler))
    assert first is not None
    assert first.text == "one 2; two 1"
    for unit in list(world.units.values()):
        if unit.name == "outer":  # As if both had been under way when the server died.
            begun = msgspec.structs.replace(unit, state="begun", result=None)
            world.units[unit.kind, unit.key, unit.attempt] = begun
    slow.update(one=0.0, two=5.0)
    again = await Server(world, generation=2).run(answers(handler))
    assert again is not None
    assert again.text == first.text
    assert did["inner"] == 2


class City(BaseModel):
    name: str
    seen: datetime


@dataclass
class Place:
    city: City
    at: tuple[float, float]


OSLO = City(name="Oslo", seen=datetime(2020, 1, 1))  # noqa: DTZ001 - as a tool may return it


async def test_a_result_is_given_again_as_its_tool_is_annotated() -> None:
    async def place() -> Place:
        return Place(OSLO, (1.0, 2.0))

    async def maybe() -> City | None:
        return OSLO

    async def raw() -> bytes:
        return b"\x00\xff"

    async def cities() -> list[City]:
        return [OSLO]

    async def untold():  # type: ignore[no-untyped-def]  # a tool need not be annotated
        return {"a": (1, 2)}

    async def wrong() -> int:
        return "text"  # type: ignore[return-value]  # the mistake under test

    async def strange() -> object:
        return object

    seen: list[list[Any]] = []

    async def handler(turn: FunctionTurn) -> str:
        seen.append([await turn.tool(tool) for tool in (place, maybe, raw, cities, untold, wrong)])
        await turn.tool(strange)
        return "done"

    world = World()
    for generation in (1, 2):
        await Server(world, generation=generation).run(answers(handler))
    assert seen[1][:4] == seen[0][:4] == [Place(OSLO, (1.0, 2.0)), OSLO, b"\x00\xff", [OSLO]]
    assert seen[1][4:] == [{"a": [1, 2]}, "text"]


def test_what_cannot_be_read_as_annotated_is_what_json_says() -> None:
    async def city() -> City:
        return OSLO

    assert codec_of(city).decode(b'"said by somebody"') == "said by somebody"


class OutOfStock(Exception):
    """A tool's own error."""


async def test_an_error_of_a_tools_own_is_raised_again() -> None:
    calls: list[int] = []

    async def order(n: int) -> str:
        calls.append(n)
        raise OutOfStock(f"no {n} left")

    async def handler(turn: FunctionTurn) -> str:
        try:
            return await turn.tool(order, n=3)
        except OutOfStock as error:
            return str(error)

    world = World()
    for generation in (1, 2):
        reply = await Server(world, generation=generation).run(answers(handler))
        assert reply is not None
        assert reply.text == "no 3 left"
    assert calls == [3]


async def test_a_model_of_ones_own_client_is_not_asked_again_where_its_answer_could_be_kept() -> None:
    sent: list[str] = []

    async def plain(attempt: Attempt) -> Any:
        sent.append("plain")
        attempt.used(3, 4)
        return {"text": ["hi"]}

    async def typed(_attempt: Attempt) -> City:
        sent.append("typed")
        return OSLO

    async def opaque(_attempt: Attempt) -> Any:
        sent.append("opaque")
        return (1, 2)

    seen: list[Any] = []

    async def handler(turn: FunctionTurn) -> str:
        seen.append(
            [await turn.call_model("p", "m", call) for call in (plain, typed, plain)]
            + [await turn.call_model("p", "m", opaque, request="tuple")]
        )
        return "done"

    world = World()
    for generation in (1, 2):
        server = Server(world, generation=generation)
        await server.run(answers(handler))
        assert server.turn.guard.usage().input_tokens == 6
    assert seen[0] == seen[1]
    assert sent == ["plain", "typed", "plain", "opaque", "opaque"]


@pytest.mark.parametrize(
    ("found", "did", "reply"),
    [(Happened("found"), 1, "found"), (DID_NOT_HAPPEN, 2, "order 1 done")],
    ids=["happened", "did not"],
)
async def test_a_tool_that_can_find_out_whether_it_happened_is_asked(found: Any, did: int, reply: str) -> None:
    asked: list[tuple[Any, str]] = []

    async def reconcile(args: Any, key: str) -> Any:
        asked.append((args, key))
        return found

    world = World(dies_at=4)

    @effect("reconcile", reconcile=reconcile)
    async def order(n: int) -> str:
        return await world.do("order", n)

    async def handler(turn: FunctionTurn) -> str:
        return await turn.tool(order, n=1)

    ended, doubts = await whole(answers(handler), world)
    assert (ended.text, doubts, world.did["order 1"]) == (reply, 0, did)
    [(args, key)] = asked
    assert args == {"n": 1}
    assert key.startswith("t-1:order-")


async def test_a_tool_that_cannot_find_out_leaves_it_to_somebody() -> None:
    async def reconcile(_args: Any, _key: str) -> Any:
        return UNKNOWN

    world = World(dies_at=4)

    @effect("reconcile", reconcile=reconcile)
    async def order(n: int) -> str:
        return await world.do("order", n)

    async def handler(turn: FunctionTurn) -> str:
        return await turn.tool(order, n=1)

    ended, doubts = await whole(answers(handler), world)
    assert (ended.text, doubts, world.did["order 1"]) == ("order 1 done", 1, 1)


async def test_a_function_that_asks_for_something_else_is_stopped() -> None:
    world, number = World(), iter(range(10))

    async def once(n: int) -> str:
        return await world.do("once", n)

    async def handler(turn: FunctionTurn) -> str:
        return await turn.tool(once, n=next(number))

    await Server(world).run(answers(handler))
    with pytest.raises(Diverged):
        await Server(world, generation=2).run(answers(handler))
    assert world.did == {"once 0": 1}


async def test_what_a_tool_makes_of_the_end_of_the_turn_is_not_its_result() -> None:
    world = World()

    async def inner() -> str:
        return "inner"

    async def handler(turn: FunctionTurn) -> str:
        @effect("pure")
        async def careful(*, wraps: bool) -> str:
            if stops:
                server.journal.stop(HandedOver())
            try:
                return await turn.tool(inner)
            except HandedOver as error:
                if wraps:
                    raise ValueError from error
                return "made do"

        return await _both(turn.tool(careful, wraps=False), turn.tool(careful, wraps=True))  # type: ignore[return-value]  # two texts

    stops = True
    server = Server(world)
    with pytest.raises(HandedOver):
        await server.run(answers(handler))
    stops = False

    async def joined(turn: FunctionTurn) -> str:
        return ", ".join(await handler(turn))

    reply = await Server(world, generation=2).run(answers(joined))
    assert reply is not None
    assert reply.text == "inner, inner"
