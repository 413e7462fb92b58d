"""Putting a copy in place of a SQLite store that nobody uses."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from holdfast.errors import Misconfigured


def schema_of(path: Path) -> int:
    """The schema of the file; 0 where there is none yet."""
    with suppress(sqlite3.Error), closing(_read_only(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    return 0


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def put_in_place(store: Path, source: Path, aside: Path, *, force: bool) -> Path | None:
    """
    Put the copy ``source`` in place of the file ``store``, which is called ``aside`` from now on if it held anything.

    Raises:
        Misconfigured: somebody uses the store, or it holds something, or ``source`` is no copy. Nothing was changed.
    """
    if not source.is_file():
        raise Misconfigured(f"there is no file {source}")
    try:
        with closing(_read_only(source)) as copy:
            intact = copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            copy.execute("SELECT count(*) FROM sessions, api_keys LIMIT 1")
    except sqlite3.Error as error:
        raise Misconfigured(f"{source} is no copy of a store: {error}") from error
    if not intact:
        raise Misconfigured(f"{source} is damaged")
    held = store.exists() and _holds_something(store)
    if held and not force:
        raise Misconfigured(f"{store} holds turns or keys; --force keeps it aside as {aside.name}")
    part = store.with_name(f"{store.name}.part")
    try:
        store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(_read_only(source)) as copy, closing(sqlite3.connect(part.absolute())) as new:
            copy.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")
        if held:
            for beside in ("", "-wal", "-shm"):  # The last two where it is damaged, and could not be opened.
                with suppress(FileNotFoundError):
                    store.with_name(store.name + beside).rename(aside.with_name(aside.name + beside))
        part.replace(store)
    except (OSError, sqlite3.Error) as error:
        raise Misconfigured(f"cannot put {source} in place of {store}: {error}") from error
    return aside if held else None


def _holds_something(store: Path) -> bool:
    """
    Whether there are turns or keys in a file that nobody else has open, or it is damaged, and nobody knows.

    Raises:
        Misconfigured: somebody has it open.
    """
    try:
        with closing(sqlite3.connect(store.absolute(), timeout=0.5)) as db:
            # Whoever else has it open holds a lock that this needs; and it moves what is beside the file into it.
            db.execute("PRAGMA journal_mode = DELETE")
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return False
            sql = "SELECT EXISTS (SELECT 1 FROM sessions) OR EXISTS (SELECT 1 FROM api_keys)"
            return bool(db.execute(sql).fetchone()[0])
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise Misconfigured(f"cannot replace {store}: somebody uses it; stop the server first") from error
        return True
