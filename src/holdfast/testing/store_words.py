"""What the checks of a store are written in: turns that are asked, ended and expected."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from holdfast.errors import HoldfastError
from holdfast.events import Usage
from holdfast.store import Accepted, Claim, Ending, NewTurn, Past, Said, Store, StoredKey, TurnRecord, TurnState, Unit

ALL = 1_000_000
"""A window that holds whatever the checks put into it."""

AGENTS = ("assistant",)
"""Whose turns are claimed, where a check is not about it."""

LONG_S = 60.0
"""A lease that does not end while a check runs."""

SHORT_S = 0.05
"""A lease that has soon ended."""

PATIENCE_S = 10.0
"""Seconds to wait for what must come; more than any store needs."""

STEP_S = 0.01

STATES: tuple[TurnState, ...] = ("queued", "running", "in_doubt", "ended")

HALF_A_PAIR = "half a pair: \ud83d"
ODD_TEXTS = ("", "\0", "a\0b", "naïve 日本語 🜁", "\u202e\ufeff\uffff", "'; DROP TABLE turns; --", "%_\\", "x" * 100_000)
ODD_BYTES = (b"", b"\0", b"\xff\xfe\0\x80", b"x" * 100_000)


def make_turn(**changes: object) -> NewTurn:
    """What anna asks in ``talk``, as replica ``a`` accepts it, with ``changes``."""
    turn = NewTurn(
        principal="anna",
        session_id="talk",
        agent="assistant",
        trace_id="0" * 31 + "1",
        request_id="request",
        source_ip="192.0.2.1",
        message="question",
        owner="a",
        accepted_ns=1_000,
    )
    return msgspec.structs.replace(turn, **changes)


def make_ending(**changes: object) -> Ending:
    """A success, with ``changes``."""
    ending = Ending(
        outcome="success",
        reply="answer",
        usage=Usage(model_calls=2, tool_calls=1, input_tokens=30, output_tokens=4, cost_nanos=5),
        model="small",
        format="plain",
        messages=b"messages",
        tokens=10,
        duration_ns=50,
    )
    return msgspec.structs.replace(ending, **changes)


def make_unit(key: str = "call", **changes: object) -> Unit:
    """A call of a tool that has begun and may be made once only, with ``changes``."""
    unit = Unit(
        kind="tool", key=key, attempt=1, name="search", effect="once", digest=b"\0asked", begun_ns=1_000, args=b"{}"
    )
    return msgspec.structs.replace(unit, **changes)


def make_key(key_id: str, **changes: object) -> StoredKey:
    """An API key of anna's, with ``changes``."""
    key = StoredKey(id=key_id, principal="anna", scopes=(), digest=b"\0\xff" * 16, created_ns=1_000)
    return msgspec.structs.replace(key, **changes)


def claim_of(turn: TurnRecord) -> Claim:
    """By what right its owner writes the turn."""
    if turn.owner is None:
        raise AssertionError(f"turn {turn.turn_id}: wanted an owner, got None")
    return Claim(turn.turn_id, turn.owner, turn.generation)


def as_kept(turn: NewTurn, conversation_id: str, number: int, **changes: object) -> TurnRecord:
    """How a turn is stored that did not have to wait, with ``changes``."""
    record = TurnRecord(
        turn_id=f"{conversation_id}-{number}",
        conversation_id=conversation_id,
        number=number,
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
        state="running",
        owner=turn.owner,
    )
    return msgspec.structs.replace(record, **changes)


def as_past(turn: NewTurn, ending: Ending) -> Past:
    """A turn as the next one is given it."""
    return Past(message=turn.message, reply=ending.reply, format=ending.format, messages=ending.messages)


async def ask(store: Store, session_id: str = "talk", **changes: object) -> Accepted:
    """Have a turn accepted."""
    return await store.accept(make_turn(session_id=session_id, **changes), ALL)


async def end(store: Store, turn: TurnRecord, **changes: object) -> TurnRecord:
    """End a turn, and give it as it is stored then."""
    await store.end_turn(claim_of(turn), make_ending(**changes))
    return await read(store, turn)


async def talk(store: Store, session_id: str = "talk", **changes: object) -> TurnRecord:
    """Have a turn accepted, and end it."""
    return await end(store, (await ask(store, session_id, **changes)).turn)


async def read(store: Store, turn: TurnRecord) -> TurnRecord:
    """The turn as it is stored now."""
    stored = await store.turn(turn.turn_id)
    if stored is None:
        raise AssertionError(f"turn {turn.turn_id}: wanted a turn, got None")
    return stored


async def written(store: Store, turn: TurnRecord) -> tuple[TurnRecord | None, list[Unit], list[Said]]:
    """Everything that is stored of a turn."""
    return await store.turn(turn.turn_id), await store.units(turn.turn_id), await store.said(turn.turn_id, 0)


async def numbers(store: Store, session_id: str = "talk", principal: str = "anna") -> list[int]:
    """The numbers of the session's turns, in order."""
    return [turn.number for turn in await store.turns(principal, session_id, 1_000, None) or []][::-1]


def expect(claim: str, got: object, wanted: object) -> None:
    """
    Make sure that ``got`` is what was wanted.

    Raises:
        AssertionError: it is not.
    """
    if got != wanted:
        raise AssertionError(f"{claim}: wanted {wanted!r}, got {got!r}")


async def expect_refusal(claim: str, error: type[HoldfastError], refused: Awaitable[object]) -> None:
    """
    Make sure that ``refused`` raises ``error``, and not one below it.

    Raises:
        AssertionError: it does not.
    """
    try:
        got = await refused
    except HoldfastError as raised:
        expect(claim, type(raised), error)
    else:
        raise AssertionError(f"{claim}: wanted {error.__name__}, got {got!r}")


async def expect_soon(claim: str, asked: Callable[[], Awaitable[bool]]) -> None:
    """
    Ask until the answer is yes.

    Raises:
        AssertionError: it was still no after ``PATIENCE_S`` seconds.
    """
    for _ in range(round(PATIENCE_S / STEP_S)):
        if await asked():
            return
        await asyncio.sleep(STEP_S)
    raise AssertionError(f"{claim}: wanted within {PATIENCE_S:g} s, got nothing")


async def claim_soon(store: Store, replica: str, lease_s: float, turns: int) -> list[TurnRecord]:
    """
    Claim until ``turns`` turns were given.

    Raises:
        AssertionError: they were not within ``PATIENCE_S`` seconds, or there were more.
    """
    claimed: list[TurnRecord] = []

    async def enough() -> bool:
        claimed.extend(await store.claim(replica, AGENTS, lease_s, 100))
        return len(claimed) >= turns

    await expect_soon(f"{turns} turns claimed by {replica}", enough)
    expect(f"turns claimed by {replica}", len(claimed), turns)
    return claimed
