"""
An asyncio loop in virtual time: hours pass in milliseconds, and every run is the same.

Time moves only when nothing is ready to run, and then straight to the next timer. ``asyncio.sleep``,
``asyncio.timeout`` and ``call_later`` work unchanged. Where nothing is ready and nothing is scheduled, the program has
deadlocked, and the loop says so.

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

from holdfast.clock import NS, Clock

START_WALL_NS = 1_767_225_600 * NS  # 2026-01-01T00:00:00Z


class _JumpingSelector(selectors.BaseSelector):
    """Waits for nothing: where the loop would sleep, its time is moved instead."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._inner = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._inner.select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: nothing is ready and nothing is scheduled")
            self._loop.advance(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps. It cannot wait for another thread or process: use a real loop for those."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Move the clock forward; a negative number is no time at all."""
        self._seconds += max(0.0, seconds)


def loop_clock(seed: int = 0) -> Clock:
    """A ``Clock`` that reads the running loop's time, with chance seeded by ``seed``. Call it inside the loop."""
    loop = asyncio.get_running_loop()

    def now() -> int:
        return round(loop.time() * NS)

    return Clock(now, lambda: START_WALL_NS + now(), seed)
