"""
Time limits by the thousand: each costs an entry in a dictionary, and all of them share one timer.

    clock ──┬────────┬────────┬────────┬────────┬──>    a slot is 10 ms, and its fuses blow at its end:
            │        │ 2 fuses│        │ 1 fuse │        never early, at most a slot late
                              └ the loop's one timer: the end of the first slot that holds a fuse
"""

import asyncio
from contextvars import Context
from heapq import heappop, heappush
from typing import Any

from holdfast.clock import NS, Clock

SLOT_NS = 10_000_000
_ROUND_UP_NS = SLOT_NS - 1
_EARLY_NS = 1_000_000
"""The shortest wait after a timer that was early: uvloop counts in milliseconds, and less would be no wait at all."""
_ROOM = 64
"""Slots a wheel may keep however few of them hold a fuse."""


class Fuse:
    """
    Stops a task once a time has passed, unless it is put out before. Made by ``Wheel.light``.

    Whoever has it lit puts it out in any case, whatever became of the block, in the task's own code:

        fuse = wheel.light(task, at)
        try:
            answer = await call()
        except BaseException as error:
            if fuse.out(error):
                raise AttemptTimedOut from error
            raise
        fuse.out(None)

    Attributes:
        task: Whom it stops; None once it is out.
        blown: Whether it has cancelled the task.
        level: Cancellations the task had pending when it was lit.
        slot: Where it stands until it is out.
    """

    __slots__ = ("blown", "level", "slot", "task")

    task: asyncio.Task[Any] | None
    blown: bool
    level: int
    slot: "dict[Fuse, None]"

    def blow(self) -> None:
        """Cancel the task, if it has not left. The wheel calls this."""
        if self.task is not None:
            self.blown = True
            self.task.cancel()

    def out(self, error: BaseException | None) -> bool:
        """
        Put it out: the task is not cancelled by it any more, and no cancellation by it is left over.

        Args:
            error: What the block raised, or None.

        Returns:
            Whether the block ended because this fuse blew, and for no other reason: its timeout is to be raised. False
            where somebody else had the task cancelled too, where the block ended in another way, and the second time.
        """
        task, self.task = self.task, None
        if task is None:
            return False
        del self.slot[self]
        if not self.blown:
            return False
        return task.uncancel() <= self.level and isinstance(error, asyncio.CancelledError)


class Wheel:
    """
    The fuses of one event loop on one clock. Get it with ``Wheel.of``, inside the loop.

    Attributes:
        loop: Whose tasks it stops.
    """

    __slots__ = ("_ahead", "_clock", "_context", "_due", "_room", "_slots", "_timer", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self.loop = loop
        self._clock = clock
        # The timer is shared: it may neither keep alive nor speak in the context of whoever happened to start it.
        self._context = Context()
        self._slots: dict[int, dict[Fuse, None]] = {}  # In the order they were lit: the outer one blows first.
        self._ahead: list[int] = []  # The same slots as a heap.
        self._room = _ROOM
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop, clock: Clock) -> "Wheel":
        """The wheel of this loop and clock. The loop holds it, so that it ends with the loop."""
        wheels: dict[Clock, Wheel] | None = getattr(loop, "holdfast_wheels", None)
        if wheels is None:
            wheels = loop.holdfast_wheels = {}  # type: ignore[attr-defined]  # loops take attributes, uvloop's too
        wheel = wheels.get(clock)
        if wheel is None:
            wheel = wheels[clock] = Wheel(loop, clock)
        return wheel

    def light(self, task: asyncio.Task[Any], at: int, fuse: Fuse | None = None) -> Fuse:
        """
        Cancel ``task`` at ``at`` on the wheel's clock, in nanoseconds, or up to a slot later; never before.

        Where that has passed already, the task is cancelled when it next waits. ``fuse``: the one to light, if it was
        made before; None for a new one.
        """
        number = (at + _ROUND_UP_NS) // SLOT_NS
        slot = self._slots.get(number)
        if slot is None:
            slot = self._open(number)
        if fuse is None:
            fuse = Fuse()
        fuse.task = task
        fuse.blown = False
        fuse.level = task.cancelling()
        fuse.slot = slot
        slot[fuse] = None
        return fuse

    def _open(self, number: int) -> dict[Fuse, None]:
        if len(self._slots) >= self._room:
            self._sweep()
        slot = self._slots[number] = {}
        heappush(self._ahead, number)
        if self._timer is None or number < self._due:
            self._wait(number, 0)
        return slot

    def _sweep(self) -> None:
        """Drop the slots that are empty by now; those long limits leave behind would stay until they have passed."""
        self._slots = {number: slot for number, slot in self._slots.items() if slot}
        self._ahead = sorted(self._slots)
        self._room = 2 * len(self._slots) + _ROOM

    def _wait(self, number: int, least_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = number
        left = max(number * SLOT_NS - self._clock.now(), least_ns)
        self._timer = self.loop.call_later(left / NS, self._turn, context=self._context)

    def _turn(self) -> None:
        """Blow what is due, and wait for the next slot that holds a fuse, if any does."""
        self._timer = None
        now = self._clock.now()
        while self._ahead:
            number = self._ahead[0]
            slot = self._slots[number]
            if slot and number * SLOT_NS > now:
                self._wait(number, _EARLY_NS)
                return
            del self._slots[heappop(self._ahead)]
            for fuse in slot:
                # One step each: what goes wrong in stopping a task is not the next one's trouble.
                self.loop.call_soon(fuse.blow, context=self._context)
