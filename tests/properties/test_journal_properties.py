"""Whatever an agent does, and whenever its servers die: no effect happens twice, and the turn ends as it would have."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.adapters import FunctionAgent, FunctionTurn
from holdfast.journal import effect
from holdfast.testing import VirtualLoop
from holdfast.turn import Reply, Turn

if TYPE_CHECKING:
    from tests.crashes import Server, World, whole
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World, whole

KINDS = ("pure", "idempotent", "once")

calls = st.tuples(st.sampled_from(KINDS), st.integers(0, 3))
groups = st.lists(calls, min_size=1, max_size=4)
plans = st.lists(st.tuples(groups, st.booleans()), min_size=1, max_size=4)
"""What an agent does: groups of calls that are made together, each by itself or all of them inside a tool."""


class Play:
    """An agent with a plan, in a world in which servers die."""

    def __init__(self, plan: list[tuple[list[tuple[str, int]], bool]], deaths: list[int]) -> None:
        self.plan = plan
        self.deaths = deaths
        self.world = World(deaths[0] if deaths else 0)

    async def handler(self, turn: FunctionTurn) -> str:
        told: list[str] = []
        for at, (group, nested) in enumerate(self.plan):
            if nested:
                told.append(await turn.tool(self.together(turn, group), n=at))
            else:
                told.extend(await self.each(turn, group))
        return "; ".join(told)

    def together(self, turn: FunctionTurn, group: list[tuple[str, int]]) -> Any:
        @effect("pure")
        async def several(n: int) -> str:
            return f"{n}: " + "; ".join(await self.each(turn, group))

        return several

    async def each(self, turn: FunctionTurn, group: list[tuple[str, int]]) -> list[str]:
        async with asyncio.TaskGroup() as running:
            tasks = [running.create_task(turn.tool(self.tool(kind), n=n)) for kind, n in group]
        return [task.result() for task in tasks]

    def tool(self, kind: str) -> Any:
        async def call(n: int) -> str:
            return await self.world.do(kind, n)

        call.__name__ = kind
        return effect(kind)(call) if kind != "once" else call  # type: ignore[arg-type]  # it is one of the kinds

    async def answer(self, turn: Turn) -> Reply:
        return await FunctionAgent(self.handler, "a", no_model).answer(turn)

    def asked(self) -> Counter[str]:
        return Counter(f"{kind} {n}" for group, _ in self.plan for kind, n in group)


async def no_model(_turn: Turn, _prompt: str, _instructions: str | None) -> str:
    raise AssertionError


def run(play: Play) -> tuple[Reply, int]:
    async def main() -> tuple[Reply, int]:
        play.world.dead = asyncio.Event()
        return await whole(play.answer, play.world, deaths=play.deaths[1:])

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


@settings(deadline=None, max_examples=150)
@given(plans, st.lists(st.integers(1, 40), max_size=3))
def test_no_effect_happens_twice_and_the_answer_is_that_of_an_undisturbed_turn(
    plan: list[tuple[list[tuple[str, int]], bool]], deaths: list[int]
) -> None:
    """Servers die at any moments, one after the other; somebody looks after what is in doubt."""
    undisturbed, disturbed = Play(plan, []), Play(plan, deaths)
    expected, _ = run(undisturbed)
    reply, _ = run(disturbed)
    assert reply.text == expected.text
    assert undisturbed.world.did == undisturbed.asked()
    for call, times in disturbed.asked().items():
        if call.startswith("once"):
            assert disturbed.world.did[call] == times
        else:
            assert disturbed.world.did[call] >= times
    again = Play(plan, [])
    again.world = disturbed.world
    did = Counter(disturbed.world.did)

    async def once_more() -> Reply | None:
        return await Server(again.world, generation=100).run(again.answer)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        replayed = runner.run(once_more())
    assert replayed is not None
    assert replayed.text == expected.text
    assert again.world.did == did
