"""One agent behind server processes of several kinds, and somebody who asks them, for the benchmarks of turns."""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
REPLY = "The sum of the two numbers is forty-two, as the tool says, and there is nothing else to add to that."


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def model() -> FunctionModel:
    """Answers at once: first with a call of the tool, then with words."""

    async def answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("add", {"a": 20, "b": 22}, "call-1")])
        return ModelResponse(parts=[TextPart(REPLY)])

    async def stream(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        if len(messages) == 1:
            yield {0: DeltaToolCall(name="add", json_args='{"a":20,"b":22}', tool_call_id="call-1")}
            return
        for word in REPLY.split(" "):
            yield f"{word} "

    return FunctionModel(answer, stream_function=stream, model_name="instant")


def agent() -> Agent[None, str]:
    """Two model calls and one tool call."""
    made = Agent(model(), name="bench")
    made.tool_plain(add)
    return made


def serve_route(chat: Callable[[Request], Awaitable[Response]]) -> None:
    """Serve one Starlette route, with nothing else."""
    app = Starlette(routes=[Route("/chat", chat, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    listener = server.config.bind_socket()
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve([listener]))


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

    serve_route(chat)


def serve_holdfast(**flags: Any) -> None:
    """The agent as `holdfast serve` serves it: SQLite in the working directory, logs as JSON lines, wide limits."""
    names = ("all_per_s", "all_burst", "user_per_s", "user_burst", "tools_per_s", "user_tools_per_s", "tool_per_s")
    wide = {f"resilience.{name}": 10**6 for name in names}
    settings = load(environ={}, flags={"server.port": 0, "telemetry.metrics_port": 0, **wide, **flags}).settings
    configure_logs(settings.telemetry, open("server.log", "w"))  # noqa: PTH123, SIM115 - open as long as the process is
    hold = Holdfast(settings, environ={})
    hold.serve(agent(), "bench")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_server(hold, lambda listening: print(listening.url.rpartition(":")[2], flush=True)))


class Server(NamedTuple):
    """A server process, where it listens and which folder is its own."""

    pid: int
    port: int
    folder: Path

    def cpu_s(self) -> float:
        """User and system time the process has used so far."""
        return cpu_s(self.pid)

    def rss_kib(self) -> int:
        """Memory the process holds now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


def cpu_s(pid: int, *, children: bool = False) -> float:
    """User and system time a process has used so far; with that of its children, of those that have ended too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11 : 15 if children else 13])
    alive = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if children else []
    return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_s(int(child)) for child in alive)


@contextlib.contextmanager
def running(*words: str) -> Iterator[Server]:
    """A server process, in a folder of its own: this program with ``words``, which says its port first."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(sys.argv[0]).resolve()), *words]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield Server(process.pid, int(process.stdout.readline()), Path(folder))
        finally:
            process.terminate()
            process.wait(30)


async def drive(port: int, turns: int, name: str, *, streams: bool = False, connections: int = CONNECTIONS) -> float:
    """Ask ``turns`` times over kept-alive connections, each time in a session of its own; the median turn's seconds."""
    numbers = iter(range(turns))
    accept = "text/event-stream" if streams else "application/json"
    took: list[float] = []

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            body = json.dumps({"message": "What is 20 + 22?", "session_id": f"{name}-{number}"}).encode()
            head = (
                f"POST /chat HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            began = time.perf_counter()
            writer.write(head.encode() + body)
            await read_answer(reader)
            took.append(time.perf_counter() - began)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(ask())
    return statistics.median(took)


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


def measure(server: Server, turns: int, name: str, *, streams: bool = False) -> tuple[float, float]:
    """CPU milliseconds a turn, and turns a second."""
    cpu, began = server.cpu_s(), time.perf_counter()
    asyncio.run(drive(server.port, turns, name, streams=streams))
    took = time.perf_counter() - began
    return (server.cpu_s() - cpu) / turns * 1_000, turns / took
