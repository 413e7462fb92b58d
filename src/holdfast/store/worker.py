"""
One thread that owns one SQLite connection, and commits in groups.

Jobs run in the order they were asked for. Those that have gathered while the last group was being committed share the
next commit, so that many turns pay for one write to disk; each runs in a savepoint of its own, so that one that fails
takes no other with it. A caller hears of its job after the commit.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from holdfast.errors import HoldfastError, StoreUnavailable

T = TypeVar("T")

MAX_GROUP = 256
"""Jobs that share one commit at most."""


class _Job(NamedTuple):
    run: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]


class Worker:
    """Runs jobs against a database that ``connect`` opens, on a thread of its own."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """
        Open the database.

        Raises:
            HoldfastError: what ``connect`` raised; there is no thread then.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(loop, opened), name="holdfast-sqlite", daemon=True)
        self._thread.start()
        await opened

    async def stop(self) -> None:
        """Run what was asked for, then close the database."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run ``job`` on the database's thread, within a transaction that is committed before this returns.

        Raises:
            StoreUnavailable: the database refused, or is closed; nothing of the job was kept.
        """
        if self._thread is None:
            raise StoreUnavailable("the database is closed")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(job, done))
        return await done

    def _main(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[Any]) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - handed to the one who waits for the database to open
            _tell(loop, [(opened, None, error)])
            return
        _tell(loop, [(opened, None, None)])
        stopping = False
        while not stopping:
            group, stopping = self._next_group()
            if group:
                _tell(loop, _run_group(connection, group))
        connection.close()

    def _next_group(self) -> tuple[list[_Job], bool]:
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == MAX_GROUP:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, False
        return group, True


_Told = tuple[asyncio.Future[Any], Any, Exception | None]


def _run_group(connection: sqlite3.Connection, group: list[_Job]) -> list[_Told]:
    told: list[_Told] = []
    try:
        connection.execute("BEGIN IMMEDIATE")  # Two processes may share the file: never upgrade a read.
        told.extend(_run_one(connection, job) for job in group)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        lost = _unavailable(error)
        return [(job.done, None, lost) for job in group]
    return told


def _run_one(connection: sqlite3.Connection, job: _Job) -> _Told:
    connection.execute("SAVEPOINT job")
    try:
        result = job.run(connection)
    except Exception as error:  # noqa: BLE001 - handed to the one who asked for the job
        connection.execute("ROLLBACK TO job")
        return job.done, None, _unavailable(error) if isinstance(error, sqlite3.Error) else error
    finally:
        connection.execute("RELEASE job")
    return job.done, result, None


def _unavailable(error: Exception) -> HoldfastError:
    unavailable = StoreUnavailable(f"the database refused: {error}")
    unavailable.__cause__ = error
    return unavailable


def _tell(loop: asyncio.AbstractEventLoop, told: list[_Told]) -> None:
    def settle() -> None:
        for done, result, error in told:
            if done.done():
                continue
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # The loop has closed: nobody waits any more.
        return
