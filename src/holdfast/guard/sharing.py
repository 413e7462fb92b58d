"""
What the guards of several server processes have in common, kept by a ``Coord``.

::

    rate limits   asked of the coord, one call for all limits of a crossing
    breakers      evidence stays here; a trip and an operator's order are told to the others, who follow
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Hashable, Sequence
from contextlib import asynccontextmanager, suppress

from holdfast.coord import NEVER, Coord, CoordUnavailable, Need, Transition
from holdfast.resilience import Circuit, Pipeline, SharedNeed, ShareUnavailable, State, Why

_REFRESH_S = 1.0
_TOLD: frozenset[Why] = frozenset(
    {"consecutive", "failure_ratio", "slow_ratio", "probe_failed", "probe_slow", "force_open", "disable", "reset"}
)
"""Moves that say something about the target. That a break is over, or that probes went well, each finds out itself."""


class Sharing:
    """
    The limits and breakers of this process, joined with those of the others. It is a ``Share`` for rate limits.

    Args:
        coord: Keeps what is shared. Whoever made it opens and closes it.
        process: Names this process for people.
    """

    def __init__(self, coord: Coord, process: str) -> None:
        self._coord = coord
        self._process = process
        self._replicas = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._pipelines: tuple[Pipeline, ...] = ()
        self._hearing = False

    @property
    def replicas(self) -> int:
        """Processes that were seen last, this one among them."""
        return self._replicas

    async def take(self, needs: Sequence[SharedNeed]) -> tuple[int, int | None] | None:
        """Take everything, or say which need makes one wait and for how many nanoseconds; see ``Share``."""
        try:
            refusal = await self._coord.take(_needs(needs))
        except CoordUnavailable as away:
            raise ShareUnavailable(str(away)) from away
        return None if refusal is None else (refusal.at, None if refusal.wait_ns == NEVER else refusal.wait_ns)

    def refund(self, needs: Sequence[SharedNeed]) -> None:
        """Give back what was not used, soon."""
        if needs:
            self._soon(self._coord.refund(_needs(needs)))

    def charge(self, needs: Sequence[SharedNeed]) -> None:
        """Take what was used already, soon."""
        if needs:
            self._soon(self._coord.charge(_needs(needs)))

    async def probe(self, name: str, slots: int, lease_ns: int) -> str | None:
        """A place to try a target that has failed, among all processes; None where all are taken. See ``Probes``."""
        try:
            return await self._coord.probe(name, slots, lease_ns)
        except CoordUnavailable as away:
            raise ShareUnavailable(str(away)) from away

    def release(self, name: str, probe: str) -> None:
        """Give a place back, soon."""
        self._soon(self._coord.release(name, probe))

    @asynccontextmanager
    async def joined(self, pipelines: Sequence[Pipeline]) -> AsyncIterator[None]:
        """
        For the length of the block, share the limits of these pipelines, tell of their breakers' moves, and follow the
        others'. A coord that does not answer yet is joined as soon as it does.

        Raises:
            Misconfigured: the coord refused us.
        """
        self._pipelines = tuple(pipelines)
        for pipeline in self._pipelines:
            if pipeline.breaker is not None:
                pipeline.breaker.watchers.append(self._moved)
        self._coord.subscribe(self._heard)
        with suppress(CoordUnavailable):
            await self._coord.open()
        try:
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(self._count())
                yield
                counting.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await self._coord.close()

    async def ask(self) -> str:
        """Whether the coord answers, for a health check: in words what it said."""
        return f"{self._coord.name}, {await self._coord.replicas()} processes"

    async def _count(self) -> None:
        while True:
            with suppress(CoordUnavailable):  # Then what was seen last holds.
                self._replicas = await self._coord.replicas()
            await asyncio.sleep(_REFRESH_S)

    def _moved(self, _key: Hashable, circuit: Circuit, _was: State, state: State, why: Why, now: int) -> None:
        if why in _TOLD and not self._hearing:
            told = Transition(circuit.name, state.value, circuit.left_ns(now), why, self._process)
            self._soon(self._coord.publish(told))

    def _heard(self, told: Transition) -> None:
        self._hearing = True
        try:
            for pipeline in self._pipelines:
                if pipeline.breaker is not None and pipeline.breaker.follow(told.name, told.state, told.left_ns):
                    return
        finally:
            self._hearing = False

    def _soon(self, told: Awaitable[None]) -> None:
        async def tell() -> None:
            # Units come back at their rate, and what a breaker did the others find out by themselves.
            with suppress(CoordUnavailable):
                await told

        task = asyncio.get_running_loop().create_task(tell())  # A release must not wait for it, so no group can.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _needs(needs: Sequence[SharedNeed]) -> list[Need]:
    return [Need(need.key, need.quota.num, need.quota.den_ns, need.quota.burst, need.cost) for need in needs]
