"""What a store keeps: conversations, turns with their units and what was said in them, and API keys."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from holdfast.clock import token_hex
from holdfast.errors import Unprocessable
from holdfast.events import Outcome, Usage

NOT_UNICODE = "a text holds half a surrogate pair, which is not Unicode and cannot be kept"

CHARS_PER_TOKEN = 4
"""Characters that count as one token where nobody has counted: the rule of thumb providers give for English text."""

TurnState = Literal["queued", "running", "in_doubt", "ended"]
UnitKind = Literal["model", "tool"]
UnitState = Literal["begun", "done", "failed", "in_doubt"]
Effect = Literal["pure", "idempotent", "once", "reconcile"]


def tokens_in(chars: int) -> int:
    """Tokens that ``chars`` characters are thought to be, rounded up."""
    return -(-chars // CHARS_PER_TOKEN)


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """
    An earlier turn of a conversation, as the next one is given it.

    Attributes:
        message: What was asked.
        reply: What was answered.
        format: Which adapter wrote ``messages``.
        messages: The turn's messages as that adapter encoded them, tool calls included; None where only the plain
            exchange is left, or fits into the window.
    """

    message: str
    reply: str
    format: str
    messages: bytes | None


class NewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is asked, as a store accepts it.

    Attributes:
        streams: Whether somebody watches the answer arrive.
        key: The caller's idempotency key; None where the turn cannot be asked for again.
        digest: Of everything that the same key must come with.
        webhook: Where to tell that it has ended; None for nowhere.
        waits: Whether it may wait for an earlier turn of its session.
        owner: The replica that runs it.
        accepted_ns: Wall-clock nanoseconds.
    """

    principal: str
    session_id: str
    agent: str
    trace_id: str
    request_id: str
    source_ip: str
    message: str
    owner: str
    accepted_ns: int
    streams: bool = False
    key: str | None = None
    digest: bytes = b""
    webhook: str | None = None
    waits: bool = True


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a turn ended, as it is stored.

    Attributes:
        error: An error code, or None.
        detail: What the caller is told of the error.
        model: The model that was asked last, or None.
        via: The model that answered in place of the one that was meant to, or None.
        because: The class of failure that made it so, or None.
        messages: What the next turn is given; None where the turn did not succeed.
        tokens: What ``messages`` is thought to take in a window.
        duration_ns: From its acceptance.
    """

    outcome: Outcome
    reply: str = ""
    error: str | None = None
    detail: str = ""
    usage: Usage = Usage()
    model: str | None = None
    via: str | None = None
    because: str | None = None
    format: str = ""
    messages: bytes | None = None
    tokens: int = 0
    duration_ns: int = 0


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    A turn, as it is stored.

    Attributes:
        turn_id: ``conversation_id`` and ``number``, joined by a dash.
        conversation_id: Names the conversation among all.
        number: Counts the conversation's turns from 1.
        started_ns: When it was accepted, in wall-clock nanoseconds.
        state: Where it is in its life; ``in_doubt`` waits for somebody to say what happened.
        owner: The replica that runs it; None where it is free to be claimed, in doubt or over.
        generation: Counts its owners from 1.
        cancelled: Whether somebody asked for it to be stopped.
        ending: How it ended; None until then.
    """

    turn_id: str
    conversation_id: str
    number: int
    principal: str
    session_id: str
    agent: str
    trace_id: str
    request_id: str
    source_ip: str
    message: str
    started_ns: int
    streams: bool = False
    key: str | None = None
    digest: bytes = b""
    webhook: str | None = None
    state: TurnState = "queued"
    owner: str | None = None
    generation: int = 1
    cancelled: bool = False
    ending: Ending | None = None


class Accepted(NamedTuple):
    """
    A turn that is kept, and so will end.

    Attributes:
        turn: As it is stored now.
        again: Whether it was accepted before, under the same key; nothing was kept then.
        past: The earlier turns that fit into the window, oldest first; None where it has to wait for one of them, or
            was accepted before.
    """

    turn: TurnRecord
    again: bool
    past: tuple[Past, ...] | None


class Claim(NamedTuple):
    """By what right a turn is written: who owns it, for the how-manieth time it is owned."""

    turn_id: str
    owner: str
    generation: int


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """
    One attempt at a model or tool call of a turn.

    Attributes:
        kind: ``model`` or ``tool``.
        key: Names the call within the turn.
        attempt: Counts the attempts at the call from 1.
        name: The model or the tool.
        effect: What may be done when its outcome is not known.
        digest: Of the request: the same call has the same one whenever the turn is run.
        args: The request as JSON, for whoever has to find out what happened; None for a model call.
        state: How it is.
        result: What it returned, as its adapter encoded it; None until it is done.
        failure: What it raised, as its adapter encoded it; None unless it failed.
        begun_ns: When it was sent, in wall-clock nanoseconds.
        ended_ns: When it ended; None where nobody knows.
    """

    kind: UnitKind
    key: str
    attempt: int
    name: str
    effect: Effect
    digest: bytes
    begun_ns: int
    args: bytes | None = None
    state: UnitState = "begun"
    result: bytes | None = None
    failure: bytes | None = None
    usage: Usage = Usage()
    ended_ns: int | None = None


class Said(NamedTuple):
    """
    Some of a turn's events, in order.

    Attributes:
        last: The number of the last of them.
        events: JSON: an array of arrays of number, name and data.
    """

    last: int
    events: bytes


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A session in a listing. Times are wall-clock nanoseconds."""

    session_id: str
    turns: int
    created_ns: int
    updated_ns: int


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """
    An API key as it is kept: only its digest, never the key.

    Attributes:
        id: Public name of the key, part of the key itself.
        principal: Whom its bearer is.
        scopes: What it allows besides chatting as its principal.
        digest: SHA-256 of the secret.
        expires_ns: Wall-clock nanoseconds after which it is refused; None never expires.
        revoked_ns: When it was revoked; None while it is good.
    """

    id: str
    principal: str
    scopes: tuple[str, ...]
    digest: bytes
    created_ns: int
    expires_ns: int | None = None
    revoked_ns: int | None = None


def new_conversation_id(accepted_ns: int) -> str:
    """
    An id that nobody can guess, for a conversation that begins at ``accepted_ns`` on the wall clock.

    It begins with the time, so that what is written together lies together in the store's indexes.
    """
    return f"{accepted_ns >> 20 & 0xFF_FFFF_FFFF:010x}{token_hex(6)}"


def fit_window(newest_first: Iterable[tuple[Past, int]], window_tokens: int) -> tuple[Past, ...]:
    """
    The turns that fit into ``window_tokens``, oldest first. The iterable gives each turn and its tokens.

    Turns are taken whole, so that no tool result is parted from its call. One that is too large keeps its plain
    exchange if that fits; the first that does not fit either ends the window. A window of 0 holds nothing.
    """
    kept: list[Past] = []
    left = window_tokens
    for past, tokens in newest_first:
        if left <= 0:
            break
        plain = tokens_in(len(past.message) + len(past.reply))
        if past.messages is not None and tokens <= left:
            kept.append(past)
            left -= tokens
        elif plain <= left:
            kept.append(msgspec.structs.replace(past, messages=None))
            left -= plain
        else:
            break
    return tuple(reversed(kept))


def check_unicode(*texts: str | None) -> None:
    """
    Make sure that ``texts`` can be kept.

    Raises:
        Unprocessable: one of them holds half a surrogate pair, as a terminal or a careless JSON parser may make.
    """
    try:
        for text in texts:
            if text is not None:
                text.encode()
    except UnicodeEncodeError as error:
        raise Unprocessable(NOT_UNICODE) from error
