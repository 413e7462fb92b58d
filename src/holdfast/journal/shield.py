"""Finishing what was begun, though somebody cancels the task meanwhile."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(work: Coroutine[Any, Any, T], *, deaf: bool = False) -> T:
    """
    Run ``work`` to its end, whatever happens to the task that waits for it.

    Args:
        work: What is to be finished.
        deaf: Whether a cancellation meanwhile is forgotten: it came too late, as there is nothing left to stop.

    Raises:
        asyncio.CancelledError: the task was cancelled meanwhile; ``work`` has ended all the same.
    """
    loop = asyncio.get_running_loop()
    working = loop.create_task(work)  # A group would cancel it with the task.
    cancelled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            ended = loop.create_future()
            working.add_done_callback(partial(_tell, ended))
            await ended
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not deaf:
        working.cancelled() or working.exception()  # It was looked at: nobody need be told that it was not.
        raise cancelled
    return working.result()


def _tell(waiting: asyncio.Future[None], _ended: object) -> None:
    if not waiting.done():
        waiting.set_result(None)
