"""
Stopping in order, within one deadline.

::

    STARTING ─▶ RUNNING ─▶ LAME_DUCK ─▶ DRAINING ─▶ CANCELLING ─▶ CLOSING ─▶ STOPPED
                 ready      not ready,   no new turns,  what is left   what was opened
                            still takes  running ones   is cancelled   is closed, see
                            new turns    finish or are                 `hooks`
                                         handed over
    share of the deadline, at the latest: 0.7 finish, 0.8 hand over, 0.9 cancel, 1.0 close

What is left unused of one share falls to the next. A second signal goes straight to CANCELLING.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from holdfast.clock import NS, Clock
from holdfast.errors import Draining
from holdfast.lifecycle.spec import ShutdownSpec

_FINISHED, _HANDED_OVER, _CANCELLED = 0.7, 0.8, 0.9
"""Shares of the deadline by which turns are to have finished, been handed over, and ended after they were cancelled."""


class Phase(Enum):
    """Where the process is in its life. Phases come in this order, and none comes back."""

    STARTING = "starting"
    RUNNING = "running"
    LAME_DUCK = "lame_duck"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    CLOSING = "closing"
    STOPPED = "stopped"


_IN_ORDER = tuple(Phase)


class Drain:
    """
    Which phase the process is in, and which turns run.

    Attributes:
        watchers: Told of each move: the phase that has ended, the one that begins, and the seconds the former took.
    """

    def __init__(self, spec: ShutdownSpec, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._handing_over = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._stop_at: int | None = None
        self._phase = Phase.STARTING
        self._since = clock.now()
        self._reached = {phase: asyncio.Event() for phase in Phase}
        self._reached[Phase.STARTING].set()
        self.watchers: list[Callable[[Phase, Phase, float], object]] = []

    @property
    def phase(self) -> Phase:
        """Where the process is in its life."""
        return self._phase

    @property
    def ready(self) -> bool:
        """Whether load balancers should send new turns here."""
        return self._phase is Phase.RUNNING

    @property
    def stopping(self) -> bool:
        """Whether somebody has asked to stop."""
        return self._stop_at is not None

    @property
    def handing_over(self) -> bool:
        """Whether running turns are to stop at their next step, and leave the rest to another process."""
        return self._handing_over.is_set()

    @property
    def in_progress(self) -> int:
        """Turns that run now."""
        return len(self._running)

    @property
    def left_s(self) -> float:
        """Seconds left of the deadline; 0 where it is over, or nobody has asked to stop."""
        return self._until_s(1.0)

    async def wait_phase(self, phase: Phase) -> None:
        """Wait until the process is in ``phase``, or past it."""
        await self._reached[phase].wait()

    async def wait_handing_over(self) -> None:
        """Wait until running turns are to stop at their next step."""
        await self._handing_over.wait()

    def start(self) -> None:
        """Everything is open: take turns from now on. Changes nothing where somebody has asked to stop already."""
        if self._phase is Phase.STARTING:
            self._move(Phase.RUNNING)

    def admit(self) -> None:
        """
        Let a new turn in.

        Raises:
            Draining: the process is starting or stopping; the turn was not begun.
        """
        if self._phase not in (Phase.RUNNING, Phase.LAME_DUCK):
            raise Draining(retry_after_s=max(1.0, self.left_s))  # Never at once: nothing will have changed.

    def track(self, task: asyncio.Task[None]) -> None:
        """Count ``task`` as a running turn until it ends."""
        self._running.add(task)
        self._idle.clear()
        task.add_done_callback(self._ended)

    def hurry(self) -> None:
        """Wait for nothing any more: what runs is cancelled. What a second signal means."""
        self._hurry.set()

    async def stop(self) -> None:
        """
        Go through the phases up to CLOSING, which the ``Hooks`` are for. Returns within nine tenths of ``deadline_s``
        of the first call.

        A second call waits for the first, and goes on where that one was cancelled.
        """
        if self._stop_at is None:
            self._stop_at = self._clock.now() + round(self._spec.deadline_s * NS)
            self._move(Phase.LAME_DUCK)
        async with self._stopping:
            if self._phase is Phase.LAME_DUCK:
                await _wait(self._hurry, min(self._spec.lame_duck_s, self._until_s(_FINISHED)))
                self._move(Phase.DRAINING)
            if self._phase is Phase.DRAINING:
                await self._wait_turns(self._until_s(_FINISHED))
                self._handing_over.set()
                await self._wait_turns(self._until_s(_HANDED_OVER))
                self._move(Phase.CANCELLING)
                for task in self._running:
                    task.cancel()
            if self._phase is Phase.CANCELLING:
                grace_s = (_CANCELLED - _HANDED_OVER) * self._spec.deadline_s
                await _wait(self._idle, min(grace_s, self._until_s(_CANCELLED)))
                self._move(Phase.CLOSING)

    def end(self) -> None:
        """Everything is closed."""
        if self._phase is Phase.CLOSING:
            self._move(Phase.STOPPED)

    def _move(self, phase: Phase) -> None:
        was, self._phase = self._phase, phase
        now = self._clock.now()
        lasted_s, self._since = (now - self._since) / NS, now
        for reached in _IN_ORDER[: _IN_ORDER.index(phase) + 1]:
            self._reached[reached].set()
        for watcher in self.watchers:
            with suppress(Exception):  # Whoever watches must not keep the process from stopping.
                watcher(was, phase, lasted_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._running:
            self._idle.set()

    async def _wait_turns(self, seconds: float) -> None:
        """Until no turn runs, somebody is in a hurry, or the time is up."""
        async with asyncio.TaskGroup() as group:
            idle = group.create_task(self._idle.wait())
            hurry = group.create_task(self._hurry.wait())
            await asyncio.wait((idle, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            hurry.cancel()

    def _until_s(self, share: float) -> float:
        """Seconds until this share of the deadline is over."""
        if self._stop_at is None:
            return 0.0
        left_s = (self._stop_at - self._clock.now()) / NS
        return max(0.0, left_s - (1 - share) * self._spec.deadline_s)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    if seconds > 0 and not event.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
