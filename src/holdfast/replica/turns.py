"""
The turns of this replica: begun, watched, cancelled, and continued where others left them.

::

    begin ─▶ admit ─▶ accept ─▶ (wait for the session) ─▶ turn ─▶ ended
                                                             │
    claim ◀── left by a server that stopped or died ◀────────┴─▶ in doubt ─▶ resolve

Everything that is to last is in the store. What is here is who runs, and who waits for it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import msgspec

from holdfast.clock import NS, Clock
from holdfast.errors import (
    HandedOver,
    HoldfastError,
    InDoubt,
    NotFound,
    NotOwner,
    SessionBusy,
    StoreUnavailable,
    TurnAbandoned,
    TurnCancelled,
)
from holdfast.events import Observer, TurnEnded, TurnSuspended
from holdfast.journal import KEEP_S, Journal, Numbered, Story, encode, read_said, unbroken
from holdfast.lifecycle import Drain
from holdfast.replica.answer import Begun, answer_of
from holdfast.replica.gone import Gone
from holdfast.replica.waiting import Waiting
from holdfast.store import Claim, Heard, Past, Said, Store, TurnRecord
from holdfast.telemetry import Tracing, log_failure
from holdfast.turn import Agent, Ask, Parts, accept, turn

MOST_OWNERS = 5
"""How many servers may die while they run a turn until it is given up: it may be what they die of."""

POLL_S = 1.0
"""Seconds after which somebody who waits for a turn of another server looks, whether or not the store woke them."""


class Live(NamedTuple):
    """A turn that runs here."""

    journal: Journal
    task: asyncio.Task[None]


class Turns:
    """
    The turns of this replica.

    Args:
        parts: What turns are made with.
        agents: Who can be asked, by name.
        drain: Whether turns are taken.
        tracing: Where their spans begin.
        observed: Adds those who are told of every turn to those who are told of one.

    Attributes:
        store, clock: As its parts have them.
        live: Those that run now, by their ids.
        queued: Those that wait here for an earlier one of their session, by their ids.
        orphans: Those that ran here, until the store did not answer, with what was told of them and not kept: to be
            given up once it does.
        released: Set when there may be a turn that nobody runs.
        told: Set when there may be a webhook that is due.
    """

    def __init__(
        self,
        parts: Parts,
        agents: Mapping[str, Agent],
        drain: Drain,
        tracing: Tracing,
        observed: Callable[[Sequence[Observer], Sequence[Observer]], Sequence[Observer]],
    ) -> None:
        self._parts = parts
        self.store: Store = parts.store
        self.clock: Clock = parts.policies.clock
        self._agents = agents
        self._drain = drain
        self._tracing = tracing
        self._observed = observed
        self._waiting = Waiting()
        self.live: dict[str, Live] = {}
        self.queued: set[str] = set()
        self.orphans: dict[Claim, Said | None] = {}
        self.released = asyncio.Event()
        self.told = asyncio.Event()

    @property
    def sessions(self) -> int:
        """How many sessions have a turn that runs here."""
        return len({turn_id.rpartition("-")[0] for turn_id in self.live})

    def begin(self, tasks: asyncio.TaskGroup, ask: Ask, agent: str, watch: Sequence[Observer] = ()) -> Begun:
        """
        Begin a turn. It runs to its end whether or not anybody waits for the answer.

        Raises:
            NotFound: there is no such agent; nothing was begun.
            Draining: the process is starting or stopping; nothing was begun.
        """
        if agent not in self._agents:
            raise NotFound(f"there is no agent {agent}; there is {', '.join(sorted(self._agents))}")
        self._drain.admit()
        begun = Begun()
        self._drain.track(tasks.create_task(self._begin(ask, self._agents[agent], watch, begun)))
        return begun

    async def _begin(self, ask: Ask, agent: Agent, watch: Sequence[Observer], begun: Begun) -> None:
        policies = self._parts.policies
        try:
            async with AsyncExitStack() as admitted:
                await admitted.enter_async_context(policies.admit(ask.principal, ask.priority))
                with self._tracing.turn(agent.name, ask.trace_id, ask.message) as spans:
                    ask = msgspec.structs.replace(ask, trace_id=spans.trace_id)
                    record, again, past = await accept(ask, agent.name, self._parts)
                    if past is None:  # Who waits, for as long as others may take, is in nobody's way.
                        await admitted.aclose()
                    if not again:
                        wait_s = None if ask.waits else self._parts.session_wait_s
                        record = await self._run(record, past, wait_s, agent, spans.observers, watch, begun)
            if again:
                begun.again = True
                begun.kept(record)
                record = await self.ended(record.turn_id)
            begun.answered(answer_of(record))
        except asyncio.CancelledError:
            begun.failed(HandedOver(retry_after_s=1.0) if begun.again else TurnCancelled())
            raise
        except Exception as error:  # noqa: BLE001 - one turn's failure is its caller's to hear, and nobody else's
            begun.failed(self._told(error))

    async def resume(self, record: TurnRecord) -> None:
        """Go on with a turn that this replica has claimed."""
        agent = self._agents.get(record.agent) or Gone(record.agent)
        try:
            with self._tracing.turn(agent.name, record.trace_id, record.message) as spans:
                await self._run(record, None, None, agent, spans.observers, (), Begun())
        except Exception as error:  # noqa: BLE001 - there is nobody else to hear it
            self._told(error)

    async def _run(
        self,
        record: TurnRecord,
        past: Sequence[Past] | None,
        wait_s: float | None,
        agent: Agent,
        spans: Sequence[Observer],
        watch: Sequence[Observer],
        begun: Begun,
    ) -> TurnRecord:
        """Run a turn that this replica owns to its end; or to where it goes on elsewhere, which is raised."""
        claim = Claim(record.turn_id, self._parts.replica, record.generation)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a turn runs in a task")
        journal: Journal | None = None

        async def recall() -> Sequence[Past]:
            if past is not None or journal is None:
                return past or ()
            try:
                return await self._place(record, claim, wait_s)
            except (NotOwner, StoreUnavailable) as lost:
                raise journal.stop(lost) from lost

        try:
            journal = await self._journal(record, claim)
            self.stop(record.turn_id, NotOwner())  # A run that has lost the turn, and has not found out yet.
            self.live[record.turn_id] = Live(journal, task)
            begun.kept(record)
            return await turn(record, recall, agent, journal, self._parts.policies, self._observed(spans, watch))
        finally:
            if journal is None or not journal.left:
                self.orphans[claim] = None if journal is None else journal.story.unkept()
            if journal is not None:
                journal.story.end()
                if (live := self.live.get(record.turn_id)) is not None and live.journal is journal:
                    del self.live[record.turn_id]
            self.wake(record.turn_id)
            if record.webhook is not None:
                self.told.set()

    async def _journal(self, record: TurnRecord, claim: Claim) -> Journal:
        """Where the turn's calls are kept; what is known already of one that another server began."""
        if record.generation == 1:
            return Journal(self.store, claim, Story(), self.clock, (), self._handing_over)
        units = await self.store.units(record.turn_id)
        said = await self.store.said(record.turn_id, 0)
        story = Story(record.generation, said[-1].last if said else 0)
        journal = Journal(self.store, claim, story, self.clock, units, self._handing_over)
        if record.cancelled:
            journal.stop(TurnCancelled())
        elif record.generation > MOST_OWNERS + sum(told.name == TurnSuspended.name for told in read_said(said, 0)):
            journal.stop(TurnAbandoned())  # Owners that left it themselves, as they stopped or had to ask, did not die.
        return journal

    async def _place(self, record: TurnRecord, claim: Claim, wait_s: float | None) -> Sequence[Past]:
        """Wait until the earlier turns of the session have ended. A store may be away meanwhile, if not for long."""
        answered = self.clock.now()
        give_up = None if wait_s is None else answered + round(wait_s * NS)
        before = f"{record.conversation_id}-{record.number - 1}"
        self.queued.add(record.turn_id)
        try:
            while True:
                with self._waiting.on(before) as woken:
                    away: HoldfastError | None = None
                    try:
                        past = await self.store.start(claim, self._parts.history_tokens)
                        answered = self.clock.now()
                    except StoreUnavailable as down:
                        past, away = None, down
                    if past is not None:
                        return past
                    now = self.clock.now()
                    left_s = POLL_S if give_up is None else min(POLL_S, (give_up - now) / NS)
                    if left_s <= 0 or now - answered >= round(KEEP_S * NS):
                        raise away or SessionBusy(retry_after_s=1.0)
                    await woken.wait(left_s)
        finally:
            self.queued.discard(record.turn_id)

    def _handing_over(self) -> bool:
        return self._drain.handing_over and self.store.lasts

    def _told(self, error: Exception) -> HoldfastError:
        log_failure(error)
        return error if isinstance(error, HoldfastError) else HoldfastError(f"{type(error).__name__} in a turn")

    # For whoever asks about a turn, wherever it runs.

    def heard(self, what: Heard, turn_id: str) -> None:
        """What the store tells: wakes those who wait for it, and stops a turn that is to be cancelled."""
        if what == "released":
            self.released.set()
        elif what == "cancelled":
            self.stop(turn_id)
            self.released.set()  # One that nobody runs is claimed, to be ended.
        self.wake(turn_id)

    def wake(self, turn_id: str) -> None:
        """Let those look again who wait for this turn, or for their place behind it."""
        self._waiting.wake(turn_id)

    def stop(self, turn_id: str, why: HoldfastError | None = None) -> None:
        """Stop a turn that runs here, now: the call that is under way is cancelled, and no further one made."""
        live = self.live.get(turn_id)
        if live is not None and live.journal.stopped is None:
            live.journal.stop(why or TurnCancelled())
            live.task.cancel()

    async def cancel(self, turn_id: str) -> bool:
        """Ask for a turn to be stopped, wherever it runs. False where it has ended, or is not."""
        asked = await self.store.cancel(turn_id)
        self.stop(turn_id)
        return asked

    async def ended(self, turn_id: str) -> TurnRecord:
        """
        The turn, once it has ended, wherever it runs.

        Raises:
            NotFound: there is no such turn.
            InDoubt: it waits for somebody to say what became of a call.
            HandedOver: this process stops, and the turn goes on elsewhere, or later.
        """
        while True:
            with self._waiting.on(turn_id) as woken:
                record = await self.store.turn(turn_id)
                if record is None:
                    raise NotFound(f"there is no turn {turn_id}")
                if record.state == "ended":
                    return record
                if _in_doubt(record):
                    raise InDoubt(f"turn {turn_id} waits for somebody to say what became of one of its calls")
                if self._left_behind(turn_id):
                    raise HandedOver(retry_after_s=1.0)
                await woken.wait(POLL_S)

    async def told_so_far(self, turn_id: str, after: int) -> list[Numbered]:
        """The turn's events so far with higher numbers than ``after``."""
        live = self.live.get(turn_id)
        batch = [] if _has_all(live, after) else read_said(await self.store.said(turn_id, after), after)
        if live is not None:
            known = {numbered.number for numbered in batch}
            batch += [numbered for numbered in _own(live.journal.story, after) if numbered.number not in known]
            batch.sort(key=lambda numbered: numbered.number)
        return batch

    async def watch(self, turn_id: str, after: int, still_s: float) -> AsyncIterator[list[Numbered]]:
        """
        The turn's events with higher numbers than ``after``, as they come, until it has ended or is in doubt, or this
        process stops.

        Of a turn that runs elsewhere they come with each of its calls. Gives nothing whenever ``still_s`` seconds have
        passed without any.
        """
        still_at = self.clock.now() + round(still_s * NS)
        while True:
            live = self.live.get(turn_id)
            with self._waiting.on(turn_id) as woken:
                # What runs here is read where it is told: the store is asked only for what others told before.
                record = None if _has_all(live, after) else await self.store.turn(turn_id)
                over = record is None or record.state == "ended" or _in_doubt(record)
                batch = await self.told_so_far(turn_id, after)
                if batch := batch if live is not None or over else unbroken(batch, after):
                    yield batch
                    after = batch[-1].number
                    still_at = self.clock.now() + round(still_s * NS)
                if live is not None:
                    async for more in self._watch_live(live.journal.story, after, still_s):
                        yield more
                        after = more[-1].number if more else after
                        if more and more[-1].name == TurnEnded.name:
                            return
                    continue
                if over or self._left_behind(turn_id):
                    return
                await woken.wait(POLL_S)
                if self.clock.now() >= still_at:
                    yield []
                    still_at = self.clock.now() + round(still_s * NS)

    def _left_behind(self, turn_id: str) -> bool:
        """Whether a turn that has not ended will not do so before this process has stopped."""
        return self._drain.handing_over and turn_id not in self.live

    @staticmethod
    async def _watch_live(story: Story, after: int, still_s: float) -> AsyncIterator[list[Numbered]]:
        """The events of a turn that runs here, until it no longer does."""
        with story.watched() as more:
            while True:
                more.clear()
                over = story.over
                if batch := _own(story, after):
                    after = batch[-1].number
                    yield batch
                    continue
                if over:
                    return
                try:
                    async with asyncio.timeout(still_s):
                        await more.wait()
                except TimeoutError:
                    yield []


def _in_doubt(record: TurnRecord) -> bool:
    """Whether it waits for somebody to say what became of a call; one that is to be stopped waits for nobody."""
    return record.state == "in_doubt" and not record.cancelled


def _has_all(live: Live | None, after: int) -> bool:
    """Whether all events after this number were told here."""
    return live is not None and after >= live.journal.story.after


def _own(story: Story, after: int) -> list[Numbered]:
    return [Numbered(number, event.name, encode(event)) for number, event in story.since(after)]
