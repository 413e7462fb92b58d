"""
What telemetry costs a turn: the same turn with each part of it on, and with all of it off, in one run.

    python bench/telemetry.py [--turns N] [--rounds N]

The turn makes two model calls and three tool calls that answer at once, and is asked through the whole application,
without sockets, with sessions in memory and the monitor off. It has seven spans, seven trace events, some two dozen
updates of metrics, and three lines in the log, or eight at `debug`. Rounds go over the rows in turn, so that a machine
whose speed drifts drifts for all of them. CPU is that of the whole process: threads that write and send are in it, down
to the last line and span; the collector is a process of its own. Figures are the best of the rounds, as other work on
the machine only adds to them, and how far their median was from it.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from starlette.types import ASGIApp, Message, Scope

from holdfast import Holdfast
from holdfast.adapters.function import FunctionTurn
from holdfast.config import load
from holdfast.guard import Attempt
from holdfast.server import build_app
from holdfast.telemetry import configure_logs

MODEL_CALLS, TOOL_CALLS = 2, 3
WARM = 50
BODY = json.dumps({"message": "What is 20 + 22?"}).encode()
HEADERS = {"host": "localhost", "content-type": "application/json", "content-length": str(len(BODY))}

SILENT: dict[str, object] = {"log_level": "error"}
OFF: dict[str, object] = {"enabled": False, **SILENT}
METRICS: dict[str, object] = {"jsonl_path": None, **SILENT}


class Row(NamedTuple):
    """
    One way to run.

    Attributes:
        settings: Of the section ``telemetry``.
        over: The row that it is compared with.
        sends: Whether there is a collector.
    """

    settings: dict[str, object]
    over: str
    sends: bool = False


ROWS = {
    "off": Row(OFF, "off"),
    "metrics": Row(METRICS, "off"),
    "spans, dropped": Row({**METRICS, "traces_ratio": 0}, "metrics", sends=True),
    "spans, kept and sent": Row({**METRICS, "traces_ratio": 1}, "metrics", sends=True),
    "trace events": Row(SILENT, "metrics"),
    "log": Row({**OFF, "log_level": "info"}, "off"),
    "log at debug": Row({**OFF, "log_level": "debug"}, "off"),
    "everything": Row({}, "off", sends=True),
    "everything, log at debug": Row({"log_level": "debug"}, "off", sends=True),
}


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def ask(attempt: Attempt) -> str:
    """A model that answers at once."""
    attempt.used(200, 20)
    return "ok"


async def agent(turn: FunctionTurn) -> str:
    """Ask and act."""
    for _ in range(MODEL_CALLS):
        await turn.call_model("instant", "small", ask)
    for number in range(TOOL_CALLS):
        await turn.tool(add, a=number, b=number)
    return "The sum of the two numbers is forty-two."


async def chat(app: ASGIApp) -> None:
    """One turn, asked and answered."""
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in HEADERS.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Message) -> None:
        assert message.get("status", 200) == 200, message

    await app(scope, receive, send)


async def measure(row: Row, turns: int, collector: str) -> float:
    """CPU microseconds a turn, until the last line is written and the last span is sent."""
    wide = ("all_per_s", "all_burst", "user_per_s", "user_burst", "tools_per_s", "user_tools_per_s", "tool_per_s")
    flags: dict[str, Any] = {f"resilience.{name}": 10**6 for name in wide}
    settings = load(environ={}, flags={"store.url": "memory:", "monitor.mode": "off", **flags}).settings
    settings = settings.model_copy(update={"telemetry": settings.telemetry.model_copy(update=row.settings)})
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector} if row.sends else {}
    with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230, PTH123 - a stream, as standard error is
        configure_logs(settings.telemetry, nowhere)
        hold = Holdfast(settings, environ=environ)
        hold.serve(agent, "bench")
        async with hold:
            app = build_app(hold)
            for _ in range(WARM):
                await chat(app)
            gc.collect()
            gc.freeze()
            before = time.process_time()
            for _ in range(turns):
                await chat(app)
            await hold.traces.close(10)
            used = time.process_time() - before
            gc.unfreeze()
    lost = {key: child for key, child in counted(hold).items() if child}
    assert not lost, lost
    return used / turns * 1e6


def counted(hold: Holdfast) -> dict[str, float]:
    """What telemetry was lost: nothing, or the figures are wrong."""
    names = {"agent_telemetry_dropped_total"}
    samples = (sample for family in hold.metrics.registry.collect() for sample in family.samples)
    return {str(sample.labels): sample.value for sample in samples if sample.name in names}


def sink() -> None:
    """A collector that takes everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextlib.contextmanager
def collecting() -> Iterator[str]:
    """The address of a collector in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--sink"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """Run every row and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=400, help="turns a round and row")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sink:
        sink()
        return
    figures: dict[str, list[float]] = {name: [] for name in ROWS}
    with collecting() as collector, tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for _ in range(args.rounds):
            for name, row in ROWS.items():
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    figures[name].append(runner.run(measure(row, args.turns, collector)))
    best = {name: min(figures[name]) for name in ROWS}
    whole = best["everything"] - best["off"]
    print(f"{'row':<25} {'µs/turn':>8} {'median':>7} {'over':>8} {'µs':>5} {'of everything':>14}")
    for name, row in ROWS.items():
        spread, more = statistics.median(figures[name]) / best[name] - 1, best[name] - best[row.over]
        print(f"{name:<25} {best[name]:>8.0f} {spread:>+7.0%} {row.over:>8} {more:>5.0f} {more / whole:>14.0%}")


if __name__ == "__main__":
    main()
