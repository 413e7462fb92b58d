"""Waiting for something that has a name, until somebody says that it may have happened."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Woken:
    """One who waits."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return once woken since the block began, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    def wake(self) -> None:
        """Let it go on."""
        self._woken.set()


class Waiting:
    """Who waits for what. What nobody waits for takes no memory."""

    def __init__(self) -> None:
        self._by_name: dict[str, set[Woken]] = {}

    @contextmanager
    def on(self, name: str) -> Iterator[Woken]:
        """For the length of the block: one who is woken whenever ``name`` is."""
        woken = Woken()
        self._by_name.setdefault(name, set()).add(woken)
        try:
            yield woken
        finally:
            others = self._by_name[name]
            others.discard(woken)
            if not others:
                del self._by_name[name]

    def wake(self, name: str) -> None:
        """Wake those who wait for ``name`` now."""
        for woken in self._by_name.get(name, ()):
            woken.wake()
