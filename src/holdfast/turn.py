"""
One turn, top to bottom: read this first.

A turn is somebody asking and the agent answering. ``accept`` keeps what is asked, and from there on it ends, whoever
dies meanwhile; ``turn`` below is the whole of the rest, in order, and each line names the part that does the work. The
agent in the middle is yours: it reaches models and tools through ``Turn.guard``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import msgspec

from holdfast.clock import NS
from holdfast.errors import (
    AgentFailed,
    BudgetExhausted,
    DeadlineExceeded,
    HandedOver,
    HoldfastError,
    InDoubt,
    NotOwner,
    SessionBusy,
    StoppedPartial,
    StoreUnavailable,
    TimedOut,
    TurnCancelled,
    Unprocessable,
)
from holdfast.events import Emit, Event, Observer, Outcome, TextDelta, TurnEnded, TurnIds, TurnStarted, TurnSuspended
from holdfast.guard import Guard, Policies, Who
from holdfast.journal import Journal, unicode
from holdfast.resilience import Priority, within
from holdfast.store import Accepted, Ending, NewTurn, Past, Store, TurnRecord, check_unicode

STORE_S = 10.0
"""Seconds the store may take to accept a turn, whatever is left of the caller's patience."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """
    What somebody asks, and who it is.

    Attributes:
        principal: Whose conversation it is, from the credential and not from the body.
        streams: Whether somebody watches the answer arrive; the agent need not stream otherwise.
        priority: How much it matters, when more is asked than can be answered.
        key: The caller's idempotency key: what is asked under it again is the same turn. None for none.
        digest: Of everything the same key must come with.
        webhook: Where to tell that it has ended; None for nowhere.
        waits: Whether it waits for as long as earlier turns of its session take; else for ``session_wait_s``.
    """

    message: str
    principal: str
    session_id: str
    trace_id: str
    request_id: str
    source_ip: str = ""
    streams: bool = False
    priority: Priority = Priority.INTERACTIVE
    key: str | None = None
    digest: bytes = b""
    webhook: str | None = None
    waits: bool = False


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

    def __init__(self, asked: Ask | TurnRecord, ids: TurnIds, past: Sequence[Past], guard: Guard, emit: Emit) -> None:
        self.message = asked.message
        self.principal = asked.principal
        self.streams = asked.streams
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


Recall = Callable[[], Awaitable[Sequence[Past]]]
"""Waits until the earlier turns of the session have ended, and gives the past; or raises SessionBusy."""


class Parts(NamedTuple):
    """What a turn is made with: picked once by the runtime, the same for every turn."""

    policies: Policies
    store: Store
    session_wait_s: float
    history_tokens: int
    replica: str


async def accept(ask: Ask, agent: str, parts: Parts) -> Accepted:
    """
    Keep what is asked: from here on the turn ends, whatever happens to this server.

    Raises:
        Unprocessable: what was asked is not Unicode; KeyReused: the key was used for something else.
        SessionBusy: an earlier turn of the session has not ended, and this one does not wait.
        StoreUnavailable: the store did not answer. It may have been accepted; with a key, asking again tells.
    """
    check_unicode(ask.message)
    new = NewTurn(
        principal=ask.principal,
        session_id=ask.session_id,
        agent=agent,
        trace_id=ask.trace_id,
        request_id=ask.request_id,
        source_ip=ask.source_ip,
        message=ask.message,
        owner=parts.replica,
        accepted_ns=parts.policies.clock.wall_ns(),
        streams=ask.streams,
        key=ask.key,
        digest=ask.digest,
        webhook=ask.webhook,
        waits=ask.waits or parts.session_wait_s > 0,
    )
    try:
        async with asyncio.timeout(STORE_S):
            return await parts.store.accept(new, parts.history_tokens)
    except SessionBusy as busy:
        raise SessionBusy(retry_after_s=1.0) from busy
    except TimeoutError as late:
        raise StoreUnavailable(f"the store did not accept the turn within {STORE_S:g} s") from late


async def turn(
    record: TurnRecord,
    recall: Recall,
    agent: Agent,
    journal: Journal,
    policies: Policies,
    observers: Sequence[Observer],
) -> TurnRecord:
    """
    One turn that was accepted, or that another server left: it has ended when this returns.

    Args:
        record: What is asked.
        recall: Its place in the session, and the earlier turns of the conversation.
        agent: Who answers.
        journal: Where its calls are kept.
        policies: What its calls pass through.
        observers: Who is told what happens.

    Raises:
        InDoubt: it waits for somebody to say what became of a call.
        HandedOver, NotOwner: it goes on elsewhere.
        StoreUnavailable: how it ended could not be kept; whoever can reach the store goes on with it.
        HoldfastError: the agent did not succeed; the outcome is stored.
    """
    clock, turn_s = policies.clock, policies.spec.turn_s
    ids = TurnIds(record.session_id, record.turn_id, record.trace_id, agent.name)
    emit = _emitter(ids, (lambda _, event: journal.story.take(event), *observers))
    conduct = policies.conduct
    watch = conduct.watch(agent.name, emit, record.message, record.turn_id) if conduct is not None else None
    guard = Guard(policies, emit, Who(record.principal, agent.name, record.turn_id), journal, watch)
    emit(_started(ids, record, journal))

    try:
        if journal.stopped is not None:  # It was to be stopped, or given up, before it came here.
            raise journal.stopped
        past = await recall()
        if conduct is not None and watch is not None:
            await conduct.let_in(watch, record)
        async with within(clock, turn_s, DeadlineExceeded):
            reply = await agent.answer(Turn(record, ids, past, guard, emit))
        ended = _Ended(_readable(reply, agent.name))
    except (KeyboardInterrupt, GeneratorExit):
        raise  # Somebody ends the whole process, and not the agent this turn.
    except BaseException as error:  # noqa: BLE001 - whatever it raises is this turn's outcome, `sys.exit` too
        ended = _Ended(_NO_REPLY, _known(error, agent.name, journal))

    if journal.stopped is not None:
        ended = _Ended(_NO_REPLY, journal.stopped)
    elif watch is not None and (stopped := watch.stopped_by(ended.error)) is not None:
        ended = _Ended(Reply(stopped.reply, "", b"", 0), stopped=stopped)
    ending = _ending(ended, guard, clock.wall_ns() - record.started_ns)
    last: TurnEnded | TurnSuspended = _last(ids, ending)
    try:
        if conduct is not None and watch is not None:
            await conduct.end(watch, record, ended.error)
        if isinstance(journal.stopped, InDoubt | HandedOver):
            last = _suspended(ids, journal.stopped, journal)
            await journal.suspend(last)
        elif isinstance(journal.stopped, NotOwner | StoreUnavailable):
            raise journal.stopped
        else:
            await journal.end(ending, last)
    except (NotOwner, StoreUnavailable) as lost:
        emit(_suspended(ids, lost, journal))
        raise
    emit(last)
    if ended.error is not None:
        raise ended.error
    return msgspec.structs.replace(record, state="ended", owner=None, ending=ending)


@asynccontextmanager
async def unserved_turn(ids: TurnIds, policies: Policies, observers: Sequence[Observer]) -> AsyncIterator[Guard]:
    """
    A turn that somebody else drives: the block runs within the deadline and is observed, but nothing is kept.

    Raises:
        DeadlineExceeded: the block took longer than ``turn_s`` and was cancelled.
    """
    emit = _emitter(ids, observers)
    clock, turn_s = policies.clock, policies.spec.turn_s
    watch = None if policies.conduct is None else policies.conduct.watch(ids.agent, emit)
    guard = Guard(policies, emit, Who(agent=ids.agent), watch=watch)
    began = clock.now()
    ended = _Ended(_NO_REPLY)
    emit(TurnStarted(session_id=ids.session_id, turn_id=ids.turn_id, trace_id=ids.trace_id, agent=ids.agent))
    try:
        async with within(clock, turn_s, DeadlineExceeded):
            yield guard
    except BaseException as error:
        stopped = isinstance(error, asyncio.CancelledError | GeneratorExit)
        ended = _Ended(_NO_REPLY, TurnCancelled() if stopped else _known(error, ids.agent))
        raise
    finally:
        if watch is not None:
            watch.end(answered=ended.error is None)
        emit(_last(ids, _ending(ended, guard, clock.now() - began)))


class _Ended(NamedTuple):
    """How the agent's part ended: with its reply, or with what came instead."""

    reply: Reply
    error: HoldfastError | None = None
    stopped: StoppedPartial | None = None

    @property
    def outcome(self) -> Outcome:
        if self.stopped is not None and not self.stopped.asks:
            return "budget_exhausted" if self.stopped.budget else "guardrail_blocked"
        match self.error:
            case None:
                return "success"
            case TurnCancelled():
                return "cancelled"
            case TimedOut():
                return "timeout"
            case SessionBusy():
                return "rejected"
            case BudgetExhausted():
                return "budget_exhausted"
            case _:
                return "error"


_NO_REPLY = Reply("", "", b"", 0)


def _readable(reply: Reply, agent: str) -> Reply:
    try:
        check_unicode(reply.text)
    except Unprocessable as error:
        raise AgentFailed(f"the agent {agent} answered with text that is not Unicode") from error
    return reply


def _known(error: BaseException, agent: str, journal: Journal | None = None) -> HoldfastError:
    """
    ``error`` as one of ours. What stopped the journal is why, whatever the agent made of it.

    A turn that is cancelled, by nobody who said why, is one of a server that stops.
    """
    this = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError) and this is not None and this.cancelling() > 0
    if journal is not None and (journal.stopped is not None or cancelled):
        return journal.stop(HandedOver(retry_after_s=1.0) if journal.store.lasts else TurnCancelled())
    if isinstance(error, HoldfastError) and not isinstance(error, InDoubt | HandedOver | NotOwner):
        return error  # Those are other turns', which the agent began itself.
    failed = AgentFailed(f"the agent {agent} raised {type(error).__name__}")
    failed.__cause__ = error
    return failed


def _started(ids: TurnIds, record: TurnRecord, journal: Journal) -> TurnStarted:
    return TurnStarted(
        session_id=ids.session_id,
        turn_id=ids.turn_id,
        trace_id=ids.trace_id,
        agent=ids.agent,
        generation=record.generation,
        after=journal.story.after,
    )


def _suspended(ids: TurnIds, why: HoldfastError, journal: Journal) -> TurnSuspended:
    return TurnSuspended(
        session_id=ids.session_id,
        turn_id=ids.turn_id,
        trace_id=ids.trace_id,
        agent=ids.agent,
        because=why.code,
        unit=None if journal.in_doubt is None else journal.in_doubt.key,
    )


def _ending(ended: _Ended, guard: Guard, duration_ns: int) -> Ending:
    reply, error, instead = ended.reply, ended.error, guard.model.degraded
    return Ending(
        outcome=ended.outcome,
        reply=reply.text,
        error=None if error is None else error.code,
        detail="" if error is None else unicode(error.detail),
        usage=guard.usage(),
        model=guard.model.latest_model,
        via=instead and instead.via,
        because=instead and instead.because,
        format=reply.format,
        messages=reply.messages if error is None and ended.stopped is None else None,
        tokens=reply.tokens,
        duration_ns=max(0, duration_ns),
    )


def _last(ids: TurnIds, ending: Ending) -> TurnEnded:
    return TurnEnded(
        session_id=ids.session_id,
        turn_id=ids.turn_id,
        trace_id=ids.trace_id,
        agent=ids.agent,
        outcome=ending.outcome,
        reply=ending.reply,
        usage=ending.usage,
        duration_s=ending.duration_ns / NS,
        error=ending.error,
    )


def _emitter(ids: TurnIds, observers: Sequence[Observer]) -> Emit:
    def emit(event: Event) -> None:
        for observe in observers:
            observe(ids, event)

    return emit
