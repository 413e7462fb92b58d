"""
What is closed at the end, in reverse order of its start.

    hooks = Hooks(drain)
    await hooks.open("store", store)                      an async context manager: entered now, left at the end
    hooks.add("cache", cache.flush, after=("agents",))    called at the end, once the agents are closed

Each hook runs in a task of its own, one after another, and has its share of what is left of the deadline: what is left,
divided by the hooks that are still to run. One that raises, hangs, or will not even be cancelled stops nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, TypeVar

from holdfast.errors import Draining
from holdfast.lifecycle.drain import Drain
from holdfast.telemetry import logger

T = TypeVar("T")
Close = Callable[[], Awaitable[object]]

_BEFORE_CANCEL = 0.9
"""Part of its share after which a hook is cancelled; the rest is for what it still has to do."""


class Failure(NamedTuple):
    """A hook that did not do what it was to: its name, the kind of the error, and what it says."""

    hook: str
    error: str
    why: str


class _Hook(NamedTuple):
    close: Close
    after: tuple[str, ...]


class Hooks:
    """
    What is to be closed.

    Args:
        drain: Says how much time is left, and is told when everything is closed.

    Attributes:
        failures: The hooks that failed so far.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._hooks: dict[str, _Hook] = {}
        self._closing = asyncio.Lock()
        self.failures: list[Failure] = []

    def add(self, name: str, close: Close, *, after: tuple[str, ...] = ()) -> None:
        """
        Have ``close`` awaited at the end.

        Args:
            name: Names it in the log, and for the ``after`` of others.
            close: Called without arguments, at most once.
            after: Hooks that are to be closed before it, though they may have been added before it. Those that are not
                there by the end are not waited for.

        Raises:
            Draining: the process is stopping. It was not added, and will not be called.
            ValueError: the name is taken, or hooks would wait for each other. It was not added.
        """
        if self._drain.stopping:
            raise Draining(f"the process is stopping: the hook {name} was not added, and will not be called")
        if name in self._hooks:
            raise ValueError(f"there is a hook {name} already")
        self._hooks[name] = _Hook(close, tuple(after))
        try:
            self._order()
        except ValueError:
            del self._hooks[name]
            raise

    async def open(self, name: str, manager: AbstractAsyncContextManager[T], *, after: tuple[str, ...] = ()) -> T:
        """
        Enter ``manager`` now, and leave it at the end. Both happen in one task, as some managers ask for.

        Raises:
            Draining, ValueError: as ``add`` does; nothing was entered.
            BaseException: what entering raised; there is nothing to leave.
        """
        entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        leave = asyncio.Event()

        async def own() -> None:
            async with manager as value:
                entered.set_result(value)
                await leave.wait()

        async def close() -> None:
            leave.set()
            await task

        self.add(name, close, after=after)
        task = asyncio.get_running_loop().create_task(own())  # It lives longer than any group here.
        try:
            await asyncio.wait((task, entered), return_when=asyncio.FIRST_COMPLETED)
            if not entered.done():
                await task
            return entered.result()
        except BaseException:
            del self._hooks[name]
            task.cancel()
            await asyncio.wait((task,))
            raise

    async def close(self) -> None:
        """
        Close everything, and end the ``drain``, which must have come to CLOSING.

        Never raises what a hook does: that is logged, and kept in ``failures``. A second call waits for the first.
        """
        async with self._closing:
            for at, name in enumerate(order := self._order()):
                share_s = self._drain.left_s / (len(order) - at)
                failure = await self._run(name, self._hooks.pop(name).close, share_s)
                if failure is not None:
                    self.failures.append(failure)
                    logger.error("stop_hook_failed", **failure._asdict())
            self._drain.end()

    @staticmethod
    async def _run(name: str, close: Close, share_s: float) -> Failure | None:
        async def guarded() -> BaseException | None:
            try:
                await close()
            except BaseException as error:  # noqa: BLE001 - even one that asks the process to exit stops nothing
                return error
            return None

        # No group: one that will not be cancelled is left behind.
        task = asyncio.get_running_loop().create_task(guarded(), name=f"close {name}")
        try:
            done, _ = await asyncio.wait((task,), timeout=_BEFORE_CANCEL * share_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            await asyncio.wait((task,), timeout=(1 - _BEFORE_CANCEL) * share_s)
            return Failure(name, "TimeoutError", f"it did not end within {share_s:.3g} s")
        error = None if task.cancelled() else task.result()
        return None if error is None else Failure(name, type(error).__name__, str(error))

    def _order(self) -> list[str]:
        """
        The latest first, and each after those it names.

        Raises:
            ValueError: some would wait for each other.
        """
        waiting, order = list(reversed(self._hooks)), list[str]()
        while waiting:
            free = (name for name in waiting if not set(self._hooks[name].after) & set(waiting))
            name = next(free, None)
            if name is None:
                raise ValueError(f"the hooks {', '.join(sorted(waiting))} would be closed after each other")
            waiting.remove(name)
            order.append(name)
        return order
