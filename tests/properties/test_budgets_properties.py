"""Whatever calls reserve, settle, wait and die of, in whatever order: no limit is passed, and nothing is lost."""

import asyncio
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.budget import Budgets, BudgetSpec, Estimate, Member, TurnBudget
from holdfast.clock import Clock
from holdfast.errors import BudgetExhausted
from holdfast.events import Usage
from holdfast.store import MemoryStore
from holdfast.testing import VirtualLoop, loop_clock

PROCESSES = 3
LEASE_S = 5.0
USERS = ("anna", "ben")

calls = st.tuples(
    st.integers(0, PROCESSES - 1),
    st.sampled_from(USERS),
    st.integers(1, 30),  # What it reserves.
    st.integers(0, 40),  # What it uses, which may be more.
    st.floats(0, 10),  # When it is made.
    st.floats(0, 10),  # How long it takes.
    st.sampled_from(["answered", "failed", "unknown", "cancelled"]),
)
limits = st.tuples(st.integers(5, 80), st.integers(5, 80), st.sampled_from([0.0, 3.0, 30.0]))
Call = tuple[int, str, int, int, float, float, str]


class Play:
    """Processes on one store, of which some die, and what is known of the calls they made."""

    def __init__(self, user_limit: int, all_limit: int, wait_s: float) -> None:
        self.user_limit, self.all_limit = user_limit, all_limit
        self.clock: Clock = loop_clock()
        self.store = MemoryStore(self.clock)
        self.spec = BudgetSpec(user_tokens_per_day=user_limit, all_tokens_per_day=all_limit, wait_s=wait_s)
        self.used = dict.fromkeys(USERS, 0)
        self.over = dict.fromkeys(USERS, 0)
        self.settled: dict[str, tuple[str, int, int]] = {}

    async def run(self, played: list[Call], deaths: dict[int, float]) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(PROCESSES):
                name = f"process {number}"
                budgets = Budgets(self.spec, self.clock, self.store, name, LEASE_S)
                mine = [call for call in played if call[0] == number]
                group.create_task(self.process(name, budgets, mine, deaths.get(number)))
        living = Budgets(self.spec, self.clock, self.store, "the last", LEASE_S)
        async with living.kept():
            await asyncio.sleep(4 * LEASE_S)

    async def process(self, name: str, budgets: Budgets, mine: Iterable[Call], dies_s: float | None) -> None:
        lives = asyncio.Event()

        async def beat() -> None:
            while not lives.is_set():
                await self.store.beat(name)
                await asyncio.sleep(1)

        async def work() -> None:
            async with budgets.kept(), asyncio.TaskGroup() as group:
                for call in mine:
                    group.create_task(self.call(budgets, *call[1:]))

        async with asyncio.TaskGroup() as group:
            group.create_task(beat())
            working = group.create_task(work())
            if dies_s is None:
                await asyncio.wait([working])
            else:
                await asyncio.wait([working], timeout=dies_s)
                budgets.settle = budgets.write = _nothing  # type: ignore[assignment, method-assign]  # it is dead
                working.cancel()
                for lost in budgets._settled:  # It had not written this: all that was held counts.
                    user, given_back, over = self.settled[lost.id]
                    self.used[user] += given_back
                    self.over[user] -= over
            lives.set()

    async def call(
        self, budgets: Budgets, user: str, reserves: int, uses: int, at_s: float, takes_s: float, ends: str
    ) -> None:
        await asyncio.sleep(at_s)
        turn = TurnBudget(budgets, Member("s-1", user, "agent"), 100)
        try:
            if ends == "cancelled":
                async with asyncio.timeout(takes_s):
                    booking = await turn.reserve("sim", "small", Estimate(0, reserves))
            else:
                booking = await turn.reserve("sim", "small", Estimate(0, reserves))
        except (BudgetExhausted, TimeoutError):
            return
        self.used[user] += reserves  # Until it is known what it uses, or for ever.
        await asyncio.sleep(takes_s)
        if budgets.settle is _nothing:
            return
        used = None if ends == "unknown" else Usage(output_tokens=uses)
        turn.settle(booking, used, answered=ends == "answered")
        if used is not None:
            self.used[user] += uses - reserves
            self.over[user] += max(0, uses - reserves)
            self.settled[booking.id] = user, reserves - uses, max(0, uses - reserves)


def _nothing(*_: object) -> None:
    return None


@settings(max_examples=150, deadline=None)
@given(
    limits,
    st.lists(calls, max_size=12),
    st.dictionaries(st.integers(0, PROCESSES - 1), st.floats(0, 15), max_size=PROCESSES),
)
def test_no_limit_is_passed_and_nothing_is_lost(
    limit: tuple[int, int, float], played: list[Call], deaths: dict[int, float]
) -> None:
    async def play() -> None:
        self = Play(*limit)
        await self.run(played, deaths)
        standings = {standing.account.name: standing for standing in self.store._accounts.values()}
        everybody = sum(self.used.values())
        for user in USERS:
            if user in standings:
                standing = standings[user]
                assert (standing.tokens, standing.held_tokens) == (self.used[user], 0)
                assert standing.tokens <= self.user_limit + self.over[user]
            else:
                assert self.used[user] == 0
        if everybody:
            assert (standings[""].tokens, standings[""].held_tokens) == (everybody, 0)
        assert everybody <= self.all_limit + sum(self.over.values())
        assert self.store._holds == {}

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play())
