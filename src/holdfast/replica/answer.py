"""What became of a turn: for whoever began it, for whoever asks about it, and for its webhook."""

import asyncio
from collections.abc import Generator, Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from holdfast.clock import NS, iso
from holdfast.errors import HoldfastError, every_error
from holdfast.events import Outcome, Usage
from holdfast.journal import Numbered
from holdfast.replica.monitored import Monitored, monitored_of
from holdfast.store import Effect, TurnRecord, TurnState, Unit, UnitKind, UnitState

_ERRORS = {error.code: error for error in every_error()}


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a turn, or one of its calls, used.

    Attributes:
        model_calls: Attempts at a model call that were sent.
        tool_calls: Tool calls that were started.
        input_tokens: As the provider counts them; cached tokens are among them.
        output_tokens: As the provider counts them; reasoning tokens are among them.
        cost_usd: US dollars that they cost; those of a model whose price is not known count nothing.
    """

    model_calls: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float


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
    usage: UsageView
    degraded: bool = False
    via: str | None = None
    because: str | None = None


class Begun:
    """
    A turn that was asked for. Await it for its answer.

    Attributes:
        accepted: The turn as it was kept; from then on it ends, whoever waits for it.
        answer: Its answer, or the error that came instead.
        again: Whether it was accepted before, under the same key.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[TurnRecord] = loop.create_future()
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self.again = False
        for future in (self.accepted, self.answer):
            future.add_done_callback(_looked_at)  # Nobody need wait for it.

    def __await__(self) -> Generator[Any, None, Answer]:
        return self.answer.__await__()

    def kept(self, record: TurnRecord) -> None:
        """It is accepted. Whoever waited for that may have been cancelled, and its future with them."""
        if not self.accepted.done():
            self.accepted.set_result(record)

    def answered(self, answer: Answer) -> None:
        """It succeeded."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def failed(self, error: HoldfastError) -> None:
        """It comes to nothing, or to nothing here."""
        for future in (self.accepted, self.answer):
            if not future.done():
                future.set_exception(error)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a turn did not succeed: what the problem said that its caller got."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class UnitView(msgspec.Struct, frozen=True, kw_only=True):
    """
    One attempt at a model or tool call of a turn.

    Attributes:
        key: Names the call within the turn.
        name: The model or the tool.
        attempt: Counts the attempts at the call from 1.
        effect: What the call does to the world, and so what may be done when nobody knows its outcome.
        ended_at: Null where nobody knows.
        args: What the tool was given; null for a model call.
    """

    kind: UnitKind
    key: str
    name: str
    attempt: int
    state: UnitState
    effect: Effect
    started_at: str
    ended_at: str | None
    usage: UsageView
    args: Any


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    """
    A turn, as it is shown.

    Attributes:
        user_id: Whose it is.
        state: Where it is in its life; `in_doubt` waits for somebody to say what became of one of its calls.
        cancelled: Whether somebody asked for it to be stopped.
        generation: Counts the servers that ran it.
        outcome: How it ended; null until then, as with all that follow.
        reply: The answer; null unless it succeeded.
        error: Why it did not succeed; null if it did.
        model: The model that was asked last; null where none was.
        started_at: When it was accepted.
        duration_s: From its acceptance to its end.
    """

    turn_id: str
    session_id: str
    user_id: str
    agent: str
    trace_id: str
    message: str
    state: TurnState
    cancelled: bool
    generation: int
    outcome: Outcome | None
    reply: str | None
    error: Fault | None
    model: str | None
    degraded: bool
    usage: UsageView | None
    started_at: str
    ended_at: str | None
    duration_s: float | None


class TurnDetail(TurnView, frozen=True, kw_only=True):
    """
    A turn with its calls in the order in which they began; they are forgotten `store.keep_turns_s` after its end.

    Attributes:
        monitor: How it behaved.
    """

    units: list[UnitView]
    monitor: Monitored


def usage_view(usage: Usage) -> UsageView:
    """What was used, as it is shown."""
    return UsageView(
        model_calls=usage.model_calls,
        tool_calls=usage.tool_calls,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_usd=usage.cost_nanos / NS,
    )


def error_of(record: TurnRecord) -> HoldfastError | None:
    """What a turn ended with instead of a success; None where it succeeded, or has not ended."""
    ending = record.ending
    if ending is None or ending.error is None:
        return None
    return _ERRORS.get(ending.error, HoldfastError)(ending.detail)


def answer_of(record: TurnRecord) -> Answer:
    """
    The answer of a turn that has ended.

    Raises:
        HoldfastError: it did not succeed.
    """
    ending = record.ending
    if ending is None:
        raise RuntimeError(f"turn {record.turn_id} has not ended")
    if (error := error_of(record)) is not None:
        raise error
    return Answer(
        session_id=record.session_id,
        turn_id=record.turn_id,
        trace_id=record.trace_id,
        reply=ending.reply,
        outcome=ending.outcome,
        model=ending.model,
        usage=usage_view(ending.usage),
        degraded=ending.via is not None,
        via=ending.via,
        because=ending.because,
    )


def view_of(record: TurnRecord) -> TurnView:
    """A turn as it is shown."""
    ending, error = record.ending, error_of(record)
    return TurnView(
        turn_id=record.turn_id,
        session_id=record.session_id,
        user_id=record.principal,
        agent=record.agent,
        trace_id=record.trace_id,
        message=record.message,
        state=record.state,
        cancelled=record.cancelled,
        generation=record.generation,
        outcome=ending.outcome if ending else None,
        reply=ending.reply if ending and error is None else None,
        error=None if error is None else _fault(error),
        model=ending.model if ending else None,
        degraded=ending is not None and ending.via is not None,
        usage=usage_view(ending.usage) if ending else None,
        started_at=iso(record.started_ns),
        ended_at=iso(record.started_ns + ending.duration_ns) if ending else None,
        duration_s=ending.duration_ns / NS if ending else None,
    )


def detail_of(record: TurnRecord, units: Iterable[Unit], told: Iterable[Numbered]) -> TurnDetail:
    """A turn with its calls, and what its events tell of its behaviour, as it is shown."""
    seen = [_unit_view(unit) for unit in units]
    return TurnDetail(**msgspec.structs.asdict(view_of(record)), units=seen, monitor=monitored_of(told))


def _unit_view(unit: Unit) -> UnitView:
    return UnitView(
        kind=unit.kind,
        key=unit.key,
        name=unit.name,
        attempt=unit.attempt,
        state=unit.state,
        effect=unit.effect,
        started_at=iso(unit.begun_ns),
        ended_at=None if unit.ended_ns is None else iso(unit.ended_ns),
        usage=usage_view(unit.usage),
        args=None if unit.args is None else msgspec.Raw(unit.args),
    )


def _fault(error: HoldfastError) -> Fault:
    return Fault(
        type=f"urn:holdfast:error:{error.code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        code=error.code,
        detail=error.detail if error.detail_is_public else error.public,
    )


def _looked_at(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()
