"""
What it costs that a turn is kept: the agent behind a bare route, served by Holdfast on each of its stores, and as a
workflow of DBOS, in one run.

    python bench/durable.py [--turns N] [--rounds N]

The turn is that of ``bench/turn.py``: two model calls and one tool call, on a model that answers at once. Each variant
is a server process of its own, and rounds go over the variants in turn; the figures are medians over the rounds. CPU is
the server process's own, from the kernel, with turns on 8 connections; so is the database server's, whose disk is
waited for as it is by default. ``alone`` is the median time of a turn where no other one runs. What is stored is how
much the database has grown; of PostgreSQL's growth, some is rows that were replaced.

What each of them promises, once the turn was accepted:

    bare               nothing
    memory             what ended is told again while the process lives
    sqlite, process    the turn goes on after the process was killed: calls that ended are not made again, nor is a
                       tool call whose end nobody knows, unless it says that it may be
    sqlite, power      the same after a power cut
    postgresql         the same, on any server that uses the database
    dbos               the same but for a step whose end nobody knows, which is made again; tools have to be made steps

PostgreSQL takes part where it is installed, and DBOS where it can be imported (``pip install dbos``).
"""

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg  # type: ignore[import-untyped]  # it has no annotations
from pydantic_ai import Agent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from bench.servers import (
        Server,
        add,
        cpu_s,
        drive,
        measure,
        model,
        running,
        serve_bare,
        serve_holdfast,
        serve_route,
    )
else:  # a script's own folder is on the path
    from servers import Server, add, cpu_s, drive, measure, model, running, serve_bare, serve_holdfast, serve_route

ALONE = 50
"""Turns of a round that run alone."""


class Variant(NamedTuple):
    """
    A kind of server.

    Attributes:
        serve: Serves it, given the address of a database of its own.
        database: The name of its database in PostgreSQL; empty where that has none.
        needs: What has to be installed besides.
    """

    serve: Callable[[str], None]
    database: str = ""
    needs: str = ""


class Round(NamedTuple):
    """What was measured of one variant in one round."""

    cpu_ms: float
    database_ms: float
    alone_ms: float
    per_s: float
    stored: float


def serve_dbos(url: str) -> None:
    """The agent in a workflow of DBOS, its tool a step of it, behind a route."""
    dbos = importlib.import_module("dbos").DBOS
    durability = importlib.import_module("pydantic_ai.durable_exec.dbos").DBOSDurability
    served: Agent[None, str] = Agent(model(), name="bench", capabilities=[durability()])
    served.tool_plain(dbos.step()(add))
    config = {"name": "bench", "system_database_url": url, "run_admin_server": False, "log_level": "ERROR"}
    dbos(config=config)

    @dbos.workflow()  # type: ignore[untyped-decorator]  # it need not be installed
    async def turn(message: str) -> str:
        return (await served.run(message)).output

    async def chat(request: Request) -> Response:
        body = await request.json()
        return JSONResponse({"reply": await turn(body["message"])})

    dbos.launch()
    serve_route(chat)


def holdfast_on(url: str, **flags: str) -> Callable[[str], None]:
    """Serves Holdfast on the store ``url``, or on the database it is given."""
    return lambda given: serve_holdfast(**{"store.url": url or given}, **flags)


VARIANTS = {
    "bare": Variant(lambda _: serve_bare()),
    "memory": Variant(holdfast_on("memory:")),
    "sqlite, process": Variant(holdfast_on("sqlite:data.db")),
    "sqlite, power": Variant(holdfast_on("sqlite:data.db", **{"store.durability": "power"})),
    "postgresql": Variant(holdfast_on(""), "holdfast"),
    "dbos, sqlite": Variant(lambda _: serve_dbos("sqlite:///data.db"), needs="dbos"),
    "dbos, postgresql": Variant(serve_dbos, "dbos", "dbos"),
}


class Postgres(NamedTuple):
    """A database server, with the settings it comes with."""

    pid: int
    port: int

    def url(self, database: str) -> str:
        """The address of a database there."""
        return f"postgresql://bench@127.0.0.1:{self.port}/{database}"

    def ask(self, statement: str) -> Any:
        """What a statement says."""

        async def ask() -> Any:
            connection = await asyncpg.connect(self.url("postgres"))
            try:
                return await connection.fetchval(statement)
            finally:
                await connection.close()

        return asyncio.run(ask())


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is; they are often not on the path."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next(map(str, beside), None)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres | None]:
    """A new database server; None where it is not installed."""
    initdb, server = program("initdb"), program("postgres")
    if initdb is None or server is None:
        yield None
        return
    user = "nobody" if os.geteuid() == 0 else None  # It does not run as root.
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        words = ["--username=bench", "--auth=trust", "--encoding=UTF8", "--no-locale"]
        subprocess.run([initdb, *words, "--pgdata", data], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [server, "-D", data, "-p", str(port), "-c", f"unix_socket_directories={folder}"]
        with subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            while "ready to accept connections" not in process.stderr.readline():
                assert process.poll() is None
            try:
                yield Postgres(process.pid, port)
            finally:
                process.send_signal(signal.SIGINT)
                process.communicate()


class Bench(NamedTuple):
    """A variant's server process, and what is measured of it."""

    variant: Variant
    server: Server
    postgres: Postgres | None

    def stored(self) -> int:
        """Bytes of its database."""
        if self.variant.database:
            assert self.postgres is not None
            return int(self.postgres.ask(f"SELECT pg_database_size('{self.variant.database}')"))
        path = self.server.folder / "data.db"
        if not path.exists():
            return 0
        with contextlib.closing(sqlite3.connect(path)) as db:
            [(size,)] = db.execute(
                "SELECT page_size * (page_count - freelist_count) FROM PRAGMA_page_count(), "
                "PRAGMA_page_size(), PRAGMA_freelist_count()"
            )
        return int(size)

    def round(self, turns: int, name: str) -> Round:
        """Turns beside each other, and then alone."""
        stored, database_s = self.stored(), self._database_s()
        cpu_ms, per_s = measure(self.server, turns, name)
        database_ms = (self._database_s() - database_s) / turns * 1_000
        grown = (self.stored() - stored) / turns
        alone_s = asyncio.run(drive(self.server.port, ALONE, f"{name}-alone", connections=1))
        return Round(cpu_ms, database_ms, alone_s * 1_000, per_s, grown)

    def _database_s(self) -> float:
        return cpu_s(self.postgres.pid, children=True) if self.postgres and self.variant.database else 0.0


@contextlib.contextmanager
def benches() -> Iterator[dict[str, Bench]]:
    """A server process for each variant that can be served here, warmed up."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres())
        found: dict[str, Bench] = {}
        for name, variant in VARIANTS.items():
            missing = variant.needs and importlib.util.find_spec(variant.needs) is None
            if missing or (variant.database and database is None):
                print(f"{name}: left out, as it is not installed")
                continue
            url = ""
            if variant.database and database is not None:
                database.ask(f"CREATE DATABASE {variant.database}")
                url = database.url(variant.database)
            found[name] = Bench(variant, stack.enter_context(running("--serve", name, "--url", url)), database)
            measure(found[name].server, 100, "warm")
        yield found


def main() -> None:
    """Run every variant and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200, help="turns a round and variant")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        VARIANTS[args.serve].serve(args.url)
        return
    rounds: dict[str, list[Round]] = {}
    with benches() as found:
        for number in range(args.rounds):
            for name, bench in found.items():
                rounds.setdefault(name, []).append(bench.round(args.turns, f"r{number}"))
    middle = {name: Round(*map(statistics.median, zip(*measured, strict=True))) for name, measured in rounds.items()}
    heads = ("CPU ms/turn", "over bare", "database", "alone ms", "turns/s", "bytes")
    print(f"{'variant':<17}" + "".join(f" {head:>11}" for head in heads))
    for name, row in middle.items():
        over = row.cpu_ms - middle["bare"].cpu_ms
        print(
            f"{name:<17} {row.cpu_ms:>11.2f} {over:>11.2f} {row.database_ms:>11.2f} {row.alone_ms:>11.2f} "
            f"{row.per_s:>11.0f} {row.stored:>11.0f}"
        )


if __name__ == "__main__":
    main()
