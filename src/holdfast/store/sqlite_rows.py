"""Turns and units as SQLite keeps them, and back."""

from collections.abc import Iterable, Iterator
from typing import Any

from holdfast.events import Usage
from holdfast.store.records import (
    Claim,
    Ending,
    NewTurn,
    Past,
    StoredKey,
    TurnRecord,
    TurnState,
    Unit,
    check_unicode,
)

Where = tuple[str, int]
"""A turn's place: its conversation, and its number there."""

MAX_DIGITS = 18
"""Digits of a number that SQLite can hold, whatever they are."""

NOWHERE: Where = ("", 0)


def where(turn_id: str) -> Where:
    """
    Where the turn with this id is; ``NOWHERE`` for what is no turn's id.

    Raises:
        Unprocessable: it is not Unicode.
    """
    conversation_id, _, digits = turn_id.rpartition("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS and digits[0] != "0":
        return conversation_id, int(digits)
    check_unicode(turn_id)
    return NOWHERE


def fence(claim: Claim) -> tuple[str, int, str, int]:
    """What a turn has to be, for the owner of ``claim`` to write it."""
    return (*where(claim.turn_id), claim.owner, claim.generation)


def new_turn(turn: NewTurn, at: Where, state: TurnState) -> TurnRecord:
    """The turn as it is accepted."""
    return TurnRecord(
        turn_id=f"{at[0]}-{at[1]}",
        conversation_id=at[0],
        number=at[1],
        principal=turn.principal,
        session_id=turn.session_id,
        agent=turn.agent,
        trace_id=turn.trace_id,
        request_id=turn.request_id,
        source_ip=turn.source_ip,
        message=turn.message,
        started_ns=turn.accepted_ns,
        streams=turn.streams,
        key=turn.key,
        digest=turn.digest,
        webhook=turn.webhook,
        state=state,
        owner=turn.owner,
    )


def new_turn_row(turn: TurnRecord) -> tuple[object, ...]:
    """The values of ``add_turn``."""
    return (
        turn.conversation_id,
        turn.number,
        turn.principal,
        turn.state,
        turn.owner,
        turn.streams,
        turn.key,
        turn.digest,
        turn.started_ns,
        turn.webhook,
        turn.agent,
        turn.trace_id,
        turn.request_id,
        turn.source_ip,
        turn.message,
    )


def ending_row(ending: Ending, now_ns: int) -> tuple[object, ...]:
    """The values of ``end_turn``, without its fence."""
    usage = ending.usage
    return (
        now_ns,
        ending.duration_ns,
        ending.outcome,
        ending.reply,
        ending.error,
        ending.detail,
        usage.model_calls,
        usage.tool_calls,
        usage.input_tokens,
        usage.output_tokens,
        ending.model,
        ending.via,
        ending.because,
        ending.format,
        ending.tokens,
        ending.duration_ns,
        ending.messages,
        usage.cost_nanos,
    )


def turn_record(row: Any) -> TurnRecord:
    """The turn of a row of ``turn_records``."""
    turn_id, conversation_id, number, principal, session_id, agent, trace_id, request_id, source_ip, *rest = row
    message, started_ns, streams, key, digest, webhook, state, owner, generation, cancelled, *how = rest
    return TurnRecord(
        turn_id=turn_id,
        conversation_id=conversation_id,
        number=number,
        principal=principal,
        session_id=session_id,
        agent=agent,
        trace_id=trace_id,
        request_id=request_id,
        source_ip=source_ip,
        message=message,
        started_ns=started_ns,
        streams=bool(streams),
        key=key,
        digest=digest,
        webhook=webhook,
        state=state,
        owner=owner,
        generation=generation,
        cancelled=bool(cancelled),
        ending=_ending(how) if state == "ended" else None,
    )


def _ending(how: list[Any]) -> Ending:
    outcome, reply, error, detail, model_calls, tool_calls, input_tokens, output_tokens, *rest = how
    model, via, because, form, tokens, duration_ns, cost_nanos = rest
    return Ending(
        outcome=outcome,
        reply=reply,
        error=error,
        detail=detail,
        usage=Usage(
            model_calls=model_calls,
            tool_calls=tool_calls,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_nanos=cost_nanos or 0,
        ),
        model=model,
        via=via,
        because=because,
        format=form,
        tokens=tokens,
        duration_ns=duration_ns,
    )


def unit_row(at: Where, unit: Unit) -> tuple[object, ...]:
    """The values of ``put_unit``."""
    usage = unit.usage
    return (
        *at,
        unit.kind,
        unit.key,
        unit.attempt,
        unit.name,
        unit.effect,
        unit.state,
        unit.digest,
        usage.model_calls,
        usage.tool_calls,
        usage.input_tokens,
        usage.output_tokens,
        unit.begun_ns,
        unit.ended_ns,
        unit.args,
        unit.result,
        unit.failure,
        usage.cost_nanos,
    )


def unit_of(row: Any) -> Unit:
    """The unit of a row of ``units``."""
    kind, key, attempt, name, effect, state, digest, model_calls, tool_calls, input_tokens, output_tokens, *rest = row
    begun_ns, ended_ns, args, result, failure, cost_nanos = rest
    return Unit(
        kind=kind,
        key=key,
        attempt=attempt,
        name=name,
        effect=effect,
        state=state,
        digest=digest,
        usage=Usage(
            model_calls=model_calls,
            tool_calls=tool_calls,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_nanos=cost_nanos,
        ),
        begun_ns=begun_ns,
        ended_ns=ended_ns,
        args=args,
        result=result,
        failure=failure,
    )


def newest_first(rows: Iterable[Any]) -> Iterator[tuple[Past, int]]:
    """The turns of the rows of ``past``, one by one, and their tokens."""
    for message, reply, form, messages, tokens in rows:
        yield Past(message=message, reply=reply, format=form, messages=messages), tokens


def key_row(key: StoredKey) -> tuple[object, ...]:
    """The values of ``add_key``."""
    scopes = " ".join(key.scopes)
    return key.id, key.principal, scopes, key.digest, key.created_ns, key.expires_ns, key.revoked_ns


def key_of(row: Any) -> StoredKey:
    """The API key of a row of ``keys``."""
    key_id, principal, scopes, digest, created_ns, expires_ns, revoked_ns = row
    return StoredKey(
        id=key_id,
        principal=principal,
        scopes=tuple(scopes.split()),
        digest=digest,
        created_ns=created_ns,
        expires_ns=expires_ns,
        revoked_ns=revoked_ns,
    )
