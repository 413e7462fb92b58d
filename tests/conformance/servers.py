"""Servers that are started for the tests, on this machine alone, and leave nothing behind."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, ClassVar

PATIENCE_S = 30.0


def find(program: str) -> str | None:
    """Where a program is; PostgreSQL's own are often not on the path."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)
    return shutil.which(program) or next((str(path) for path in beside), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read_on(stream: IO[bytes]) -> None:
    """A pipe that nobody reads would stop the server once it is full."""
    with stream:
        deque(stream, 0)


class Server(ABC):
    """A server with a folder and a port of its own."""

    program: ClassVar[str]
    ready: ClassVar[bytes]

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread()
        self.user: str | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def command(self) -> Sequence[str | Path]: ...

    def start(self) -> None:
        """Start, and return once connections are taken."""
        self._process = self.spawn(self.command())
        assert self._process.stdout
        said = b""
        for line in self._process.stdout:
            said += line
            if self.ready in line:
                self._reader = threading.Thread(target=_read_on, args=(self._process.stdout,), daemon=True)
                self._reader.start()
                return
        raise RuntimeError(f"{self.program} did not start: {said.decode()}")

    def spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, user=self.user
        )

    def end(self, how: signal.Signals) -> None:
        """End it, and return once it is gone."""
        if self._process is None:
            return
        self._process.send_signal(how)
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self._process = None

    def signal(self, how: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(how)

    def clean_up(self) -> None:
        self.end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(Server):
    """Keeps nothing on disk: one that is started again is empty, and has forgotten every script."""

    program = "redis-server"
    ready = b"Ready to accept connections"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str | Path]:
        words = ["--bind", "127.0.0.1", "--port", str(self.port), "--appendonly", "no", "--save", ""]
        return [find(self.program) or self.program, *words, "--dir", self.folder]


class PostgresServer(Server):
    """A new cluster whose superuser needs no password on this machine."""

    program = "postgres"
    ready = b"database system is ready to accept connections"

    def __init__(self) -> None:
        super().__init__()
        if os.geteuid() == 0:  # PostgreSQL does not run as root.
            self.user = "nobody"
            shutil.chown(self.folder, self.user)

    @property
    def url(self) -> str:
        return f"postgresql://holdfast@127.0.0.1:{self.port}/postgres"

    def initialise(self) -> None:
        words = ["--username=holdfast", "--auth=trust", "--no-sync", "--encoding=UTF8", "--no-locale"]
        initdb = self.spawn([find("initdb") or "initdb", *words, "--pgdata", self.folder / "data"])
        said, _ = initdb.communicate(timeout=PATIENCE_S)
        if initdb.returncode:
            raise RuntimeError(f"initdb failed: {said.decode()}")

    def command(self) -> Sequence[str | Path]:
        settings = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "fsync=off",
        )
        words = [word for setting in settings for word in ("-c", setting)]
        return [find(self.program) or self.program, "-D", self.folder / "data", *words]

    def clean_up(self) -> None:
        self.end(signal.SIGQUIT)  # Not killed: its own processes end with it, and give back what memory they share.
        super().clean_up()


class Relay:
    """Stands between a client and a server, and can stop passing on what either says."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._to = port
        self._open = asyncio.Event()
        self._open.set()
        self._lost = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    def lead_to(self, port: int) -> None:
        """Where new connections go; those there are stay where they are."""
        self._to = port

    def hang(self) -> None:
        """Pass on nothing for a while; a connection that is made meanwhile is lost."""
        self._open.clear()

    def heal(self) -> None:
        """Go on where it stopped."""
        self._open.set()

    def lose(self) -> None:
        """Pass on nothing more for the connections there are; new ones are fine."""
        self._lost.set()
        self._lost = asyncio.Event()

    def cut(self) -> None:
        """End every connection there is; new ones are fine."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.heal()
            self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if not self._open.is_set():
            return
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, far_writer, self._lost))
                group.create_task(self._pass_on(far_reader, writer, self._lost))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        with suppress(OSError):
            while some := await reader.read(65_536):
                await self._open.wait()
                if not lost.is_set():
                    writer.write(some)
        writer.close()
