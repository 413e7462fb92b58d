"""
What a replica does all the time: says that it lives, and goes on with turns that nobody runs.

A replica that says nothing for ``lease_s`` is thought dead, and its turns are anybody's. One that was only slow finds
out when it writes: what it writes is refused, and it lets go.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
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
        self._resumed: dict[asyncio.Task[None], str] = {}
        self._alive_until = self._purge_at = self._clock.now()

    @asynccontextmanager
    async def keeping(self, run: Run) -> AsyncIterator[None]:
        """For the length of the block: live. Turns that are taken over are given to ``run``."""
        with suppress(StoreUnavailable):  # Whoever has said nothing yet is dead to others, and so are its first turns.
            await self._beat()
        async with asyncio.TaskGroup() as group:
            # Apart, so that a replica whose other work takes long still says that it lives.
            beating = group.create_task(self._again_and_again(self._beat, asyncio.Event()))
            looking = group.create_task(self._again_and_again(lambda: self._round(run), self._turns.released))
            try:
                yield
            finally:
                beating.cancel()
                looking.cancel()
        with suppress(StoreUnavailable):  # Then others find out by themselves, a little later.
            await self._store.leave(self._replica)

    async def _again_and_again(self, work: Callable[[], Awaitable[None]], sooner: asyncio.Event) -> None:
        while True:
            sooner.clear()
            try:
                await work()
            except StoreUnavailable:
                logger.debug("store_away")  # Health tells; there is nothing to do until it is back.
            except Exception as error:  # noqa: BLE001 - a replica that no longer says that it lives loses its turns
                log_failure(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / BEATS):
                    await sooner.wait()

    async def _beat(self) -> None:
        asked = self._clock.now()
        for turn_id in await self._store.beat(self._replica):
            self._turns.stop(turn_id)
        self._alive_until = asked + round(self._lease_s * NS)

    async def _round(self, run: Run) -> None:
        await self._give_up_orphans()
        await self._take_over(run)
        await self._purge()

    async def _give_up_orphans(self) -> None:
        """Turns that ran here when the store was away: whoever claims them goes on, this replica or another."""
        orphans = self._turns.orphans
        for claim, said in list(orphans.items()):
            orphans[claim] = None  # If it was what the store would not keep, the turn is given up without it next time.
            with suppress(NotOwner):
                await self._store.suspend(claim, None, said)
            del orphans[claim]

    async def _take_over(self, run: Run) -> None:
        # Those that wait for their session take no room: what they wait for may be among those to be taken over.
        room = MOST_RESUMED - sum(turn_id not in self._turns.queued for turn_id in self._resumed.values())
        if not self._drain.ready or room <= 0 or self._clock.now() >= self._alive_until:
            return
        for record in await self._store.claim(self._replica, self._agents, self._lease_s, room):
            logger.warning("turn_resumed", turn_id=record.turn_id, agent=record.agent, generation=record.generation)
            task = run(self._turns.resume(record))
            self._resumed[task] = record.turn_id
            task.add_done_callback(self._resumed.pop)
            self._drain.track(task)

    async def _purge(self) -> None:
        now = self._clock.now()
        if now < self._purge_at:
            return
        before_ns = self._clock.wall_ns() - round(self._keep_s * NS)
        while await self._store.purge(before_ns, _PURGED_AT_ONCE) == _PURGED_AT_ONCE:
            if self._clock.now() - now > round(self._lease_s / BEATS * NS):
                return  # There is more, and there may be turns that nobody runs: the next round goes on.
        self._purge_at = now + round(PURGE_S * NS)
