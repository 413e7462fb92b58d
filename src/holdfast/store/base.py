"""What is kept between turns, and the one Protocol every store fulfils."""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from holdfast.errors import Unprocessable
from holdfast.events import Outcome, Usage

NOT_UNICODE = "a text holds half a surrogate pair, which is not Unicode and cannot be kept"

CHARS_PER_TOKEN = 4
"""Characters that count as one token where nobody has counted: the rule of thumb providers give for English text."""


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


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """
    One session of one principal.

    Attributes:
        id: Names it among all; turn ids begin with it.
        turns: How many turns it has had; the next one is ``turns + 1``.
        past: The earlier turns that fit into the window asked for, oldest first.
    """

    id: str
    turns: int
    past: tuple[Past, ...]


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    A turn that is over, as it is stored.

    Attributes:
        turn_id: ``conversation_id`` and ``number``, joined by a dash.
        number: Counts the conversation's turns from 1.
        messages: What the next turn is given; None where the turn did not succeed.
        tokens: What ``messages`` is thought to take in a window.
        started_ns: Wall-clock nanoseconds.
        error: An error code, or None.
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
    reply: str
    outcome: Outcome
    error: str | None
    usage: Usage
    format: str
    messages: bytes | None
    tokens: int
    started_ns: int
    duration_ns: int


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


class Store(Protocol):
    """
    Where conversations and keys are kept.

    Every method raises ``StoreUnavailable`` when the store does not answer; nothing is half-written then. One that is
    handed text that is not Unicode raises ``Unprocessable``; nothing was kept then either. A caller that is cancelled
    while it waits harms nobody else; what it asked for may have been done.
    """

    async def open(self) -> None:
        """Make the store ready, bringing its tables up to date."""

    async def close(self) -> None:
        """Finish what was begun and let go of the store. Closing twice is fine."""

    async def ping(self) -> None:
        """Return once the store has answered."""

    async def recall(self, principal: str, session_id: str, window_tokens: int) -> Conversation:
        """
        The conversation of this principal and session, with the turns that fit into the window.

        A new one is given an id of its own, and is kept once its first turn is recorded.
        """

    async def record(self, turn: TurnRecord) -> None:
        """
        Keep a finished turn.

        Raises:
            StoreUnavailable: also where the turn does not follow the last one stored: somebody else recorded it, or
                deleted the session while it ran. Nothing was kept.
        """

    async def sessions(self, principal: str, limit: int, before: tuple[int, str] | None) -> list[SessionSummary]:
        """
        The principal's sessions, latest first, at most ``limit``.

        ``before`` is the update time and id of the last one seen, and None starts at the latest.
        """

    async def turns(self, principal: str, session_id: str, limit: int, before: int | None) -> list[TurnRecord] | None:
        """The session's turns, latest first, numbered below ``before``; None where there is no such session."""

    async def forget(self, principal: str, session_id: str) -> bool:
        """Delete the session with its turns. False where there is no such session."""

    async def add_key(self, key: StoredKey) -> None:
        """Keep a new API key. Where its id is known already, the key there stays as it is."""

    async def keys(self) -> list[StoredKey]:
        """Every API key, oldest first, revoked and expired ones too."""

    async def revoke_key(self, key_id: str, now_ns: int) -> bool:
        """Revoke a key; False where there is no such key. Revoking twice keeps the first time."""


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
