"""What was spent, for the store that forgets at exit."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from holdfast.clock import NS, Clock
from holdfast.store.accounts import Account, Cap, Hold, Settled, Standing


class _Held(NamedTuple):
    hold: Hold
    accounts: tuple[Account, ...]
    since_ns: int


class MemoryAccounts:
    """The part of ``MemoryStore`` that keeps accounts. The store sets ``_clock`` and ``_beats``."""

    _clock: Clock
    _beats: dict[str, int]

    def __init__(self) -> None:
        self._accounts: dict[Account, Standing] = {}
        self._holds: dict[str, _Held] = {}

    async def reserve(self, hold: Hold, caps: Sequence[Cap]) -> tuple[bool, tuple[Standing, ...]]:
        """See ``Store.reserve``."""
        fits = hold.id in self._holds
        if not fits and all(self._standing(cap.account).fits(cap, hold) for cap in caps):
            fits = True
            accounts = tuple(cap.account for cap in caps)
            self._holds[hold.id] = _Held(hold, accounts, self._clock.wall_ns())
            self._add(accounts, held_tokens=hold.tokens, held_nanos=hold.nanos)
        return fits, tuple(self._standing(cap.account) for cap in caps)

    async def settle(self, settled: Sequence[Settled]) -> None:
        """See ``Store.settle``."""
        for one in settled:
            self._settle(one)

    async def write_off(self, lease_s: float) -> list[Hold]:
        """See ``Store.write_off``."""
        oldest_ns = self._clock.wall_ns() - round(lease_s * NS)
        lost = [
            held.hold
            for held in self._holds.values()
            if held.since_ns < oldest_ns and self._beats.get(held.hold.replica, 0) < oldest_ns
        ]
        for hold in lost:
            self._settle(Settled(hold.id, hold.tokens, hold.nanos))
        return lost

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        """See ``Store.standings``."""
        return [self._standing(account) for account in accounts]

    async def find_accounts(self, periods: Collection[str], limit: int, after: Account | None) -> list[Standing]:
        """See ``Store.find_accounts``."""
        found = sorted(
            standing
            for account, standing in self._accounts.items()
            if account.period in periods and (after is None or account > after)
        )
        return found[:limit]

    async def forget_accounts(self, before: str) -> None:
        """See ``Store.forget_accounts``."""
        held = {account for hold in self._holds.values() for account in hold.accounts}
        for account in [one for one in self._accounts if "" < one.period < before and one not in held]:
            del self._accounts[account]

    def forget_session_account(self, conversation_id: str) -> None:
        """A session is deleted, and so is what it spent."""
        self._accounts.pop(Account("session", conversation_id, ""), None)

    def _standing(self, account: Account) -> Standing:
        return self._accounts.get(account, Standing(account))

    def _settle(self, one: Settled) -> None:
        held = self._holds.pop(one.id, None)
        if held is not None:
            hold = held.hold
            known = [account for account in held.accounts if account in self._accounts]
            self._add(known, one.tokens, one.nanos, held_tokens=-hold.tokens, held_nanos=-hold.nanos)

    def _add(
        self, accounts: Sequence[Account], tokens: int = 0, nanos: int = 0, *, held_tokens: int, held_nanos: int
    ) -> None:
        for account in accounts:
            now = self._standing(account)
            self._accounts[account] = Standing(
                account,
                now.tokens + tokens,
                now.nanos + nanos,
                now.held_tokens + held_tokens,
                now.held_nanos + held_nanos,
            )
