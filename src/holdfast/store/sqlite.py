"""The embedded store: one SQLite file in WAL mode."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

from holdfast.clock import token_hex
from holdfast.errors import Misconfigured, StoreUnavailable
from holdfast.events import Usage
from holdfast.store.base import Conversation, Past, SessionSummary, StoredKey, TurnRecord, fit_window
from holdfast.store.worker import Worker

BUSY_S = 5.0
"""Seconds to wait for another process that is writing to the same file."""

_LATEST = (2**63 - 1, "")
_PACKAGE = resources.files("holdfast.store")


def _named_statements() -> dict[str, str]:
    text = (_PACKAGE / "sql" / "sqlite.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


SQL = _named_statements()


class SQLiteStore:
    """
    Keeps everything in the SQLite file at ``path``, whose folder is made if missing.

    A commit survives the end of the process, however it ends; a power cut may take the last ones with it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._worker = Worker(lambda: _connect(self.path))

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
        await self._worker.run(lambda db: db.execute(SQL["ping"]).fetchone())

    async def recall(self, principal: str, session_id: str, window_tokens: int) -> Conversation:
        """See ``Store.recall``."""

        def job(db: sqlite3.Connection) -> Conversation:
            found = db.execute(SQL["find_session"], (principal, session_id)).fetchone()
            if found is None:
                return Conversation(id=token_hex(8), turns=0, past=())
            rows = db.execute(SQL["remembered"], (found[0],))
            return Conversation(id=found[0], turns=found[1], past=fit_window(_remembered(rows), window_tokens))

        return await self._worker.run(job, writes=False)

    async def record(self, turn: TurnRecord) -> None:
        """See ``Store.record``."""

        def job(db: sqlite3.Connection) -> None:
            if turn.number == 1:
                begun = (turn.conversation_id, turn.principal, turn.session_id, turn.started_ns, turn.started_ns)
                db.execute(SQL["begin_session"], begun)
            else:
                owner = (turn.conversation_id, turn.principal, turn.session_id)
                moved = (turn.number, turn.started_ns, *owner, turn.number)
                if not db.execute(SQL["continue_session"], moved).rowcount:
                    raise StoreUnavailable(f"turn {turn.turn_id} does not follow the last one stored")
            db.execute(SQL["add_turn"], _turn_row(turn))

        await self._worker.run(job)

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
            return [_turn(found[0], principal, session_id, row) for row in rows]

        return await self._worker.run(job, writes=False)

    async def forget(self, principal: str, session_id: str) -> bool:
        """See ``Store.forget``."""
        return await self._change("forget", principal, session_id)

    async def add_key(self, key: StoredKey) -> None:
        """See ``Store.add_key``."""
        scopes = " ".join(key.scopes)
        row = (key.id, key.principal, scopes, key.digest, key.created_ns, key.expires_ns, key.revoked_ns)
        await self._change("add_key", *row)

    async def keys(self) -> list[StoredKey]:
        """See ``Store.keys``."""
        return [
            StoredKey(
                id=key_id,
                principal=principal,
                scopes=tuple(scopes.split()),
                digest=digest,
                created_ns=created,
                expires_ns=expires,
                revoked_ns=revoked,
            )
            for key_id, principal, scopes, digest, created, expires, revoked in await self._fetch("keys")
        ]

    async def revoke_key(self, key_id: str, now_ns: int) -> bool:
        """See ``Store.revoke_key``."""
        return await self._change("revoke_key", now_ns, key_id)

    async def _fetch(self, name: str, *values: object) -> list[Any]:
        return await self._worker.run(lambda db: db.execute(SQL[name], values).fetchall(), writes=False)

    async def _change(self, name: str, *values: object) -> bool:
        return await self._worker.run(lambda db: db.execute(SQL[name], values).rowcount > 0)


def _connect(path: Path) -> sqlite3.Connection:
    with ExitStack() as on_failure:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # Conversations are nobody else's to read.
            # As an absolute path it is a file's, whatever it is called: SQLite gives `:memory:` a meaning of its own.
            db = sqlite3.connect(path.absolute(), isolation_level=None, timeout=BUSY_S)
            on_failure.callback(db.close)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            _migrate(db, path)
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(f"store.url: cannot use the database {path}: {error}") from error
        on_failure.pop_all()
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date. Numbered steps, forward only, all in one transaction."""
    steps = sorted(entry.name for entry in (_PACKAGE / "migrations").iterdir() if entry.name.endswith(".sql"))
    if _version(db) == len(steps):
        return
    db.execute("BEGIN IMMEDIATE")
    version = _version(db)  # Asked again, now that nobody else can move it: two processes may open a new file at once.
    if version > len(steps):
        raise Misconfigured(f"store.url: {path} was made by a newer version of Holdfast (schema {version})")
    for number, name in enumerate(steps[version:], version + 1):
        for statement in _statements((_PACKAGE / "migrations" / name).read_text(encoding="utf-8")):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {number}")
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def _statements(script: str) -> Iterator[str]:
    """The script's statements, one by one: ``executescript`` would commit the transaction it is run in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _remembered(rows: sqlite3.Cursor) -> Iterator[tuple[Past, int]]:
    for message, reply, form, messages, tokens in rows:
        yield Past(message=message, reply=reply, format=form, messages=messages), tokens


def _turn_row(turn: TurnRecord) -> tuple[object, ...]:
    usage = turn.usage
    return (
        turn.conversation_id,
        turn.number,
        turn.agent,
        turn.trace_id,
        turn.request_id,
        turn.source_ip,
        turn.message,
        turn.reply,
        turn.outcome,
        turn.error,
        usage.model_calls,
        usage.tool_calls,
        usage.input_tokens,
        usage.output_tokens,
        turn.format,
        turn.messages,
        turn.tokens,
        turn.started_ns,
        turn.duration_ns,
    )


def _turn(conversation_id: str, principal: str, session_id: str, row: Any) -> TurnRecord:
    number, agent, trace_id, request_id, source_ip, message, reply, outcome, error, *rest = row
    model_calls, tool_calls, input_tokens, output_tokens, form, messages, tokens, started_ns, duration_ns = rest
    return TurnRecord(
        turn_id=f"{conversation_id}-{number}",
        conversation_id=conversation_id,
        number=number,
        principal=principal,
        session_id=session_id,
        agent=agent,
        trace_id=trace_id,
        request_id=request_id,
        source_ip=source_ip,
        message=message,
        reply=reply,
        outcome=outcome,
        error=error,
        usage=Usage(
            model_calls=model_calls, tool_calls=tool_calls, input_tokens=input_tokens, output_tokens=output_tokens
        ),
        format=form,
        messages=messages,
        tokens=tokens,
        started_ns=started_ns,
        duration_ns=duration_ns,
    )
