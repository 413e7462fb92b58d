"""The file of the embedded store: opened, brought up to date, looked over and copied."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from importlib import resources
from pathlib import Path
from typing import Literal

from holdfast.errors import Misconfigured, StoreUnavailable

Durability = Literal["process", "power"]
"""What a commit survives: the end of the process, however it ends, or a power cut as well."""

BUSY_S = 5.0
"""Seconds to wait for another process that is writing to the same file."""

SHOWN = 5
"""Ids that a complaint names at most."""

_PACKAGE = resources.files("holdfast.store")


def named_statements(name: str) -> dict[str, str]:
    """The statements of ``sql/NAME.sql``, by name."""
    text = (_PACKAGE / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def connect(path: Path, durability: Durability) -> sqlite3.Connection:
    """
    Open the database, which is made if missing, and bring its tables up to date.

    Raises:
        Misconfigured: the file cannot be used. It is as it was.
    """
    with ExitStack() as on_failure:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # Conversations are nobody else's to read.
            # As an absolute path it is a file's, whatever it is called: SQLite gives `:memory:` a meaning of its own.
            db = sqlite3.connect(path.absolute(), isolation_level=None, timeout=BUSY_S)
            on_failure.callback(db.close)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
            db.execute("PRAGMA foreign_keys = ON")
            _migrate(db, path)
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(f"store.url: cannot use the database {path}: {error}") from error
        on_failure.pop_all()
    return db


def complaints(path: Path) -> list[str]:
    """
    What is wrong with the database at ``path``, a sentence each; nothing where all is well.

    Raises:
        StoreUnavailable: there is no such file, or it cannot be opened.
    """
    try:
        with closing(_reading(path)) as db:
            db.execute("BEGIN")
            return _damage(db) or list(_contradictions(db))
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(f"cannot check the database {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        return [f"it cannot be read: {error}"]


def _damage(db: sqlite3.Connection) -> list[str]:
    return [text for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"]


def _contradictions(db: sqlite3.Connection) -> Iterator[str]:
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check").fetchall():
        yield f"row {row} of {table} belongs to a row of {parent} there is not"
    for name, statement in named_statements("sqlite_check").items():
        wrong = [str(what) for (what,) in db.execute(statement)]
        if wrong:
            more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            yield f"{name.replace('_', ' ')}: {', '.join(wrong[:SHOWN])}{more}"


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", isolation_level=None, timeout=BUSY_S, uri=True)


def copy(path: Path, to: Path) -> None:
    """
    Copy the database at ``path`` as it is at one moment, while others write to it.

    Raises:
        Misconfigured: ``to`` is there already; it is as it was.
        StoreUnavailable: it could not be copied; nothing is left at ``to``.
    """
    part = to.with_name(f"{to.name}.part")
    with ExitStack() as on_failure:
        try:
            if to.exists():
                raise FileExistsError("it is there already")
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise Misconfigured(f"cannot copy the database to {to}: {error}") from error
        on_failure.callback(part.unlink, missing_ok=True)
        try:
            with (
                closing(_reading(path)) as source,
                closing(sqlite3.connect(part.absolute(), timeout=BUSY_S)) as target,
            ):
                source.backup(target)
            part.rename(to)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"cannot copy the database to {to}: {error}") from error
        on_failure.pop_all()


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date. Numbered steps, forward only, all in one transaction."""
    folder = _PACKAGE / "migrations" / "sqlite"
    steps = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    if _version(db) == len(steps):
        return
    db.execute("BEGIN IMMEDIATE")
    version = _version(db)  # Asked again, now that nobody else can move it: two processes may open a new file at once.
    if version > len(steps):
        raise Misconfigured(f"store.url: {path} was made by a newer version of Holdfast (schema {version})")
    for number, name in enumerate(steps[version:], version + 1):
        for statement in _statements((folder / name).read_text(encoding="utf-8")):
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
