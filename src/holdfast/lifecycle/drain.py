"""
Stopping in order, within one deadline.

::

    STARTING ─▶ RUNNING ─▶ LAME_DUCK ─▶ DRAINING ─▶ CANCELLING ─▶ STOPPED
                 ready      not ready,   no new turns,  what is left
                            still takes  running ones   is cancelled
                            new turns    finish

A second signal goes straight to CANCELLING.
"""

import asyncio
from enum import Enum

from holdfast.clock import NS, Clock
from holdfast.errors import Draining
from holdfast.lifecycle.spec import ShutdownSpec

_LAST_TENTH = 0.9
"""Share of the deadline that running turns may use; the rest is for cancelling them and closing."""


class Phase(Enum):
    """Where the process is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    LAME_DUCK = "lame_duck"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    STOPPED = "stopped"


class Drain:
    """
    Which phase the process is in, and which turns run.

    Attributes:
        phase: Where the process is in its life.
    """

    def __init__(self, spec: ShutdownSpec, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._stop_at: int | None = None
        self.phase = Phase.STARTING

    @property
    def ready(self) -> bool:
        """Whether load balancers should send new turns here."""
        return self.phase is Phase.RUNNING

    @property
    def in_progress(self) -> int:
        """Turns that run now."""
        return len(self._running)

    def admit(self) -> None:
        """
        Let a new turn in.

        Raises:
            Draining: the process is starting or stopping; the turn was not begun.
        """
        if self.phase not in (Phase.RUNNING, Phase.LAME_DUCK):
            raise Draining(retry_after_s=max(1.0, self.left_s))  # Never at once: nothing will have changed.

    def track(self, task: asyncio.Task[None]) -> None:
        """Count ``task`` as a running turn until it ends."""
        self._running.add(task)
        self._idle.clear()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._running:
            self._idle.set()

    def hurry(self) -> None:
        """Wait for nothing any more: what runs is cancelled. What a second signal means."""
        self._hurry.set()

    async def stop(self) -> None:
        """
        Go through the phases until no turn runs. Returns within ``deadline_s`` of the first call.

        A second call waits for the first, and goes on where that one was cancelled.
        """
        if self._stop_at is None:
            self._stop_at = self._clock.now() + round(self._spec.deadline_s * NS)
            self.phase = Phase.LAME_DUCK
        async with self._stopping:
            if self.phase is Phase.LAME_DUCK:
                await self._wait(self._hurry, min(self._spec.lame_duck_s, self._for_turns_s()))
                self.phase = Phase.DRAINING
            if self.phase is Phase.DRAINING:
                await self._finish_turns(self._for_turns_s())
                self.phase = Phase.CANCELLING
                for task in self._running:
                    task.cancel()
            await self._wait(self._idle, self.left_s)
            self.phase = Phase.STOPPED

    async def _finish_turns(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            idle = group.create_task(self._idle.wait())
            hurry = group.create_task(self._hurry.wait())
            await asyncio.wait((idle, hurry), timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            hurry.cancel()

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        if seconds > 0 and not event.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await event.wait()
            except TimeoutError:
                return

    def _for_turns_s(self) -> float:
        """Seconds left of the part of the deadline that running turns may use."""
        return self.left_s - (1 - _LAST_TENTH) * self._spec.deadline_s

    @property
    def left_s(self) -> float:
        """Seconds left of the deadline; 0 where it is over, or nobody has asked to stop."""
        return 0.0 if self._stop_at is None else max(0.0, (self._stop_at - self._clock.now()) / NS)
