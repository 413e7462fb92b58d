"""
The journal of one turn: every call it makes is a unit, kept before it is sent and when it has come back.

::

    (nothing) ─▶ begun ─┬─▶ done       its result is what the agent is given, whenever the turn is run
                        ├─▶ failed     so is its failure
                        └─▶ in doubt   its owner died, and it must not be made twice

A turn that is run again by its next owner finds its units here: what is done is not made again. An agent that then
asks for something else than before is stopped, as it would repeat effects under other names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from holdfast.clock import NS, Clock
from holdfast.errors import Diverged, HandedOver, HoldfastError, InDoubt, NotOwner, StoreUnavailable, TurnCancelled
from holdfast.events import Event, Usage
from holdfast.journal.codec import unicode
from holdfast.journal.effects import DID_NOT_HAPPEN, UNKNOWN, Happened, Unclear, inside
from holdfast.journal.entry import NOTHING_USED, Asked, Entry, Unkept
from holdfast.journal.shield import shielded
from holdfast.journal.story import Story
from holdfast.resilience import FailureClass
from holdfast.resilience.wheel import Fuse, Wheel
from holdfast.store import Claim, Ending, Said, Store, Unit, UnitKind

T = TypeVar("T")

CATCH_UP_S = 5.0
"""Seconds that a call nobody made before waits for those that were, until the agent is said to have diverged."""

KEEP_S = 10.0
"""Seconds a store may take to keep a unit, trying again included."""

STOPS = (InDoubt, Diverged, HandedOver, NotOwner, StoreUnavailable, TurnCancelled)
"""What stops a turn from outside the call that raises it, which has not failed then."""

_TRY_AGAIN_S = 0.2


class Journal(Unkept):
    """
    The units of one turn, as one owner runs it.

    Args:
        store: Where they are kept.
        claim: By what right.
        story: The turn's events, which are kept along with its units.
        clock: Where the time comes from.
        units: What earlier owners kept.
        handing_over: Whether running turns are to stop at their next call, as the process is stopping.

    Attributes:
        stopped: What ended the turn, whatever the agent makes of it; None while it may go on.
        in_doubt: The unit whose outcome nobody knows, where that is what stopped it.
        left: Whether the turn is nobody's to run any more, or another one's: it has ended, or was given up.
    """

    def __init__(
        self,
        store: Store,
        claim: Claim,
        story: Story,
        clock: Clock,
        units: Sequence[Unit] = (),
        handing_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store = store
        self.claim = claim
        self.story = story
        self.clock = clock
        self.stopped: HoldfastError | None = None
        self.in_doubt: Unit | None = None
        self.left = False
        self._handing_over = handing_over
        self._used: set[tuple[UnitKind, str]] = set()
        self._attempts: dict[tuple[UnitKind, str], int] = {}
        self._before = {(unit.kind, unit.key): unit for unit in sorted(units, key=lambda unit: unit.attempt)}
        self._to_come = {
            place for place, unit in self._before.items() if (unit.kind, unit.state) != ("model", "failed")
        }
        self._caught_up = asyncio.Event()
        self._look()
        self._met: set[str] = set()
        self._under_way: set[str] = set()
        self._landed = asyncio.Event()

    def stop(self, error: HoldfastError) -> HoldfastError:
        """Let the turn end with ``error``: it makes no further call. Returns the first error that ended it."""
        self._met.add(inside.get())
        error.failure_class = FailureClass.CANCELLED  # type: ignore[attr-defined]  # no failure of what was to be called
        self.stopped = self.stopped or error
        return self.stopped

    async def open(self, asked: Asked) -> Entry:
        """
        Open a call: what is known of it from before, and where it is kept from now on.

        Raises:
            Diverged: the agent did not ask for this when the turn was run before. Nothing was done.
            InDoubt: it was under way when the last owner died, and it must not be made twice. Nothing was done.
            HandedOver: the process is stopping, and the turn is to go on elsewhere. Nothing was done.
            HoldfastError: the turn was stopped before.
        """
        if self.stopped is not None:
            raise await self._stopped(self.stopped)
        place = self._place(asked)
        before = self._before.pop(place, None)
        if before is None:
            await self._wait_for_those_before(asked.name)
            return await self._new(asked, place)
        if before.digest != asked.digest:
            raise await self._diverged(asked.name)
        self._attempts[place] = before.attempt
        self._used_up(place, before)
        if before.state == "done" or (before.state == "failed" and asked.kind == "tool" and before.failure):
            return Recorded(self, asked, place[1], before)
        if before.state == "begun" and asked.kind == "tool":
            found = await self._find_out(asked, before)
            if isinstance(found, Happened):
                return await self._happened(asked, before, found)
            if found is UNKNOWN:
                raise await self._unknown(before)
        elif before.state == "in_doubt":
            raise await self._unknown(before)
        return await self._new(asked, place)

    async def _new(self, asked: Asked, place: tuple[UnitKind, str]) -> "Recorded":
        """A call that is to be made, or made again."""
        if self.stopped is not None:  # By another call, while this one waited.
            raise await self._stopped(self.stopped)
        if self._handing_over():
            raise await self._stopped(HandedOver(retry_after_s=1.0))
        attempt = self._attempts[place] = self._attempts.get(place, 0) + 1
        return Recorded(self, asked, place[1], attempt=attempt)

    def _place(self, asked: Asked) -> tuple[UnitKind, str]:
        """Where the call is kept: under its key, or one with a number where that is used already."""
        above = inside.get()
        key = unicode(f"{above}/{asked.key}" if above else asked.key)  # Models make up the ids of calls.
        place, number = (asked.kind, key), 1
        while place in self._used:
            number += 1
            place = (asked.kind, f"{key}#{number}")
        self._used.add(place)
        return place

    async def _stopped(self, error: HoldfastError) -> HoldfastError:
        """
        Stop the turn, and wait for the calls that are under way beside this one.

        Whoever runs the agent would cancel them, and nobody would know what became of them.
        """
        self.stop(error)
        self._landed.set()  # Those inside which somebody waits here are not waited for.
        while not all(self.met_inside(path) for path in self._under_way):
            self._landed.clear()
            await self._landed.wait()
        return self.stop(error)

    def met_inside(self, path: str) -> bool:
        """Whether the end of the turn was met inside this call: what it returns may be what it makes of that."""
        return any(f"{met}/".startswith(f"{path}/") for met in self._met)

    def began(self, path: str) -> None:
        """A call is under way."""
        self._under_way.add(path)

    def landed(self, path: str) -> None:
        """A call is no longer under way: it is kept how it ended, or nobody waits for it any more."""
        self._under_way.discard(path)
        self._landed.set()

    def free(self, place: tuple[UnitKind, str]) -> None:
        """A model call failed: the same request, made again, is another attempt at it."""
        self._used.discard(place)

    def _used_up(self, place: tuple[UnitKind, str], unit: Unit) -> None:
        self._to_come.discard(place)
        if unit.state in ("done", "failed"):  # It is not made again, and so nor is what it made.
            self._to_come = {other for other in self._to_come if not other[1].startswith(f"{unit.key}/")}
        self._look()

    def _look(self) -> None:
        if not self._to_come:
            self._caught_up.set()

    async def _wait_for_those_before(self, name: str) -> None:
        """Whoever asks for something new while something old is to come did not get here the way it did before."""
        if self._caught_up.is_set():
            return
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self._caught_up.wait()
        except TimeoutError:
            raise await self._diverged(name) from None

    async def _diverged(self, name: str) -> HoldfastError:
        return await self._stopped(
            Diverged(
                f"run again, the agent asked for another call of {name} than before; agents must ask for the same "
                "when they are told the same"
            )
        )

    async def _find_out(self, asked: Asked, before: Unit) -> Happened | Unclear:
        """Whether a tool call that was under way happened; ``DID_NOT_HAPPEN`` where it may be made in any case."""
        effect, reconcile = asked.declared
        if effect in ("pure", "idempotent"):
            return DID_NOT_HAPPEN
        if reconcile is None:
            return UNKNOWN
        args: Mapping[str, Any] = msgspec.json.decode(before.args or b"{}")
        try:
            return await reconcile(args, f"{self.claim.turn_id}:{before.key}")
        except Exception:  # noqa: BLE001 - whoever cannot find out does not know
            return UNKNOWN

    async def _happened(self, asked: Asked, before: Unit, found: Happened) -> "Recorded":
        unit = msgspec.structs.replace(before, state="done", result=asked.codec.encode(found.result))
        await shielded(self.put(unit))
        return Recorded(self, asked, before.key, unit)

    async def _unknown(self, unit: Unit) -> HoldfastError:
        self.in_doubt = unit
        return await self._stopped(
            InDoubt(
                f"the tool {unit.name} was under way when its server died, and must not be called twice; say whether "
                f"it happened: holdfast turns resolve {self.claim.turn_id} {unit.key}"
            )
        )

    async def put(self, unit: Unit) -> bool:
        """
        Keep a unit as it is now, and what was told meanwhile.

        Returns:
            Whether somebody asked for the turn to be stopped.

        Raises:
            NotOwner, StoreUnavailable: it is not kept, and the turn is stopped.
        """
        return await self._insist(lambda said: self.store.put_unit(self.claim, unit, said))

    async def end(self, ending: Ending, last: Event) -> None:
        """Keep how the turn ended, even if the task is cancelled meanwhile. Errors are those of ``put``."""
        await shielded(self._leave(lambda said: self.store.end_turn(self.claim, ending, said), last), deaf=True)

    async def suspend(self, last: Event) -> None:
        """Leave the turn to whoever goes on with it, as ``end`` ends it."""
        await shielded(self._leave(lambda said: self.store.suspend(self.claim, self.in_doubt, said), last), deaf=True)

    async def _leave(self, write: Callable[[Said | None], Awaitable[None]], last: Event) -> None:
        await self._insist(write, last)
        self.left = True

    async def _insist(self, write: Callable[[Said | None], Awaitable[T]], last: Event | None = None) -> T:
        """Write, with what was told meanwhile; again and again for a while, where the store does not answer."""
        said = self.story.unkept(last)
        give_up = self.clock.now() + round(KEEP_S * NS)
        fuse = self._fuse(give_up)
        try:
            while True:
                try:
                    return await write(said)
                except NotOwner as gone:
                    self.left = True
                    self.stop(gone)
                    raise
                except StoreUnavailable as down:
                    if self.clock.now() + round(_TRY_AGAIN_S * NS) >= give_up:
                        raise self._not_kept(said, down.detail) from down
                except Exception as error:
                    raise self._not_kept(said, f"the store raised {type(error).__name__}") from error
                await asyncio.sleep(_TRY_AGAIN_S)
        except asyncio.CancelledError as late:
            if fuse.out(late):
                raise self._not_kept(said, f"the store kept nothing of the turn for {KEEP_S:g} s") from late
            raise
        finally:
            fuse.out(None)

    def _fuse(self, at: int) -> Fuse:
        """Stops the running task at ``at``."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a turn runs in a task")
        return Wheel.of(task.get_loop(), self.clock).light(task, at)

    def _not_kept(self, said: Said | None, why: str) -> StoreUnavailable:
        self.story.lost(said)
        error = StoreUnavailable(why)
        self.stop(error)
        return error


class Recorded(Entry):
    """
    One call that is kept.

    Attributes:
        attempt: Counts the attempts at it from 1; 0 where it is not made again.
    """

    __slots__ = ("_asked", "_begun_ns", "_journal", "attempt")

    def __init__(
        self, journal: Journal, asked: Asked, path: str, before: Unit | None = None, *, attempt: int = 0
    ) -> None:
        super().__init__(f"{journal.claim.turn_id}:{path}", path, asked.name)
        self._journal = journal
        self._asked = asked
        self._begun_ns = 0
        self.attempt = attempt
        if before is not None:
            self.result, self.failure = before.result, before.failure
            self.usage, self.name = before.usage, before.name

    async def begin(self) -> None:
        """See ``Entry.begin``."""
        journal = self._journal
        self._begun_ns = journal.clock.wall_ns()
        try:
            to_be_stopped = await journal.put(self._unit())
        except asyncio.CancelledError:  # It may be kept all the same, and it did not happen.
            with suppress(NotOwner, StoreUnavailable):
                await self._end(msgspec.structs.replace(self._unit(), state="failed"))
            raise
        if to_be_stopped:
            journal.stop(TurnCancelled())
        if journal.stopped is not None:  # Perhaps by another call, while this one was being kept.
            await self._end(msgspec.structs.replace(self._unit(), state="failed"))  # It did not happen.
            raise journal.stop(journal.stopped)
        journal.began(self.path)

    async def done(self, result: bytes, usage: Usage = NOTHING_USED) -> None:
        """See ``Entry.done``."""
        if self._journal.met_inside(self.path):
            self.cut_short()
            return
        await self._end(msgspec.structs.replace(self._unit(), state="done", result=result, usage=usage))

    async def failed(self, failure: bytes, usage: Usage = NOTHING_USED) -> None:
        """See ``Entry.failed``."""
        if self._journal.met_inside(self.path):
            self.cut_short()
            return
        if self._asked.kind == "model":
            self._journal.free(("model", self.path))
        await self._end(msgspec.structs.replace(self._unit(), state="failed", failure=failure, usage=usage))

    def cut_short(self) -> None:
        """See ``Entry.cut_short``."""
        self._journal.landed(self.path)

    async def _end(self, unit: Unit) -> None:
        try:
            await shielded(self._journal.put(msgspec.structs.replace(unit, ended_ns=self._journal.clock.wall_ns())))
        finally:
            self._journal.landed(self.path)

    def _unit(self) -> Unit:
        asked = self._asked
        return Unit(
            kind=asked.kind,
            key=self.path,
            attempt=self.attempt,
            name=asked.name,
            effect=asked.declared.effect,
            digest=asked.digest,
            args=asked.args,
            begun_ns=self._begun_ns or self._journal.clock.wall_ns(),
        )
