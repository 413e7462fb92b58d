"""
What every coord on a server does: ask within a time, stay in touch, and come back after an outage.

::

    open ──> in touch: beats, hears moves ── lost ──> waits, a little longer each time ──> in touch
                  └ close ──> gone

Who asks while there is no touch is told so at once or within the timeout, and connects anew the next time.
"""

import asyncio
import json
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import resources
from typing import TypeVar

from holdfast.clock import Clock, token_hex
from holdfast.coord.base import CoordUnavailable, Transition
from holdfast.coord.limits import Limits
from holdfast.errors import Misconfigured

T = TypeVar("T")

BEAT_S = 2.0
"""Seconds between two signs of life; what was not heard of at once is looked for as often."""

LEASE_S = 3 * BEAT_S
"""Seconds that a process is taken to live on after its last sign of life."""

OPEN_S = 5.0
"""Seconds that the first connection, and each one after an outage, may take to be made and to hear what there is."""

_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


def statements(path: str) -> dict[str, str]:
    """The parts of a file of this package that begin with ``-- name: x``, by name."""
    text = resources.files("holdfast.coord").joinpath(path).read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def packed(moved: Transition) -> str:
    """ASCII that any server keeps as it is, whatever the texts hold."""
    return json.dumps(moved)


class Remote(Limits):
    """
    A coord on a server.

    Args:
        clock: Where chance comes from; the time is the server's.
        namespace: Who gives the same one shares state; 1 to 32 of ``a-z 0-9 _ -``.
        timeout_s: Seconds to wait for an answer.
    """

    name: str
    _outages: tuple[type[Exception], ...]
    _refusals: tuple[type[Exception], ...]

    def __init__(self, clock: Clock, namespace: str, timeout_s: float) -> None:
        super().__init__()
        self._clock, self._namespace, self._timeout_s = clock, namespace, timeout_s
        self._id = token_hex(8)
        self._touch: asyncio.Task[None] | None = None
        self._known = False  # Whether the others may have seen us.

    @abstractmethod
    async def _connect(self) -> None:
        """Make ready to hear moves, and say that this process is alive."""

    @abstractmethod
    async def _attend(self) -> None:
        """Wait until there is something to hear, or for ``BEAT_S``; tell what there is; say that we are alive."""

    @abstractmethod
    async def _leave(self) -> None:
        """Say that this process is gone."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Let go of every connection."""

    async def open(self) -> None:
        """See ``Coord.open``."""
        if self._touch is not None:
            return
        loop = asyncio.get_running_loop()
        connected: asyncio.Future[None] = loop.create_future()
        # Not in a group: it ends in `close`, which another task may call.
        self._touch = loop.create_task(self._keep_in_touch(connected))
        try:
            await connected
        except self._outages as error:
            if not isinstance(error, self._refusals):
                raise self._unavailable(error) from error
            await self.close()
            raise Misconfigured(f"coord.url: {self.name} refused us: {error}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See ``Coord.close``."""
        touch, self._touch = self._touch, None
        if touch is None:
            return
        touch.cancel()
        await asyncio.wait([touch])
        if self._known:
            with suppress(*self._outages):
                async with asyncio.timeout(self._timeout_s):
                    await self._leave()
        with suppress(*self._outages):
            async with asyncio.timeout(self._timeout_s):
                await self._disconnect()

    async def _keep_in_touch(self, connected: asyncio.Future[None]) -> None:
        try:
            await self._come_back_for_ever(connected)
        finally:
            if not connected.done():
                connected.set_exception(CoordUnavailable("the coord was closed while it was opened"))

    async def _come_back_for_ever(self, connected: asyncio.Future[None]) -> None:
        pause_s = _PAUSE_S
        while True:
            try:
                async with asyncio.timeout(OPEN_S):
                    await self._connect()
                self._known = True
                if not connected.done():
                    connected.set_result(None)
                pause_s = _PAUSE_S
                while True:
                    async with asyncio.timeout(2 * BEAT_S):
                        await self._attend()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next attempt may go well
                self._note(error, connected)
            await asyncio.sleep(pause_s * (1 + self._clock.random.random()) / 2)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _note(self, error: Exception, connected: asyncio.Future[None]) -> None:
        if not connected.done():
            connected.set_exception(error)
        elif not isinstance(error, self._outages):
            context = {"message": f"{self.name}: cannot keep in touch", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        if self._touch is None:
            raise CoordUnavailable("the coord is not open")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call()
        except self._outages as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> CoordUnavailable:
        return CoordUnavailable(f"{self.name} did not answer: {error or f'nothing came for {self._timeout_s:g} s'}")

    def _hear_of(self, sender: str, packed: str | bytes, age_ns: int) -> None:
        """Tell what was packed ``age_ns`` nanoseconds ago, unless we packed it."""
        if sender != self._id:
            moved = Transition(*json.loads(packed))
            left_ns = None if moved.left_ns is None else max(0, moved.left_ns - max(0, age_ns))
            self._tell(moved._replace(left_ns=left_ns))
