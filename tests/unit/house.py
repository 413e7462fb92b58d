"""Turns as they are run, on a store that can fail, and what was seen of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from holdfast.events import Event, Observer, TurnEnded, TurnIds
from holdfast.guard import GuardSpec, Policies
from holdfast.lifecycle import Drain, ShutdownSpec
from holdfast.replica import Answer, Begun, Turns
from holdfast.store import Accepted, Claim, Ending, MemoryStore, NewTurn, Said, TurnRecord
from holdfast.telemetry import Tracing
from holdfast.testing import loop_clock
from holdfast.turn import Agent, Ask, Parts, Reply, Turn

TURN_S = 100.0
Behaviour = Callable[[Turn], Awaitable[str]]


class Scripted:
    """An agent that does what it is told."""

    name = "scripted"

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def answer(self, turn: Turn) -> Reply:
        text = await self._behave(turn)
        return Reply(text, "plain", f"[{turn.message}|{text}]".encode(errors="replace"), 8)


class FaultyStore(MemoryStore):
    """Raises where it accepts or ends turns, or takes its time."""

    def __init__(self) -> None:
        super().__init__(loop_clock())
        self.at_accept: BaseException | None = None
        self.at_end: BaseException | None = None
        self.accept_s = self.end_s = 0.0

    async def accept(self, turn: NewTurn, window_tokens: int) -> Accepted:
        await asyncio.sleep(self.accept_s)
        if self.at_accept is not None:
            raise self.at_accept
        return await super().accept(turn, window_tokens)

    async def end_turn(self, claim: Claim, ending: Ending, said: Said | None = None) -> None:
        await asyncio.sleep(self.end_s)
        if self.at_end is not None:
            raise self.at_end
        await super().end_turn(claim, ending, said)


WIDE = GuardSpec(turn_s=TURN_S, user_per_s=1_000_000, user_burst=1_000_000)


class House:
    """What a turn is made with, and what was seen of it."""

    def __init__(
        self,
        *,
        session_wait_s: float = 1_000,
        store: MemoryStore | None = None,
        name: str = "one",
        turn_s: float = TURN_S,
        tracing: Tracing | None = None,
        watch: Sequence[Observer] = (),
    ) -> None:
        clock = loop_clock()
        self.faults = FaultyStore()
        self.store = self.faults if store is None else store
        self.watch = watch
        self.seen: list[tuple[TurnIds, Event]] = []
        self.agents: dict[str, Agent] = {}
        self.drain = Drain(ShutdownSpec(), clock)
        self.drain.start()
        parts = Parts(
            Policies(WIDE.model_copy(update={"turn_s": turn_s}), clock), self.store, session_wait_s, 1_000, name
        )
        self.turns = Turns(parts, self.agents, self.drain, tracing or Tracing(clock), self.observed)
        self.store.listen(self.turns.heard)

    def observed(self, first: Sequence[Observer], watch: Sequence[Observer]) -> Sequence[Observer]:
        return [*first, lambda ids, event: self.seen.append((ids, event)), *self.watch, *watch]

    @property
    def events(self) -> list[Event]:
        return [event for _, event in self.seen]

    @property
    def ended(self) -> TurnEnded:
        (ended,) = (event for event in self.events if isinstance(event, TurnEnded))
        return ended

    def begin(
        self,
        group: asyncio.TaskGroup,
        behave: "Behaviour | Agent",
        message: str = "hello",
        who: str = "anna",
        **more: Any,
    ) -> Begun:
        agent = Scripted(behave) if callable(behave) else behave
        self.agents[agent.name] = agent
        ask = Ask(
            message=message,
            principal=who,
            session_id="talk",
            trace_id="t" * 32,
            request_id="r",
            source_ip="::1",
            **more,
        )
        return self.turns.begin(group, ask, agent.name)

    async def ask(self, behave: "Behaviour | Agent", message: str = "hello", who: str = "anna", **more: Any) -> Answer:
        async with asyncio.TaskGroup() as group:
            came = await outcome_of(self.begin(group, behave, message, who, **more))
        if isinstance(came, BaseException):
            raise came
        return came

    async def stored(self, who: str = "anna", session: str = "talk") -> list[TurnRecord]:
        return (await self.store.turns(who, session, 100, None) or [])[::-1]

    async def endings(self, who: str = "anna") -> list[Ending]:
        return [turn.ending for turn in await self.stored(who) if turn.ending is not None]

    async def state(self) -> str:
        (record,) = await self.stored()
        return record.state


async def outcome_of(turn: Awaitable[Answer]) -> Answer | BaseException:
    try:
        return await turn
    except BaseException as error:  # noqa: BLE001 - what it came to is what is asked
        return error
