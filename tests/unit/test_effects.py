"""What tools declare of themselves."""

from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast.clock import Clock
from holdfast.errors import Misconfigured
from holdfast.guard import Guard, GuardSpec, Policies, ToolLimits
from holdfast.journal import DID_NOT_HAPPEN, Declared, declared_effect, effect, idempotency_key
from holdfast.testing import loop_clock
from holdfast.tools import ToolsSpec, standard_tools

if TYPE_CHECKING:
    from tests.crashes import Server, World
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World


async def find_out(_args: Any, _key: str) -> Any:
    return DID_NOT_HAPPEN


def test_a_tool_is_what_it_declares() -> None:
    class Shop:
        @effect("idempotent")
        async def order(self) -> None: ...

        @effect("reconcile", reconcile=find_out)
        async def pay(self) -> None: ...

        async def ship(self) -> None: ...

    shop = Shop()
    assert declared_effect(shop.order) == Declared("idempotent")
    assert declared_effect(shop.pay) == Declared("reconcile", find_out)
    assert declared_effect(shop.ship) is None
    assert declared_effect(None) is None


@pytest.mark.parametrize("given", [{"kind": "reconcile"}, {"kind": "pure", "reconcile": find_out}])
def test_only_a_tool_that_can_find_out_has_a_way_to(given: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="reconcile="):
        effect(**given)


def test_the_standard_tools_only_read() -> None:
    tools = standard_tools(ToolsSpec(), Clock())
    assert {tool.__name__: declared_effect(tool) for tool in tools} == {
        tool.__name__: Declared("pure") for tool in tools
    }


def test_there_is_a_key_inside_a_tool_only() -> None:
    with pytest.raises(RuntimeError, match="within a tool call only"):
        idempotency_key()


async def test_every_call_has_a_key_of_its_own_and_the_same_one_whenever_the_turn_is_run() -> None:
    keys: list[str] = []

    async def call() -> None:
        keys.append(idempotency_key())

    async def calls(guard: Guard) -> None:
        for call_id in ("c1", "c2", "c1"):
            await guard.tool("t", {}, call_id, call)

    for generation in (1, 2):
        await calls(Server(World(), generation=generation).turn.guard)
    assert keys[:3] == keys[3:] == ["t-1:c1", "t-1:c2", "t-1:c1#2"]
    del keys[:]
    await calls(Guard(Policies(GuardSpec(), loop_clock()), lambda _event: None))
    assert len(set(keys)) == 3


async def test_settings_go_before_what_a_tool_declares() -> None:
    world = World()
    server = Server(world, spec=GuardSpec(tools={"t": ToolLimits(effect="idempotent")}))

    async def call() -> None: ...

    await server.turn.guard.tool("t", {}, "c1", call, declared=Declared("pure"))
    await server.turn.guard.tool("u", {}, "c2", call, declared=Declared("pure"))
    await server.turn.guard.tool("v", {}, "c3", call)
    assert {unit.name: unit.effect for unit in world.units.values()} == {"t": "idempotent", "u": "pure", "v": "once"}


def test_what_tools_need_is_at_hand() -> None:
    assert holdfast.effect is effect
    assert holdfast.idempotency_key is idempotency_key
    assert holdfast.DID_NOT_HAPPEN is DID_NOT_HAPPEN
