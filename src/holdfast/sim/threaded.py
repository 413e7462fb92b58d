"""A simulator on a thread and an event loop of its own, for tests and programs that are not asyncio."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from holdfast.sim.loading import Source
from holdfast.sim.simulator import Simulator


@contextlib.contextmanager
def running_simulator(script: Source = None, **options: Any) -> Iterator[Simulator]:
    """
    A simulator on a thread and loop of its own, for code that is not asyncio. ``options`` are those of ``Simulator``.

    Raises:
        Misconfigured: as ``Simulator``; no thread is left running.
    """
    sim = Simulator(script, **options)
    ready = threading.Event()
    failed: list[BaseException] = []
    loop_and_stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with sim:
            loop_and_stop.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as wrong:  # noqa: BLE001 - raised again in the thread that asked
            failed.append(wrong)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="holdfast-sim", daemon=True)
    thread.start()
    ready.wait()
    try:
        if not failed:
            yield sim
    finally:
        for loop, stop in loop_and_stop:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it failed, and says why below
                loop.call_soon_threadsafe(stop.set)
        thread.join()
    if failed:
        raise failed[0]
