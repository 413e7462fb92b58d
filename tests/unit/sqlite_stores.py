"""A store in a file of its own, and what keeps its thread busy."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from holdfast.store import SQLiteStore


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def asked(path: Path, sql: str) -> list[Any]:
    """What another process would be told by the file."""
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


class Held:
    """Keeps the database's thread busy until it is let go, so that jobs gather behind it."""

    def __init__(self, store: SQLiteStore) -> None:
        self._worker = store._worker
        self._loop = asyncio.get_running_loop()
        self._taken = asyncio.Event()
        self._go = threading.Event()
        self.commits: list[str] = []

    async def __aenter__(self) -> Self:
        self._running = self._loop.create_task(self._worker.run(self._wait))
        await self._taken.wait()
        return self

    def _wait(self, db: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self._taken.set)
        assert self._go.wait(10)
        db.set_trace_callback(lambda sql: self.commits.append(sql) if sql == "COMMIT" else None)

    def let_go(self) -> None:
        self._go.set()

    async def __aexit__(self, *_: object) -> None:
        self._go.set()
        await self._running


async def results(group: asyncio.TaskGroup, *asked: Any) -> list[Any]:
    """Ask for all of it at once, in this order; what each comes to."""

    async def one(call: Any) -> Any:
        try:
            return await call
        except Exception as error:  # noqa: BLE001 - what it came to is what is asked
            return type(error)

    return [group.create_task(one(call)) for call in asked]
