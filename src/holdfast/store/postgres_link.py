"""
How a store talks to PostgreSQL: a pool to ask on, and one connection that hears what happens.

::

    open ──> schema up to date ──> hears ── lost ──> waits, a little longer each time ──> hears
                                     └ close ──> gone

Who asks while there is no server is told so, and connects anew the next time. A statement that can be repeated is tried
once more on another connection where its own was lost; so is one that the server has surely undone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it has no annotations

from holdfast.clock import Clock
from holdfast.errors import HoldfastError, Misconfigured, StoreUnavailable, Unprocessable
from holdfast.store.postgres_schema import migrate
from holdfast.store.postgres_url import Address
from holdfast.store.records import NOT_UNICODE
from holdfast.store.sqlite_file import named_statements

ANSWER_S = 5.0
"""Seconds that an answer may take, waiting for a connection and a second attempt included."""

OPEN_S = 60.0
"""Seconds that bringing the tables up to date may take, waiting for another process that does so included."""

LOOK_S = 10.0
"""Seconds after which the connection that hears is asked whether it is still there."""

_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_SQL = named_statements("postgres")
_SQL = {name: text.replace("{turn}", _SQL["columns"]) for name, text in _SQL.items()}

_OUTAGES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
_UNDONE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.ReadOnlySQLTransactionError)
_Told = Callable[[str, str], None]


class Link:
    """
    The connections of one store.

    Args:
        address: The server, and the schema there.
        pool_size: Connections to ask on, at most; who comes when all are busy waits.
        clock: Where chance comes from.
        told: Is told what happened to which turn.
    """

    def __init__(self, address: Address, pool_size: int, clock: Clock, told: _Told) -> None:
        self._address, self._pool_size, self._clock, self._told = address, pool_size, clock, told
        self._pool: Any = None
        self._listener: Any = None
        self._hearing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """
        Bring the schema up to date, and begin to hear. One that is open stays as it is.

        Raises:
            Misconfigured: the address is none, the server refuses us, or the schema is a newer version's.
            StoreUnavailable: the server does not answer.
        """
        if self._hearing is not None:
            return
        try:
            async with asyncio.timeout(OPEN_S):
                self._listener = await self._connect(ANSWER_S)
                await migrate(self._listener, self._address.schema)
                lost = await self._listen()
        except (TimeoutError, *_OUTAGES) as error:
            self._hear_no_more()
            raise refusal(error) from error
        except BaseException:
            self._hear_no_more()
            raise
        self._pool = await asyncpg.create_pool(
            self._address.url,
            min_size=0,
            max_size=self._pool_size,
            init=_prepare,
            reset=_keep_as_it_is,
            **self._settings(ANSWER_S),
        )
        # Not in a group: it ends in `close`, which another task may call.
        self._hearing = asyncio.get_running_loop().create_task(self._hear_for_ever(lost))

    async def close(self) -> None:
        """Let what was begun finish, for ``ANSWER_S`` seconds at most, and let go of every connection."""
        hearing, self._hearing = self._hearing, None
        pool, self._pool = self._pool, None
        if hearing is not None:
            hearing.cancel()
            await asyncio.wait([hearing])
        self._hear_no_more()
        if pool is not None:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await pool.close()
            except (TimeoutError, *_OUTAGES):
                pool.terminate()

    async def ask(self, name: str, values: Sequence[object], again: Sequence[object] | None) -> list[Any]:
        """
        What the statement ``name`` gives for ``values``.

        Args:
            name: Of a statement in ``sql/postgres.sql``.
            values: Its parameters.
            again: Those of a second attempt, where its connection was lost and nobody knows whether it was done; None
                for a statement that must not be repeated then.

        Raises:
            StoreUnavailable: there was no answer. Where a connection was lost it may have been done; else it was not.
            Unprocessable: a text is not Unicode, or too long for a name. Nothing was done.
        """
        try:
            return await self._ask_twice(name, values, again)
        except Misconfigured as error:  # The server is there, and does not let us in: it may again.
            raise StoreUnavailable(error.detail) from error

    async def _ask_twice(self, name: str, values: Sequence[object], again: Sequence[object] | None) -> list[Any]:
        try:
            async with asyncio.timeout(ANSWER_S):
                try:
                    return await self._ask(name, values)
                except asyncpg.QueryCanceledError:
                    raise
                except _UNDONE:
                    return await self._ask(name, values)
                except _LOST:
                    if again is None:
                        raise
                    return await self._ask(name, again)
        except (TimeoutError, *_OUTAGES) as error:
            raise refusal(error) from error

    @asynccontextmanager
    async def alone(self, statement_s: float) -> AsyncIterator[Any]:
        """
        A connection of its own, whose statements may take ``statement_s`` seconds.

        Raises:
            Misconfigured: the address is none, or the server refuses us.
            StoreUnavailable: the server does not answer.
        """
        try:
            connection = await self._connect(statement_s)
            try:
                yield connection
            finally:
                connection.terminate()
        except (TimeoutError, *_OUTAGES) as error:
            raise refusal(error) from error

    async def _connect(self, statement_s: float) -> Any:
        try:
            return await asyncpg.connect(self._address.url, **self._settings(statement_s))
        except (ValueError, asyncpg.ClientConfigurationError):
            # The cause is left out: it may quote the password.
            what = "not an address that PostgreSQL has, such as postgresql://user@host:5432/database"
            raise Misconfigured(f"store.url: {what}") from None

    def _settings(self, statement_s: float) -> dict[str, Any]:
        # The server gives up a little before we do, so that a connection outlives what took too long on it.
        server = {
            "application_name": "holdfast",
            "search_path": f'"{self._address.schema}"',
            "statement_timeout": str(round(statement_s * 900)),
            "jit": "off",
        }
        return {"server_settings": server, "timeout": ANSWER_S}

    async def _ask(self, name: str, values: Sequence[object]) -> list[Any]:
        pool = self._pool
        if pool is None:
            raise asyncpg.InterfaceError("the store is closed")
        try:
            async with asyncio.timeout(0.9 * ANSWER_S):
                connection = await pool.acquire()
        except TimeoutError as error:
            why = f"all {self._pool_size} are busy, or it does not answer"
            raise StoreUnavailable(f"no connection to PostgreSQL within {0.9 * ANSWER_S:g} s: {why}") from error
        try:
            return list(await connection.fetch(_SQL[name], *values))
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

    async def _listen(self) -> asyncio.Event:
        lost = asyncio.Event()
        self._listener.add_termination_listener(lambda _: lost.set())
        await self._listener.add_listener(f"holdfast:{self._address.schema}", self._hear)
        return lost

    def _hear_no_more(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.terminate()

    def _hear(self, _connection: object, _process: int, _channel: str, payload: str) -> None:
        what, _, turn_id = payload.partition(":")
        self._told(what, turn_id)

    async def _hear_for_ever(self, lost: asyncio.Event) -> None:
        pause_s = _PAUSE_S
        while True:
            with suppress(Exception):  # Whatever it was, the next connection may hear again.
                while not lost.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S):
                            await lost.wait()
                    if not lost.is_set():
                        await self._listener.execute("SELECT 1", timeout=ANSWER_S)
            self._hear_no_more()
            await asyncio.sleep(pause_s * (1 + self._clock.random.random()) / 2)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with suppress(Exception):
                async with asyncio.timeout(ANSWER_S):
                    self._listener = await self._connect(ANSWER_S)
                    lost = await self._listen()
                    pause_s = _PAUSE_S


def refusal(error: Exception) -> HoldfastError:
    """What an error of the client or the server means to us. Never shows an address or a value."""
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"PostgreSQL did not answer within {ANSWER_S:g} s")
    if isinstance(error, asyncpg.DataError) and isinstance(error.__cause__, UnicodeEncodeError):
        return Unprocessable(NOT_UNICODE)
    if isinstance(error, asyncpg.ProgramLimitExceededError):
        return Unprocessable("a name is too long to be kept")
    if isinstance(error, _REFUSALS):
        return Misconfigured(f"store.url: PostgreSQL refused us: {error}")
    if isinstance(error, asyncpg.DataError):
        return StoreUnavailable("PostgreSQL cannot hold a value")
    if isinstance(error, asyncpg.PostgresError):
        return StoreUnavailable(f"PostgreSQL refused: {error}")
    return StoreUnavailable(f"PostgreSQL cannot be reached: {error or type(error).__name__}")


async def _keep_as_it_is(_: object) -> None:
    """Nothing that we do changes a connection, so nothing has to be put back, and no round trip paid for it."""


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec("text", schema="pg_catalog", encoder=kept, decoder=_given, format="text")


def kept(text: str) -> str:
    """
    A text as it is kept: PostgreSQL has no NUL in it.

    U+0001 stands before what means another character, and so the order stays.
    """
    return text.replace("\1", "\1\3").replace("\0", "\1\2") if "\0" in text or "\1" in text else text


def _given(text: str) -> str:
    return text.replace("\1\2", "\0").replace("\1\3", "\1") if "\1" in text else text
