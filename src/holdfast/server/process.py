"""
The process: listens, serves, and stops in order.

::

    listen ─▶ open the store and the agents ─▶ serve ── SIGTERM, SIGINT ─▶ drain ─▶ close the listener ─▶ close the rest
       probes are answered                                                            no longer

The first signal drains, a second one cancels the turns that still run, and a third one ends the process at once, with
the exit code that shells know for that signal: 128 and its number. Where something will not end, such as a thread that
an agent began, the process ends without it once its time is up.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp

from holdfast.errors import Misconfigured
from holdfast.lifecycle import Phase
from holdfast.runtime import Holdfast
from holdfast.server.app import build_app
from holdfast.server.auth import Gate
from holdfast.server.connection import Connection, Limits
from holdfast.server.health import metrics_app
from holdfast.server.listen import check_tls, listen, only_here, url_of
from holdfast.telemetry import OTHER, logger

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CLOSE_CONNECTIONS_S = 2.0
"""Seconds that open connections have to finish once no turn runs any more."""


class Listening(NamedTuple):
    """Where the server can be reached, for the one who started it. ``metrics_url`` is None where there is no port."""

    url: str
    metrics_url: str | None
    closed: bool


async def run_server(hold: Holdfast, on_start: Callable[[Listening], None], stop: asyncio.Event | None = None) -> None:
    """
    Serve ``hold`` until a signal says to stop, and return once everything is closed.

    Args:
        hold: What to serve; it is entered and left here.
        on_start: Told where the server listens, once it does.
        stop: Set it to stop as the first signal does. Signals are listened to in the main thread only.

    Raises:
        Misconfigured: an address cannot be listened on, the certificate cannot be used, or the server would be open
            to other machines without any credential. Nothing was served.
    """
    spec, telemetry = hold.settings.server, hold.settings.telemetry
    check_tls(spec)
    stopping = _Stop(hold, stop or asyncio.Event())
    with ExitStack() as held:
        api = held.enter_context(listen(spec.host, spec.port, "server."))
        metrics = (
            held.enter_context(listen(telemetry.metrics_host, telemetry.metrics_port, "telemetry.metrics_"))
            if telemetry.metrics_port
            else None
        )
        held.enter_context(stopping.on_signals())
        held.enter_context(hold.heartbeat.beating())
        gate = Gate(hold.store, hold.clock, hold.metrics.auth_failed)
        checked = asyncio.Event()  # Until it is known who may reach us, only probes are answered.
        servers = [(_api_server(hold, gate, lambda: not checked.is_set()), api)]
        if metrics is not None:
            servers.append((_Server(_config(hold, metrics_app(hold, lambda: not checked.is_set()))), metrics))
        async with _listening(servers, hold) as close, hold:
            closed = await gate.closed()
            if not closed:
                _refuse_open(hold, api, "server.host")
                _refuse_open(hold, metrics, "telemetry.metrics_host")
            checked.set()
            # What is here now lives as long as the process: looking through it again and again for garbage would cost
            # half a millisecond of CPU a turn (bench/turn.py).
            gc.collect()
            gc.freeze()
            url = url_of(api, "http" if spec.tls_cert is None else "https")
            on_start(Listening(url, None if metrics is None else f"{url_of(metrics)}/metrics", closed))
            await stopping.turns_ended()
            await close()
        logger.info("stopped")


@asynccontextmanager
async def _listening(
    servers: Sequence[tuple["_Server", socket.socket]], hold: Holdfast
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """
    Serve for the length of the block, or until what it is given is called. What is open at the end has two seconds.

    Raises:
        BaseException: what was raised in the block, or by a server.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(server.serve(sockets=[listener])) for server, listener in servers]

            async def close() -> None:
                for server, _ in servers:
                    server.close_within(max(0.1, min(_CLOSE_CONNECTIONS_S, hold.drain.left_s / 2)))
                await asyncio.wait(tasks)

            for server, _ in servers:
                await server.listens.wait()
            try:
                yield close
            finally:
                await close()
    except BaseExceptionGroup as raised:
        error: BaseException = raised
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


class _Server(uvicorn.Server):
    """
    Uvicorn, with the signals left to us: it would end the process by the signal again, and not with exit code 0.

    Attributes:
        listens: Set once connections are taken.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections from now on."""
        await super().startup(sockets)
        self.listens.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def close_within(self, seconds: float) -> None:
        """Take no new connections, and give those that are open this long to finish."""
        self.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]  # it is waited for, fractions too
        self.should_exit = True


class _Stop:
    """What a signal sets off."""

    def __init__(self, hold: Holdfast, asked: asyncio.Event) -> None:
        self._hold = hold
        self._asked = asked
        self._signals = 0

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to signals for the length of the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        # Not the loop's own handlers: those would not be called while the loop is held up, however often one asks.
        def signalled(number: int, _frame: FrameType | None) -> None:
            self._signals += 1
            if self._signals > 2:
                os._exit(128 + number)
            loop.call_soon_threadsafe(self._heard, self._signals)

        before = [(number, signal.signal(number, signalled)) for number in STOP_SIGNALS]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    async def turns_ended(self) -> None:
        """Wait until somebody asks to stop, then until no turn runs any more, or the time for that is up."""
        await self._asked.wait()
        drain = self._hold.drain
        logger.info("stopping", turns_in_progress=drain.in_progress)
        drain.watchers.append(self._tell)
        await drain.stop()

    def _tell(self, ended: Phase, _begun: Phase, lasted_s: float) -> None:
        if ended is not Phase.RUNNING:
            running = self._hold.drain.in_progress
            logger.info("stop_phase", phase=ended.value, lasted_s=round(lasted_s, 3), turns_in_progress=running)

    def _heard(self, signals: int) -> None:
        self._asked.set()
        if signals == 1:
            self._end_anyway_after(self._hold.settings.shutdown.deadline_s + _CLOSE_CONNECTIONS_S)
        else:
            self._hold.drain.hurry()

    @staticmethod
    def _end_anyway_after(seconds: float) -> None:
        def end() -> None:
            logger.error("stop_overdue", after_s=seconds)
            os._exit(1)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()


def _refuse_open(hold: Holdfast, listener: socket.socket | None, key: str) -> None:
    """
    Keep a server without credentials on this machine.

    Raises:
        Misconfigured: others can reach ``listener``.
    """
    if listener is None or only_here(listener):
        return
    hold.drain.hurry()  # Nothing was served: there is nobody to wait for.
    raise Misconfigured(
        f"{key} is {listener.getsockname()[0]}, which other machines can reach, and there are no API keys: "
        "create one first (holdfast keys create), or listen on 127.0.0.1"
    )


def _api_server(hold: Holdfast, gate: Gate, opening: Callable[[], bool]) -> _Server:
    spec = hold.settings.server
    return _Server(
        _config(
            hold,
            build_app(hold, gate, opening),
            proxy_headers=bool(spec.trusted_proxies),
            forwarded_allow_ips=list(spec.trusted_proxies),
            ssl_certfile=spec.tls_cert,
            ssl_keyfile=spec.tls_key,
        )
    )


def _config(hold: Holdfast, app: ASGIApp, **more: Any) -> uvicorn.Config:
    def refused(status: int) -> None:
        hold.metrics.answered(OTHER, OTHER, status, 0.0)
        logger.info("http_refused", status=status)

    connection: Any = partial(Connection, Limits(hold.settings.server.body_timeout_s, refused))
    return uvicorn.Config(
        **{"proxy_headers": False, **more},
        app=app,
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
