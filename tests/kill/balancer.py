"""A simple balancer: it asks who is ready, and tries another one only where a connection was refused."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from tests.kill.replica import Replica
else:
    from replica import Replica

ASK_S = 0.1
"""Seconds between two looks at who is ready."""


class Balancer:
    """Passes each connection on to one of ``replicas`` that said it was ready, each in turn."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = replicas
        self._ready: list[int] = []
        self._next = 0
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Balancer"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.TaskGroup() as group, httpx2.AsyncClient(timeout=2) as http:
            asking = group.create_task(self._ask(http))
            try:
                yield self
            finally:
                asking.cancel()
                server.close()

    async def all_ready(self) -> None:
        async with asyncio.timeout(30):
            while len(self._ready) < len(self._replicas):  # noqa: ASYNC110 - other processes decide when
                await asyncio.sleep(ASK_S)

    async def _ask(self, http: httpx2.AsyncClient) -> None:
        while True:
            ready = []
            for replica in self._replicas:
                with suppress(httpx2.TransportError):
                    if (await http.get(f"{replica.url}/health/ready")).status_code == 200:
                        ready.append(replica.port)
            self._ready = ready
            await asyncio.sleep(ASK_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self._ready)):
            self._next += 1
            try:
                far = await asyncio.open_connection("127.0.0.1", self._ready[self._next % len(self._ready)])
            except ConnectionRefusedError:
                continue
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, far[1]))
                group.create_task(_pass_on(far[0], writer))
            return
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65_536):
            writer.write(some)
            await writer.drain()
    writer.close()
