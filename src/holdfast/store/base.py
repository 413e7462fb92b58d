"""The one Protocol every store fulfils."""

from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol

from holdfast.store.accounts import Account, Cap, Hold, Settled, Standing
from holdfast.store.notes import Note, NoteKind
from holdfast.store.records import (
    Accepted,
    Claim,
    Ending,
    NewTurn,
    Past,
    Said,
    SessionSummary,
    StoredKey,
    TurnRecord,
    TurnState,
    Unit,
    UnitKind,
)

Heard = Literal["ended", "released", "cancelled"]
Hear = Callable[[Heard, str], None]
"""Told what happened to which turn, on the event loop. Never blocks and never raises."""


class Store(Protocol):
    """
    Where turns, conversations and keys are kept.

    Every method raises ``StoreUnavailable`` when the store does not answer; nothing is half-written then. One that is
    handed text that is not Unicode raises ``Unprocessable``; nothing was kept then either. A caller that is cancelled
    while it waits harms nobody else; what it asked for may have been done.

    Whoever writes a turn hands in its ``Claim``. Where another replica owns the turn by now, or it has ended, nothing
    is written, and ``NotOwner`` is raised.

    Attributes:
        lasts: Whether what it keeps outlives the process.
    """

    lasts: bool

    async def open(self) -> None:
        """Make the store ready, bringing its tables up to date."""

    async def close(self) -> None:
        """Finish what was begun and let go of the store. Closing twice is fine."""

    async def ping(self) -> None:
        """Return once the store has answered."""

    def listen(self, hear: Hear | None) -> None:
        """
        Tell ``hear`` from now on of turns that ended, were released, or are to be cancelled; None tells nobody.

        Some may be missed, as when a connection breaks, and those that another process wrote into a file always are.
        """

    # Turns, by whoever runs them.

    async def accept(self, turn: NewTurn, window_tokens: int) -> Accepted:
        """
        Keep a new turn, after the last one of its session; its conversation is made with the first one.

        One that is kept, though its caller waits no more, is released when its owner beats next.

        One that need not wait is ``running``, and another one ``queued``; ``owner`` owns both.

        Raises:
            KeyReused: the principal has used the key with another digest. Nothing was kept.
            SessionBusy: an earlier turn of the session has not ended, and this one does not wait. Nothing was kept.
        """

    async def start(self, claim: Claim, window_tokens: int) -> tuple[Past, ...] | None:
        """
        The past of an owned turn, which is ``running`` from now on; None, and still ``queued``, while an earlier turn
        of its session has not ended.

        Raises:
            NotOwner
        """

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        """
        Keep a unit as it is now, whether or not this attempt is known, and events with it.

        Returns:
            Whether somebody asked for the turn to be stopped.

        Raises:
            NotOwner
        """

    async def end_turn(self, claim: Claim, ending: Ending, said: Said | None = None) -> None:
        """
        Keep how an owned turn ended, and events with it. Units that are still ``begun`` are ``failed`` from now on
        where they are pure or a model's, and otherwise ``in_doubt``. A turn's webhook is due now.

        Raises:
            NotOwner
        """

    async def suspend(self, claim: Claim, unit: Unit | None = None, said: Said | None = None) -> None:
        """
        Give up an owned turn: it is ``queued``, and anybody may claim it; with ``unit``, it and that unit of it are
        ``in_doubt``.

        Raises:
            NotOwner
        """

    # Turns, for whoever asks.

    async def turn(self, turn_id: str) -> TurnRecord | None:
        """The turn with this id, or None."""

    async def find_turns(
        self,
        principal: str | None,
        states: Collection[TurnState],
        limit: int,
        before: tuple[int, str] | None,
    ) -> list[TurnRecord]:
        """
        Turns in one of ``states``, latest accepted first, of everybody where ``principal`` is None; without messages.

        ``before`` is the acceptance time and id of the last one seen, and None starts at the latest.
        """

    async def units(self, turn_id: str) -> list[Unit]:
        """The turn's units in the order in which they began."""

    async def said(self, turn_id: str, after: int) -> list[Said]:
        """What was kept of the turn's events, in order, beginning with the part that holds the one after ``after``."""

    async def cancel(self, turn_id: str) -> bool:
        """Ask for a turn to be stopped; one in doubt can be claimed from now on. False where it has ended or is not."""

    async def resolve(self, turn_id: str, kind: UnitKind, key: str, result: bytes | None, now_ns: int) -> bool:
        """
        Say what became of a unit in doubt: it is ``done`` with ``result``, or ``failed`` with None: it did not happen.

        A turn in doubt with no further unit in doubt is ``queued``, and can be claimed. False where no such unit is in
        doubt.
        """

    # Replicas.

    async def beat(self, replica: str) -> list[str]:
        """
        Say that this replica lives, by the store's clock.

        Returns:
            Which of its turns are to be stopped, for who was not told so.
        """

    async def claim(self, replica: str, agents: Collection[str], lease_s: float, limit: int) -> list[TurnRecord]:
        """
        Take over turns of ``agents`` that nobody owns, or whose owner, another replica, beat more than ``lease_s`` ago.

        Each is taken by one replica only, with the next generation. The oldest ones first, at most ``limit``. One in
        doubt is taken only if it is to be cancelled, and one that is to be cancelled whoever its agent is. Beats of the
        dead are forgotten.
        """

    async def leave(self, replica: str) -> None:
        """Say that this replica is going: what it still owns can be claimed."""

    # Webhooks of turns that ended.

    async def take_webhooks(self, limit: int, lease_s: float) -> list[tuple[TurnRecord, int]]:
        """Turns whose webhook is due, and how often it was tried; they are due again after ``lease_s`` seconds."""

    async def webhook_told(self, turn_id: str, again_in_s: float | None) -> None:
        """A webhook was tried: it is due again after so many seconds, or no more where None."""

    # Conversations.

    async def sessions(self, principal: str, limit: int, before: tuple[int, str] | None) -> list[SessionSummary]:
        """
        The principal's sessions, latest first, at most ``limit``.

        ``before`` is the update time and id of the last one seen, and None starts at the latest.
        """

    async def turns(self, principal: str, session_id: str, limit: int, before: int | None) -> list[TurnRecord] | None:
        """
        The session's turns, latest first, numbered below ``before``; None where there is no such session.

        They come without ``messages``, which may be large.
        """

    async def forget(self, principal: str, session_id: str) -> bool:
        """
        Delete the session with its turns. False where there is no such session.

        Raises:
            SessionBusy: one of its turns has not ended. Nothing was deleted.
        """

    async def purge(self, before_ns: int, limit: int) -> int:
        """
        Forget units, events and keys of turns that ended before that wall-clock moment, of at most ``limit`` turns.

        Returns:
            How many turns were purged. The turns themselves stay until their session is deleted.
        """

    # What was spent.

    async def reserve(self, hold: Hold, caps: Sequence[Cap]) -> tuple[bool, tuple[Standing, ...]]:
        """
        Hold what a call may use on the accounts of all ``caps``, if it has room on each; else on none.

        Asked again with the id of a hold that there is, it holds nothing more.

        Returns:
            Whether it is held, and how the accounts stand now, in the order of ``caps``.
        """

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Count what calls used as spent, in place of what they held. A hold that is no more is left out."""

    async def write_off(self, lease_s: float) -> list[Hold]:
        """
        Count as spent all of what is held by replicas whose last beat is more than ``lease_s`` ago.

        What was held since is left alone: a replica may hold before its first beat.

        Returns:
            What was written off.
        """

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        """How these accounts stand, in their order; nothing was spent on one that is not known."""

    async def find_accounts(self, periods: Collection[str], limit: int, after: Account | None) -> list[Standing]:
        """Known accounts with one of ``periods``, at most ``limit``, by scope, name and period, after ``after``."""

    async def forget_accounts(self, before: str) -> None:
        """Forget days and months before that one, unless anything is held on them."""

    # Notes.

    async def note(self, notes: Sequence[Note]) -> None:
        """Keep notes; of those of one kind about one thing, the newest ``KEPT_NOTES``."""

    async def notes(self, kind: NoteKind, about: str) -> list[Note]:
        """Notes of one kind about one thing, newest first. Those about a conversation go when it is deleted."""

    async def forget_notes(self, kind: NoteKind, about: str) -> bool:
        """Forget notes of one kind about one thing. False where there are none."""

    # API keys.

    async def add_key(self, key: StoredKey) -> None:
        """Keep a new API key. Where its id is known already, the key there stays as it is."""

    async def keys(self) -> list[StoredKey]:
        """Every API key, oldest first, revoked and expired ones too."""

    async def revoke_key(self, key_id: str, now_ns: int) -> bool:
        """Revoke a key; False where there is no such key. Revoking twice keeps the first time."""
