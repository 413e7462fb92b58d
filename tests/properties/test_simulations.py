"""
Whole afternoons of trouble in virtual time: what a provider and its callers live through behind the policies.

Each test is a story with figures. Callers come whether or not they are served, and the provider counts who came when.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from holdfast.clock import NS
from holdfast.errors import CircuitOpen, HoldfastError
from holdfast.resilience import (
    Adaptive,
    Breaker,
    Budget,
    Bulkhead,
    Call,
    Deadline,
    Limit,
    Notice,
    Pipeline,
    Rate,
    Retry,
    Timeout,
    per,
)
from holdfast.resilience.bucket import Bucket
from holdfast.testing import loop_clock

MODEL = Call(target="model", repeatable=True)


class Answered(Exception):
    """What a client raises for an answer that is an error."""

    def __init__(self, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}


class Provider:
    """
    A provider that answers what ``decide`` says when a call comes in: None is a good answer, which takes ``latency_s``.

    Attributes:
        begin: When it was made, on the loop; all other times are seconds since then.
        came: When each call came in.
        fine: When each one that went well was answered.
        told: When each one that went wrong was told so.
        inside: Calls it is working on; ``most``: the most there ever were.
    """

    def __init__(
        self, latency_s: float, decide: Callable[[float], Answered | None] = lambda _at: None, wrong_s: float = 0.05
    ) -> None:
        self.begin = asyncio.get_running_loop().time()
        self.latency_s, self.wrong_s = latency_s, wrong_s
        self.decide = decide
        self.came: list[float] = []
        self.fine: list[float] = []
        self.told: list[float] = []
        self.inside = self.most = 0

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.begin

    async def ask(self) -> str:
        self.came.append(self.now())
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            wrong = self.decide(self.now())
            await asyncio.sleep(self.latency_s if wrong is None else self.wrong_s)
        finally:
            self.inside -= 1
        if wrong is not None:
            self.told.append(self.now())
            raise wrong
        self.fine.append(self.now())
        return "answer"

    def between(self, since: float, until: float) -> int:
        """How many calls came in from ``since`` until before ``until``."""
        return bisect_left(self.came, until) - bisect_left(self.came, since)


class Log:
    """A sink that remembers each notice, and how many calls had come in at the provider by then."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.notices: list[tuple[Notice, int]] = []

    def __call__(self, notice: Notice) -> None:
        self.notices.append((notice, len(self._provider.came)))

    def of(self, name: str) -> list[tuple[float, int, Notice]]:
        begin = self._provider.begin
        return [(one.at_ns / NS - begin, came, one) for one, came in self.notices if one.name == name]

    def moves(self, since: float = 0) -> list[tuple[float, str]]:
        """When the breaker moved, and where to."""
        return [(at, str(one.facts["state"])) for at, _, one in self.of("breaker.moved") if at >= since]


async def ended(call: Callable[[], Awaitable[object]], ends: Counter[str]) -> None:
    """Call, and count how it ended."""
    try:
        await call()
    except (HoldfastError, Answered) as error:
        ends[type(error).__name__] += 1
    else:
        ends["fine"] += 1


async def callers(per_s: float, for_s: float, call: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Call at even intervals without waiting for the answers; at the end wait for those that are left."""
    loop, ends = asyncio.get_running_loop(), Counter[str]()
    begin, came = loop.time(), 0
    async with asyncio.TaskGroup() as group:
        while loop.time() < begin + for_s:
            group.create_task(ended(call, ends))
            came += 1
            await asyncio.sleep(begin + came / per_s - loop.time())
    return ends


async def crowd(size: int, call: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Call so many times at once."""
    ends = Counter[str]()
    async with asyncio.TaskGroup() as group:
        for _ in range(size):
            group.create_task(ended(call, ends))
    return ends


def most_above(firsts: list[float], retries: list[float], budget: Budget) -> float:
    """
    Of all stretches of time, the one with most retries above ``ratio * firsts + floor_per_s * T``: how many above.

    R1 says that it is never more than the budget's ``cap``.
    """
    come, made = Counter(firsts), Counter(retries)
    level = low = most = 0.0
    last = 0.0
    for at in sorted(come | made):
        level -= budget.floor_per_s * (at - last)
        last, low = at, min(low, level)
        level += made[at] - budget.ratio * come[at]
        most = max(most, level - low)
    return most


@pytest.mark.parametrize(
    ("silent", "per_s"),
    [(False, 50), (True, 10), pytest.param(True, 50, marks=pytest.mark.slow)],
    ids=["it says so", "it says nothing", "it says nothing to many"],
)
async def test_a_provider_is_out_for_ten_minutes(silent: bool, per_s: float) -> None:  # noqa: FBT001 - a column
    """
    It opens after five failures, and then nobody is sent but one probe after each break, which are longer and longer.

    When the provider is back it waits for the end of at most one break, closes, and stays closed.
    """
    down, back = 20.0, 620.0
    provider = Provider(0.05, lambda at: Answered(500) if down <= at < back else None)
    log, retry, timeout_s = Log(provider), Retry(), 10.0 if silent else 0.0
    pipeline = Pipeline(
        "model",
        Deadline(30),
        retry,
        Breaker(),
        Bulkhead(Adaptive(), queue=100, key=per.target),
        Timeout(total=10),
        clock=loop_clock(seed=1),
        sink=log,
    )
    firsts: list[float] = []

    async def ask() -> str:
        if silent and down <= provider.now() < back:
            provider.came.append(provider.now())
            await asyncio.sleep(3_600)
        return await provider.ask()

    async def call() -> None:
        firsts.append(provider.now())
        await pipeline.on(MODEL)(ask)

    ends = await callers(per_s, 820, call)

    opened, _ = log.moves(since=down)[0]
    failures = provider.told + [at for at, _, _ in log.of("timeout.fired")]
    failed = sum(at <= opened + 1e-6 for at in failures)
    assert 5 <= failed <= 6
    assert opened <= down + timeout_s + 5 / per_s + 0.1

    moves = [(came, str(one.facts["state"])) for at, came, one in log.of("breaker.moved")]
    for (came, state), (came_next, _) in pairwise(moves):
        assert state != "open" or came_next == came, "B3: nobody reached it during a break"
        assert state != "half_open" or came_next - came <= 2
    # Breaks of at least 4, 8, 16, 32, 64 and then 96 s: ten of them last for ten minutes.
    assert provider.between(0, back) - moves[0][0] <= 10

    last = log.moves(since=back)
    if last[0][1] == "open":  # A probe had been sent just before the provider came back.
        back = last.pop(0)[0]
    assert [state for _, state in last] == ["half_open", "closed"]
    recovered = last[-1][0]
    assert recovered - back <= 120 * 1.2 + 2 / per_s + 0.1
    assert provider.between(recovered + 5, 820) >= (820 - recovered - 5) * per_s * 0.95

    retries = [at for at, _, _ in log.of("retry.scheduled")]
    assert most_above(firsts, retries, retry.budget) <= retry.budget.cap + 1e-9
    assert ends["CircuitOpen"] > 0.9 * (back - opened) * per_s


async def test_a_provider_that_fails_half_of_the_time_gets_a_tenth_more_calls() -> None:
    """R1: a budget bears the retries. Clients that try as often as they like make nearly twice as many calls."""
    amplification = {}
    for name, budget in {"ours": Budget(), "naive": Budget(ratio=3, cap=1_000)}.items():
        clock = loop_clock(seed=2)
        provider = Provider(0.1, lambda _at: Answered(500) if clock.random.random() < 0.5 else None)  # noqa: B023 - used in this round
        log = Log(provider)
        pipeline = Pipeline("model", Retry(budget=budget), clock=clock, sink=log)
        firsts: list[float] = []

        async def call() -> None:
            firsts.append(provider.now())  # noqa: B023 - used in this round
            await pipeline.on(MODEL)(provider.ask)  # noqa: B023 - used in this round

        await callers(50, 60, call)
        retries = [at for at, _, _ in log.of("retry.scheduled")]
        assert len(provider.came) == len(firsts) + len(retries)
        assert most_above(firsts, retries, budget) <= budget.cap + 1e-9
        amplification[name] = len(provider.came) / len(firsts)
    assert amplification["ours"] <= 1 + 0.1 + (0.2 * 60 + 10) / (50 * 60)
    assert amplification["naive"] > 1.8


class Impatient:
    """A client that honours ``retry-after`` as most do: everybody waits until the named moment, and then all go."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.named = [0.0]

    async def call(self) -> str:
        for _ in range(4):
            await asyncio.sleep(self.named[-1] - self._provider.now())
            try:
                return await self._provider.ask()
            except Answered as answer:
                self.named.append(self._provider.now() + float(answer.headers["retry-after"]))
        return "gave up"


async def test_a_storm_of_refusals_is_waited_out_by_all_and_nobody_comes_back_in_a_herd() -> None:
    """The provider admits 100 a second, 300 are wanted, and each refusal asks for three seconds of peace."""
    clock = loop_clock(seed=3)

    def provider_of(bucket: Bucket) -> Provider:
        return Provider(0.2, lambda _at: Answered(429, 3) if bucket.take(clock.now()) else None)

    provider = provider_of(Bucket("admits", per.second(100)))
    log = Log(provider)
    pipeline = Pipeline(
        "model",
        Deadline(60),
        Retry(),
        Breaker(),
        Rate(),
        Bulkhead(Adaptive(start=32, max=128), queue=100, key=per.target),
        Timeout(total=10),
        clock=clock,
        sink=log,
    )
    await callers(300, 20, lambda: pipeline.on(MODEL)(provider.ask))

    named: dict[int, float] = {}  # The last moment of a stretch of refusals, by how many had come before the first.
    for at, came, _ in log.of("rate.gated"):
        before = next((count for count, until in named.items() if at <= until), came)
        named[before] = at + 3 - 1e-6  # Times of the loop are floats.
    assert len(named) >= 3
    for before, until in named.items():
        assert provider.between(0, until) == before, "nobody before the named moment"
        assert provider.between(until, until + 0.1) <= 1 + 20 * 0.1
        assert provider.between(until, until + 1) <= 1 + 20

    naive = provider_of(Bucket("admits", per.second(100)))
    client = Impatient(naive)
    await callers(300, 20, client.call)
    assert max(naive.between(until - 1e-6, until + 0.1) for until in client.named) > 800
    assert len(provider.told) < len(naive.told) / 10


async def test_a_hundred_refusals_at_once_shrink_a_limit_once() -> None:
    """A2: seven tenths are left, not nothing. Calls sent since then count anew."""
    provider = Provider(0.2, lambda _at: Answered(429, 1))
    log = Log(provider)
    pipeline = Pipeline(
        "model",
        Rate(gate=None),
        Bulkhead(Adaptive(start=100, max=200), key=per.target),
        clock=loop_clock(),
        sink=log,
    )
    for refused, limit in ((100, 70), (70, 49)):
        await crowd(refused, lambda: pipeline.on(MODEL)(provider.ask))
        assert log.of("adaptive.moved")[-1][2].facts["limit"] == limit
        await asyncio.sleep(1)
    assert len(log.of("adaptive.moved")) == 2


async def slow_recovery(bulkhead: Bulkhead, seed: int) -> tuple[Provider, Log, dict[int, int]]:
    """A provider with room for 50 calls fails for a minute, and comes back with a tenth of it, rising for two."""
    down, back, well = 60.0, 120.0, 240.0

    def room(at: float) -> float:
        return 50 if at < down else 0 if at < back else min(50, 5 + 45 * (at - back) / (well - back))

    provider = Provider(1.0, lambda at: Answered(503) if provider.inside > room(at) else None)
    log, inside = Log(provider), {}
    pipeline = Pipeline(
        "model", Deadline(60), Retry(), Breaker(), bulkhead, Timeout(total=10), clock=loop_clock(seed), sink=log
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(callers(40, 280, lambda: pipeline.on(MODEL)(provider.ask)))
        for second in range(280):
            await asyncio.sleep(second - provider.now())
            inside[second] = provider.inside
    return provider, log, inside


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_provider_comes_back_slowly_and_is_not_run_over(seed: int) -> None:
    """The limit begins at its floor and follows the room there is, so that the breaker is not opened again."""
    provider, log, inside = await slow_recovery(
        Bulkhead(Adaptive(max=64), queue=20, max_wait_s=2, key=per.target), seed
    )
    closed = log.moves(since=120)[1][0]
    assert [state for _, state in log.moves(since=120)] == ["half_open", "closed"]
    for second in range(10):
        assert inside[int(closed) + second] <= 3 + 1.5 * second
    assert sum(at > 120 for at in provider.told) <= 20
    assert min(inside[second] for second in range(250, 280)) >= 38, "40 calls a second take a second each"

    fixed, log, _ = await slow_recovery(Bulkhead(64, queue=20, max_wait_s=2, key=per.target), seed)
    assert "open" in [state for _, state in log.moves(since=120)], "all at once knock it over again"
    assert sum(120 < at < 240 for at in provider.fine) > 1.5 * sum(120 < at < 240 for at in fixed.fine)


@pytest.mark.parametrize(("probes", "need"), [(1, 2), (3, 5)])
async def test_two_hundred_callers_at_the_end_of_a_break_send_as_many_probes_as_are_allowed(
    probes: int, need: int
) -> None:
    """B1 and B7; and when it has closed, the limit begins at its floor."""
    down = True
    provider = Provider(1.0, lambda _at: Answered(500) if down else None)
    most: dict[str, int] = {}

    def sink(notice: Notice) -> None:
        if notice.name == "breaker.moved":
            most[str(notice.facts["state"])], provider.most = provider.most, 0
            came[str(notice.facts["state"])] = len(provider.came)

    came: dict[str, int] = {}
    pipeline = Pipeline(
        "model",
        Breaker(probes=probes, need=need),
        Bulkhead(Adaptive(max=64), queue=1_000, max_wait_s=100, key=per.target),
        clock=loop_clock(),
        sink=sink,
    )
    await crowd(5, lambda: pipeline.on(MODEL)(provider.ask))
    down = False

    async def insist() -> None:
        while True:
            try:
                await pipeline.on(MODEL)(provider.ask)
            except CircuitOpen as refused:
                await asyncio.sleep(min(refused.retry_after_s or 1, 0.1))
            else:
                return

    await crowd(200, insist)
    assert most["closed"] <= probes
    assert need <= came["closed"] - came["half_open"] <= need + probes - 1
    assert len(provider.fine) == 200
    assert provider.between(provider.came[came["closed"]], provider.came[came["closed"]] + 1) <= 2


async def test_probes_that_are_never_answered_do_not_keep_it_open_for_ever() -> None:
    """B6: time alone leads to another probe, and so to the one that is answered."""
    answers = asyncio.Event()
    provider = Provider(0.1, lambda _at: Answered(500))
    log = Log(provider)
    pipeline = Pipeline("model", Breaker(open_s=5, max_open_s=20, lease_s=10, need=1), clock=loop_clock(), sink=log)
    await crowd(5, lambda: pipeline.on(MODEL)(provider.ask))
    sent: list[float] = []

    async def lost() -> None:
        sent.append(provider.now())
        await answers.wait()

    async with asyncio.TaskGroup() as group:
        others = group.create_task(callers(2, 330, lambda: pipeline.on(MODEL)(lost)))
        await asyncio.sleep(290)
        assert len(sent) >= 290 / (10 + 20 * 1.2 + 1)
        assert max(later - sooner for sooner, later in pairwise([0.0, *sent, 290.0])) <= 10 + 20 * 1.2 + 1
        assert min(later - sooner for sooner, later in pairwise(sent)) >= 10, "one at a time"
        answers.set()
        ends = await others
    assert ends["fine"] >= len(sent)
    assert log.moves()[-1][1] == "closed"


async def served(flood_per_s: float, others: int, each_per_s: float) -> dict[str, list[float]]:
    """
    When the calls of each user were served, of whom one floods a tool.

    There are 100 calls a second for all, 10 for each user and 50 for each tool.
    """
    times: dict[str, list[float]] = {}
    begin = asyncio.get_running_loop().time()
    pipeline = Pipeline(
        "tools",
        Rate(
            Limit("calls", per.second(100)),
            Limit("calls", per.second(10), key=per.user),
            Limit("calls", per.second(50), key=per.tool),
            max_wait_s=2,
        ),
        clock=loop_clock(),
    )

    def as_user(user: str, tool: str) -> Callable[[], Awaitable[None]]:
        times[user] = []

        async def work() -> None:
            times[user].append(asyncio.get_running_loop().time() - begin)

        return lambda: pipeline.on(Call(tool=tool, user=user))(work)

    async with asyncio.TaskGroup() as group:
        if flood_per_s:
            group.create_task(callers(flood_per_s, 20, as_user("flood", "tool 0")))
        for n in range(others):
            group.create_task(callers(each_per_s, 20, as_user(f"user {n}", f"tool {n % 3}")))
    return times


def most_at_once(times: list[float], per_s: float, burst: int) -> float:
    """By how much the busiest stretch of time exceeds ``burst + per_s * T``; nothing, by G4."""
    low = most = 0.0
    for count, at in enumerate(sorted(times)):
        low = min(low, count - per_s * at)
        most = max(most, count + 1 - per_s * at - low)
    return most - burst


async def test_a_user_who_floods_a_tool_takes_nothing_from_others() -> None:
    """G4 at three levels, and everybody else is served as if the flood were no more than that user's due."""
    calm, flood = await served(0, 8, 6), await served(300, 8, 6)
    for user in calm:
        assert len(flood[user]) == len(calm[user]) == 120, "there was enough for them"
    assert 10 * 20 <= in_time(flood["flood"]) <= 10 + 10 * 20

    due, flood = await served(10, 12, 9), await served(300, 12, 9)
    for user in due:
        assert in_time(flood[user]) >= 0.95 * in_time(due[user]), "there was too little for all, and it was shared"
    every = [at for times in flood.values() for at in times]
    assert in_time(every) >= 0.99 * (100 + 100 * 20), "and nothing was left unused"
    assert most_at_once(every, 100, 100) <= 1e-3
    assert most_at_once([at for n in range(0, 12, 3) for at in flood[f"user {n}"]] + flood["flood"], 50, 50) <= 1e-3
    for times in flood.values():
        assert most_at_once(times, 10, 10) <= 1e-3


def in_time(times: list[float]) -> int:
    """Those of the twenty seconds in which callers came."""
    return sum(at <= 20 for at in times)
