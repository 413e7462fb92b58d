"""
The budgets that turns share, in one process: what calls reserve in the store, and what they give back.

::

    reserve ─┬─▶ it fits ─▶ the call ─▶ settle: what it used, written soon, many at a time
             ├─▶ only what others hold is in the way ─▶ wait until something is given back ─▶ again
             └─▶ it does not ─▶ BudgetExhausted

To reserve is one question to the store, which answers for all limits at once. What a process held that died is counted
as spent once its lease is over: nobody knows what its calls came to.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from weakref import WeakValueDictionary

from holdfast.budget.limits import Budget, Limit, budgets_of, limits_of
from holdfast.budget.periods import Today, today
from holdfast.budget.prices import Prices
from holdfast.budget.refusals import Wanted, exhausted, only_held
from holdfast.budget.spec import BudgetSpec
from holdfast.clock import NS, Clock
from holdfast.errors import StoreUnavailable
from holdfast.resilience import remaining_s
from holdfast.store import Account, Hold, Scope, Settled, Standing, Store
from holdfast.telemetry import log_failure, logger

POLL_S = 0.25
"""Seconds after which a call that waits looks whether another server's calls have given something back."""

UNSURE_S = 15.0
"""Seconds for which a hold that may have been made, and is not wanted, is given back again and again."""


class Member(NamedTuple):
    """Whose limits a turn is under, by their names; a name that is empty is under none."""

    turn_id: str = ""
    user: str = ""
    agent: str = ""

    def of(self, scope: Scope) -> str:
        """The name of its account in ``scope``."""
        return {"session": self.turn_id.rpartition("-")[0], "user": self.user, "agent": self.agent, "all": ""}[scope]


class Budgets:
    """
    The budgets of one process.

    Args:
        spec: How much may be spent.
        clock: Where the time comes from.
        store: Where it is kept what was spent; None limits turns only by their own limits.
        replica: The name of this process, as the store knows it.
        lease_s: Seconds without a word after which the store takes a process for dead.
        free: Models that cost nothing, as ``provider:model``.

    Attributes:
        spec, clock: As given.
        prices: What models cost.
        limits: The limits that turns share.
    """

    def __init__(
        self,
        spec: BudgetSpec,
        clock: Clock,
        store: Store | None = None,
        replica: str = "",
        lease_s: float = 5.0,
        free: Sequence[str] = (),
    ) -> None:
        self.spec = spec
        self.clock = clock
        self.prices = Prices(spec.prices, clock, free)
        self.limits: tuple[Limit, ...] = () if store is None else limits_of(spec)
        self._store = store
        self._replica = replica
        self._lease_s = lease_s
        self._settled: list[Settled] = []
        self._unsure: dict[str, int] = {}
        self._to_write = asyncio.Event()
        self._given_back = asyncio.Event()
        self._queues: WeakValueDictionary[Account, asyncio.Lock] = WeakValueDictionary()

    async def reserve(self, hold_id: str, member: Member, wanted: Wanted) -> list[Budget]:
        """
        Hold what a call may use, on every limit it is under.

        Returns:
            How these limits stand now.

        Raises:
            BudgetExhausted: one of them has no room, and got none within ``wait_s``. Nothing is held.
            StoreUnavailable: the store did not answer. What may be held is given back.
        """
        hold = Hold(hold_id, member.turn_id, self._replica, *wanted)
        fits, standing = await self._ask(hold, member)
        return standing if fits else await self._wait(hold, member, standing)

    async def _wait(self, hold: Hold, member: Member, standing: list[Budget]) -> list[Budget]:
        """Until something is given back; each one that waits for the same budget in its turn."""
        wanted = Wanted(hold.tokens, hold.nanos)
        blocked = only_held(standing, wanted)
        left = remaining_s(self.clock)
        wait_s = self.spec.wait_s if left is None else min(self.spec.wait_s, left)
        if blocked is None or wait_s <= 0:
            raise exhausted(standing, wanted, self.clock.wall_ns())
        account = Account(blocked.scope, blocked.name, blocked.every)
        queue = self._queues.get(account)
        if queue is None:
            queue = self._queues[account] = asyncio.Lock()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s), queue:
                while True:
                    given_back = self._given_back
                    fits, standing = await self._ask(hold, member)
                    if fits:
                        return standing
                    if only_held(standing, wanted) is None:
                        break
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await given_back.wait()
        raise exhausted(standing, wanted, self.clock.wall_ns())

    async def _ask(self, hold: Hold, member: Member) -> tuple[bool, list[Budget]]:
        now = today(self.clock.wall_ns())
        limits = self.applying(member)
        caps = [limit.cap(member.of(limit.scope), now) for limit in limits]
        try:
            fits, standings = await self._kept.reserve(hold, caps)
        except BaseException:
            # It may be held all the same, or be so soon, and nobody waits for it any more.
            self._unsure[hold.id] = self.clock.now() + round(UNSURE_S * NS)
            self._to_write.set()
            raise
        return fits, _budgets(limits, standings, now)

    def applying(self, member: Member) -> list[Limit]:
        """The limits that turns share and that this one is under."""
        return [limit for limit in self.limits if limit.scope == "all" or member.of(limit.scope)]

    def settle(self, settled: Settled) -> None:
        """Give back what a call did not use. It is written soon; what a process did not write counts as used."""
        self._settled.append(settled)
        self._to_write.set()

    async def standing(self, member: Member) -> list[Budget]:
        """How every limit stands that ``member`` is under."""
        now = today(self.clock.wall_ns())
        limits = self.applying(member)
        if not limits:
            return []
        standings = await self._kept.standings([limit.cap(member.of(limit.scope), now).account for limit in limits])
        return _budgets(limits, standings, now)

    async def everybodys(self, most: int, after: Account | None) -> tuple[list[Budget], Account | None]:
        """
        How the limits of users, agents and everybody stand, of those who spent anything in this period.

        Returns:
            The budgets of at most ``most`` accounts, and the last of them where there are more.
        """
        if not self.limits:
            return [], None
        now = today(self.clock.wall_ns())
        found = await self._kept.find_accounts((now.day, now.month), most + 1, after)
        limits = {(limit.scope, now.named(limit.every)): limit for limit in self.limits}
        page = found[:most]
        budgets = [
            budget
            for standing in page
            if (limit := limits.get((standing.account.scope, standing.account.period))) is not None
            for budget in budgets_of(limit, standing, now)
        ]
        return budgets, page[-1].account if len(found) > most else None

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """For the length of the block: write what is given back, and write off what the dead held."""
        if not self.limits:
            yield
            return
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write_for_ever())
            try:
                yield
            finally:
                writing.cancel()
        with suppress(StoreUnavailable):  # Then it is written off by others.
            await self.write()

    async def _write_for_ever(self) -> None:
        tidy_at = 0
        while True:
            try:
                await self.write()
                if self.clock.now() >= tidy_at:
                    tidy_at = self.clock.now() + round(self._lease_s * NS)
                    await self._tidy()
            except StoreUnavailable:
                logger.debug("store_away")
                self._to_write.clear()
            except Exception as error:  # noqa: BLE001 - what is given back is to be written all the same
                log_failure(error)
                self._to_write.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s):
                    await self._to_write.wait()

    async def write(self) -> None:
        """
        Write what was given back by now.

        Raises:
            StoreUnavailable: the store did not answer; it is written the next time.
        """
        self._to_write.clear()
        now = self.clock.now()
        unwanted = [Settled(hold_id, 0, 0) for hold_id in self._unsure]
        settled = self._settled + unwanted
        if not settled:
            return
        count = len(self._settled)
        await self._kept.settle(settled)
        del self._settled[:count]
        self._unsure = {hold_id: until for hold_id, until in self._unsure.items() if until > now}
        given_back, self._given_back = self._given_back, asyncio.Event()
        given_back.set()

    async def _tidy(self) -> None:
        for lost in await self._kept.write_off(self._lease_s):
            logger.warning("reservation_written_off", turn_id=lost.turn_id, tokens=lost.tokens, cost_nanos=lost.nanos)
        await self._kept.forget_accounts(today(self.clock.wall_ns()).last_month)

    @property
    def _kept(self) -> Store:
        if self._store is None:
            raise RuntimeError("there is no store to keep budgets in")
        return self._store


def _budgets(limits: Sequence[Limit], standings: Sequence[Standing], now: Today) -> list[Budget]:
    return [
        budget for limit, standing in zip(limits, standings, strict=True) for budget in budgets_of(limit, standing, now)
    ]
