"""Copies of a PostgreSQL store, made and put back by PostgreSQL's own ``pg_dump`` and ``pg_restore``."""

import asyncio
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from holdfast.errors import Misconfigured, StoreUnavailable
from holdfast.store.postgres_url import Address

SILENT_S = 60.0
"""Seconds after a server's last sign of life before it is taken for stopped, where the store is to be replaced."""

_RUNNING = "SELECT count(*) FROM {schema}.replicas WHERE beat_ns > {schema}.now_ns() - $1"
_HELD = "SELECT EXISTS (SELECT FROM {schema}.sessions) OR EXISTS (SELECT FROM {schema}.api_keys)"


async def dump(address: Address, to: Path) -> None:
    """
    Copy the schema to the file ``to``, as it is at one moment, while others write to it.

    Raises:
        Misconfigured: there is a file already, or none can be made, or there is no ``pg_dump``. Nothing was written.
        StoreUnavailable: it could not be copied; nothing is left at ``to``.
    """
    program = _program("pg_dump")
    part = to.with_name(f"{to.name}.part")
    with ExitStack() as on_failure:
        _make(part, to)
        on_failure.callback(part.unlink, missing_ok=True)
        words = ("--format=custom", "--no-owner", f"--schema={address.schema}", f"--file={part}")
        await _run(program, address, *words)
        part.rename(to)
        on_failure.pop_all()


async def put_back(connection: Any, address: Address, source: Path, aside: str | None) -> bool:
    """
    Put a copy in place of what the schema holds.

    Args:
        connection: To the database.
        address: Where to.
        source: A file that ``dump`` has made.
        aside: What the schema that is there is called from now on; None refuses to replace one that holds anything.

    Returns:
        Whether there was anything that was kept aside.

    Raises:
        Misconfigured: a server is running, the schema holds something, or ``source`` is no such copy.
        StoreUnavailable: ``pg_restore`` failed. In either case what was there is there.
    """
    program = _program("pg_restore", source)
    schema = f'"{address.schema}"'
    there = bool(await connection.fetch("SELECT FROM pg_namespace WHERE nspname = $1", address.schema))
    held = False
    if there:
        running = await connection.fetchval(_RUNNING.format(schema=schema), round(SILENT_S * 1_000_000_000))
        if running:
            raise Misconfigured(
                f"{running} servers use the store, or did within the last {SILENT_S:g} s; stop them first"
            )
        held = bool(await connection.fetchval(_HELD.format(schema=schema)))
        if held and aside is None:
            raise Misconfigured(f"the schema {address.schema} holds turns or keys; --force keeps them aside")
    former = f'"{aside or address.schema + "_before"}"'
    if there:
        await connection.execute(f"ALTER SCHEMA {schema} RENAME TO {former}")
    try:
        await _run(program, address, "--exit-on-error", "--single-transaction", "--no-owner", str(source))
        if not await connection.fetch("SELECT FROM pg_namespace WHERE nspname = $1", address.schema):
            raise Misconfigured(f"{source} is no copy of a schema {address.schema}")
    except BaseException:
        if there:
            await connection.execute(f"ALTER SCHEMA {former} RENAME TO {schema}")
        raise
    if there and not held:
        await connection.execute(f"DROP SCHEMA {former} CASCADE")
    return held


def _make(part: Path, to: Path) -> None:
    try:
        if to.exists():
            raise FileExistsError("it is there already")
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # Nobody else's to read.
    except OSError as error:
        raise Misconfigured(f"cannot copy the store to {to}: {error}") from error


def _program(name: str, source: Path | None = None) -> str:
    if source is not None and not source.is_file():
        raise Misconfigured(f"there is no file {source}")
    found = shutil.which(name)
    if found is None:
        raise Misconfigured(f"{name} is not installed here: it comes with PostgreSQL's client programs")
    return found


async def _run(program: str, address: Address, *words: str) -> None:
    url, password = address.without_password()
    environ = {**os.environ, "PGCONNECT_TIMEOUT": "10"} | ({"PGPASSWORD": password} if password else {})
    ran = await asyncio.create_subprocess_exec(
        program,
        f"--dbname={url}",
        *words,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await ran.communicate()
    except BaseException:
        ran.kill()
        await ran.wait()
        raise
    if ran.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {ran.returncode}"]
        why = " ".join(lines[:2])
        raise StoreUnavailable(f"{Path(program).name} failed: {why.replace(password, '***') if password else why}")
