"""
One turn, top to bottom: read this first.

A turn is somebody asking and the agent answering. ``turn`` below is the whole of it, in order; each line names the
part that does the work. The agent in the middle is yours: it reaches models and tools through ``Turn.guard``.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
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
    Unprocessable,
)
from holdfast.events import Emit, Event, Observer, Outcome, TextDelta, TurnEnded, TurnIds, TurnStarted, Usage
from holdfast.guard import Guard, Policies, Who
from holdfast.resilience import Priority, Turnstile, within
from holdfast.store import Conversation, Past, Store, TurnRecord, check_unicode

STORE_S = 10.0
"""Seconds the store may take to give a conversation, or to keep a turn, whatever is left of the turn's own time."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """
    What somebody asks, and who it is.

    Attributes:
        principal: Whose conversation it is, from the credential and not from the body.
        streams: Whether somebody watches the answer arrive; the agent need not stream otherwise.
        priority: How much it matters, when more is asked than can be answered.
    """

    message: str
    principal: str
    session_id: str
    trace_id: str
    request_id: str
    source_ip: str = ""
    streams: bool = False
    priority: Priority = Priority.INTERACTIVE


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
    """
    A turn that succeeded, as its caller gets it.

    Attributes:
        model: The model that was asked last, or None.
        degraded: Whether another model than the one that was meant to gave the last answer.
        via: That model.
        because: The class of failure, or the code of the refusal, that made it so.
    """

    session_id: str
    turn_id: str
    trace_id: str
    reply: str
    outcome: Outcome
    model: str | None
    usage: Usage
    degraded: bool = False
    via: str | None = None
    because: str | None = None


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

    policies: Policies
    store: Store
    places: Turnstile
    session_wait_s: float
    history_tokens: int


async def turn(ask: Ask, agent: Agent, parts: Parts, observers: Sequence[Observer]) -> Answer:
    """
    One turn.

    Raises:
        Unprocessable: what was asked is not Unicode; nothing was done.
        SessionBusy: an earlier turn of the session did not end in time; nothing was done.
        StoreUnavailable: the store did not answer: before the agent ran, or its answer could not be kept.
        TurnCancelled: the task was cancelled while the agent ran; the outcome is stored.
        HoldfastError: the agent did not succeed; the outcome is stored.
        asyncio.CancelledError: the task was cancelled before the turn had begun; nothing was done.
    """
    check_unicode(ask.message)
    clock, turn_s = parts.policies.clock, parts.policies.spec.turn_s
    admitted, started_ns = clock.now(), clock.wall_ns()
    session = (ask.principal, ask.session_id)
    async with parts.places.hold(session, min(parts.session_wait_s, turn_s), _busy):
        conversation = await _recall(parts.store, session, parts.history_tokens)
        ids = TurnIds(ask.session_id, f"{conversation.id}-{conversation.turns + 1}", ask.trace_id, agent.name)
        emit = _emitter(ids, observers)
        guard = Guard(parts.policies, emit, Who(ask.principal, agent.name))
        emit(TurnStarted(session_id=ids.session_id, turn_id=ids.turn_id, trace_id=ids.trace_id, agent=ids.agent))

        left_s = turn_s - (clock.now() - admitted) / NS
        ending = await _answer(agent, Turn(ask, ids, conversation.past, guard, emit), left_s, clock)

        record = _record(ask, conversation, ids, ending, guard.usage(), started_ns, clock.now() - admitted)
        ending = await _keep(parts.store, record, ending, clock)
        emit(_ended(ids, ending, guard.usage(), (clock.now() - admitted) / NS))
    if ending.error is not None:
        raise ending.error
    instead = guard.model.degraded
    return Answer(
        session_id=ids.session_id,
        turn_id=ids.turn_id,
        trace_id=ids.trace_id,
        reply=ending.reply.text,
        outcome=ending.outcome,
        model=guard.model.latest_model,
        usage=guard.usage(),
        degraded=instead is not None,
        via=instead and instead.via,
        because=instead and instead.because,
    )


@asynccontextmanager
async def unserved_turn(ids: TurnIds, policies: Policies, observers: Sequence[Observer]) -> AsyncIterator[Guard]:
    """
    A turn that somebody else drives: the block runs within the deadline and is observed, but nothing is kept.

    Raises:
        DeadlineExceeded: the block took longer than ``turn_s`` and was cancelled.
    """
    emit = _emitter(ids, observers)
    clock, turn_s = policies.clock, policies.spec.turn_s
    guard = Guard(policies, emit, Who(agent=ids.agent))
    began = clock.now()
    ending = _Ending(_NO_REPLY)
    emit(TurnStarted(session_id=ids.session_id, turn_id=ids.turn_id, trace_id=ids.trace_id, agent=ids.agent))
    try:
        async with within(clock, turn_s, DeadlineExceeded):
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
            return _Ending(_readable(await agent.answer(current), agent.name))
    except (KeyboardInterrupt, GeneratorExit):
        raise  # Somebody ends the whole process, and not the agent this turn.
    except BaseException as error:  # noqa: BLE001 - whatever it raises is this turn's outcome, `sys.exit` too
        return _Ending(_NO_REPLY, _known(error, agent.name))


def _readable(reply: Reply, agent: str) -> Reply:
    try:
        check_unicode(reply.text)
    except Unprocessable as error:
        raise AgentFailed(f"the agent {agent} answered with text that is not Unicode") from error
    return reply


def _known(error: BaseException, agent: str) -> HoldfastError:
    """``error`` as one of ours."""
    if isinstance(error, HoldfastError):
        return error
    this = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError) and this is not None and this.cancelling() > 0
    if cancelled or isinstance(error, GeneratorExit):
        return TurnCancelled()
    failed = AgentFailed(f"the agent {agent} raised {type(error).__name__}")
    failed.__cause__ = error
    return failed


def _record(
    ask: Ask,
    conversation: Conversation,
    ids: TurnIds,
    ending: _Ending,
    usage: Usage,
    started_ns: int,
    duration_ns: int,
) -> TurnRecord:
    return TurnRecord(
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


async def _recall(store: Store, session: tuple[str, str], window_tokens: int) -> Conversation:
    try:
        async with asyncio.timeout(STORE_S):
            return await store.recall(*session, window_tokens)
    except TimeoutError as late:
        raise StoreUnavailable(f"the store did not give the conversation within {STORE_S:g} s") from late


async def _keep(store: Store, record: TurnRecord, ending: _Ending, clock: Clock) -> _Ending:
    """
    Store how the turn ended. A turn that could not be stored did not succeed, whatever the agent answered.

    A turn that is cancelled now has ended already: it is stored to the end, so that its caller hears what is stored.
    """
    keeping = asyncio.get_running_loop().create_task(store.record(record))  # A group would cancel it with the turn.
    give_up = clock.now() + round(STORE_S * NS)
    while not keeping.done() and (left_ns := give_up - clock.now()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait((keeping,), timeout=left_ns / NS)
    try:
        if not keeping.done():
            keeping.cancel()
            raise StoreUnavailable(f"the store did not keep the turn within {STORE_S:g} s")
        keeping.result()
    except HoldfastError as unstored:
        return _Ending(_NO_REPLY, ending.error or unstored)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a store raises, the turn ends
        raised = StoreUnavailable(f"the store raised {type(error).__name__}")
        raised.__cause__ = error
        return _Ending(_NO_REPLY, ending.error or raised)
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
