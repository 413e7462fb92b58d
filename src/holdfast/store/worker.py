"""
One thread that owns one SQLite connection, and commits in groups.

Jobs run in the order they were asked for. Those that have gathered while the last group was being committed share the
next commit, so that many turns pay for one write to disk; each of several runs in a savepoint of its own, so that one
that fails takes no other with it. A caller hears of its job after the commit.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from holdfast.errors import HoldfastError, StoreUnavailable, Unprocessable
from holdfast.store.records import NOT_UNICODE

T = TypeVar("T")

MAX_GROUP = 256
"""Jobs that share one commit at most."""

CLOSE_S = 10.0
"""Seconds the last jobs may take once the database is to be closed."""


class _Job(NamedTuple):
    run: Callable[[sqlite3.Connection], Any]
    done: asyncio.Future[Any]
    writes: bool
    then: Callable[[Any], object] | None


_Jobs = queue.SimpleQueue[_Job | None]


class Worker:
    """Runs jobs against a database that ``connect`` opens, on a thread of its own."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._jobs: _Jobs | None = None
        self._closed: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """
        Open the database. One that is open stays as it is.

        Raises:
            HoldfastError: what ``connect`` raised; there is no thread then.
        """
        if self._jobs is not None:
            return
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        closed: asyncio.Future[None] = loop.create_future()
        jobs: _Jobs = queue.SimpleQueue()
        threading.Thread(
            target=self._main, args=(loop, jobs, opened, closed), name="holdfast-sqlite", daemon=True
        ).start()
        try:
            await opened
        except BaseException:
            jobs.put(None)  # Nobody waits for it any more: what it opens, it closes.
            raise
        self._jobs, self._closed = jobs, closed

    async def stop(self) -> None:
        """
        Run what was asked for, then close the database. Stopping twice is fine.

        Raises:
            StoreUnavailable: the database did not answer for ``CLOSE_S`` seconds; it is left to the end of the process.
        """
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.put(None)
        if self._closed is not None:
            await asyncio.wait((self._closed,), timeout=CLOSE_S)
            if not self._closed.done():
                raise StoreUnavailable(f"the database did not close within {CLOSE_S:g} s")

    async def run(
        self, job: Callable[[sqlite3.Connection], T], *, writes: bool = True, then: Callable[[T], object] | None = None
    ) -> T:
        """
        Run ``job`` on the database's thread, within a transaction that is committed before this returns.

        A caller that is cancelled no longer hears of its job, which runs all the same.

        Args:
            job: What to do with the connection.
            writes: False for a job that only reads: it takes no lock that another process might wait for.
            then: Given the job's result on the event loop, once it is committed, whether or not the caller still waits.

        Raises:
            StoreUnavailable: the database refused, or is closed; nothing of the job was kept.
            Unprocessable: the job was handed text that is not Unicode; nothing of it was kept.
        """
        if self._jobs is None:
            raise StoreUnavailable("the database is closed")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(job, done, writes, then))
        return await done

    def _main(
        self, loop: asyncio.AbstractEventLoop, jobs: _Jobs, opened: asyncio.Future[None], closed: asyncio.Future[None]
    ) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 - handed to the one who waits for the database to open
            _tell(loop, [(opened, None, error, None)])
            return
        _tell(loop, [(opened, None, None, None)])
        stopping = False
        while not stopping:
            group, stopping = _next_group(jobs)
            if group:
                _tell(loop, _run_group(connection, group))
        connection.close()
        _tell(loop, [(closed, None, None, None)])


def _next_group(jobs: _Jobs) -> tuple[list[_Job], bool]:
    """The jobs there are, after waiting for the first one; and whether they are the last."""
    group: list[_Job] = []
    while (job := jobs.get()) is not None:
        group.append(job)
        if len(group) == MAX_GROUP or jobs.empty():  # Only this thread takes from it: what is there stays there.
            return group, False
    return group, True


_Told = tuple[asyncio.Future[Any], Any, Exception | None, Callable[[Any], object] | None]


def _run_group(connection: sqlite3.Connection, group: list[_Job]) -> list[_Told]:
    # Two processes may share the file: a transaction that reads first, and then writes, may come too late.
    begin = "BEGIN IMMEDIATE" if any(job.writes for job in group) else "BEGIN"
    told: list[_Told]
    try:
        connection.execute(begin)
        if len(group) == 1:
            told = [(group[0].done, group[0].run(connection), None, group[0].then)]
        else:
            told = [_run_one(connection, job) for job in group]
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - handed to those who wait; the thread must outlive it
        with suppress(sqlite3.Error):  # SQLite rolls some failures back by itself.
            connection.execute("ROLLBACK")
        return [(job.done, None, _as_ours(error), None) for job in group]
    return told


def _run_one(connection: sqlite3.Connection, job: _Job) -> _Told:
    connection.execute("SAVEPOINT job")
    error: Exception | None = None
    result = None
    try:
        result = job.run(connection)
    except Exception as raised:
        if not connection.in_transaction:
            raise  # The disk is full or broken, and SQLite has rolled the whole group back.
        connection.execute("ROLLBACK TO job")
        error = _as_ours(raised)
    connection.execute("RELEASE job")
    return job.done, result, error, job.then


def _as_ours(error: Exception) -> Exception:
    ours: HoldfastError
    match error:
        case sqlite3.Error():
            ours = StoreUnavailable(f"the database refused: {error}")
        case UnicodeEncodeError():
            ours = Unprocessable(NOT_UNICODE)
        case _:
            return error
    ours.__cause__ = error
    return ours


def _tell(loop: asyncio.AbstractEventLoop, told: list[_Told]) -> None:
    def settle() -> None:
        for done, result, error, then in told:
            if then is not None and error is None:
                then(result)
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
