"""How late the event loop is: what one callback that takes long costs everything else in the process."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.clock import NS, Clock

EVERY_S = 0.25


@contextmanager
def watch_loop(clock: Clock, observe: Callable[[float], object]) -> Iterator[None]:
    """Tell ``observe``, four times a second for the length of the block, how many seconds the loop is late."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def begin() -> None:
        nonlocal timer
        timer = loop.call_later(EVERY_S, look, clock.now() + round(EVERY_S * NS))

    def look(due: int) -> None:
        observe(max(0, clock.now() - due) / NS)
        begin()

    begin()
    try:
        yield
    finally:
        timer.cancel()
