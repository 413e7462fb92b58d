"""
A play: calls of every kind through one composition of policies, with cancellations anywhere, and its referee.

The referee stands at the doors of every guard. It looks after each step of the loop and at the end whether what holds
always holds, and whether all of it works again once time has passed.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from heapq import heappop
from itertools import pairwise, permutations, product
from random import Random
from typing import Any, Literal, get_args

from holdfast.clock import NS
from holdfast.errors import Refused, StreamBroken, TimedOut
from holdfast.resilience import (
    Adaptive,
    Breaker,
    Budget,
    Bulkhead,
    Call,
    Deadline,
    Failure,
    FailureClass,
    Hedge,
    Limit,
    Notice,
    Pipeline,
    Quota,
    Rate,
    Retry,
    State,
    Timeout,
    per,
)
from holdfast.resilience.bucket import Bucket
from holdfast.resilience.circuit import Circuit
from holdfast.resilience.guards import Attempt, Ending, Waits
from holdfast.resilience.order import ORDER, Policy
from holdfast.testing import VirtualLoop, loop_clock

# What is joined

BUDGET = Budget(ratio=0.5, floor_per_s=0.25, cap=2)
ATTEMPTS = 3
DEADLINE_S = 4.0
TOTAL_S = 2.0
CLOSED_S = 3.0
MIN_USEFUL_S = 0.1
SLACK_S = 0.011
"""How late a limit may be: a slot of the wheel."""

POLICIES: dict[type, Policy] = {
    Deadline: Deadline(DEADLINE_S),
    Retry: Retry(attempts=ATTEMPTS, min_useful_s=MIN_USEFUL_S, budget=BUDGET),
    Hedge: Hedge(after_s=0.5, grace_s=1, budget=BUDGET),
    Breaker: Breaker(consecutive=3, open_s=1, max_open_s=4, need=2, lease_s=5, closed_s=CLOSED_S),
    Rate: Rate(
        Limit("calls", Quota(4, NS, 3)),
        Limit("calls", Quota(2, NS, 2), key=per.user),
        max_wait_s=2,
        max_queue=3,
        resume_per_s=2,
    ),
    Bulkhead: Bulkhead(Adaptive(start=2, min=1, max=3), queue=2, max_wait_s=1.5, key=per.target),
    Timeout: Timeout(connect=1.5, first=1, idle=1, total=TOTAL_S),
}
ALL = tuple(kind for kind in ORDER if kind in POLICIES)
UNHEDGED = tuple(kind for kind in ALL if kind is not Hedge)
"""The same without hedges: in a race less can be told about a single attempt."""

Kinds = tuple[type, ...]


def allowed(kinds: Kinds) -> bool:
    hedge = kinds.index(Hedge) if Hedge in kinds else 0
    return (
        Deadline not in kinds[1:]
        and Timeout not in kinds[:-1]
        and not {Breaker, Rate, Bulkhead} & {*kinds[:hedge]}
        and kinds != (Hedge, Retry)
    )


COMPOSITIONS: tuple[Kinds, ...] = (*(pair for pair in permutations(ALL, 2) if allowed(pair)), UNHEDGED, ALL)


def named(kinds: Kinds) -> str:
    return "-".join(kind.__name__ for kind in kinds)


# What is played

When = Literal["soon", "waking", "later"]
"""At once, in the tick in which the task was to go on, or while it waits."""
Times = Literal["once", "twice", "again"]
"""Twice at once, or a second time while it tidies up."""
Strike = tuple[int, When, Times]
"""At which suspension a cancellation comes, counted from 1."""
WAYS: tuple[tuple[When, Times], ...] = tuple(product(get_args(When), get_args(Times)))


@dataclass(frozen=True)
class Does:
    """One attempt: what it ends with after how long; None for an answer."""

    kind: FailureClass | None
    lasts_s: float
    retry_after_s: float | None
    harmless: bool


@dataclass(frozen=True)
class Part:
    """One call; ``leaves``: a stream's reader leaves after its first part."""

    starts_s: float
    call: Call
    does: tuple[Does, ...]
    streams: bool
    leaves: bool
    tidies_s: float
    cancelled: "Strike | None"
    """At which of its suspensions."""


def written(random: Random) -> list[Part]:
    """A play by chance."""

    def does() -> Does:
        kind = random.choice([None, None, *FailureClass])
        return Does(
            kind, random.choice([0, 0.25, 0.5, 1, 3, 9]), random.choice([None, None, 0.5, 1]), random.random() < 0.3
        )

    def part() -> Part:
        call = Call(
            target=random.choice("ab"),
            credential=random.choice("xy"),
            user=random.choice("uv"),
            repeatable=random.random() < 0.8,
        )
        struck = (random.choice([1, 2, 3, 4, 6]), *random.choice(WAYS)) if random.random() < 0.3 else None
        return Part(
            starts_s=random.choice([0, 0, 0, 0.25, 1, 2, 5]),
            call=call,
            does=tuple(does() for _ in range(random.choice([1, 2, 3]))),
            streams=random.random() < 0.3,
            leaves=random.random() < 0.3,
            tidies_s=random.choice([0, 0, 0.25]),
            cancelled=struck,
        )

    return [part() for _ in range(random.choice([1, 4, 8, 12]))]


class Failed(Exception):
    def __init__(self, kind: FailureClass, retry_after_s: float | None) -> None:
        super().__init__(kind.value)
        self.failure_class = kind
        self.retry_after_s = retry_after_s


class Unreached(ConnectionRefusedError):
    """A failure before anything was sent."""


@dataclass
class Run:
    """One time that a call's function was run."""

    began_s: float
    ended_s: float = 0.0
    error: BaseException | None = None

    @property
    def asked_s(self) -> float:
        """Seconds that it asked to be left alone."""
        return getattr(self.error, "retry_after_s", None) or 0.0


@dataclass
class Cast:
    """A part in play."""

    part: Part
    runs: list[Run] = field(default_factory=list)
    began_s: float = 0.0
    suspended: int = 0
    struck: bool = False
    """It was cancelled before it was done."""
    struck_again: bool = False
    task: asyncio.Task[Any] | None = None


# The stage


class Stage(VirtualLoop):
    """Runs what is ready in an order drawn by the seed, as it is for 0, and calls ``look`` after each step."""

    def __init__(self, seed: int) -> None:
        self._order = Random(seed) if seed else None
        self.look: Callable[[], None] = lambda: None
        super().__init__()

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]  # asyncio's own, which its stubs leave out
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined]  # the same
        if self._order is not None:
            if not ready and timers:
                self.advance(timers[0].when() - self.time())
            while timers and timers[0].when() <= self.time():
                timer = heappop(timers)
                timer._scheduled = False
                if not timer.cancelled():
                    ready.append(timer)
            self._order.shuffle(ready)
        super()._run_once()  # type: ignore[misc]  # the same
        self.look()


class Watched:
    """Awaits a coroutine, and tells ``suspends`` of each future, or None, that it waits for."""

    def __init__(self, watched: Coroutine[Any, Any, Any], suspends: Callable[[Any], None]) -> None:
        self._watched = watched
        self._suspends = suspends

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = lambda: self._watched.send(None)  # noqa: E731 - it is another one in each round
        try:
            while True:
                awaited = step()
                self._suspends(awaited)
                try:
                    got = yield awaited
                except BaseException as error:  # noqa: BLE001 - all of it is the coroutine's
                    step = lambda error=error: self._watched.throw(error)  # type: ignore[misc]  # noqa: E731 - the same
                else:
                    step = lambda got=got: self._watched.send(got)  # type: ignore[misc]  # noqa: E731 - the same
        except StopIteration as ended:
            return ended.value


class Play:
    """
    One play, from the first call to the last, and what its referee has seen.

    Args:
        kinds: The policies, outermost first.
        parts: The calls.
        strike: A cancellation at one suspension of all that there are; None leaves it to the parts.
        observed: Whether the guards only observe.
    """

    def __init__(
        self, kinds: Kinds, parts: list[Part], strike: Strike | None = None, *, observed: bool = False
    ) -> None:
        self.kinds = kinds
        self.strike = strike
        self.observed = observed
        self.suspensions = 0
        # No policy looks at agents here: they tell the calls apart.
        self.casts = [Cast(replace(part, call=part.call._replace(agent=str(at)))) for at, part in enumerate(parts)]
        self.notices: list[tuple[Notice, Cast | None]] = []
        self.wrong: list[str] = []
        self.inside: defaultdict[Attempt, list[tuple[Any, Any]]] = defaultdict(list)
        self.endings: defaultdict[int, list[Ending]] = defaultdict(list)
        self.taken: defaultdict[Bucket, list[tuple[int, int, Attempt]]] = defaultdict(list)
        self.refunds: defaultdict[Bucket, int] = defaultdict(int)
        self.anew: set[Attempt] = set()
        self.let_be: dict[str, float] = {}
        """Until when a target, or a credential, asked to be left alone."""

    def perform(self, seed: int) -> None:
        """Play it, and raise what was wrong."""
        with asyncio.Runner(loop_factory=lambda: Stage(seed)) as runner:
            runner.run(self._perform())

    async def _perform(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Stage)
        self.pipeline = Pipeline("play", *map(self._policy, self.kinds), clock=loop_clock(seed=7), sink=self._hear)
        for guard in (*self.pipeline._outer, *self.pipeline._guards):
            self._stand_at(guard, inner=guard in self.pipeline._guards)
        loop.look = self._look
        async with asyncio.TaskGroup() as group:
            for cast in self.casts:
                group.create_task(self._appear(cast))
        await self.pipeline.aclose()
        loop.look = lambda: None
        assert self.wrong == []
        self._all_left()
        self._all_told()
        for cast in self.casts:
            self._result_fits(cast)
            self._repetitions_fit(cast)
        self._budget_fits()
        self._waits_fit()
        await self._all_recovers()

    def _policy(self, kind: type) -> Policy:
        policy = POLICIES[kind]
        if self.observed and isinstance(policy, Breaker | Bulkhead):
            return replace(policy, mode="observe")
        if self.observed and isinstance(policy, Rate):
            return Rate(*policy.limits, mode="observe")
        return policy

    # Calls

    async def _appear(self, cast: Cast) -> None:
        """Make one call in a task of its own, that may be cancelled."""
        await asyncio.sleep(cast.part.starts_s)
        cast.began_s = _now()
        call = self._read(cast) if cast.part.streams else self._call(cast)

        async def watched() -> Any:
            return await Watched(call, lambda awaited: self._suspended(cast, awaited))

        cast.task = asyncio.get_running_loop().create_task(watched())
        await asyncio.wait([cast.task])
        _ = cast.task.cancelled() or cast.task.exception()  # Looked at later, unless something else is wrong before.

    async def _call(self, cast: Cast) -> Any:
        return await self.pipeline.on(cast.part.call)(lambda: self._run(cast))

    async def _read(self, cast: Cast) -> Any:
        async with aclosing(self.pipeline.on(cast.part.call).stream(lambda: self._stream(cast))) as parts:
            async for _ in parts:
                if cast.part.leaves:
                    return "left"
        return "answer"

    async def _run(self, cast: Cast) -> str:
        does = self._next(cast)
        run = cast.runs[-1]
        try:
            await _sleep(does.lasts_s)
            _end(does)
        except BaseException as error:
            run.error = error
            if isinstance(error, asyncio.CancelledError):
                await _sleep(cast.part.tidies_s)
            raise
        finally:
            run.ended_s = _now()
        return "answer"

    async def _stream(self, cast: Cast) -> AsyncIterator[str]:
        does = self._next(cast)
        run = cast.runs[-1]
        try:
            await _sleep(does.lasts_s / 2)
            if does.harmless:
                _end(does)
            yield "first"
            await _sleep(does.lasts_s / 2)
            _end(does)
            yield "second"
        except BaseException as error:
            run.error = error
            if isinstance(error, asyncio.CancelledError):
                await _sleep(cast.part.tidies_s)
            raise
        finally:
            run.ended_s = _now()

    def _next(self, cast: Cast) -> Does:
        does = cast.part.does[min(len(cast.runs), len(cast.part.does) - 1)]
        cast.runs.append(Run(_now()))
        self._may_begin(cast.part.call)
        return does

    # Cancellations

    def _suspended(self, cast: Cast, awaited: Any) -> None:
        self.suspensions += 1
        cast.suspended += 1
        loop, strike = asyncio.get_running_loop(), self.strike or cast.part.cancelled
        if strike is None:
            return
        nth, when, times = strike
        if cast.struck:
            if times == "again" and not cast.struck_again:
                cast.struck_again = True
                loop.call_soon(self._cancel, cast, "once")
        elif nth != (cast.suspended if self.strike is None else self.suspensions):
            return
        elif when == "later":
            loop.call_later(0.2, self._cancel, cast, times)
        elif when == "soon" or awaited is None:
            loop.call_soon(self._cancel, cast, times)
        else:
            awaited.add_done_callback(lambda _: self._cancel(cast, times))

    def _cancel(self, cast: Cast, times: Times) -> None:
        assert cast.task is not None
        for _ in range(2 if times == "twice" else 1):
            cast.struck |= cast.task.cancel()

    # The referee

    def _stand_at(self, guard: Any, *, inner: bool) -> None:
        """Note who enters and who leaves."""
        enter, wait, leave = guard.enter, guard.wait, guard.leave
        was_here: set[tuple[Attempt, Any]] = set()

        def entered(attempt: Attempt, token: Any) -> Any:
            if (attempt, guard) in was_here:
                self.anew.add(attempt)
            was_here.add((attempt, guard))
            self._must(all(one is not guard for one, _ in self.inside[attempt]), "entered twice")
            self.inside[attempt].append((guard, token))
            if guard is self.pipeline.rate:
                for bucket, cost in token:
                    self.taken[bucket].append((round(_now() * NS), cost, attempt))
            return token

        def do_enter(attempt: Attempt, now: int) -> Any:
            token = enter(attempt, now)
            return token if isinstance(token, Waits) else entered(attempt, token)

        async def do_wait(attempt: Attempt) -> Any:
            return entered(attempt, await wait(attempt))

        def do_leave(attempt: Attempt, token: Any, ending: Ending, now: int) -> None:
            inside = self.inside[attempt]
            self._must(bool(inside) and inside[-1][0] is guard, "left twice, or not from the inside out")
            self._must(inside.pop()[1] is token, "left with a token of somebody else")
            if not ending.ran and guard is self.pipeline.rate:
                for bucket, cost in token:
                    self.refunds[bucket] += cost
                    self.taken[bucket] = [one for one in self.taken[bucket] if one[2] is not attempt]
            if inner and guard is self.pipeline._guards[0]:
                self.endings[attempt.id].append(ending)
            leave(attempt, token, ending, now)
            if inner and ending.failure is not None:
                self._asked(guard, attempt.call, ending.failure)

        guard.enter, guard.wait, guard.leave = do_enter, do_wait, do_leave

    def _asked(self, guard: Any, call: Call, failure: Failure) -> None:
        """Note who is to be left alone, by what the guard has heard."""
        asked_s, now = failure.retry_after_s, _now()
        if guard is self.pipeline.rate and failure.kind is FailureClass.RATE_LIMITED and asked_s is not None:
            self.let_be[call.target] = max(self.let_be.get(call.target, 0), now + asked_s)
        if guard is self.pipeline.breaker and failure.kind in (FailureClass.AUTH, FailureClass.QUOTA):
            self.let_be[call.credential] = now + (CLOSED_S if asked_s is None else asked_s)

    def _may_begin(self, call: Call) -> None:
        """Nothing is sent to whom is to be left alone, also if it was let in before; but it begins anew only once."""
        inside = [attempt for attempt, held in self.inside.items() if held and attempt.call.agent == call.agent]
        if self.observed or Hedge in self.kinds or any(attempt in self.anew for attempt in inside):
            return
        for name in (call.target, call.credential):
            self._must(self.let_be.get(name, 0) <= _now() + 1e-6, f"{name} was to be left alone")
        if self.pipeline.breaker in self.pipeline._guards:
            for circuit, _ in self.pipeline.breaker.circuits():
                fine = circuit.state(round(_now() * NS)) not in (State.OPEN, State.FORCED_OPEN)
                self._must(fine or circuit.name != f"play:{call.target}", "B3: sent while it is open")

    def _hear(self, notice: Notice) -> None:
        task = asyncio.current_task()
        self.notices.append((notice, next((cast for cast in self.casts if cast.task is task), None)))

    def _must(self, fine: bool, otherwise: str) -> None:  # noqa: FBT001 - as `assert`, which a pipeline might catch
        if not fine:
            self.wrong.append(f"{otherwise}, at {_now():g} s")

    def _look(self) -> None:
        """What holds after each step."""
        if self.pipeline.breaker is not None:
            for circuit, _ in self.pipeline.breaker.circuits():
                held = self._permits(circuit)
                self._must(circuit.inflight == held, f"B2: {circuit.inflight} under way, of {held}")
                if circuit.state(round(_now() * NS)) is State.HALF_OPEN:
                    self._must(held <= circuit.spec.probes, "B1: more probes than there may be")
        if self.pipeline.bulkhead is not None:
            tokens = [
                token for inside in self.inside.values() for guard, token in inside if guard is self.pipeline.bulkhead
            ]
            held = len(tokens) - tokens.count(None)  # None where it only observed.
            views = [view.stats for view in self.pipeline.bulkhead.views()]
            self._must(sum(one.in_use for one in views) >= held, "J1: inside without a permit")
            for one in views:
                self._must(one.queued <= one.max_queue, "J2: the queue is longer than it may be")
                self._must(not one.queued or one.in_use >= one.limit, "J3: a free place, and somebody waits")

    def _permits(self, circuit: Circuit) -> int:
        held = 0
        for inside in self.inside.values():
            for guard, token in inside:
                if guard is self.pipeline.breaker:
                    pairs = [token[:2], *([token[2]] if token[2] is not None else [])]
                    held += sum(one is circuit and permit.gen == circuit.gen for one, permit in pairs)
        return held

    def _all_left(self) -> None:
        """Nobody is in a guard or waits for one, and the buckets are as if only those had come who were sent."""
        pipeline, now = self.pipeline, round(_now() * NS)
        assert not any(self.inside.values())
        if pipeline.breaker is not None:
            for circuit, _ in pipeline.breaker.circuits():
                assert (circuit.inflight, circuit._leases) == (0, []), "B9"
        if pipeline.bulkhead is not None:
            for view in pipeline.bulkhead.views():
                assert (view.stats.in_use, view.stats.queued) == (0, 0), "J4"
        if pipeline.rate is not None:
            assert not pipeline.rate._queue.lines
            for kept in pipeline.rate._kept:
                for _, bucket in kept.table.entries():
                    alone = Bucket("alone", kept.limit.quota)
                    for at, cost, _ in self.taken[bucket]:
                        alone.charge(at, cost)
                    free = alone.free(now)
                    # What came back to a bucket while it filled up may be a little more than was taken out.
                    assert free <= bucket.free(now) <= free + self.refunds[bucket], "G7"

    def _all_told(self) -> None:
        """Each attempt that ran was told of as what it was, and each that did not as one that did not."""
        if not self.pipeline._guards:
            return
        told = [ending.failure for endings in self.endings.values() for ending in endings if ending.ran]
        runs = [run for cast in self.casts for run in cast.runs]
        assert len(told) == len(runs), "every attempt is settled once"
        for call, endings in self.endings.items():
            ran = [ending for ending in endings if ending.ran]
            assert len(ran) <= self._most_runs(), call
        if Hedge in self.kinds:
            return  # Of an attempt that has lost nothing is told, whatever it did.
        limited = Deadline in self.kinds or Timeout in self.kinds
        cut = sum(isinstance(run.error, asyncio.CancelledError | GeneratorExit) for run in runs)
        expected = defaultdict[FailureClass | None, int](int)
        for run in runs:
            if run.error is None or not isinstance(run.error, asyncio.CancelledError | GeneratorExit):
                expected[_kind(run.error)] += 1
        for failure in told:
            expected[None if failure is None else failure.kind] -= 1
        # Those that were cut short are told of as cancelled, or as late where there are limits; nothing else differs.
        left = {kind: -count for kind, count in expected.items() if count}
        assert sum(left.values()) == cut
        assert left.keys() <= {FailureClass.CANCELLED, *([FailureClass.TIMEOUT] if limited else [])}, left

    def _result_fits(self, cast: Cast) -> None:
        """The caller gets its answer, its own error, a refusal, a limit's error, or the cancellation it was sent."""
        task, last = cast.task, cast.runs[-1] if cast.runs else None
        assert task is not None
        assert task.cancelled() == cast.struck, "D2"
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            answered = any(run.error is None for run in (cast.runs if Hedge in self.kinds else cast.runs[-1:]))
            assert task.result() == ("answer" if answered else "left")
        elif isinstance(error, StreamBroken):
            assert last is not None
            assert error.__cause__ is last.error
        elif not isinstance(error, Refused | TimedOut):
            assert any(error is run.error for run in (cast.runs if Hedge in self.kinds else cast.runs[-1:]))
        if error is not None and not {Retry, Hedge} & {*self.kinds}:
            assert not hasattr(error, "__notes__")

    def _most_runs(self) -> int:
        return (ATTEMPTS if Retry in self.kinds else 1) * (2 if Hedge in self.kinds else 1)

    def _repetitions_fit(self, cast: Cast) -> None:
        runs = cast.runs
        assert len(runs) <= self._most_runs(), "R3"
        for one, next_one in pairwise(runs):
            assert cast.part.call.repeatable or isinstance(one.error, Unreached)
            if Hedge not in self.kinds:
                assert next_one.began_s >= one.ended_s + one.asked_s - 1e-6, "R3: before it was asked to"
        for run in runs:
            if Deadline in self.kinds:
                assert run.began_s < cast.began_s + DEADLINE_S, "D1"
                assert run.ended_s <= cast.began_s + DEADLINE_S + cast.part.tidies_s + SLACK_S
            if Timeout in self.kinds:
                assert run.ended_s <= run.began_s + TOTAL_S + cast.part.tidies_s + SLACK_S

    def _budget_fits(self) -> None:
        """R1, in every interval, for each target; a retry after a 429 weighs less."""
        for target in "ab":
            firsts = [cast.began_s for cast in self.casts if cast.part.call.target == target]
            again = [
                (notice.at_ns / NS, 0.4 if notice.facts.get("failure") == "rate_limited" else 1.0)
                for notice, cast in self.notices
                if notice.name in ("retry.scheduled", "hedge.started")
                if cast is not None and cast.part.call.target == target
            ]
            for since in {at for at, _ in again}:
                for until in {at for at, _ in again if at >= since}:
                    spent = sum(weight for at, weight in again if since <= at <= until)
                    paid = sum(since <= at <= until for at in firsts)
                    free = BUDGET.floor_per_s * (until - since) + BUDGET.cap
                    assert spent <= BUDGET.ratio * paid + free + 1e-6, "R1"

    def _waits_fit(self) -> None:
        """R3: no refusal of our own is tried again, and no wait is begun that the deadline would end."""
        for notice, cast in self.notices:
            if notice.name == "retry.scheduled":
                assert notice.facts["failure"] != "refused"
                wait_s = notice.facts["wait_s"]
                assert isinstance(wait_s, float)
                assert cast is not None
                if Deadline in self.kinds:
                    assert notice.at_ns / NS + wait_s + MIN_USEFUL_S <= cast.began_s + DEADLINE_S + 1e-6

    async def _all_recovers(self) -> None:
        """Once time has passed everybody is served again, and then nothing is remembered."""
        pipeline = self.pipeline
        await asyncio.sleep(1_000)
        for _ in range(3):
            for target, credential, user in ("axu", "byv", "ayv", "bxu"):
                await asyncio.sleep(5)
                call = Call(target=target, credential=credential, user=user)
                assert await pipeline.on(call)(_answers) == "answer", "B6"
        await asyncio.sleep(1_000)
        now = round(_now() * NS)
        if pipeline.breaker is not None:
            for circuit, _ in pipeline.breaker.circuits():
                assert circuit.quiescent(now), f"B9: {circuit}"
        if pipeline.rate is not None:
            assert len(pipeline.rate._gates) == 0
            for kept in pipeline.rate._kept:
                assert all(bucket.quiescent(now) for _, bucket in kept.table.entries())


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _sleep(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


async def _answers() -> str:
    return "answer"


def _end(does: Does) -> None:
    if does.kind is FailureClass.NETWORK and does.harmless:
        raise Unreached
    if does.kind is not None:
        raise Failed(does.kind, does.retry_after_s)


def _kind(error: BaseException | None) -> FailureClass | None:
    if error is None:
        return None
    if isinstance(error, Unreached):
        return FailureClass.NETWORK
    return error.failure_class if isinstance(error, Failed) else FailureClass.UNKNOWN
