"""What was spent, in SQLite: every change is one transaction, and one process writes at a time."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence

import msgspec

from holdfast.clock import NS, Clock
from holdfast.store.accounts import Account, Cap, Hold, Settled, Standing
from holdfast.store.sqlite_file import named_statements
from holdfast.store.worker import Worker

_SQL = named_statements("sqlite_accounts")
_FIRST = Account("agent", "", "")


class SQLiteAccounts:
    """The part of ``SQLiteStore`` that keeps accounts. The store sets ``_clock`` and ``_worker``."""

    _clock: Clock
    _worker: Worker

    async def reserve(self, hold: Hold, caps: Sequence[Cap]) -> tuple[bool, tuple[Standing, ...]]:
        """See ``Store.reserve``."""
        now_ns = self._clock.wall_ns()

        def job(db: sqlite3.Connection) -> tuple[bool, tuple[Standing, ...]]:
            standings = tuple(_standing(db, cap.account) for cap in caps)
            if db.execute(_SQL["known_hold"], (hold.id,)).fetchone() is not None:
                return True, standings
            if not all(standing.fits(cap, hold) for standing, cap in zip(standings, caps, strict=True)):
                return False, standings
            accounts = msgspec.json.encode([cap.account for cap in caps]).decode()
            db.execute(_SQL["add_hold"], (*hold, accounts, now_ns))
            db.executemany(_SQL["hold"], [(*cap.account, hold.tokens, hold.nanos) for cap in caps])
            return True, tuple(_standing(db, cap.account) for cap in caps)

        return await self._worker.run(job)

    async def settle(self, settled: Sequence[Settled]) -> None:
        """See ``Store.settle``."""
        await self._worker.run(lambda db: _settle(db, settled))

    async def write_off(self, lease_s: float) -> list[Hold]:
        """See ``Store.write_off``."""
        oldest_ns = self._clock.wall_ns() - round(lease_s * NS)

        def job(db: sqlite3.Connection) -> list[Hold]:
            lost = [Hold(*row) for row in db.execute(_SQL["lost_holds"], (oldest_ns, oldest_ns))]
            _settle(db, [Settled(hold.id, hold.tokens, hold.nanos) for hold in lost])
            return lost

        return await self._worker.run(job)

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        """See ``Store.standings``."""
        return await self._worker.run(lambda db: [_standing(db, account) for account in accounts], writes=False)

    async def find_accounts(self, periods: Collection[str], limit: int, after: Account | None) -> list[Standing]:
        """See ``Store.find_accounts``."""
        values = (msgspec.json.encode(list(periods)).decode(), *(after or _FIRST), limit)
        return await self._worker.run(
            lambda db: [_of_row(row) for row in db.execute(_SQL["find_accounts"], values)], writes=False
        )

    async def forget_accounts(self, before: str) -> None:
        """See ``Store.forget_accounts``."""
        await self._worker.run(lambda db: db.execute(_SQL["forget_accounts"], (before,)).rowcount)


def _standing(db: sqlite3.Connection, account: Account) -> Standing:
    row = db.execute(_SQL["standing"], account).fetchone()
    return Standing(account) if row is None else Standing(account, *row)


def _settle(db: sqlite3.Connection, settled: Iterable[Settled]) -> None:
    for one in settled:
        held = db.execute(_SQL["drop_hold"], (one.id,)).fetchone()
        if held is not None:
            tokens, nanos, accounts = held
            rows = [(one.tokens, one.nanos, tokens, nanos, *account) for account in msgspec.json.decode(accounts)]
            db.executemany(_SQL["spend"], rows)


def _of_row(row: tuple[object, ...]) -> Standing:
    scope, name, period, *amounts = row
    return Standing(Account(scope, name, period), *amounts)  # type: ignore[arg-type]  # as the columns are declared
