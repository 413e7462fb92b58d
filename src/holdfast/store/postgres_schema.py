"""The schema of a PostgreSQL store: made, brought up to date, looked over."""

from importlib import resources
from typing import Any

from holdfast.errors import Misconfigured
from holdfast.store.sqlite_file import SHOWN, named_statements

_FOLDER = resources.files("holdfast.store") / "migrations" / "postgres"


def steps() -> list[str]:
    """The migrations there are, in order: forward only, and numbered from 1."""
    return sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".sql"))


async def version(connection: Any, schema: str) -> int:
    """How many of the steps the schema has taken; 0 where it holds nothing of ours."""
    # Not `to_regclass`, which may answer from before another process has made it.
    known = "SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'schema_version'"
    if not await connection.fetch(known, schema):
        return 0
    return int(await connection.fetchval(f'SELECT coalesce(max(version), 0) FROM "{schema}".schema_version'))  # noqa: S608 - a name we have checked


async def migrate(connection: Any, schema: str) -> tuple[int, int]:
    """
    Bring the schema up to date, all steps in one transaction. Several processes may do so at once: one does the work.

    Returns:
        The version it had, and the one it has now.

    Raises:
        Misconfigured: it is a newer version's, or the database is not in UTF-8. Nothing was changed.
    """
    if await version(connection, schema) == len(steps()):
        return len(steps()), len(steps())
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise Misconfigured("store.url: the database must be made with the encoding UTF8")
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"holdfast schema {schema}")
        before = await version(connection, schema)  # Asked again, now that nobody else can move it.
        if before > len(steps()):
            raise Misconfigured(
                f"store.url: the schema {schema} was made by a newer version of Holdfast (schema {before})"
            )
        if not await connection.fetch("SELECT FROM pg_namespace WHERE nspname = $1", schema):
            await connection.execute(f'CREATE SCHEMA "{schema}"')
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version integer PRIMARY KEY)")
        for number, name in enumerate(steps()[before:], before + 1):
            await connection.execute((_FOLDER / name).read_text(encoding="utf-8"))
            await connection.execute("INSERT INTO schema_version VALUES ($1)", number)
    return before, len(steps())


async def complaints(connection: Any) -> list[str]:
    """What is wrong with what is kept, a sentence each; nothing where all is well."""
    found = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for name, statement in named_statements("postgres_check").items():
            wrong = [str(row[0]) for row in await connection.fetch(statement)]
            if wrong:
                more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
                found.append(f"{name.replace('_', ' ')}: {', '.join(wrong[:SHOWN])}{more}")
    return found
