"""One at a time per key, in order of arrival."""

import asyncio
from contextlib import suppress

import pytest

from holdfast.errors import SessionBusy
from holdfast.resilience import Turnstile


class Door:
    """A turnstile, and what happened at it."""

    def __init__(self) -> None:
        self.places = Turnstile()
        self.log: list[str] = []
        self.inside = 0

    async def visit(self, who: str, stay_s: float = 10, wait_s: float = 1_000, key: str = "key") -> None:
        try:
            async with self.places.hold(key, wait_s, SessionBusy):
                self.inside += 1
                assert self.inside == 1 or key != "key"
                try:
                    self.log.append(f"{who} in")
                    await asyncio.sleep(stay_s)
                finally:
                    self.inside -= 1
                    self.log.append(f"{who} out")
        except SessionBusy:
            self.log.append(f"{who} refused at {asyncio.get_running_loop().time():g}")


async def test_who_comes_first_goes_first_and_alone() -> None:
    door = Door()
    async with asyncio.TaskGroup() as group:
        for who in "abcd":
            group.create_task(door.visit(who))
    assert door.log == [f"{who} {way}" for who in "abcd" for way in ("in", "out")]
    assert len(door.places) == 0


async def test_another_key_is_another_place() -> None:
    door = Door()
    async with asyncio.TaskGroup() as group:
        group.create_task(door.visit("a", key="1"))
        group.create_task(door.visit("b", key="2"))
        await asyncio.sleep(1)
        assert door.log == ["a in", "b in"]
        assert len(door.places) == 2
    assert len(door.places) == 0


async def test_the_wait_is_bounded() -> None:
    door = Door()
    async with asyncio.TaskGroup() as group:
        group.create_task(door.visit("a"))
        group.create_task(door.visit("b", wait_s=3))
        group.create_task(door.visit("c", wait_s=0))
        group.create_task(door.visit("d"))
    assert door.log == ["a in", "c refused at 0", "b refused at 3", "a out", "d in", "d out"]
    assert len(door.places) == 0


async def test_a_wait_of_0_is_enough_where_nobody_is() -> None:
    door = Door()
    await door.visit("a", wait_s=0)
    await door.visit("b", wait_s=0)
    assert door.log == ["a in", "a out", "b in", "b out"]


@pytest.mark.parametrize("wait_s", [0, 5])
async def test_between_two_holders_the_place_is_not_free(wait_s: float) -> None:
    """The first has left and the second has not woken yet: who comes now waits for no longer than it said."""
    door = Door()

    async def leave_and_come_back() -> None:
        await door.visit("a")
        await door.visit("a", wait_s=wait_s)

    async with asyncio.TaskGroup() as group:
        group.create_task(leave_and_come_back())
        group.create_task(door.visit("b", stay_s=100))
    assert sorted(door.log[2:]) == [f"a refused at {10 + wait_s}", "b in", "b out"]
    assert len(door.places) == 0


@pytest.mark.parametrize("phase", ["waiting", "just let through", "holding"])
async def test_a_cancelled_visitor_leaves_the_place_to_the_next(phase: str) -> None:
    door = Door()
    async with asyncio.TaskGroup() as group:
        group.create_task(door.visit("a"))
        cancelled = group.create_task(door.visit("b"))
        group.create_task(door.visit("c"))
        await asyncio.sleep({"waiting": 5, "just let through": 10, "holding": 15}[phase])
        cancelled.cancel()
    with suppress(asyncio.CancelledError):
        await cancelled
    visited = ["b in", "b out"] if phase == "holding" else []
    assert [line for line in door.log if line in visited or line[0] != "b"] == [
        "a in",
        "a out",
        *visited,
        "c in",
        "c out",
    ]
    assert len(door.places) == 0


async def test_an_error_of_the_holder_is_its_own_and_frees_the_place() -> None:
    places = Turnstile()
    with pytest.raises(ZeroDivisionError):
        async with places.hold("key", 0, SessionBusy):
            raise ZeroDivisionError
    assert len(places) == 0
    async with places.hold("key", 0, SessionBusy):
        assert len(places) == 1
