"""``holdfast store``: the store that the settings name, brought up to date, looked over, copied and put back."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from holdfast.cli.run import ConfigPath, run, settings
from holdfast.clock import Clock
from holdfast.errors import Misconfigured
from holdfast.store import SQLiteStore, StoreSpec, open_store, put_in_place, schema_of

if TYPE_CHECKING:
    from holdfast.store.postgres import PostgresStore

T = TypeVar("T")

app = typer.Typer(help="Migrate, check, back up and restore the store.", no_args_is_help=True)


@app.command()
def migrate(config: ConfigPath = None) -> None:
    """Bring the tables up to date, and say from which version to which. A server does so itself when it starts."""
    store = _store(config)
    if isinstance(store, SQLiteStore):
        before = schema_of(store.path)
        _with(store, lambda opened: opened.ping())
        after = schema_of(store.path)
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
        aside = put_in_place(store.path, path, store.path.with_name(f"{store.path.name}.before-{when}"), force=force)
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
