"""What a store keeps of spending: accounts of who spent how much in which period, and what is held on them."""

from typing import Literal, NamedTuple

Scope = Literal["session", "user", "agent", "all"]


class Account(NamedTuple):
    """
    What is spent by somebody in one period.

    Attributes:
        scope: Whether it is that of a session, a user, an agent, or everybody.
        name: Of the conversation, the user or the agent; empty for everybody.
        period: A day as ``2026-11-20``, a month as ``2026-11``, or empty for as long as there is the session.
    """

    scope: Scope
    name: str
    period: str


class Cap(NamedTuple):
    """How much an account may reach, in tokens and in nano-dollars; None is no limit."""

    account: Account
    tokens: int | None
    nanos: int | None


class Hold(NamedTuple):
    """
    What a model call may use, held until it is known what it did.

    Attributes:
        id: Names the hold among all.
        turn_id: Whose call it is.
        replica: Who makes it. Where that one is dead, all of it counts as spent.
        tokens, nanos: How much.
    """

    id: str
    turn_id: str
    replica: str
    tokens: int
    nanos: int


class Settled(NamedTuple):
    """What a call used, by its hold."""

    id: str
    tokens: int
    nanos: int


class Standing(NamedTuple):
    """
    How an account stands.

    Attributes:
        tokens, nanos: What was spent.
        held_tokens, held_nanos: What is held besides, by calls under way.
    """

    account: Account
    tokens: int = 0
    nanos: int = 0
    held_tokens: int = 0
    held_nanos: int = 0

    def fits(self, cap: Cap, hold: Hold) -> bool:
        """Whether ``hold`` has room on the account as it stands."""
        return _fits(cap.tokens, self.tokens + self.held_tokens + hold.tokens) and _fits(
            cap.nanos, self.nanos + self.held_nanos + hold.nanos
        )


def _fits(cap: int | None, total: int) -> bool:
    return cap is None or total <= cap
