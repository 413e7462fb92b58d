"""Processes that share limits get together what one would, whoever waits, is cancelled, or cannot reach the share."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.clock import NS
from holdfast.errors import Refused
from holdfast.resilience import Bulkhead, Call, Limit, Notice, Pipeline, Quota, Rate, per
from holdfast.resilience.rate_shared import _AROUND_THE_SHARE, SharedRateGuard
from holdfast.testing import VirtualLoop, loop_clock
from holdfast.testing.shares import BucketShare

ALL = Limit("calls", per.second(10, burst=4))
USER = Limit("calls", per.second(4, burst=3), key=per.user)
LEDGER = Limit("ledger", Quota(1, 10**6 * NS, 1_000))
"""Never short, and never refilled: what is missing from it is what was taken."""


class Process:
    """One of the processes: what it has served of whom, and when."""

    def __init__(self, share: BucketShare, *limits: Limit, wait_s: float = 5.0, places: int = 1_000) -> None:
        self.notices: list[Notice] = []
        self.served: list[tuple[float, str, int, int]] = []
        rate = Rate(*limits, share=share, max_wait_s=wait_s)
        bulkhead = Bulkhead(places, queue=0)
        self.pipeline = Pipeline("tools", rate, bulkhead, clock=loop_clock(), sink=self.notices.append)
        assert isinstance(self.pipeline.rate, SharedRateGuard)
        self.guard: SharedRateGuard = self.pipeline.rate

    async def call(self, number: int, user: str = "", cost: int = 1, lasts_s: float = 0.0) -> None:
        async def work() -> None:
            self.served.append((asyncio.get_running_loop().time(), user, cost, number))
            await asyncio.sleep(lasts_s)

        try:
            await self.pipeline.on(Call(user=user, costs={"calls": cost, "ledger": cost}))(work)
        except Refused:
            return

    @property
    def idle(self) -> bool:
        guard = self.guard
        return not (guard._lines or guard._queue.lines or guard._circuit.inflight)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def above(served: list[tuple[float, int]], per_s: float) -> float:
    """Of all stretches of time, the one with most units above ``per_s * T``: how many above."""
    total, low, most = 0, 0.0, 0.0
    for at, cost in sorted(served):
        low = min(low, total - per_s * at)
        total += cost
        most = max(most, total - per_s * at - low)
    return most


calls = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["anna", "anna", "bert", "carl"]),
        st.integers(1, 3),
        st.sampled_from([0, 0, 0, 0.004, 0.05, 0.3, 1]),
    ),
    max_size=40,
)
"""By which process, for whom, at what cost, and how long after the one before."""


@settings(max_examples=120, deadline=None)
@given(calls, st.sampled_from([0, 0.004, 0.03, 0.2]), st.sampled_from([0, 0.4, 5]))
def test_two_processes_are_served_no_more_than_one_would_be(
    wanted: list[tuple[int, str, int, float]], latency_s: float, wait_s: float
) -> None:
    """G4 for everybody and for each user, G5, and nothing is left behind."""

    async def main() -> None:
        share = BucketShare(loop_clock(), 2)
        share.latency_s = latency_s
        processes = [Process(share, ALL, USER, LEDGER, wait_s=wait_s) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for number, (which, user, cost, later_s) in enumerate(wanted):
                await asyncio.sleep(later_s)
                group.create_task(processes[which].call(number, user, cost))
        served = [one for process in processes for one in process.served]
        assert above([(at, cost) for at, _, cost, _ in served], 10) <= 4 + 1e-3
        for name in ("anna", "bert", "carl"):
            assert above([(at, cost) for at, user, cost, _ in served if user == name], 4) <= 3 + 1e-3
        if wanted:
            assert share.free("ledger") == 1_000 - sum(cost for _, _, cost, _ in served)
        if wait_s == 5 and sum(cost for _, _, cost, _ in wanted) <= 8:
            assert len(served) == len(wanted), "there was time for all"
        assert all(process.idle for process in processes)

    run(main)


@settings(max_examples=120, deadline=None)
@given(calls, st.sampled_from([0, 0.02]))
def test_a_user_is_served_in_the_order_of_arrival(wanted: list[tuple[int, str, int, float]], latency_s: float) -> None:
    """G6, in one process; who asked while nobody stood in line may find there those who came while it asked."""

    async def main() -> None:
        share = BucketShare(loop_clock())
        share.latency_s = latency_s
        process = Process(share, ALL, USER, wait_s=1_000)
        begun: list[float] = []
        async with asyncio.TaskGroup() as group:
            for number, (_, user, _, later_s) in enumerate(wanted):
                await asyncio.sleep(later_s)
                begun.append(asyncio.get_running_loop().time())
                group.create_task(process.call(number, user))
        assert len(process.served) == len(wanted)
        for name in ("anna", "bert", "carl"):
            order = [number for _, user, _, number in process.served if user == name]
            for sooner, later in pairwise(order):
                assert sooner < later or begun[sooner] - begun[later] <= latency_s

    run(main)


@settings(max_examples=120, deadline=None)
@given(calls, st.lists(st.tuples(st.integers(0, 39), st.floats(0, 2)), max_size=15), st.sampled_from([0, 0.004, 0.2]))
def test_who_is_cancelled_or_never_made_has_taken_nothing(
    wanted: list[tuple[int, str, int, float]], cancelled: list[tuple[int, float]], latency_s: float
) -> None:
    """G7; the bulkheads have room for two calls of a tenth of a second each, and refuse the others."""

    async def main() -> None:
        share = BucketShare(loop_clock(), 2)
        share.latency_s = latency_s
        processes = [Process(share, ALL, USER, LEDGER, wait_s=2, places=2) for _ in range(2)]
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for number, (which, user, cost, later_s) in enumerate(wanted):
                await asyncio.sleep(later_s)
                task = group.create_task(processes[which].call(number, user, cost, 0.1))
                for after_s in (after_s for whom, after_s in cancelled if whom == number):
                    loop.call_later(after_s, task.cancel)
        await asyncio.sleep(1)
        served = sum(cost for process in processes for _, _, cost, _ in process.served)
        if wanted:
            assert share.free("ledger") == 1_000 - served
        assert all(process.idle for process in processes)

    run(main)


class Striking(VirtualLoop):
    """Cancels a task before its ``nth`` turn, with whatever is ready in that turn still to come."""

    def __init__(self, nth: int, times: int) -> None:
        super().__init__()
        self.turns = 0
        self.nth, self.times = nth, times
        self.victim: asyncio.Task[None] | None = None

    def _run_once(self) -> None:
        self.turns += self.victim is not None
        if self.turns == self.nth and self.victim is not None:
            for _ in range(self.times):
                self.victim.cancel()
        super()._run_once()  # type: ignore[misc]  # the loop's own, which the stubs leave out


CALLERS = [("anna", 2), ("anna", 2), ("anna", 1), ("bert", 3), ("bert", 2), ("carl", 1)]


def play(victim: int, nth: int, times: int, *, gated: bool, away: bool) -> int:
    """Six callers, of whom one is cancelled before the loop's ``nth`` turn; how many turns there were."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Striking)
        share = BucketShare(loop_clock())
        share.latency_s, share.away = 0.01, away
        process = Process(share, ALL, USER, LEDGER)
        if gated:
            process.guard._gates.shut("", 0.05)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(process.call(n, *caller)) for n, caller in enumerate(CALLERS)]
            loop.victim = tasks[victim]
            await asyncio.wait(tasks)
            turns.append(loop.turns)
        await asyncio.sleep(1)
        assert process.idle
        assert {number for _, _, _, number in process.served} | {victim} == set(range(len(CALLERS)))
        spent = sum(cost for _, _, cost, _ in process.served)
        left = [bucket.free(process.guard._around.clock.now()) for _, bucket in process.guard._kept[2].table.entries()]
        assert (left if away else [share.free("ledger")]) == [1_000 - spent]

    turns: list[int] = []
    with asyncio.Runner(loop_factory=lambda: Striking(nth, times)) as runner:
        runner.run(main())
    return turns[0]


@pytest.mark.parametrize(("gated", "away"), [(False, False), (True, False), (False, True)])
def test_a_cancellation_anywhere_leaves_nothing_behind(gated: bool, away: bool) -> None:  # noqa: FBT001 - columns
    for victim in range(len(CALLERS)):
        turns = play(victim, 0, 0, gated=gated, away=away)
        assert turns > 20
        for nth in range(1, turns + 1):
            play(victim, nth, 1 + nth % 2, gated=gated, away=away)


@settings(max_examples=40, deadline=None)
@given(
    processes=st.integers(2, 3),
    down_s=st.sampled_from([0.5, 2, 2.7]),
    lasts_s=st.sampled_from([0.3, 2, 9, 25]),
    how=st.sampled_from(["away", "mute"]),
    idle_at=st.lists(st.floats(0, 40), max_size=4),
    seed=st.integers(0, 9),
)
@example(processes=3, down_s=2, lasts_s=0.3, how="away", idle_at=[0.0, 1.0], seed=0)
def test_one_absence_adds_one_burst_at_most(
    processes: int, down_s: float, lasts_s: float, how: str, idle_at: list[float], seed: int
) -> None:
    """
    However greedy the processes, from the first call to the last they are served at most ``2 * burst + rate * T``.

    In any shorter stretch there are those that the parts gave while their processes did not know yet that the share was
    back, which are charged later. No call fails, and each process tells of the absence once, if at all.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        share = BucketShare(loop_clock(), processes)
        limit = Limit("calls", per.second(10, burst=6))
        all_of_them = [Process(share, limit, wait_s=60) for _ in range(processes)]
        ends = down_s + lasts_s + 8

        async def greedy(process: Process) -> None:
            while loop.time() < ends:
                if any(at <= loop.time() < at + 1 for at in idle_at):
                    await asyncio.sleep(1)
                await process.call(0)

        loop.call_at(down_s, lambda: setattr(share, how, True))
        loop.call_at(down_s + lasts_s, lambda: setattr(share, how, False))
        async with asyncio.TaskGroup() as group:
            for process in all_of_them:
                process.guard._around.clock.random.seed(seed)
                for _ in range(5):
                    group.create_task(greedy(process))
        served = [(at, cost) for process in all_of_them for at, _, cost, _ in process.served]
        last, first = max(served)[0], min(served)[0]
        assert len(served) <= 2 * 6 + 10 * (last - first) + 1e-3
        unaware_s = _AROUND_THE_SHARE.max_open_s * (1 + _AROUND_THE_SHARE.jitter) + share.timeout_s
        assert above(served, 10) <= 2 * 6 + 10 * unaware_s * (processes - 1) / processes
        assert all(process.idle for process in all_of_them)
        for process in all_of_them:
            states = [notice.facts["state"] for notice in process.notices if notice.name == "share.moved"]
            assert states in ([], ["open", "closed"])
            assert not [notice for notice in process.notices if notice.name == "rate.refused"]

    run(main)
