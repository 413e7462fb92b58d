"""
How the process is: the latest result of each component's check.

::

    a check, every few seconds ─▶ its last three results ─▶ the middle one of them is the component's state
                                  none for a while       ─▶ as a failure

A component changes its state when two of its last three results say so, the first one decides at once. The worst
component decides for all; a degraded one still serves. Probes read what is here and set off nothing.

Liveness is not here: it means that the event loop answers, and depends on nothing else, so that an outage elsewhere
never restarts this process.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

import msgspec

from holdfast.clock import NS, Clock
from holdfast.lifecycle.spec import HealthSpec

State = Literal["healthy", "degraded", "unhealthy"]
_WORST_FIRST: tuple[State, ...] = ("unhealthy", "degraded", "healthy")
_STALE_ROUNDS = 3
"""Intervals, besides the timeout, after which a result is stale: a component without a newer one counts as failed."""


class Finding(NamedTuple):
    """What a check found, where that is more than all well or failed."""

    state: State
    note: str


class Check(NamedTuple):
    """
    One component's check.

    Attributes:
        name: The component.
        ask: Returns a short note when all is well, or a ``Finding``, and raises when it failed.
        on_failure: What a failure makes the component: ``degraded`` where turns are still served without it.
        needed: Whether no turn at all can be served while the component is unhealthy: readiness turns red.
        timeout_s: Seconds it may take, > 0; longer is a failure. None is as set for all.
        every_s: Seconds from one to the next, > 0. None is as set for all.
    """

    name: str
    ask: Callable[[], Awaitable[str | Finding]]
    on_failure: State = "unhealthy"
    needed: bool = False
    timeout_s: float | None = None
    every_s: float | None = None


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a component is.

    Attributes:
        name: The component.
        state: By its last three results.
        note: What the latest one said, for operators.
        latency_s: Seconds the latest one took.
        age_s: Seconds since then; None where there was none yet.
        since_ns: Since when the component has been in this state, in nanoseconds since 1970.
        needed: Whether no turn at all can be served while it is unhealthy.
    """

    name: str
    state: State
    note: str
    latency_s: float
    age_s: float | None
    since_ns: int
    needed: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The worst of the components, and each of them."""

    state: State
    components: tuple[Component, ...]

    @property
    def serves(self) -> bool:
        """Whether nothing is unhealthy without which no turn can be served."""
        return not any(each.needed and each.state == "unhealthy" for each in self.components)


def worst(states: set[State]) -> State:
    """The worst of ``states``; healthy where there is none."""
    return next((state for state in _WORST_FIRST if state in states), "healthy")


class Record:
    """
    What is known of one component. It asks nothing and reads no clock.

    Args:
        check: The component's.
        stale_s: Seconds from which on a result says nothing any more.
        wall_ns: When it is made, in nanoseconds since 1970.
    """

    def __init__(self, check: Check, stale_s: float, wall_ns: int) -> None:
        self._check = check
        self._stale_ns = round(stale_s * NS)
        self._results: deque[State] = deque(maxlen=3)
        self._state: State = check.on_failure
        self._note = "not asked yet"
        self._took_s = 0.0
        self._at: int | None = None
        self._at_wall_ns = self._since_ns = wall_ns

    def take(self, found: Finding, took_s: float, now: int, wall_ns: int) -> None:
        """A result has come. The first one decides by itself, as does the first one after a silence."""
        if self._silent(now):
            self._results.clear()
        self._results.extend([found.state] * (1 if self._results else 3))
        state = sorted(self._results, key=_WORST_FIRST.index)[1]
        if state != self._state or self._at is None:
            self._state, self._since_ns = state, wall_ns
        self._note, self._took_s, self._at, self._at_wall_ns = found.note, took_s, now, wall_ns

    def component(self, now: int) -> Component:
        """The component as it is."""
        age_s = None if self._at is None else (now - self._at) / NS
        state, note, since_ns = self._state, self._note, self._since_ns
        if age_s is not None and self._silent(now):
            failed = worst({state, self._check.on_failure})
            since_ns = since_ns if failed == state else self._at_wall_ns
            state, note = failed, f"no result for {age_s:.3g} s"
        return Component(
            name=self._check.name,
            state=state,
            note=note,
            latency_s=self._took_s,
            age_s=age_s,
            since_ns=since_ns,
            needed=self._check.needed,
        )

    def _silent(self, now: int) -> bool:
        return self._at is not None and now - self._at > self._stale_ns


class Health:
    """
    Checks every component while it is ``watched``, each in its own time.

    Args:
        spec: How often, and for how long.
        clock: Where the time comes from.
        checks: The first checks.
    """

    def __init__(self, spec: HealthSpec, clock: Clock, checks: tuple[Check, ...] = ()) -> None:
        self._spec = spec
        self._clock = clock
        self._checks: dict[str, tuple[Check, Record]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._keeping: list[asyncio.Task[None]] = []
        for check in checks:
            self.add(check)

    def add(self, check: Check) -> None:
        """
        Check one more component: from now on, where the others are watched already.

        Raises:
            ValueError: there is a component of this name. Nothing was added.
        """
        if check.name in self._checks:
            raise ValueError(f"there is a check {check.name} already")
        every_s, timeout_s = check.every_s or self._spec.every_s, check.timeout_s or self._spec.timeout_s
        check = check._replace(every_s=every_s, timeout_s=timeout_s)
        self._checks[check.name] = check, Record(check, _STALE_ROUNDS * every_s + timeout_s, self._clock.wall_ns())
        if self._group is not None:
            self._begin(self._group, check)

    def report(self) -> Report:
        """How every component is, in the order they were added. Asks nothing."""
        now = self._clock.now()
        components = tuple(record.component(now) for _, record in self._checks.values())
        return Report(state=worst({component.state for component in components}), components=components)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """For the length of the block, check everything again and again; the first results are there as it begins."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            first = [self._begin(group, check) for check, _ in self._checks.values()]
            for result in first:
                await result.wait()
            try:
                yield
            finally:
                self._group = None
                for task in self._keeping:
                    task.cancel()
                self._keeping.clear()

    def _begin(self, group: asyncio.TaskGroup, check: Check) -> asyncio.Event:
        first = asyncio.Event()
        self._keeping.append(group.create_task(self._keep(*self._checks[check.name], first)))
        return first

    async def _keep(self, check: Check, record: Record, first: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        asking: asyncio.Task[Finding] | None = None
        try:
            while True:
                began = self._clock.now()
                if asking is None or asking.done():  # One that hangs, and will not be cancelled, is not asked again.
                    asking = loop.create_task(_ask(check))  # No group: nobody waits for one that hangs.
                done, _ = await asyncio.wait((asking,), timeout=check.timeout_s)
                if not done:
                    asking.cancel()
                late = Finding(check.on_failure, f"did not answer within {check.timeout_s:g} s")
                now = self._clock.now()
                record.take(asking.result() if done else late, (now - began) / NS, now, self._clock.wall_ns())
                first.set()
                await asyncio.sleep(check.every_s or 0)
        finally:
            if asking is not None:
                asking.cancel()


async def _ask(check: Check) -> Finding:
    try:
        found = await check.ask()
    except BaseException as error:  # noqa: BLE001 - whatever a check raises is its finding
        return Finding(check.on_failure, f"{type(error).__name__}: {error}")
    return found if isinstance(found, Finding) else Finding("healthy", found)
