"""
One turn, top to bottom: read this first.

A turn is somebody asking and the agent answering. ``turn`` below is the whole of it, in order; each line names the
part that does the work. The agent in the middle is yours: it reaches models and tools through ``Turn.guard``.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import msgspec

from holdfast.clock import NS, Clock
from holdfast.errors import (
    AgentFailed,
    DeadlineExceeded,
    HoldfastError,
    SessionBusy,
    StoreUnavailable,
    TimedOut,
    TurnCancelled,
)
from holdfast.events import Emit, Event, Observer, Outcome, TextDelta, TurnEnded, TurnIds, TurnStarted, Usage
from holdfast.guard import Guard, GuardSpec
from holdfast.resilience import Turnstile, within
from holdfast.store import Conversation, Past, Store, TurnRecord


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """
    What somebody asks, and who it is.

    Attributes:
        principal: Whose conversation it is, from the credential and not from the body.
        streams: Whether somebody watches the answer arrive; the agent need not stream otherwise.
    """

    message: str
    principal: str
    session_id: str
    trace_id: str
    request_id: str
    source_ip: str = ""
    streams: bool = False


class Reply(NamedTuple):
    """
    What an agent answers.

    Attributes:
        text: For the one who asked.
        format: Names the encoding of ``messages``.
        messages: This turn's messages, encoded so that the same adapter can give them to the next turn.
        tokens: What ``messages`` is thought to take in a window.
    """

    text: str
    format: str
    messages: bytes
    tokens: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that succeeded, as its caller gets it. ``model`` is the model that was asked last, or None."""

    session_id: str
    turn_id: str
    trace_id: str
    reply: str
    outcome: Outcome
    model: str | None
    usage: Usage


class Turn:
    """
    What an agent is given for one turn.

    Attributes:
        message: What is asked.
        past: Earlier turns of the conversation, oldest first, as far as the window goes.
        guard: The way to models and tools.
        streams: Whether somebody watches the answer arrive.
        ids: Session, turn, trace and agent.
        principal: Who asks.
    """

    __slots__ = ("emit", "guard", "ids", "message", "past", "principal", "streams")

    def __init__(self, ask: Ask, ids: TurnIds, past: Sequence[Past], guard: Guard, emit: Emit) -> None:
        self.message = ask.message
        self.principal = ask.principal
        self.streams = ask.streams
        self.ids = ids
        self.past = past
        self.guard = guard
        self.emit = emit

    def say(self, text: str) -> None:
        """Show the one who watches a little more of the answer."""
        if text:
            self.emit(TextDelta(text=text))


class Agent(Protocol):
    """Anything that answers a turn. The adapters make one of your agent. It is entered while it is served."""

    @property
    def name(self) -> str:
        """What callers choose it by."""

    async def __aenter__(self) -> Self:
        """Open what the agent holds, such as connections to its provider."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it again."""

    async def answer(self, turn: Turn) -> Reply:
        """Answer ``turn.message``. Whatever it raises ends the turn with that error."""


class Parts(NamedTuple):
    """What a turn is made with: picked once by the runtime, the same for every turn."""

    guard: GuardSpec
    clock: Clock
    store: Store
    places: Turnstile
    session_wait_s: float
    history_tokens: int


async def turn(ask: Ask, agent: Agent, parts: Parts, observers: Sequence[Observer]) -> Answer:
    """
    One turn.

    Raises:
        SessionBusy: an earlier turn of the session did not end in time; nothing was done.
        StoreUnavailable: the store did not answer: before the agent ran, or its answer could not be kept.
        TurnCancelled: the task was cancelled; the outcome is stored.
        HoldfastError: the agent did not succeed; the outcome is stored.
    """
    clock, limits = parts.clock, parts.guard
    admitted, started_ns = clock.now(), clock.wall_ns()
    session = (ask.principal, ask.session_id)
    async with parts.places.hold(session, min(parts.session_wait_s, limits.turn_s), _busy):
        conversation = await parts.store.recall(*session, parts.history_tokens)
        ids = TurnIds(ask.session_id, f"{conversation.id}-{conversation.turns + 1}", ask.trace_id, agent.name)
        emit = _emitter(ids, observers)
        guard = Guard(limits, clock, emit)
        emit(TurnStarted(session_id=ids.session_id, turn_id=ids.turn_id, trace_id=ids.trace_id, agent=ids.agent))

        left_s = limits.turn_s - (clock.now() - admitted) / NS
        ending = await _answer(agent, Turn(ask, ids, conversation.past, guard, emit), left_s, clock)

        ending = await _keep(
            parts.store, ask, conversation, ids, ending, guard.usage(), started_ns, clock.now() - admitted
        )
        emit(_ended(ids, ending, guard.usage(), (clock.now() - admitted) / NS))
    if ending.error is not None:
        raise ending.error
    return Answer(
        session_id=ids.session_id,
        turn_id=ids.turn_id,
        trace_id=ids.trace_id,
        reply=ending.reply.text,
        outcome=ending.outcome,
        model=guard.model.latest_model,
        usage=guard.usage(),
    )


@asynccontextmanager
async def unserved_turn(
    ids: TurnIds, limits: GuardSpec, clock: Clock, observers: Sequence[Observer]
) -> AsyncIterator[Guard]:
    """
    A turn that somebody else drives: the block runs within the deadline and is observed, but nothing is kept.

    Raises:
        DeadlineExceeded: the block took longer than ``turn_s`` and was cancelled.
    """
    emit = _emitter(ids, observers)
    guard = Guard(limits, clock, emit)
    began = clock.now()
    ending = _Ending(_NO_REPLY)
    emit(TurnStarted(session_id=ids.session_id, turn_id=ids.turn_id, trace_id=ids.trace_id, agent=ids.agent))
    try:
        async with within(clock, limits.turn_s, DeadlineExceeded):
            yield guard
    except BaseException as error:
        ending = _Ending(_NO_REPLY, _known(error, ids.agent))
        raise
    finally:
        emit(_ended(ids, ending, guard.usage(), (clock.now() - began) / NS))


class _Ending(NamedTuple):
    """How the agent's part ended: with its reply, or with what came instead."""

    reply: Reply
    error: HoldfastError | None = None

    @property
    def code(self) -> str | None:
        return None if self.error is None else self.error.code

    @property
    def outcome(self) -> Outcome:
        match self.error:
            case None:
                return "success"
            case TurnCancelled():
                return "cancelled"
            case TimedOut():
                return "timeout"
            case _:
                return "error"


_NO_REPLY = Reply("", "", b"", 0)


async def _answer(agent: Agent, current: Turn, left_s: float, clock: Clock) -> _Ending:
    """Ask the agent, within the turn's one deadline."""
    try:
        async with within(clock, left_s, DeadlineExceeded):
            return _Ending(await agent.answer(current))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it raises is this turn's outcome
        return _Ending(_NO_REPLY, _known(error, agent.name))


def _known(error: BaseException, agent: str) -> HoldfastError:
    """``error`` as one of ours."""
    if isinstance(error, HoldfastError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return TurnCancelled()
    failed = AgentFailed(f"the agent {agent} raised {type(error).__name__}")
    failed.__cause__ = error
    return failed


async def _keep(
    store: Store,
    ask: Ask,
    conversation: Conversation,
    ids: TurnIds,
    ending: _Ending,
    usage: Usage,
    started_ns: int,
    duration_ns: int,
) -> _Ending:
    """Store how the turn ended. A turn that could not be stored did not succeed, whatever the agent answered."""
    record = TurnRecord(
        turn_id=ids.turn_id,
        conversation_id=conversation.id,
        number=conversation.turns + 1,
        principal=ask.principal,
        session_id=ask.session_id,
        agent=ids.agent,
        trace_id=ask.trace_id,
        request_id=ask.request_id,
        source_ip=ask.source_ip,
        message=ask.message,
        reply=ending.reply.text,
        outcome=ending.outcome,
        error=ending.code,
        usage=usage,
        format=ending.reply.format,
        messages=ending.reply.messages if ending.error is None else None,
        tokens=ending.reply.tokens,
        started_ns=started_ns,
        duration_ns=duration_ns,
    )
    try:
        await store.record(record)
    except StoreUnavailable as unstored:
        return _Ending(_NO_REPLY, ending.error or unstored)
    return ending


def _ended(ids: TurnIds, ending: _Ending, usage: Usage, duration_s: float) -> TurnEnded:
    return TurnEnded(
        session_id=ids.session_id,
        turn_id=ids.turn_id,
        trace_id=ids.trace_id,
        agent=ids.agent,
        outcome=ending.outcome,
        reply=ending.reply.text,
        usage=usage,
        duration_s=duration_s,
        error=ending.code,
    )


def _busy() -> SessionBusy:
    return SessionBusy(retry_after_s=1.0)


def _emitter(ids: TurnIds, observers: Sequence[Observer]) -> Emit:
    def emit(event: Event) -> None:
        for observe in observers:
            observe(ids, event)

    return emit
