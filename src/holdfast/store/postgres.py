"""
The store that several servers share: a schema in PostgreSQL 14 or later.

Every write is one statement, which checks its owner's claim and says what time it is by the server's clock alone.
"""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from holdfast.clock import NS, Clock, token_hex
from holdfast.errors import KeyReused, NotOwner, SessionBusy, StoreUnavailable
from holdfast.store.base import Hear
from holdfast.store.postgres_accounts import PostgresAccounts
from holdfast.store.postgres_copy import dump, put_back
from holdfast.store.postgres_link import ANSWER_S, OPEN_S, Link
from holdfast.store.postgres_notes import PostgresNotes
from holdfast.store.postgres_schema import complaints, migrate
from holdfast.store.postgres_url import address
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
    fit_window,
    new_conversation_id,
)
from holdfast.store.sqlite_rows import (
    NOWHERE,
    ending_row,
    key_of,
    key_row,
    new_turn,
    newest_first,
    turn_record,
    unit_of,
    unit_row,
)

CHECK_S = 3600.0
"""Seconds that looking over everything may take."""

UNSURE_S = 3 * ANSWER_S
"""Seconds after which a statement whose answer was lost is done or will never be."""

_LATEST = (2**63 - 1, "")
_MOST = 2**62
"""Nanoseconds of the longest lease: about 146 years, as the sum with the time of day has to be held as well."""


class PostgresStore(PostgresAccounts, PostgresNotes):
    """
    Keeps everything in the PostgreSQL database at ``url``, in the schema ``holdfast`` or the one that a
    ``search_path`` in the address names.

    The first process makes the schema, and so needs the right to. What a commit survives is for the server to say: its
    ``synchronous_commit`` stays as it is. Where a connection is lost, nobody knows whether the statement under way on
    it was done. Then ``start``, ``put_unit``, ``end_turn``, ``suspend``, ``cancel``, ``beat``, ``leave``,
    ``add_key``, ``revoke_key``, ``reserve``, ``settle``, ``write_off`` and everything that only reads are tried once
    more, on another connection, as doing them twice does no harm; where that is lost too, ``StoreUnavailable`` says
    that they may have been done, and asking
    again for an ending that was kept raises ``NotOwner``. The others raise ``StoreUnavailable`` and may have been done:

    - ``accept`` and ``claim``: turns that were given to this replica after all are released by its next ``beat``, so
      that somebody runs them. Who asks again with the same idempotency key is given the turn that was kept.
    - ``resolve``, ``forget``: asked again, they say that there is nothing left to do.
    - ``take_webhooks``, ``webhook_told``, ``purge``: a webhook may be due once more, or counted twice; the rest is
      purged the next time.

    Args:
        url: ``postgresql://user@host:5432/database``. It may hold a password, and is never shown.
        pool_size: Connections to ask on, at most; one more hears what other replicas did.
        clock: Where chance comes from; None takes the machine's.

    Raises:
        Misconfigured: the address is none.
    """

    lasts = True

    def __init__(self, url: str, pool_size: int = 8, clock: Clock | None = None) -> None:
        self._address = address(url)
        self._link = Link(self._address, pool_size, clock or Clock(), self._told)
        self._hear: Hear | None = None
        self._unsure: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"PostgresStore(schema={self._address.schema!r})"

    async def open(self) -> None:
        """
        See ``Store.open``. Several replicas may open it at once.

        Raises:
            Misconfigured: the address is none, the server refuses us, or the tables are a newer version's.
        """
        await self._link.open()

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._link.close()

    async def ping(self) -> None:
        """See ``Store.ping``."""
        await self._ask("ping")

    async def migrate(self) -> tuple[int, int]:
        """
        Bring the tables up to date; it need not be open.

        Returns:
            The version they had, 0 where there were none, and the one they have now.

        Raises:
            Misconfigured: as for ``open``.
        """
        async with self._link.alone(OPEN_S) as connection:
            return await migrate(connection, self._address.schema)

    async def check(self) -> list[str]:
        """What is wrong with what is kept, a sentence each; nothing where all is well. Nobody else waits."""
        async with self._link.alone(CHECK_S) as connection:
            return await complaints(connection)

    async def backup(self, path: str | Path) -> None:
        """
        Copy everything to ``path`` as it is at one moment, by ``pg_dump``. Nobody else waits; it need not be open.

        Raises:
            Misconfigured: there is a file at ``path`` already, or there is no ``pg_dump``. Nothing was written.
            StoreUnavailable: it could not be copied; nothing is left at ``path``.
        """
        await dump(self._address, Path(path))

    async def restore(self, path: str | Path, aside: str | None) -> bool:
        """
        Put a copy in place of what is there, by ``pg_restore``. No server may be running.

        Args:
            path: A file that ``backup`` has made.
            aside: What the schema that is there is called from now on; None refuses to replace one that holds
                anything.

        Returns:
            Whether there was anything that was kept aside.

        Raises:
            Misconfigured: a server is running, the schema holds something, or ``path`` is no such copy.
            StoreUnavailable: ``pg_restore`` failed. In either case what was there is there.
        """
        async with self._link.alone(CHECK_S) as connection:
            return await put_back(connection, self._address, Path(path), aside)

    def listen(self, hear: Hear | None) -> None:
        """See ``Store.listen``."""
        self._hear = hear

    async def accept(self, turn: NewTurn, window_tokens: int) -> Accepted:
        """See ``Store.accept``."""
        ticket = token_hex(8)
        values = (
            new_conversation_id(turn.accepted_ns),
            turn.principal,
            turn.session_id,
            turn.agent,
            turn.trace_id,
            turn.request_id,
            turn.source_ip,
            turn.message,
            turn.owner,
            ticket,
            turn.accepted_ns,
            turn.streams,
            turn.key,
            turn.digest,
            turn.webhook,
            turn.waits,
            window_tokens,
        )
        rows = await self._ask_for_turns("accept", ticket, *values)
        verdict, conversation_id, number = rows[0][:3]
        match verdict:
            case "again":
                kept = await self.turn(f"{conversation_id}-{number}")
                if kept is None:
                    raise StoreUnavailable("the turn with this idempotency key was deleted while it was looked for")
                return Accepted(kept, again=True, past=None)
            case "key_reused":
                raise KeyReused(f"the idempotency key {turn.key} was used with another request")
            case "session_busy":
                raise SessionBusy(f"a turn of the session {turn.session_id} has not ended")
        kept = new_turn(turn, (conversation_id, number), verdict)
        return Accepted(kept, again=False, past=_past(rows, window_tokens) if verdict == "running" else None)

    async def start(self, claim: Claim, window_tokens: int) -> tuple[Past, ...] | None:
        """See ``Store.start``."""
        rows = await self._ask("start", *claim, window_tokens)
        verdict = rows[0][0]
        if verdict == "not_owner":
            raise _not_owner(claim)
        return _past(rows, window_tokens) if verdict == "running" else None

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        """See ``Store.put_unit``."""
        rows = await self._ask("put_unit", *claim, *(said or (None, None)), *unit_row(NOWHERE, unit)[2:])
        if not rows:
            raise _not_owner(claim)
        return bool(rows[0][0])

    async def end_turn(self, claim: Claim, ending: Ending, said: Said | None = None) -> None:
        """See ``Store.end_turn``."""
        await self._write("end_turn", claim, said, ending_row(ending, 0)[2:])

    async def suspend(self, claim: Claim, unit: Unit | None = None, said: Said | None = None) -> None:
        """See ``Store.suspend``."""
        if unit is None:
            await self._write("suspend", claim, said, ())
        else:
            doubtful = msgspec.structs.replace(unit, state="in_doubt")
            await self._write("suspend_in_doubt", claim, said, unit_row(NOWHERE, doubtful)[2:])

    async def turn(self, turn_id: str) -> TurnRecord | None:
        """See ``Store.turn``."""
        rows = await self._ask("turn", turn_id)
        return turn_record(rows[0]) if rows else None

    async def find_turns(
        self, principal: str | None, states: Collection[TurnState], limit: int, before: tuple[int, str] | None
    ) -> list[TurnRecord]:
        """See ``Store.find_turns``."""
        asked = sorted(set(states))
        values = (*asked, *[""] * (4 - len(asked)), *(before or _LATEST), limit)
        if principal is None:
            return [turn_record(row) for row in await self._ask("find_turns", *values)]
        return [turn_record(row) for row in await self._ask("find_turns_of", *values, principal)]

    async def units(self, turn_id: str) -> list[Unit]:
        """See ``Store.units``."""
        return [unit_of(row) for row in await self._ask("units", turn_id)]

    async def said(self, turn_id: str, after: int) -> list[Said]:
        """See ``Store.said``."""
        return [Said(last, events) for last, events in await self._ask("said", turn_id, after)]

    async def cancel(self, turn_id: str) -> bool:
        """See ``Store.cancel``."""
        return bool(await self._ask("cancel", turn_id))

    async def resolve(self, turn_id: str, kind: UnitKind, key: str, result: bytes | None, now_ns: int) -> bool:
        """See ``Store.resolve``."""
        return bool((await self._ask_once("resolve", turn_id, kind, key, result, now_ns))[0][0])

    async def beat(self, replica: str) -> list[str]:
        """See ``Store.beat``. Releases what this replica was given by statements whose answer was lost."""
        to_stop = [turn_id for (turn_id,) in await self._ask("beat", replica)]
        if self._unsure:
            now = asyncio.get_running_loop().time()
            await self._ask("disown", " ".join(self._unsure))
            self._unsure = {ticket: until for ticket, until in self._unsure.items() if until > now}
        return to_stop

    async def claim(self, replica: str, agents: Collection[str], lease_s: float, limit: int) -> list[TurnRecord]:
        """See ``Store.claim``."""
        ticket = token_hex(8)
        rows = await self._ask_for_turns("claim", ticket, replica, _ns(lease_s), limit, ticket, list(agents))
        return sorted((turn_record(row) for row in rows), key=lambda turn: (turn.started_ns, turn.turn_id))

    async def leave(self, replica: str) -> None:
        """See ``Store.leave``."""
        await self._ask("leave", replica)

    async def take_webhooks(self, limit: int, lease_s: float) -> list[tuple[TurnRecord, int]]:
        """See ``Store.take_webhooks``."""
        rows = await self._ask_once("take_webhooks", limit, _ns(lease_s))
        return [(turn_record(row[:-1]), row[-1]) for row in map(tuple, rows)]

    async def webhook_told(self, turn_id: str, again_in_s: float | None) -> None:
        """See ``Store.webhook_told``."""
        await self._ask_once("webhook_told", turn_id, None if again_in_s is None else _ns(again_in_s))

    async def sessions(self, principal: str, limit: int, before: tuple[int, str] | None) -> list[SessionSummary]:
        """See ``Store.sessions``."""
        return [
            SessionSummary(session_id=name, turns=turns, created_ns=created, updated_ns=updated)
            for name, turns, created, updated in await self._ask("sessions", principal, *(before or _LATEST), limit)
        ]

    async def turns(self, principal: str, session_id: str, limit: int, before: int | None) -> list[TurnRecord] | None:
        """See ``Store.turns``."""
        rows = await self._ask("turns", principal, session_id, _LATEST[0] if before is None else before, limit)
        return [turn_record(row) for row in rows if row[0] is not None] if rows else None

    async def forget(self, principal: str, session_id: str) -> bool:
        """See ``Store.forget``."""
        verdict = (await self._ask_once("forget", principal, session_id))[0][0]
        if verdict == "session_busy":
            raise SessionBusy(f"a turn of the session {session_id} has not ended")
        return bool(verdict == "forgotten")

    async def purge(self, before_ns: int, limit: int) -> int:
        """See ``Store.purge``."""
        return len(await self._ask_once("purge", before_ns, limit))

    async def add_key(self, key: StoredKey) -> None:
        """See ``Store.add_key``."""
        await self._ask("add_key", *key_row(key))

    async def keys(self) -> list[StoredKey]:
        """See ``Store.keys``."""
        return [key_of(row) for row in await self._ask("keys")]

    async def revoke_key(self, key_id: str, now_ns: int) -> bool:
        """See ``Store.revoke_key``."""
        return bool(await self._ask("revoke_key", now_ns, key_id))

    async def _ask(self, name: str, *values: object) -> list[Any]:
        return await self._link.ask(name, values, values)

    async def _ask_once(self, name: str, *values: object) -> list[Any]:
        return await self._link.ask(name, values, None)

    async def _ask_for_turns(self, name: str, ticket: str, *values: object) -> list[Any]:
        try:
            return await self._ask_once(name, *values)
        except BaseException:  # Also where our caller goes away: a turn must not be owned by who does not know of it.
            self._unsure[ticket] = asyncio.get_running_loop().time() + UNSURE_S
            raise

    async def _write(self, name: str, claim: Claim, said: Said | None, values: tuple[object, ...]) -> None:
        fenced = (*claim, *(said or (None, None)))
        if not await self._link.ask(name, (*fenced, False, *values), (*fenced, True, *values)):
            raise _not_owner(claim)

    def _told(self, what: Any, turn_id: str) -> None:
        if self._hear is not None:
            self._hear(what, turn_id)


def _not_owner(claim: Claim) -> NotOwner:
    return NotOwner(f"turn {claim.turn_id} is not owned by {claim.owner} for the time {claim.generation}")


def _past(rows: list[Any], window_tokens: int) -> tuple[Past, ...]:
    return fit_window(
        newest_first(row for row in (tuple(row)[3:] for row in rows) if row[0] is not None), window_tokens
    )


def _ns(seconds: float) -> int:
    return min(round(seconds * NS), _MOST)
