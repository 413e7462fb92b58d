"""``holdfast store``: the store that the settings name, brought up to date, looked over, copied and put back."""

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from holdfast.cli.run import ConfigPath, run, settings
from holdfast.clock import Clock
from holdfast.errors import Misconfigured
from holdfast.store import SQLiteStore, StoreSpec, open_store

if TYPE_CHECKING:
    from holdfast.store.postgres import PostgresStore

T = TypeVar("T")

app = typer.Typer(help="Migrate, check, back up and restore the store.", no_args_is_help=True)


@app.command()
def migrate(config: ConfigPath = None) -> None:
    """Bring the tables up to date, and say from which version to which. A server does so itself when it starts."""
    store = _store(config)
    if isinstance(store, SQLiteStore):
        before = _version(store.path)
        _with(store, lambda opened: opened.ping())
        after = _version(store.path)
    else:
        before, after = run(store.migrate())
    print(f"schema {after}: it was up to date" if before == after else f"schema {before} is now schema {after}")


@app.command()
def check(config: ConfigPath = None) -> None:
    """Look everything over, and exit with 1 where something is wrong."""
    store = _store(config)
    if isinstance(store, SQLiteStore):
        _there(store)
    _tell(_with(store, lambda opened: opened.check()))


@app.command()
def backup(
    path: Annotated[Path, typer.Argument(help="The file to make. One that is there is left alone.")],
    config: ConfigPath = None,
) -> None:
    """Copy the store to a file, as it is at one moment, while servers use it. For PostgreSQL, `pg_dump` does it."""
    store = _store(config)
    if isinstance(store, SQLiteStore):
        _there(store)
    run(store.backup(path))
    print(f"copied to {path}")


@app.command()
def restore(
    path: Annotated[Path, typer.Argument(help="A file that `holdfast store backup` has made.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a store that holds something, and keep it aside.")] = (
        False
    ),
    config: ConfigPath = None,
) -> None:
    """Put a copy in place of the store. No server may be running, and what is there is kept aside."""
    store = _store(config)
    when = f"{Clock().wall():%Y%m%d%H%M%S}"
    if isinstance(store, SQLiteStore):
        aside = _replace(store.path, path, store.path.with_name(f"{store.path.name}.before-{when}"), force)
        kept = str(aside) if aside is not None else None
    else:
        name = f"before_{when}"
        kept = f"the schema {name}" if run(store.restore(path, name if force else None)) else None
    print(f"restored from {path}" + (f"; what was there is {kept}" if kept else ""))
    _tell(_with(store, lambda opened: opened.check()))


def _tell(found: list[str]) -> None:
    for text in found:
        print(text)
    if found:
        raise typer.Exit(1)
    print("nothing is wrong")


def _store(config: ConfigPath) -> "SQLiteStore | PostgresStore":
    spec: StoreSpec = settings(config, os.environ).settings.store
    if spec.kind == "memory":
        raise Misconfigured("store.url is memory:, which keeps nothing; set it to sqlite:PATH or postgresql://…")
    store = open_store(spec)
    if not isinstance(store, SQLiteStore):
        from holdfast.store.postgres import PostgresStore  # noqa: PLC0415 - its client may not be installed

        assert isinstance(store, PostgresStore)  # noqa: S101 - there is no other kind
    return store


def _there(store: SQLiteStore) -> None:
    if not store.path.exists():
        raise Misconfigured(f"there is no store at {store.path}; holdfast store migrate makes one")


def _with(store: Any, job: Callable[[Any], Awaitable[T]]) -> T:
    async def main() -> T:
        await store.open()
        try:
            return await job(store)
        finally:
            await store.close()

    return run(main())


def _version(path: Path) -> int:
    """The schema of the file; 0 where there is none yet."""
    with suppress(sqlite3.Error), closing(_read_only(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    return 0


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _replace(store: Path, source: Path, aside: Path, force: bool) -> Path | None:
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
