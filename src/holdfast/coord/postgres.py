"""
State shared through PostgreSQL 14 or later, in a schema of its own: ``holdfast_coord_1``.

Every decision is one function, which locks what it needs in one order and then reads the server's clock. Moves are
rows; a notification wakes who waits for them, and a look every two seconds finds what a notification missed.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it has no annotations

from holdfast.clock import Clock, token_hex
from holdfast.coord import remote
from holdfast.coord.base import Need, Transition, digest
from holdfast.coord.micros import US_NS, amounts, micros
from holdfast.errors import Misconfigured

CONNECTIONS = 4
"""Connections to ask on, besides one to listen on; who comes when all are busy waits within its timeout."""

SWEEP_BEATS = 15
"""Beats between two looks for what nobody needs any more: full limits, ended leases, old moves."""

_SQL = remote.statements("sql/postgres.sql")
_SWEPT = [name for name in _SQL if name.startswith("sweep_")]
_CHANNEL = "holdfast_coord_1_"
_S_US = 1_000_000


class Postgres(remote.Remote):
    """
    A ``Coord`` on the PostgreSQL database at ``url``.

    The first process makes the schema, and so needs the right to. Another role than its owner needs usage of it, and
    all rights on its tables.
    """

    name = "postgres"
    _outages = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
    _refusals = (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientPrivilegeError,
    )

    def __init__(self, url: str, clock: Clock, *, namespace: str, timeout_s: float) -> None:
        super().__init__(clock, namespace, timeout_s)
        self._url = url
        self._pool: Any = None
        self._listener: Any = None
        self._woken = asyncio.Event()
        self._last: int | None = None
        self._beats = 0

    async def _spend(self, needs: Sequence[Need], *, must_fit: bool, gate_ns: int | None) -> tuple[int, int]:
        ordered = sorted((self._key(need.key), index) for index, need in enumerate(needs))
        numbers = [number for _, index in ordered for number in amounts(needs[index])]
        gate_us = -1 if gate_ns is None else micros(gate_ns)
        [(worst, wait_us)] = await self._run("spend", [key for key, _ in ordered], must_fit, gate_us, numbers)
        return ordered[worst - 1][1], wait_us * US_NS

    async def probe(self, name: str, slots: int, lease_ns: int) -> str | None:
        """See ``Coord.probe``."""
        probe = token_hex(8)
        [(taken,)] = await self._run("probe", self._key(name), slots, micros(lease_ns), probe)
        return probe if taken else None

    async def release(self, name: str, probe: str) -> None:
        """See ``Coord.release``."""
        await self._run("release", self._key(name), probe)

    async def publish(self, moved: Transition) -> None:
        """See ``Coord.publish``."""
        await self._run("publish", self._namespace, self._id, remote.packed(moved))

    async def replicas(self) -> int:
        """See ``Coord.replicas``."""
        [(others,)] = await self._run("replicas", self._namespace, self._id)
        return 1 + int(others)

    async def _run(self, statement: str, *values: object) -> Any:
        return await self._ask(lambda: self._fetch(_SQL[statement], values))

    async def _fetch(self, statement: str, values: Sequence[object]) -> Any:
        pool = self._pool
        if pool is None:
            raise asyncpg.InterfaceError("it is not connected yet")
        connection = await pool.acquire()
        try:
            return await connection.fetch(statement, *values)
        except asyncpg.ReadOnlySQLTransactionError:
            await pool.expire_connections()  # Another server is the one to write to now.
            raise
        except asyncpg.PostgresError:
            raise
        except BaseException:
            connection.terminate()  # What it is doing is not known, and nobody will wait to find out.
            raise
        finally:
            await pool.release(connection)

    async def _connect(self) -> None:
        if self._pool is None:
            # The server gives up a little before we do, so that a connection outlives what took too long on it.
            settings = {"application_name": "holdfast", "statement_timeout": str(round(self._timeout_s * 900))}
            self._pool = await asyncpg.create_pool(
                self._url, min_size=0, max_size=CONNECTIONS, reset=_keep_as_it_is, server_settings=settings
            )
        if self._listener is not None:
            self._listener.terminate()
        try:
            self._listener = listener = await asyncpg.connect(self._url, command_timeout=remote.OPEN_S)
        except (ValueError, asyncpg.ClientConfigurationError):
            # The cause is left out: it may quote the password.
            what = "not an address that PostgreSQL has, such as postgresql://user@host:5432/database"
            raise Misconfigured(f"coord.url: {what}") from None
        if not await listener.fetchval(_SQL["known"]):
            with suppress(asyncpg.DuplicateSchemaError, asyncpg.UniqueViolationError):  # Another was faster.
                await listener.execute(_SQL["schema"])
        listener.add_termination_listener(lambda _: self._woken.set())
        await listener.add_listener(_CHANNEL + self._namespace, lambda *_: self._woken.set())
        await self._beat()
        if self._last is None:
            self._last = await listener.fetchval(_SQL["last"])
        self._woken.set()

    async def _attend(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(remote.BEAT_S):
                await self._woken.wait()
        self._woken.clear()
        await self._beat()
        for at, sender, move, age_us in await self._listener.fetch(_SQL["heard"], self._namespace, self._last):
            self._last = at
            self._hear_of(sender, move, age_us * US_NS)

    async def _beat(self) -> None:
        await self._listener.execute(_SQL["beat"], self._id, self._namespace, round(remote.LEASE_S * _S_US))
        if self._beats % SWEEP_BEATS == 0:
            for table in _SWEPT:
                await self._listener.execute(_SQL[table])
        self._beats += 1

    async def _leave(self) -> None:
        await self._fetch(_SQL["leave"], (self._id,))

    async def _disconnect(self) -> None:
        if self._listener is not None:
            self._listener.terminate()
        if self._pool is not None:
            self._pool.terminate()
        self._pool = self._listener = None

    def _key(self, name: str) -> bytes:
        return digest(f"{self._namespace}\0{name}")


async def _keep_as_it_is(_: object) -> None:
    """Nothing that we do changes a connection, so nothing has to be put back, and no round trip paid for it."""
