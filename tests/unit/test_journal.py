"""The journal of one turn, call by call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from holdfast.errors import (
    CircuitOpen,
    Diverged,
    HandedOver,
    HoldfastError,
    InDoubt,
    NotOwner,
    StoreUnavailable,
    TurnCancelled,
    UnitFailed,
)
from holdfast.events import ModelFinished
from holdfast.guard import Attempt, ModelKey
from holdfast.journal import JSON, ONCE, PURE, Declared, canonical, encode_json, shielded
from holdfast.journal.journal import CATCH_UP_S, KEEP_S
from holdfast.resilience import State
from holdfast.store import Claim, Said, Unit
from holdfast.testing import loop_clock

if TYPE_CHECKING:
    from tests.crashes import Server, World
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World

KEY = ModelKey("p", "m")


def does(result: Any = "ok", seconds: float = 0.0) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        await asyncio.sleep(seconds)
        if isinstance(result, Exception):
            raise result
        return result

    return call


async def never() -> Any:
    raise AssertionError("it must not be called")


def states(world: World) -> dict[str, str]:
    return {unit.key: unit.state for unit in world.units.values()}


async def test_a_call_is_kept_before_it_is_made_and_when_it_has_returned() -> None:
    world = World()

    async def call() -> str:
        assert states(world) == {"c1": "begun"}
        return "ok"

    assert await Server(world).turn.guard.tool("t", {"a": 1}, "c1", call) == "ok"
    [unit] = world.units.values()
    assert (unit.state, unit.result, unit.args, unit.attempt) == ("done", b'"ok"', b'{"a":1}', 1)
    assert unit.ended_ns is not None
    assert unit.ended_ns >= unit.begun_ns > 0
    assert await Server(world).turn.guard.tool("t", {"a": 1}, "c1", never) == "ok"


async def test_a_failure_is_raised_again_and_what_was_refused_did_not_happen() -> None:
    world = World()
    first = Server(world)
    for error in (ValueError("no"), CircuitOpen("left alone", retry_after_s=2)):
        with pytest.raises(type(error)):
            await first.turn.guard.tool("t", {}, type(error).__name__, does(error))
    assert states(world) == {"ValueError": "failed", "CircuitOpen": "failed"}
    again = Server(world)
    with pytest.raises(ValueError, match="no"):
        await again.turn.guard.tool("t", {}, "ValueError", never)
    with pytest.raises(CircuitOpen) as caught:
        await again.turn.guard.tool("t", {}, "CircuitOpen", never)
    assert caught.value.retry_after_s == 2


async def test_a_call_that_was_under_way_is_in_doubt_unless_it_may_be_made_again() -> None:
    world = World()
    server = Server(world)
    calls = {"pure": PURE, "idempotent": Declared("idempotent"), "once": ONCE}
    for name, declared in calls.items():
        await server.turn.guard.tool(name, {}, name, does(), declared=declared)
    for place, unit in world.units.items():
        world.units[place] = msgspec.structs.replace(unit, state="begun", result=None)
    again = Server(world)
    assert await again.turn.guard.tool("pure", {}, "pure", does("again"), declared=PURE) == "again"
    assert await again.turn.guard.tool("idempotent", {}, "idempotent", does(2), declared=calls["idempotent"]) == 2
    with pytest.raises(InDoubt, match="holdfast turns resolve t-1 once"):
        await again.turn.guard.tool("once", {}, "once", never)
    assert again.journal.in_doubt is not None
    assert again.journal.in_doubt.key == "once"
    assert [unit.attempt for unit in world.units.values() if unit.name == "pure"] == [1, 2]
    with pytest.raises(InDoubt):
        await again.turn.guard.tool("other", {}, "c9", never)


async def test_a_call_that_somebody_settled_returns_what_they_said_or_is_made() -> None:
    world = World()
    await Server(world).turn.guard.tool("t", {"n": 1}, "c1", does())
    [(place, unit)] = world.units.items()
    world.units[place] = msgspec.structs.replace(unit, state="in_doubt", result=None)
    with pytest.raises(InDoubt):
        await Server(world).turn.guard.tool("t", {"n": 1}, "c1", never)
    world.units[place] = msgspec.structs.replace(unit, state="done", result=b'"said"')
    assert await Server(world).turn.guard.tool("t", {"n": 1}, "c1", never) == "said"
    world.units[place] = msgspec.structs.replace(unit, state="failed", result=None)
    assert await Server(world).turn.guard.tool("t", {"n": 1}, "c1", does("made")) == "made"


async def test_another_request_under_the_same_name_stops_the_turn() -> None:
    world = World()
    await Server(world).turn.guard.tool("t", {"a": 1}, "c1", does())
    for name, args in (("t", {"a": 2}), ("u", {"a": 1})):
        server = Server(world)
        with pytest.raises(Diverged):
            await server.turn.guard.tool(name, args, "c1", never)
        assert isinstance(server.journal.stopped, Diverged)


async def test_something_new_waits_for_what_is_old_and_is_refused_where_that_does_not_come() -> None:
    world, clock = World(), loop_clock()
    first = Server(world)
    for call_id in ("c1", "c2"):
        await first.turn.guard.tool("t", {}, call_id, does())
    guard = Server(world).turn.guard

    async def late() -> None:
        for call_id in ("c1", "c2"):
            await asyncio.sleep(CATCH_UP_S / 3)
            await guard.tool("t", {}, call_id, never)

    async with asyncio.TaskGroup() as group:
        group.create_task(late())
        assert await guard.tool("t", {}, "c3", does("new")) == "new"
    lost, began = Server(world), clock.now()
    with pytest.raises(Diverged):
        await lost.turn.guard.tool("t", {}, "c4", never)
    assert (clock.now() - began) / 1e9 == pytest.approx(CATCH_UP_S)


async def test_the_end_of_the_turn_waits_for_calls_beside_it_and_makes_no_more() -> None:
    """Nobody would know what became of them otherwise, as whoever runs the agent cancels them."""
    world, over = World(), False
    server = Server(world, handing_over=lambda: over)
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(server.turn.guard.tool("slow", {}, "c1", does("done", 5)))
        await asyncio.sleep(1)
        over = True
        with pytest.raises(HandedOver):
            await server.turn.guard.tool("next", {}, "c2", never)
        assert slow.done()
    assert states(world) == {"c1": "done"}


async def test_tools_whose_own_calls_meet_the_end_of_the_turn_do_not_wait_for_each_other() -> None:
    world, over = World(), False
    server = Server(world, handing_over=lambda: over)

    async def outer(name: str) -> Any:
        async def call() -> Any:
            await asyncio.sleep(1)
            return await server.turn.guard.tool("inner", {}, "i", never)

        return await server.turn.guard.tool("outer", {"name": name}, name, call, declared=PURE)

    async def both() -> None:
        nonlocal over
        async with asyncio.TaskGroup() as group:
            group.create_task(outer("one"))
            group.create_task(outer("two"))
            await asyncio.sleep(0.5)
            over = True

    began = loop_clock().now()
    with pytest.raises(ExceptionGroup) as caught:
        await both()
    assert caught.group_contains(HandedOver)
    assert (loop_clock().now() - began) / 1e9 == pytest.approx(1)
    assert states(world) == {"one": "begun", "two": "begun"}


async def test_a_cancelled_turn_makes_no_further_call() -> None:
    class Cancelled(World):
        async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
            await super().put_unit(claim, unit, said)
            return True

    world = Cancelled()
    server = Server(world)
    with pytest.raises(TurnCancelled):
        await server.turn.guard.tool("t", {}, "c1", never)
    [unit] = world.units.values()
    assert (unit.state, unit.failure) == ("failed", None)
    assert await Server(World()).turn.guard.tool("t", {}, "c1", does()) == "ok"
    world.__class__ = World  # type: ignore[assignment]  # it is asked no more to stop
    assert await Server(world).turn.guard.tool("t", {}, "c1", does("later")) == "later"


class Down(World):
    """A store that does not answer for a while, or for good."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error = error
        self.times = times

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return await super().put_unit(claim, unit, said)


async def test_a_store_that_comes_back_has_kept_everything() -> None:
    world = Down(StoreUnavailable("down"), 3)
    assert await Server(world).turn.guard.tool("t", {}, "c1", does()) == "ok"
    assert states(world) == {"c1": "done"}


@pytest.mark.parametrize(
    ("error", "raised", "waited_s"),
    [
        (StoreUnavailable("down"), StoreUnavailable, KEEP_S),
        (NotOwner(), NotOwner, 0.0),
        (KeyError(), StoreUnavailable, 0),
    ],
)
async def test_a_store_that_does_not_keep_a_call_stops_the_turn_before_it(
    error: Exception, raised: type[HoldfastError], waited_s: float
) -> None:
    server = Server(Down(error, 1_000))
    began = loop_clock().now()
    with pytest.raises(raised):
        await server.turn.guard.tool("t", {}, "c1", never)
    assert (loop_clock().now() - began) / 1e9 == pytest.approx(waited_s, abs=0.3)
    assert isinstance(server.journal.stopped, raised)


async def test_a_store_that_fails_is_no_failure_of_the_model_or_the_tool() -> None:
    server = Server(Down(KeyError(), 1_000))
    policies = server.turn.guard.tool._policies
    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            await server.turn.guard.tool("t", {}, "c1", never)
        server = Server(Down(KeyError(), 1_000), policies=policies)
        with pytest.raises(StoreUnavailable):
            await server.turn.guard.model(KEY, None, never_asked, b"r")
        server = Server(Down(KeyError(), 1_000), policies=policies)
    for pipeline in (policies.tool, policies.model):
        assert pipeline.breaker is not None
        assert [view.state for view in pipeline.breaker.views(loop_clock().now())] == [State.CLOSED]


async def never_asked(_attempt: Attempt) -> Any:
    raise AssertionError("it must not be asked")


async def test_a_model_is_asked_again_after_a_failure_and_not_after_an_answer() -> None:
    world, asked = World(), 0

    async def send(attempt: Attempt) -> str:
        nonlocal asked
        if attempt.before is not None:
            return attempt.before.decode()
        asked += 1
        attempt.used(3, 4)
        if asked == 1:
            raise ValueError("no")
        attempt.answer = b"answer"
        return "answer"

    server = Server(world)
    with pytest.raises(ValueError, match="no"):
        await server.turn.guard.model(KEY, None, send, b"r")
    assert await server.turn.guard.model(KEY, None, send, b"r") == "answer"
    assert [(u.state, u.attempt, u.usage.input_tokens) for u in world.units.values()] == [
        ("failed", 1, 3),
        ("done", 2, 3),
    ]
    again = Server(world)
    assert await again.turn.guard.model(KEY, None, send, b"r") == "answer"
    assert (asked, again.turn.guard.model.known, again.turn.guard.usage().input_tokens) == (2, True, 3)
    assert not [event for event in again.events if isinstance(event, ModelFinished)]


async def test_an_answer_that_was_not_left_is_asked_for_again() -> None:
    world, asked = World(), 0

    async def send(attempt: Attempt) -> str:
        nonlocal asked
        assert attempt.before is None
        asked += 1
        return "opaque"

    for _ in range(2):
        assert await Server(world).turn.guard.model(KEY, None, send, b"r") == "opaque"
    assert asked == 2
    assert await Server(world).turn.guard.model(KEY, None, send) == "opaque"
    assert len(world.units) == 2


async def test_what_was_begun_is_kept_to_the_end_though_the_task_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> str:
        await asyncio.sleep(2)
        ended.append("work")
        return "worked"

    async def waiting() -> None:
        await shielded(work())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(waiting())
        await asyncio.sleep(1)
        task.cancel()
    assert task.cancelled()
    assert ended == ["work"]
    assert await shielded(work(), deaf=True) == "worked"


class SlowWorld(World):
    """Keeps what it is handed after a second."""

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        await asyncio.sleep(1)
        return await super().put_unit(claim, unit, said)


async def test_a_call_that_was_cancelled_while_it_was_being_kept_did_not_happen() -> None:
    """Its store may have kept it all the same, and nobody need be asked what became of it."""
    world = SlowWorld()
    server = Server(world)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.turn.guard.tool("t", {}, "c1", never))
        await asyncio.sleep(0.5)
        task.cancel()
    assert task.cancelled()
    assert states(world) == {"c1": "failed"}
    assert await Server(world).turn.guard.tool("t", {}, "c1", does()) == "ok"


async def test_a_call_whose_id_is_not_unicode_is_kept_under_one_that_is() -> None:
    world = World()
    for _ in range(2):
        server = Server(world)
        assert await server.turn.guard.tool("t", {}, "c\ud83d", does()) == "ok"
    assert states(world) == {"c?": "done"}


class Custom(Exception):
    """Somebody's own error."""


class Picky(Exception):
    """One that cannot be made from a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)


@pytest.mark.parametrize(
    ("raised", "again"),
    [
        (KeyError("lost"), KeyError("lost")),
        (Custom("mine"), Custom("mine")),
        (Picky(3, "x"), UnitFailed("Picky: (3, 'x')")),
        (NotOwner("gone", retry_after_s=2), NotOwner("gone")),
    ],
)
def test_what_was_raised_is_raised_again(raised: Exception, again: Exception) -> None:
    made = JSON.decode_failure(JSON.encode_failure(raised))
    assert (type(made), str(made)) == (type(again), str(again))


def test_a_class_that_is_gone_or_is_no_exception_is_a_failure_of_the_unit() -> None:
    for name in ("gone:Error", "builtins:print", "builtins:SystemExit", ":x", "Bare"):
        assert isinstance(JSON.decode_failure(encode_json({"name": name, "text": "t"})), UnitFailed)


def test_arguments_are_told_the_same_in_every_process() -> None:
    class Thing:
        pass

    assert canonical({"b": {"y", "x", "z"}, "a": 1}) == canonical({"a": 1, "b": {"z", "y", "x"}})
    assert canonical({"a": Thing()}) == canonical({"a": Thing()})
    assert canonical("\ud800") == canonical("\ud800")
    assert canonical({"a": 1}) != canonical({"a": "1"})
