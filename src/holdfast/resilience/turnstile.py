"""One at a time per key, in order of arrival."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

from holdfast.errors import Refused


class _Place:
    """One key's place. ``wanted`` counts who holds it, who waits, and who was let through but has not woken yet."""

    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class Turnstile:
    """Lets one holder at a time through for each key. A key that nobody holds or waits for takes no memory."""

    def __init__(self) -> None:
        self._places: dict[Hashable, _Place] = {}

    def __len__(self) -> int:
        """Keys that are held or waited for."""
        return len(self._places)

    def wanted(self, key: Hashable) -> int:
        """How many hold the key's place or wait for it."""
        place = self._places.get(key)
        return 0 if place is None else place.wanted

    @asynccontextmanager
    async def hold(self, key: Hashable, wait_s: float, error: Callable[[], Refused]) -> AsyncIterator[None]:
        """
        Hold the key's place for the length of the block, after waiting for at most ``wait_s`` seconds; 0 never waits.

        Raises:
            Refused: whatever ``error`` makes, when the place did not come free in time; the block was not run.
        """
        place = self._places.setdefault(key, _Place())
        place.wanted += 1
        try:
            await self._take(place, wait_s, error)
            try:
                yield
            finally:
                place.lock.release()
        finally:
            place.wanted -= 1
            if not place.wanted:
                del self._places[key]

    @staticmethod
    async def _take(place: _Place, wait_s: float, error: Callable[[], Refused]) -> None:
        # Not `lock.locked()`: between one holder and the next the lock is free, and there is a queue all the same.
        taken = place.wanted > 1
        if taken and wait_s <= 0:
            raise error()
        try:
            async with asyncio.timeout(wait_s if taken else None):
                await place.lock.acquire()
        except TimeoutError as waited:
            raise error() from waited
