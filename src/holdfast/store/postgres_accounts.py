"""What was spent, in PostgreSQL: every change is one statement, which locks the accounts in their order."""

from collections.abc import Collection, Sequence
from typing import Any

from holdfast.clock import NS
from holdfast.store.accounts import Account, Cap, Hold, Settled, Standing
from holdfast.store.postgres_link import kept

_FIRST = Account("agent", "", "")


class PostgresAccounts:
    """The part of ``PostgresStore`` that keeps accounts. Every statement may be asked twice."""

    async def _ask(self, name: str, *values: object) -> list[Any]:
        raise NotImplementedError

    async def reserve(self, hold: Hold, caps: Sequence[Cap]) -> tuple[bool, tuple[Standing, ...]]:
        """See ``Store.reserve``."""
        accounts = [cap.account for cap in caps]
        limits = [cap.tokens for cap in caps], [cap.nanos for cap in caps]
        rows = await self._ask("reserve", *hold, *_columns(accounts), *limits)
        standings = tuple(Standing(account, *row[1:]) for account, row in zip(accounts, map(tuple, rows), strict=True))
        return bool(rows[0][0]), standings

    async def settle(self, settled: Sequence[Settled]) -> None:
        """See ``Store.settle``."""
        await self._ask("settle", *map(list, zip(*settled, strict=True)))

    async def write_off(self, lease_s: float) -> list[Hold]:
        """See ``Store.write_off``."""
        return [Hold(*row) for row in await self._ask("write_off", min(round(lease_s * NS), 2**62))]

    async def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        """See ``Store.standings``."""
        rows = await self._ask("standings", *_columns(accounts))
        return [Standing(account, *row) for account, row in zip(accounts, rows, strict=True)]

    async def find_accounts(self, periods: Collection[str], limit: int, after: Account | None) -> list[Standing]:
        """See ``Store.find_accounts``."""
        rows = await self._ask("find_accounts", list(periods), *(after or _FIRST), limit)
        return [Standing(Account(*row[:3]), *row[3:]) for row in map(tuple, rows)]

    async def forget_accounts(self, before: str) -> None:
        """See ``Store.forget_accounts``."""
        await self._ask("forget_accounts", before)


def _columns(accounts: Sequence[Account]) -> tuple[list[str], list[str], list[str]]:
    # What is in a list is not encoded for us, as a text by itself is.
    return [one.scope for one in accounts], [kept(one.name) for one in accounts], [one.period for one in accounts]
