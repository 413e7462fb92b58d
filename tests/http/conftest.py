"""A live server in a thread of its own, with agents that the test holds by a string."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from unittest import mock

import httpx2
import pytest
import structlog
import uvloop
from structlog.contextvars import merge_contextvars
from structlog.typing import EventDict

from holdfast import FunctionTurn, Holdfast
from holdfast.clock import NS, Clock
from holdfast.config import load
from holdfast.errors import StoreUnavailable
from holdfast.server import run_server
from holdfast.server.auth import make_key
from holdfast.server.process import Listening
from holdfast.store import open_store

T = TypeVar("T")
PATIENCE_S = 20.0


UNBOUNDED = {
    "resilience.user_per_s": 1_000_000,
    "resilience.user_burst": 1_000_000,
    "resilience.all_per_s": 1_000_000,
    "resilience.attempts": 1,
    "resilience.breaker_failures": 1_000_000,
    "resilience.breaker_failure_ratio": 1,
    "resilience.credential_s": 0.001,
}
"""So that one test's requests and failures are not held against the next one's; tests of policies set their own."""


class Switch:
    """Stands before a store, which does not answer while it is ``down``."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.down = False

    def __getattr__(self, name: str) -> Any:
        if self.down and name not in {"open", "close", "listen", "lasts"}:

            async def refuse(*_: object) -> None:
                raise StoreUnavailable("the disk is on fire")

            return refuse
        return getattr(self._store, name)


class Server:
    """
    A server, and the hands to hold it by.

    Its agents: ``echo`` answers with what was asked, ``past`` with what was asked before, ``talk`` says "one " and ends
    with "two" once its message is released, ``fails`` raises.
    """

    secret = "the agent's innermost thoughts"

    def __init__(self, environ: Mapping[str, str] = MappingProxyType({}), **settings: object) -> None:
        flags = {"store.url": "memory:", "server.port": 0, "telemetry.metrics_port": 0, "shutdown.deadline_s": 5}
        flags["telemetry.jsonl_path"] = ""
        flags |= UNBOUNDED
        flags |= {name.replace("__", "."): value for name, value in settings.items()}
        self._skipped_ns = 0
        self._released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.began: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        real = Clock()
        clock = Clock(lambda: real.now() + self._skipped_ns, lambda: real.wall_ns() + self._skipped_ns)
        with mock.patch("holdfast.runtime.open_store", lambda *spec: Switch(open_store(*spec))):
            self.hold = Holdfast(load(environ={}, flags=flags).settings, environ=environ, clock=clock)
        self.hold.heartbeat._clock = real  # Where time is skipped, the loop is not late.
        self.store: Any = self.hold.store
        for name, agent in {"echo": _echo, "past": _past, "talk": self._talk, "fails": _fails}.items():
            self.hold.serve(agent, name)
        self._up = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="server under test")

    def start(self) -> Server:
        self._thread.start()
        assert self._up.wait(PATIENCE_S)
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """Stop at once: whatever still runs is cancelled."""
        self.call(self.hold.drain.hurry)
        self.begin_to_stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def begin_to_stop(self) -> None:
        self.call(self._stop.set)

    def call(self, job: Callable[[], object]) -> None:
        """Do ``job`` in the server's loop; nothing where it has ended."""
        try:
            self._loop.call_soon_threadsafe(job)
        except RuntimeError:
            return

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        """What ``job`` returns, run in the server's loop."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(PATIENCE_S)

    def release(self, message: str) -> None:
        self.call(self._released[message].set)

    def skip(self, seconds: float) -> None:
        """Let time pass on the server's clock."""
        self._skipped_ns += round(seconds * NS)

    def add_key(self, user: str, *scopes: str, lasts_s: float | None = None) -> str:
        key = make_key(user, scopes, self.hold.clock, lasts_s)
        self.run(self.hold.store.add_key(key.stored))
        self.skip(2)
        return key.text

    def revoke(self, key: str) -> None:
        assert self.run(self.hold.store.revoke_key(key.split("_")[1], self.hold.clock.wall_ns()))

    @property
    def address(self) -> tuple[str, int]:
        url = httpx2.URL(self.url)
        return url.host, url.port or 0

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self._error = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await run_server(self.hold, self._started, self._stop)

    def _started(self, listening: Listening) -> None:
        self.url, self.metrics_url = listening.url, listening.metrics_url
        self._up.set()

    async def _talk(self, turn: FunctionTurn) -> str:
        turn.say("one ")
        self.began[turn.message].set()
        await self._released[turn.message].wait()
        turn.say("two")
        return "one two"


async def _echo(turn: FunctionTurn) -> str:
    return turn.message


async def _past(turn: FunctionTurn) -> str:
    return " | ".join(past.message for past in turn.past)


async def _fails(_turn: FunctionTurn) -> str:
    raise LookupError(Server.secret)


class Sent(NamedTuple):
    """One server-sent event; ``id`` is None where it has none."""

    id: int | None
    name: str
    data: Any


class Api:
    """A client of one server."""

    def __init__(self, server: Server, key: str = "", *, verify: Any = True) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.server = server
        self.http = httpx2.Client(
            base_url=server.url, headers=headers, timeout=PATIENCE_S, trust_env=False, verify=verify
        )

    def post(self, message: str, session: str | None = None, agent: str | None = None, **more: Any) -> httpx2.Response:
        return self.http.post("/chat", json=asked(message, session, agent), **more)

    def ask(self, message: str, session: str | None = None, agent: str | None = None, **more: Any) -> Any:
        """The answer to a turn that succeeds."""
        response = self.post(message, session, agent, **more)
        assert response.status_code == 200, response.text
        return response.json()

    @contextmanager
    def stream(
        self, message: str, session: str | None = None, agent: str | None = None, **headers: str
    ) -> Iterator[Iterator[Sent]]:
        body = asked(message, session, agent)
        with self._events("POST", "/v1/chat", headers, json=body) as events:
            yield events

    @contextmanager
    def watch(self, turn_id: str, **headers: str) -> Iterator[Iterator[Sent]]:
        with self._events("GET", f"/v1/turns/{turn_id}/events", headers) as events:
            yield events

    @contextmanager
    def _events(self, method: str, path: str, headers: dict[str, str], **more: Any) -> Iterator[Iterator[Sent]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.http.stream(method, path, headers={"accept": "text/event-stream", **named}, **more) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
            yield _read_events(response.iter_lines())

    def begin(self, message: str, session: str | None = None, agent: str | None = None, **more: Any) -> Any:
        """What is said of a turn that begins in the background."""
        response = self.http.post("/v1/turns", json={**asked(message, session, agent), **more})
        assert response.status_code == 202, response.text
        return response.json()

    def turn(self, turn_id: str) -> Any:
        response = self.get(f"/v1/turns/{turn_id}")
        assert response.status_code == 200, response.text
        return response.json()

    def ended(self, turn_id: str) -> Any:
        """The turn, once it has ended."""
        with self.watch(turn_id) as events:
            list(events)
        turn = self.turn(turn_id)
        assert turn["state"] == "ended"
        return turn

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.http.get(path, **more)

    def delete(self, path: str, **more: Any) -> httpx2.Response:
        return self.http.delete(path, **more)


def asked(message: str, session: str | None, agent: str | None) -> dict[str, str]:
    given = {"message": message, "session_id": session, "agent": agent}
    return {name: value for name, value in given.items() if value is not None}


def _read_events(lines: Iterator[str]) -> Iterator[Sent]:
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if fields:
                number = int(fields["id"]) if "id" in fields else None
                yield Sent(number, fields["event"], json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value


class Wire:
    """A connection, byte by byte."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE_S)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def ended(self) -> bool:
        """Wait for the other side to close; whether it said nothing before."""
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.file.close()
        self.socket.close()


MAYBE = {"turn_id", "retry_after", "guard", "key_class", "reason"}
"""What a problem says where it can."""


def _problem_of(response: httpx2.Response, status: int, code: str) -> Any:
    """The problem that ``response`` is, checked for its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) - MAYBE == {"type", "title", "status", "code", "detail", "trace_id"}
    assert problem["type"] == f"urn:holdfast:error:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["trace_id"] == response.headers["traceparent"].split("-")[1]
    assert response.headers["x-request-id"]
    return problem


class Log:
    """Every line logged since the test began. A request's own line is written once its answer is sent."""

    def __init__(self) -> None:
        self.lines: list[EventDict] = []
        self._more = threading.Condition()

    def take(self, _logger: object, _method: str, line: EventDict) -> EventDict:
        with self._more:
            self.lines.append(line)
            self._more.notify_all()
        raise structlog.DropEvent

    def all(self, event: str) -> list[EventDict]:
        return [line for line in self.lines if line["event"] == event]

    def wait(self, event: str, count: int = 1) -> list[EventDict]:
        """The lines of this event, once there are as many."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.all(event)) >= count, PATIENCE_S), self.lines
            return self.all(event)


@pytest.fixture(scope="module", autouse=True)
def _log() -> Iterator[Log]:
    log = Log()
    structlog.configure(processors=[merge_contextvars, structlog.processors.add_log_level, log.take])
    yield log
    structlog.reset_defaults()


@pytest.fixture
def log(_log: Log) -> Log:
    _log.lines.clear()
    return _log


ProblemOf = Callable[[httpx2.Response, int, str], Any]
ReadEvents = Callable[[Iterator[str]], Iterator[Sent]]
Serve = Callable[..., Server]
Connect = Callable[..., Api]
Dial = Callable[..., Wire]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Start a server for the tests of one file; keywords are settings."""
    with ExitStack() as running:

        def serve(
            environ: Mapping[str, str] = MappingProxyType({}),
            before: Callable[[Server], None] = lambda _: None,
            **settings: object,
        ) -> Server:
            server = Server(environ, **settings)
            before(server)
            server.start()
            running.callback(server.stop)
            return server

        yield serve


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    """The one that most tests of a file share: open, and nothing kept."""
    return serve()


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """A client of the shared server, or of another."""
    with ExitStack() as open_:

        def connect(to: Server = server, key: str = "", **more: Any) -> Api:
            api = Api(to, key, **more)
            open_.callback(api.http.close)
            return api

        yield connect


@pytest.fixture
def api(connect: Connect) -> Api:
    return connect()


@pytest.fixture
def dial(server: Server) -> Iterator[Dial]:
    """A bare connection to the shared server, or to another."""
    with ExitStack() as open_:

        def dial(to: Server = server) -> Wire:
            wire = Wire(to.address)
            open_.callback(wire.close)
            return wire

        yield dial


@pytest.fixture
def said() -> str:
    """A message that no other test uses."""
    return f"m-{Clock().now()}"


@pytest.fixture
def problem_of() -> ProblemOf:
    return _problem_of


@pytest.fixture
def read_events() -> ReadEvents:
    return _read_events
