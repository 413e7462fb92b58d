"""
How agents behave, as far as it outlasts a turn: what is usual for each, and which sessions are stopped.

What is usual is learnt from turns that succeeded, here and on the other servers of the store. A session whose agent was
stopped stays so until somebody says that it may go on.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import msgspec

from holdfast.budget import BudgetSpec
from holdfast.clock import NS, Clock
from holdfast.errors import HandedOver, HoldfastError, InDoubt, NotOwner, StoreUnavailable
from holdfast.events import Emit
from holdfast.guard.watch import Watch
from holdfast.monitor import Budget, Monitor, MonitorSpec, Norms, Success
from holdfast.store import Note, Store, TurnRecord

KEEP_S = 30.0
"""Seconds after which what was learnt is kept; as much may be lost with the process."""

MOST_UNKEPT = 500
"""Successes that are kept at a time: the latest say what is usual."""

_success = msgspec.json.Decoder(tuple[int, int, int, float | None])
_latch = msgspec.json.Decoder(str)


class Conduct:
    """
    What is known of how agents behave.

    Args:
        spec: When behaviour is critical, and what is done about it.
        store: Where it is kept.
        clock: Where time comes from.
        budget: What one turn may use.
        turn_s: Seconds one turn may take.
    """

    def __init__(self, spec: MonitorSpec, store: Store, clock: Clock, budget: BudgetSpec, turn_s: float) -> None:
        self._spec = spec
        self._store = store
        self._clock = clock
        self._budget = budget
        self._turn_s = turn_s
        self._norms: defaultdict[str, Norms] = defaultdict(Norms)
        self._unkept: deque[Note] = deque(maxlen=MOST_UNKEPT)

    def watch(self, agent: str, emit: Emit, goal: str = "", run: str = "") -> Watch | None:
        """
        The monitor of a turn that begins; None where agents are not watched.

        Args:
            agent: Who answers.
            emit: Tells what is found and done.
            goal: What is asked; empty where nobody knows.
            run: Names the turn in the report of one that is stopped.
        """
        spec = self._spec.for_agent(agent)
        if spec.mode == "off":
            return None
        tools: dict[str, str] = {}
        monitor = Monitor(
            self._spec,
            self._norms[agent],
            agent=agent,
            budget=self._limits(),
            goal=goal,
            tools=tools,
            human=spec.asks,
            run=run,
        )
        return Watch(monitor, emit, self._clock, tools)

    async def let_in(self, watch: Watch, record: TurnRecord) -> None:
        """
        Let a turn begin, unless its session is stopped.

        Raises:
            StoppedPartial: it is.
            StoreUnavailable: nobody can say.
        """
        if watch.acts and record.number > 1 and (why := await self.latched(record.conversation_id)) is not None:
            watch.halt(why)
        watch.check()

    def _limits(self) -> Budget:
        usd = self._budget.turn_usd
        return Budget(
            steps=self._budget.turn_steps,
            tokens=self._budget.turn_tokens,
            nanodollars=None if usd is None else max(1, round(usd * NS)),
            started=self._clock.now(),
            wall_s=self._turn_s,
        )

    async def latched(self, conversation_id: str) -> str | None:
        """Why the turns of a conversation are stopped; None where they are not."""
        notes = await self._store.notes("latch", conversation_id)
        return _latch.decode(notes[0].data) if notes else None

    async def _latch(self, record: TurnRecord, why: str) -> None:
        note = Note("latch", record.conversation_id, "breaker", self._clock.wall_ns(), msgspec.json.encode(why))
        await self._store.note([note])

    async def reset(self, conversation_id: str) -> bool:
        """Let the turns of a conversation run again. False where they were not stopped."""
        return await self._store.forget_notes("latch", conversation_id)

    async def end(self, watch: Watch, record: TurnRecord, error: HoldfastError | None) -> None:
        """
        Tell how a turn went that ends now, with this error or none, and learn from it.

        Raises:
            StoreUnavailable: it could not be kept that the session is stopped.
        """
        if isinstance(error, InDoubt | HandedOver | NotOwner | StoreUnavailable):
            watch.leave()
            return
        watch.end(answered=error is None)
        if watch.latches:
            await self._latch(record, watch.why)
        elif error is None and (success := watch.success()) is not None:
            self.learn(record.agent, record.turn_id, success)

    def learn(self, agent: str, turn_id: str, success: Success) -> None:
        """Take in a turn that succeeded."""
        self._norms[agent].learn(success)
        at_ns = self._clock.wall_ns()
        self._unkept.append(Note("success", agent, turn_id, at_ns, msgspec.json.encode(list(success))))

    async def load(self, agents: Iterable[str]) -> None:
        """Read what is known of these agents, what other servers learnt too."""
        for agent in agents:
            notes = await self._store.notes("success", agent)
            self._norms[agent] = Norms(Success(*_success.decode(note.data)) for note in reversed(notes))

    async def keep(self) -> None:
        """
        Keep what was learnt, and read what others have.

        Raises:
            StoreUnavailable: it is not kept; call it again.
        """
        notes = list(self._unkept)
        self._unkept.clear()
        try:
            await self._store.note(notes)
        except BaseException:
            self._unkept = deque([*notes, *self._unkept], maxlen=MOST_UNKEPT)
            raise
        if not self._unkept:  # What was learnt meanwhile would be missing.
            await self.load({note.about for note in notes})

    @asynccontextmanager
    async def keeping(self, agents: Iterable[str]) -> AsyncIterator[None]:
        """For the length of the block: keep what is learnt, from time to time and at its end."""
        await self.load(agents)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._keep_on())
            try:
                yield
            finally:
                task.cancel()
        with suppress(StoreUnavailable):  # It was learnt once, and will be again.
            await self.keep()

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            if self._unkept:
                with suppress(StoreUnavailable):
                    await self.keep()
