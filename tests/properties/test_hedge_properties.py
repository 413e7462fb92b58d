"""Races agree with a model of a dozen lines; in a crowd of them nothing is left behind, however they end."""

import asyncio
from typing import Literal, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError
from holdfast.resilience import (
    Breaker,
    Budget,
    Bulkhead,
    Call,
    Deadline,
    Hedge,
    Limit,
    Notice,
    Pipeline,
    Rate,
    Retry,
    Timeout,
    per,
)
from holdfast.testing import VirtualLoop, loop_clock

MODEL = Call(target="model", repeatable=True)
GRACE_S = 0.5
LIMIT_S = 0.3
MOST = 2


class MayPass(ConnectionError):
    """A failure after which another attempt may do better."""


class Final(ValueError):
    """A failure that any other attempt would have too."""


Kind = Literal["answers", "may pass", "final"]


class Step(NamedTuple):
    """How one attempt goes, in milliseconds: what it does after how long, and what once it is stopped."""

    lasts: int
    kind: Kind
    tidy: int = 0
    at_the_stop: Literal["goes", "fails", "answers"] = "goes"


class Asked:
    """What one caller calls; attempt n goes as step n says, later ones as the last."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.began: list[float] = []
        self.stopped: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.errors: dict[int, Exception] = {}

    async def __call__(self) -> int:
        loop = asyncio.get_running_loop()
        n = len(self.began)
        step = self.steps[min(n, len(self.steps) - 1)]
        self.began.append(loop.time())
        try:
            await asyncio.sleep(step.lasts / 1_000)
            if step.kind == "answers":
                return n
            self.errors[n] = MayPass() if step.kind == "may pass" else Final()
            raise self.errors[n]
        except asyncio.CancelledError:
            self.stopped.setdefault(n, loop.time())
            await asyncio.sleep(step.tidy / 1_000)
            if step.at_the_stop == "fails":
                raise MayPass from None
            if step.at_the_stop == "goes":
                raise
            return n
        finally:
            self.ended[n] = loop.time()


kinds = st.sampled_from(["answers", "may pass", "final"])


class Race(NamedTuple):
    """How a race ended: when, by which attempt's answer or error, and when attempts began."""

    at: int
    answer: int | None
    error: int | None
    began: list[int]


def model(steps: list[Step], after: int, most: int) -> Race:
    running, began, chances, due = {0: steps[0].lasts}, [0], most, after
    while True:
        n = min(running, key=lambda number: running[number])
        at = running[n]
        if chances and due < at:
            running[len(began)] = due + steps[len(began)].lasts
            began.append(due)
            chances, due = chances - 1, due + after
            continue
        del running[n]
        if steps[n].kind == "answers":
            return Race(at, n, None, began)
        if steps[n].kind == "final":
            return Race(at, None, n, began)
        if not running:
            return Race(at, None, 0, began)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), kinds), min_size=5, max_size=5), st.integers(1, 12), st.integers(1, 4))
def test_a_race_goes_as_the_model_says(tens: list[tuple[int, Kind]], after: int, most: int) -> None:
    # Attempt n ends n + 1 ms after a multiple of 10, and begins at one: nothing happens in the same moment.
    steps = [Step(10 * lasts + n + 1, kind) for n, (lasts, kind) in enumerate(tens)]

    async def main() -> None:
        asked = Asked(steps)
        one = Pipeline("model", Hedge(after_s=after / 100, max=most), Bulkhead(9), clock=loop_clock())
        answer = error = None
        try:
            answer = await one.on(MODEL)(asked)
        except (MayPass, Final) as raised:
            error = raised
        at = asyncio.get_running_loop().time()
        race = model(steps, 10 * after, most)
        assert (round(at * 1_000), answer) == (race.at, race.answer)
        assert error is (None if race.error is None else asked.errors[race.error])
        assert [round(began * 1_000) for began in asked.began] == race.began
        await one.aclose()
        assert set(asked.stopped.values()) <= {at}
        assert asked.ended.keys() == set(range(len(asked.began)))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


class Plan(NamedTuple):
    """A caller, in milliseconds: when it calls, how its attempts go, and when it is stopped, if it is."""

    start: int
    steps: list[Step]
    stops: list[int]


def plans() -> st.SearchStrategy[Plan]:
    times = st.integers(0, 400)
    steps = st.builds(Step, times, kinds, st.integers(0, 900), st.sampled_from(["goes", "fails", "answers"]))
    return st.builds(Plan, times, st.lists(steps, min_size=1, max_size=6), st.lists(times, max_size=2))


async def play(plan: Plan, one: Pipeline) -> tuple[Asked, float]:
    """Call, and check what holds when the call is over: what it asked, and when it was over."""
    loop, asked, task = asyncio.get_running_loop(), Asked(plan.steps), asyncio.current_task()
    assert task is not None
    await asyncio.sleep(plan.start / 1_000)
    stops = [loop.call_later(at / 1_000, task.cancel) for at in plan.stops]
    answer = error = None
    try:
        answer = await one.on(MODEL)(asked)
    except (MayPass, Final, HoldfastError, asyncio.CancelledError) as raised:
        error = raised
    over = loop.time()
    for stop in stops:
        stop.cancel()
    while task.uncancel():
        pass
    assert (answer is None) != (error is None)
    if answer is not None:  # H2, and at once
        # One that its own time limit stopped may answer all the same.
        assert answer not in asked.stopped or asked.stopped[answer] - asked.began[answer] > LIMIT_S - 0.001
        assert asked.ended[answer] == over
    await asyncio.sleep(0.001)  # H4, as soon as those that were stopped have run
    assert asked.ended.keys() | asked.stopped.keys() == set(range(len(asked.began)))
    return asked, over


@settings(max_examples=200, deadline=None)
@given(st.lists(plans(), min_size=1, max_size=8), st.sampled_from([1, 2]), st.integers(1, 6))
def test_a_crowd_of_races_leaves_nothing_behind(crowd: list[Plan], tries: int, cap: int) -> None:
    async def main() -> None:
        told: list[Notice] = []
        budget = Budget(ratio=0.5, floor_per_s=0, cap=cap)
        one = Pipeline(
            "model",
            Deadline(0.7),
            *([Retry(attempts=tries, budget=budget, base_s=0.01, min_useful_s=0)] if tries > 1 else []),
            Hedge(after_s=0.05, max=MOST, grace_s=GRACE_S, budget=budget),
            Breaker(open_s=0.1, consecutive=4),
            Rate(Limit("requests", per.second(50, burst=9))),
            Bulkhead(4, queue=3),
            Timeout(total=LIMIT_S),
            clock=loop_clock(),
            sink=told.append,
        )
        async with asyncio.TaskGroup() as group:
            players = [group.create_task(play(plan, one)) for plan in crowd]
        await asyncio.sleep(GRACE_S)
        await one.aclose()
        for asked, over in (player.result() for player in players):
            assert len(asked.began) <= tries * (1 + MOST)  # H1
            assert all(began <= over for began in asked.began)
            for n, stopped in asked.stopped.items():  # H3
                assert asked.ended[n] - stopped <= GRACE_S + 0.01
            assert asked.ended.keys() == set(range(len(asked.began)))
        names = [notice.name for notice in told]
        assert names.count("hedge.started") + names.count("retry.scheduled") <= cap + 0.5 * len(crowd)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert one.bulkhead is not None
        assert one.breaker is not None
        assert [view.stats for view in one.bulkhead.views() if view.stats.in_use or view.stats.queued] == []
        assert [view for view in one.breaker.views(loop_clock().now()) if view.inflight] == []

    complaints: list[object] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        runner.run(main())
    assert complaints == []
