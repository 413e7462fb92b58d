"""The embedded store: one SQLite file in WAL mode."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from holdfast.clock import NS, Clock
from holdfast.errors import NotOwner, SessionBusy
from holdfast.store.base import Hear, Heard
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
    check_unicode,
    new_conversation_id,
)
from holdfast.store.sqlite_accounts import SQLiteAccounts
from holdfast.store.sqlite_file import Durability, complaints, connect, copy
from holdfast.store.sqlite_notes import SQLiteNotes
from holdfast.store.sqlite_rows import (
    ending_row,
    fence,
    key_of,
    key_row,
    new_turn,
    new_turn_row,
    turn_record,
    unit_of,
    where,
)
from holdfast.store.sqlite_steps import SQL, again, check_owned, is_busy, past_of, put
from holdfast.store.worker import Worker

T = TypeVar("T")

_LATEST = (2**63 - 1, "")


class SQLiteStore(SQLiteAccounts, SQLiteNotes):
    """
    Keeps everything in the SQLite file at ``path``, whose folder is made if missing. Several processes may share it.

    A commit survives the end of the process, however it ends; with the durability ``power`` also a power cut, which
    may otherwise take the last ones with it. ``clock`` says when a beat is too old; None takes the machine's.
    """

    lasts = True

    def __init__(self, path: str | Path, clock: Clock | None = None, durability: Durability = "process") -> None:
        self.path = Path(path)
        self._clock = clock or Clock()
        self._hear: Hear | None = None
        self._unheard: list[Claim] = []
        self._worker = Worker(lambda: connect(self.path, durability))

    async def open(self) -> None:
        """
        See ``Store.open``.

        Raises:
            Misconfigured: the file cannot be used: no permission, not a database, or made by a newer version.
        """
        await self._worker.start()

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._worker.stop()

    async def ping(self) -> None:
        """See ``Store.ping``."""
        await self._fetch("ping")

    async def check(self) -> list[str]:
        """
        What is wrong with the database, a sentence each; nothing where all is well. Nobody else waits, and it need not
        be open.

        Raises:
            StoreUnavailable: there is no such file, or it cannot be opened.
        """
        return await asyncio.to_thread(complaints, self.path)

    async def backup(self, path: str | Path) -> None:
        """
        Copy the database to ``path`` as it is at one moment. Nobody else waits, and it need not be open.

        Raises:
            Misconfigured: there is a file at ``path`` already, or none can be made there. Nothing was written.
            StoreUnavailable: it could not be copied; nothing is left at ``path``.
        """
        await asyncio.to_thread(copy, self.path, Path(path))

    def listen(self, hear: Hear | None) -> None:
        """See ``Store.listen``."""
        self._hear = hear

    async def accept(self, turn: NewTurn, window_tokens: int) -> Accepted:
        """See ``Store.accept``."""

        def job(db: sqlite3.Connection) -> Accepted:
            if turn.key is not None:
                known = db.execute(SQL["turn_by_key"], (turn.principal, turn.key)).fetchone()
                if known is not None:
                    return again(turn, turn_record(known))
            session = db.execute(SQL["find_session"], (turn.principal, turn.session_id)).fetchone()
            if session is None:
                at, busy = (new_conversation_id(turn.accepted_ns), 1), False
                row = (at[0], turn.principal, turn.session_id, turn.accepted_ns, turn.accepted_ns)
                db.execute(SQL["begin_session"], row)
            else:
                at = (session[0], session[1] + 1)
                busy = is_busy(db, at)
                if busy and not turn.waits:
                    raise SessionBusy
                db.execute(SQL["continue_session"], (at[1], turn.accepted_ns, at[0]))
            kept = new_turn(turn, at, "queued" if busy else "running")
            db.execute(SQL["add_turn"], new_turn_row(kept))
            return Accepted(kept, again=False, past=None if busy else past_of(db, at, window_tokens))

        return await self._give(job, lambda accepted: () if accepted.again else (accepted.turn,))

    async def start(self, claim: Claim, window_tokens: int) -> tuple[Past, ...] | None:
        """See ``Store.start``."""

        def job(db: sqlite3.Connection) -> tuple[Past, ...] | None:
            owned = fence(claim)
            at = owned[:2]
            _, state = check_owned(db, owned)
            if is_busy(db, at):
                return None
            if state != "running":
                db.execute(SQL["run"], at)
            return past_of(db, at, window_tokens)

        return await self._worker.run(job)

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        """See ``Store.put_unit``."""

        def job(db: sqlite3.Connection) -> bool:
            owned = fence(claim)
            cancelled, _ = check_owned(db, owned)
            put(db, owned[:2], unit, said)
            return bool(cancelled)

        return await self._worker.run(job)

    async def end_turn(self, claim: Claim, ending: Ending, said: Said | None = None) -> None:
        """See ``Store.end_turn``."""
        now_ns = self._clock.wall_ns()

        def job(db: sqlite3.Connection) -> None:
            owned = fence(claim)
            if not db.execute(SQL["end_turn"], (*ending_row(ending, now_ns), *owned)).rowcount:
                raise NotOwner
            db.execute(SQL["end_units"], owned[:2])
            put(db, owned[:2], None, said)

        await self._worker.run(job, then=lambda _: self._tell(claim.turn_id, "ended"))

    async def suspend(self, claim: Claim, unit: Unit | None = None, said: Said | None = None) -> None:
        """See ``Store.suspend``."""
        doubted = None if unit is None else msgspec.structs.replace(unit, state="in_doubt")
        state: TurnState = "queued" if unit is None else "in_doubt"

        def job(db: sqlite3.Connection) -> tuple[Heard, ...]:
            owned = fence(claim)
            cancelled, _ = check_owned(db, owned)
            db.execute(SQL["give_up"], (state, *owned[:2]))
            put(db, owned[:2], doubted, said)
            return ("released",) if cancelled or unit is None else ()

        await self._worker.run(job, then=lambda news: self._tell(claim.turn_id, *news))

    async def turn(self, turn_id: str) -> TurnRecord | None:
        """See ``Store.turn``."""
        rows = await self._fetch("turn", *where(turn_id))
        return turn_record(rows[0]) if rows else None

    async def find_turns(
        self,
        principal: str | None,
        states: Collection[TurnState],
        limit: int,
        before: tuple[int, str] | None,
    ) -> list[TurnRecord]:
        """See ``Store.find_turns``."""
        wanted = (msgspec.json.encode(list(states)).decode(), *(before or _LATEST), limit)
        if "ended" not in states:
            rows = await self._fetch("find_open", principal, principal, *wanted)
        elif principal is None:
            rows = await self._fetch("find_any", *wanted)
        else:
            rows = await self._fetch("find_any_of", principal, *wanted)
        return [turn_record(row) for row in rows]

    async def units(self, turn_id: str) -> list[Unit]:
        """See ``Store.units``."""
        return [unit_of(row) for row in await self._fetch("units", *where(turn_id))]

    async def said(self, turn_id: str, after: int) -> list[Said]:
        """See ``Store.said``."""
        return [Said(last, events) for last, events in await self._fetch("said", *where(turn_id), after)]

    async def cancel(self, turn_id: str) -> bool:
        """See ``Store.cancel``."""
        at = where(turn_id)

        def job(db: sqlite3.Connection) -> tuple[Heard, ...]:
            found = db.execute(SQL["state"], at).fetchone()
            if found is None or found[0] == "ended":
                return ()
            db.execute(SQL["cancel"], at)
            return ("cancelled", "released") if found[0] == "in_doubt" else ("cancelled",)

        news = await self._worker.run(job, then=lambda news: self._tell(turn_id, *news))
        return news != ()

    async def resolve(self, turn_id: str, kind: UnitKind, key: str, result: bytes | None, now_ns: int) -> bool:
        """See ``Store.resolve``."""
        at = where(turn_id)

        def job(db: sqlite3.Connection) -> tuple[Heard, ...] | None:
            row = ("failed" if result is None else "done", result, now_ns, *at, kind, key)
            if not db.execute(SQL["resolve"], row).rowcount:
                return None
            return ("released",) if db.execute(SQL["release_resolved"], at).rowcount else ()

        def tell(news: tuple[Heard, ...] | None) -> None:
            self._tell(turn_id, *(news or ()))

        return await self._worker.run(job, then=tell) is not None

    async def beat(self, replica: str) -> list[str]:
        """See ``Store.beat``. Releases what this replica was given after it had stopped waiting."""
        now_ns = self._clock.wall_ns()

        def job(db: sqlite3.Connection) -> list[str]:
            db.execute(SQL["beat"], (replica, now_ns))
            return [turn_id for (turn_id,) in db.execute(SQL["to_stop"], (replica,))]

        to_stop = await self._worker.run(job)
        while self._unheard:
            claim = self._unheard[0]  # More may come while this one is released: they follow it.
            with suppress(NotOwner):
                await self.suspend(claim)
            self._unheard.remove(claim)
        return to_stop

    async def claim(self, replica: str, agents: Collection[str], lease_s: float, limit: int) -> list[TurnRecord]:
        """See ``Store.claim``."""
        check_unicode(replica, *agents)
        now_ns = self._clock.wall_ns()
        oldest_ns = now_ns - round(lease_s * NS)
        able = msgspec.json.encode(list(agents)).decode()

        def job(db: sqlite3.Connection) -> list[TurnRecord]:
            db.execute(SQL["set_back"], (now_ns, now_ns))  # The clock was: else the dead would live until it comes by.
            db.execute(SQL["forget_dead"], (oldest_ns,))
            claimed = [
                msgspec.structs.replace(turn, state="queued", owner=replica, generation=turn.generation + 1)
                for turn in map(turn_record, db.execute(SQL["free"], (replica, able, limit)))
            ]
            rows = ((replica, turn.generation, turn.conversation_id, turn.number) for turn in claimed)
            db.executemany(SQL["take"], rows)
            return claimed

        return await self._give(job, tuple)

    async def leave(self, replica: str) -> None:
        """See ``Store.leave``."""

        def job(db: sqlite3.Connection) -> list[str]:
            db.execute(SQL["forget_replica"], (replica,))
            return [turn_id for (turn_id,) in db.execute(SQL["release_all"], (replica,))]

        def tell(released: list[str]) -> None:
            for turn_id in released:
                self._tell(turn_id, "released")

        await self._worker.run(job, then=tell)

    async def take_webhooks(self, limit: int, lease_s: float) -> list[tuple[TurnRecord, int]]:
        """See ``Store.take_webhooks``."""
        now_ns = self._clock.wall_ns()

        def job(db: sqlite3.Connection) -> list[tuple[TurnRecord, int]]:
            due = [(turn_record(row), tries) for tries, *row in db.execute(SQL["webhooks"], (now_ns, limit))]
            again_ns = now_ns + round(lease_s * NS)
            db.executemany(SQL["lease_webhook"], ((again_ns, turn.conversation_id, turn.number) for turn, _ in due))
            return due

        return await self._worker.run(job)

    async def webhook_told(self, turn_id: str, again_in_s: float | None) -> None:
        """See ``Store.webhook_told``."""
        due_ns = None if again_in_s is None else self._clock.wall_ns() + round(again_in_s * NS)
        await self._change("webhook_told", due_ns, *where(turn_id))

    async def sessions(self, principal: str, limit: int, before: tuple[int, str] | None) -> list[SessionSummary]:
        """See ``Store.sessions``."""
        rows = await self._fetch("sessions", principal, *(before or _LATEST), limit)
        return [
            SessionSummary(session_id=name, turns=turns, created_ns=created, updated_ns=updated)
            for name, turns, created, updated in rows
        ]

    async def turns(self, principal: str, session_id: str, limit: int, before: int | None) -> list[TurnRecord] | None:
        """See ``Store.turns``."""

        def job(db: sqlite3.Connection) -> list[TurnRecord] | None:
            found = db.execute(SQL["find_session"], (principal, session_id)).fetchone()
            if found is None:
                return None
            rows = db.execute(SQL["turns"], (found[0], _LATEST[0] if before is None else before, limit))
            return [turn_record(row) for row in rows]

        return await self._worker.run(job, writes=False)

    async def forget(self, principal: str, session_id: str) -> bool:
        """See ``Store.forget``."""

        def job(db: sqlite3.Connection) -> bool:
            found = db.execute(SQL["find_session"], (principal, session_id)).fetchone()
            if found is None:
                return False
            if is_busy(db, (found[0], found[1] + 1)):
                raise SessionBusy
            return db.execute(SQL["forget"], (found[0],)).rowcount > 0

        return await self._worker.run(job)

    async def purge(self, before_ns: int, limit: int) -> int:
        """See ``Store.purge``."""

        def job(db: sqlite3.Connection) -> int:
            old = db.execute(SQL["old"], (before_ns, limit)).fetchall()
            for name in ("purge_units", "purge_said", "purge_turn"):
                db.executemany(SQL[name], old)
            return len(old)

        return await self._worker.run(job)

    async def add_key(self, key: StoredKey) -> None:
        """See ``Store.add_key``."""
        await self._change("add_key", *key_row(key))

    async def keys(self) -> list[StoredKey]:
        """See ``Store.keys``."""
        return [key_of(row) for row in await self._fetch("keys")]

    async def revoke_key(self, key_id: str, now_ns: int) -> bool:
        """See ``Store.revoke_key``."""
        return await self._change("revoke_key", now_ns, key_id)

    async def _give(self, job: Callable[[sqlite3.Connection], T], given: Callable[[T], Iterable[TurnRecord]]) -> T:
        """Run ``job``. A turn must not be owned by who does not know of it, as they stopped waiting before the end."""
        waits = True
        claims: list[Claim] = []

        def then(result: T) -> None:
            turns = [Claim(turn.turn_id, turn.owner or "", turn.generation) for turn in given(result)]
            (claims if waits else self._unheard).extend(turns)

        try:
            return await self._worker.run(job, then=then)
        except BaseException:
            waits = False
            self._unheard += claims  # It was done already, when whoever waits for it was stopped.
            raise

    async def _fetch(self, name: str, *values: object) -> list[Any]:
        return await self._worker.run(lambda db: db.execute(SQL[name], values).fetchall(), writes=False)

    async def _change(self, name: str, *values: object) -> bool:
        return await self._worker.run(lambda db: db.execute(SQL[name], values).rowcount > 0)

    def _tell(self, turn_id: str, *news: Heard) -> None:
        if self._hear is not None:
            for what in news:
                self._hear(what, turn_id)
