"""
What a replica does all the time: says that it lives, and goes on with turns that nobody runs.

A replica that says nothing for ``lease_s`` is thought dead, and its turns are anybody's. One that was only slow finds
out when it writes: what it writes is refused, and it lets go.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from holdfast.clock import NS
from holdfast.errors import NotOwner, StoreUnavailable
from holdfast.lifecycle import Drain
from holdfast.replica.turns import Turns
from holdfast.telemetry import log_failure, logger

BEATS = 5
"""How often a replica says that it lives, within the time after which it is thought dead."""

MOST_RESUMED = 64
"""Turns of others that one replica goes on with at a time."""

PURGE_S = 60.0
"""Seconds between two looks for turns whose calls and events nobody needs any more."""

_PURGED_AT_ONCE = 500


Run = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Runs a turn until it has ended, or the process stops."""


class Keeper:
    """
    Keeps one replica's turns its own, and takes over those of others.

    Args:
        replica: Its name; another one whenever the process starts.
        turns: The replica's turns.
        agents: Whose turns it can go on with.
        drain: Whether it still takes any.
        lease_s: Seconds without a word after which a replica is thought dead.
        keep_s: Seconds that the calls, events and keys of turns are kept after their end.
    """

    def __init__(
        self, replica: str, turns: Turns, agents: Collection[str], drain: Drain, *, lease_s: float, keep_s: float
    ) -> None:
        self._replica = replica
        self._store = turns.store
        self._clock = turns.clock
        self._turns = turns
        self._agents = agents
        self._drain = drain
        self._lease_s = lease_s
        self._keep_s = keep_s
        self._resumed: set[asyncio.Task[None]] = set()
        self._purge_at = 0

    @asynccontextmanager
    async def keeping(self, run: Run) -> AsyncIterator[None]:
        """For the length of the block: live. Turns that are taken over are given to ``run``."""
        async with asyncio.TaskGroup() as group:
            living = group.create_task(self._live(run))
            try:
                yield
            finally:
                living.cancel()
        with suppress(StoreUnavailable):  # Then others find out by themselves, a little later.
            await self._store.leave(self._replica)

    async def _live(self, run: Run) -> None:
        while True:
            self._turns.released.clear()
            try:
                await self._round(run)
            except StoreUnavailable:
                logger.debug("store_away")  # Health tells; there is nothing to do until it is back.
            except Exception as error:  # noqa: BLE001 - a replica that no longer says that it lives loses its turns
                log_failure(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / BEATS):
                    await self._turns.released.wait()

    async def _round(self, run: Run) -> None:
        await self._store.beat(self._replica)
        await self._give_up_orphans()
        await self._take_over(run)
        await self._purge()

    async def _give_up_orphans(self) -> None:
        """Turns that ran here when the store was away: whoever claims them goes on, this replica or another."""
        for turn_id, claim in list(self._turns.orphans.items()):
            with suppress(NotOwner):
                await self._store.suspend(claim)
            self._turns.orphans.pop(turn_id, None)

    async def _take_over(self, run: Run) -> None:
        room = MOST_RESUMED - len(self._resumed)
        if not self._drain.ready or room <= 0:
            return
        for record in await self._store.claim(self._replica, self._agents, self._lease_s, room):
            logger.warning("turn_resumed", turn_id=record.turn_id, agent=record.agent, generation=record.generation)
            task = run(self._turns.resume(record))
            self._resumed.add(task)
            task.add_done_callback(self._resumed.discard)
            self._drain.track(task)

    async def _purge(self) -> None:
        now = self._clock.now()
        if now < self._purge_at:
            return
        self._purge_at = now + round(PURGE_S * NS)
        before_ns = self._clock.wall_ns() - round(self._keep_s * NS)
        while await self._store.purge(before_ns, _PURGED_AT_ONCE) == _PURGED_AT_ONCE:
            continue
