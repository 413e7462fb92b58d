"""
What a turn costs: the bare agent behind a route, and the same agent served by Holdfast, in one run.

    python bench/turn.py [--turns N] [--rounds N]

The agent makes two model calls and one tool call; its model answers at once, so that what is measured is everything
around it. Each variant is a server process of its own. Rounds go over the variants in turn, so that a machine whose
speed drifts drifts for all of them; the figures are medians over the rounds. CPU is the server process's own user and
system time, read from the kernel. Every turn is the first of a session of its own.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
import uvloop
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, PartDeltaEvent, TextPart, TextPartDelta, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from holdfast import Holdfast
from holdfast.config import load
from holdfast.server import run_server
from holdfast.telemetry import configure_logs

CONNECTIONS = 8
VARIANTS = ("bare", "holdfast", "bare-sse", "holdfast-sse")


def agent() -> Agent[None, str]:
    """Two model calls and one tool call."""
    reply = "The sum of the two numbers is forty-two, as the tool says, and there is nothing else to add to that."

    async def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("add", {"a": 20, "b": 22}, "call-1")])
        return ModelResponse(parts=[TextPart(reply)])

    async def stream(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if len(messages) == 1:
            yield {0: DeltaToolCall(name="add", json_args='{"a":20,"b":22}', tool_call_id="call-1")}
            return
        for word in reply.split(" "):
            yield f"{word} "

    made = Agent(FunctionModel(model, stream_function=stream, model_name="instant"), name="bench")

    @made.tool_plain
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return made


def serve_bare() -> None:
    """The agent behind a Starlette route, with nothing else."""
    served = agent()

    async def chat(request: Request) -> Response:
        body = await request.json()
        if "text/event-stream" in request.headers["accept"]:
            return StreamingResponse(deltas(body["message"]), media_type="text/event-stream")
        result = await served.run(body["message"])
        return JSONResponse({"reply": result.output})

    async def deltas(message: str) -> AsyncIterator[str]:
        async with served.run_stream_events(message) as events:
            async for event in events:
                if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    yield f"data: {json.dumps(event.delta.content_delta)}\n\n"

    app = Starlette(routes=[Route("/chat", chat, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    listener = server.config.bind_socket()
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve([listener]))


def serve_holdfast() -> None:
    """The agent as `holdfast serve` serves it: SQLite in the working directory, logs as JSON lines."""
    wide = dict.fromkeys(
        ("all_per_s", "all_burst", "user_per_s", "user_burst", "tools_per_s", "user_tools_per_s"), 10**6
    )
    flags = {f"resilience.{name}": value for name, value in (wide | {"tool_per_s": 10**6}).items()}
    settings = load(environ={}, flags={"server.port": 0, "telemetry.metrics_port": 0, **flags}).settings
    configure_logs(settings.telemetry, open("server.log", "w"))  # noqa: PTH123, SIM115 - open as long as the process is
    hold = Holdfast(settings, environ={})
    hold.serve(agent(), "bench")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_server(hold, lambda listening: print(listening.url.rpartition(":")[2], flush=True)))


class Server(NamedTuple):
    """A server process, and where it listens."""

    pid: int
    port: int

    def cpu_s(self) -> float:
        """User and system time the process has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_kib(self) -> int:
        """Memory the process holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@contextlib.contextmanager
def running(variant: str) -> Iterator[Server]:
    """A server process for ``variant``, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        kind = variant.partition("-")[0]
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", kind]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Server(process.pid, port)
        finally:
            process.terminate()
            process.wait(30)


async def drive(port: int, turns: int, prefix: str, *, streams: bool) -> None:
    """Ask ``turns`` times over ``CONNECTIONS`` kept-alive connections."""
    numbers = iter(range(turns))
    accept = "text/event-stream" if streams else "application/json"

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            body = json.dumps({"message": "What is 20 + 22?", "session_id": f"{prefix}-{number}"}).encode()
            head = (
                f"POST /chat HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await read_answer(reader)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(ask())


async def read_answer(reader: asyncio.StreamReader) -> None:
    """Read one answer to its end, and insist that it is a good one."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    lower = head.lower()
    if b"content-length:" in lower:
        await reader.readexactly(int(lower.partition(b"content-length:")[2].split()[0]))
        return
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        await reader.readexactly(size + 2)
    await reader.readexactly(2)


def measure(server: Server, variant: str, turns: int, name: str) -> tuple[float, float]:
    """CPU milliseconds a turn, and turns a second."""
    cpu, began = server.cpu_s(), time.perf_counter()
    asyncio.run(drive(server.port, turns, name, streams=variant.endswith("sse")))
    took = time.perf_counter() - began
    return (server.cpu_s() - cpu) / turns * 1_000, turns / took


def main() -> None:
    """Run every variant and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=400, help="turns a round and variant")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=("bare", "holdfast"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        (serve_bare if args.serve == "bare" else serve_holdfast)()
        return
    figures: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    with contextlib.ExitStack() as stack:
        servers = {variant: stack.enter_context(running(variant)) for variant in VARIANTS}
        for variant, server in servers.items():
            measure(server, variant, 100, "warm")
        for number in range(args.rounds):
            for variant, server in servers.items():
                figures[variant].append(measure(server, variant, args.turns, f"r{number}"))
        idle = servers["holdfast"]
        before = idle.rss_kib()
        measure(idle, "holdfast", 1_000, "idle")
        grown = idle.rss_kib() - before
    print(f"{'variant':<14} {'CPU ms/turn':>12} {'over bare':>10} {'ratio':>6} {'turns/s':>8}")
    for variant in VARIANTS:
        cpu = statistics.median(cpu for cpu, _ in figures[variant])
        rate = statistics.median(rate for _, rate in figures[variant])
        bare = statistics.median(cpu for cpu, _ in figures[variant.replace("holdfast", "bare")])
        print(f"{variant:<14} {cpu:>12.2f} {cpu - bare:>10.2f} {cpu / bare:>6.2f} {rate:>8.0f}")
    print(f"memory of 1,000 more idle sessions: {grown} KiB")


if __name__ == "__main__":
    main()
