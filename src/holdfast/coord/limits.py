"""The four ways to spend units, each told as one operation that a backend has."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from holdfast.coord.base import NEVER, Need, Refusal, Transition, merged


class Limits(ABC):
    """What every ``Coord`` does alike."""

    def __init__(self) -> None:
        self._hear: list[Callable[[Transition], None]] = []

    @abstractmethod
    async def _spend(self, needs: Sequence[Need], *, must_fit: bool, gate_ns: int | None) -> tuple[int, int]:
        """
        Spend each need's ``cost``, which is negative for a refund, and shut a gate for ``gate_ns`` nanoseconds.

        Gives the place of the need that takes longest and the wait in nanoseconds, which is 0 where everything fits.
        Where it does not, and must, nothing is changed.
        """

    async def take(self, needs: Sequence[Need]) -> Refusal | None:
        """See ``Coord.take``."""
        asked = merged(needs)
        for index, need in asked:
            if need.cost > need.burst:
                return Refusal(index, NEVER)
        if not asked:
            return None
        at, wait_ns = await self._spend([need for _, need in asked], must_fit=True, gate_ns=None)
        return Refusal(asked[at][0], wait_ns) if wait_ns else None

    async def refund(self, needs: Sequence[Need]) -> None:
        """See ``Coord.refund``."""
        await self._add([need._replace(cost=-need.cost) for _, need in merged(needs)])

    async def charge(self, needs: Sequence[Need]) -> None:
        """See ``Coord.charge``."""
        await self._add([need for _, need in merged(needs)])

    async def gate(self, need: Need, wait_ns: int) -> None:
        """See ``Coord.gate``."""
        [(_, shut)] = merged([need._replace(cost=0)])
        await self._spend([shut], must_fit=False, gate_ns=max(0, wait_ns))

    async def _add(self, needs: Sequence[Need]) -> None:
        if needs:
            await self._spend(needs, must_fit=False, gate_ns=None)

    def subscribe(self, hear: Callable[[Transition], None]) -> None:
        """See ``Coord.subscribe``."""
        self._hear.append(hear)

    def _tell(self, moved: Transition) -> None:
        """Tell all who subscribed; one that raises is the loop's to report, and keeps it from nobody else."""
        for hear in self._hear:
            asyncio.get_running_loop().call_soon(hear, moved)
