"""
The simulator: a model provider on a real socket.

::

    async with Simulator(…) as sim        every connection is a task of one TaskGroup
        │                                 leaving cancels them all, hung requests too
        └─ connection ─▶ request ─▶ Routes ─▶ next request …
"""

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Any, Self

import h11
import msgspec

from holdfast.clock import Clock
from holdfast.errors import Misconfigured
from holdfast.sim.control import fault_rule
from holdfast.sim.director import Director
from holdfast.sim.faults import AnyFault, Fault
from holdfast.sim.latency import Latency
from holdfast.sim.loading import Source, load
from holdfast.sim.record import Record, Trail
from holdfast.sim.routes import JSON, Routes
from holdfast.sim.rules import When
from holdfast.sim.wire import Connection

MAX_BODY_BYTES = 32 * 1024 * 1024


class Simulator:
    """
    A model provider that answers by script, over HTTP. ``async with Simulator() as sim`` serves until the block ends.

    Args:
        script: See ``loading.load``; None is the rule-based demo model.
        host: Address to listen on. There is no authentication: keep it on loopback.
        port: 0 takes a free one.
        seed: Makes chance (``share``, latencies, ids) the same on every run, given the same requests in the same order.
        first_token: Latency of the first token, as ``Latency.parse`` reads it; None is the script's, or none.
        per_token: The same for each further token.
        clock: None is the machine's.
        max_body_bytes: Larger requests are answered with 413.
        keep: How many requests ``requests`` holds, their bodies included; the oldest are forgotten.

    Raises:
        Misconfigured: the script or a latency is wrong, or, on entering, the port is in use.
    """

    def __init__(
        self,
        script: Source = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        first_token: float | str | Latency | None = None,
        per_token: float | str | Latency | None = None,
        clock: Clock | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        keep: int = 5_000,
    ) -> None:
        self._host = host
        self._port = port
        self._clock = clock or Clock()
        self._max_body_bytes = max_body_bytes
        loaded, name = load(script)
        self._director = Director(
            loaded, name, seed, _latency("first_token", first_token), _latency("per_token", per_token)
        )
        self._trail = Trail(self._clock, keep)
        self._routes = Routes(self._director, self._trail, self._clock, seed)
        self._tasks = asyncio.TaskGroup()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a slash: the Anthropic base URL. OpenAI's is ``f"{sim.url}/v1"``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def requests(self) -> deque[Record]:
        """What arrived at the model routes, oldest first."""
        return self._trail.records

    @property
    def in_flight(self) -> int:
        """Model requests that are being answered now."""
        return self._trail.in_flight

    @property
    def max_in_flight(self) -> int:
        """The most model requests at the same time, since the start or since ``requests`` were deleted."""
        return self._trail.max_in_flight

    async def wait_idle(self) -> None:
        """Wait until no model request is in flight. Call it on the simulator's own loop."""
        await self._trail.wait_idle()

    def use_script(self, script: Source) -> None:
        """
        Replace the script; its counts and its chance begin anew. May be called from any thread.

        Raises:
            Misconfigured: as ``loading.load``; the script in force stays.
        """
        self._director.use(*load(script))

    def add_fault(
        self,
        fault: AnyFault | str | dict[str, Any],
        *,
        times: int | None = None,
        after: int = 0,
        share: float = 1.0,
        when: When | None = None,
    ) -> str:
        """
        Inject a fault before all rules; ``times``, ``after``, ``share`` and ``when`` mean what they mean in a rule.

        May be called from any thread.

        Returns:
            What records call it: ``faults[0]``.

        Raises:
            Misconfigured: there is no such fault, or a value is out of range.
        """
        data: dict[str, Any] = {
            "fault": msgspec.to_builtins(fault) if isinstance(fault, Fault) else fault,
            "times": times,
            "after": after,
            "share": share,
            "when": msgspec.to_builtins(when or When()),
        }
        return self._director.add_fault(fault_rule(data, "add_fault"))

    def clear_faults(self) -> int:
        """Take out all injected faults, and say how many there were. May be called from any thread."""
        return self._director.clear_faults()

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.start_server(self._connected, self._host, self._port)
        except OSError as wrong:
            reason = wrong.strerror or str(wrong)
            raise Misconfigured(
                f"sim cannot listen on {self._host}:{self._port}: {reason}; choose another --port"
            ) from wrong
        self._port = self._server.sockets[0].getsockname()[1]
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, wrong: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        # The group is not told of an exception of the block: it would wrap it in a group of its own.
        await self._tasks.__aexit__(None, None, None)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._tasks.create_task(self._serve(Connection(reader, writer, self._max_body_bytes)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: Connection) -> None:
        try:
            while (request := await connection.next_request()) is not None:
                await self._routes.answer(connection, request)
        except h11.RemoteProtocolError as wrong:
            said = msgspec.json.encode({"error": f"not HTTP: {wrong}"})
            with contextlib.suppress(ConnectionError, h11.LocalProtocolError):
                await connection.respond(wrong.error_status_hint, JSON, said)
        except ConnectionError:
            return
        finally:
            await connection.close()


def _latency(name: str, value: float | str | Latency | None) -> Latency | None:
    try:
        return None if value is None else Latency.parse(value)
    except ValueError as wrong:
        raise Misconfigured(f"sim {name}: {wrong}") from wrong
