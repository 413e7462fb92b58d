"""
The process: listens, serves, and stops in order.

::

    bind ─▶ open the store and the agents ─▶ serve ── SIGTERM, SIGINT ─▶ drain ─▶ close the listener ─▶ close the rest

The first signal drains, a second one cancels the turns that still run, and further ones change nothing. Where
something will not end, such as a thread that an agent began, the process ends without it once its time is up.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp

from holdfast.clock import NS
from holdfast.errors import Misconfigured
from holdfast.runtime import Holdfast
from holdfast.server.app import build_app
from holdfast.server.auth import Gate
from holdfast.server.connection import Connection, Limits
from holdfast.server.health import metrics_app
from holdfast.server.listen import check_tls, listen, only_here, url_of
from holdfast.telemetry import OTHER, logger, watch_loop

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
        async with hold:
            gate = Gate(hold.store, hold.clock, hold.metrics.auth_failed)
            closed = await gate.closed()
            if not closed:
                _refuse_open(hold, api, "server.host")
                _refuse_open(hold, metrics, "telemetry.metrics_host")
            held.enter_context(watch_loop(hold.clock, hold.metrics.loop_lag.observe))
            serving = [(_api_server(hold, gate), api)]
            if metrics is not None:
                serving.append((_Server(_config(hold, metrics_app(hold))), metrics))
            # What is here now lives as long as the process: looking through it again and again for garbage would cost
            # half a millisecond of CPU a turn (bench/turn.py).
            gc.collect()
            gc.freeze()
            async with asyncio.TaskGroup() as group:
                for server, listener in serving:
                    group.create_task(server.serve(sockets=[listener]))
                url = url_of(api, "http" if spec.tls_cert is None else "https")
                on_start(Listening(url, None if metrics is None else f"{url_of(metrics)}/metrics", closed))
                close_s = await stopping.turns_ended()
                for server, _ in serving:
                    server.close_within(close_s)
        logger.info("stopped")


class _Server(uvicorn.Server):
    """Uvicorn, with the signals left to us: it would end the process by the signal again, and not with exit code 0."""

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
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)

    async def turns_ended(self) -> float:
        """Wait until somebody asks to stop, then let the turns finish. Returns the seconds left for closing."""
        await self._asked.wait()
        began = self._hold.clock.now()
        logger.info("stopping", turns_in_progress=self._hold.drain.in_progress)
        await self._hold.drain.stop()
        left_s = self._hold.settings.shutdown.deadline_s - (self._hold.clock.now() - began) / NS
        return max(0.1, min(_CLOSE_CONNECTIONS_S, left_s))

    def _signalled(self) -> None:
        self._signals += 1
        self._asked.set()
        if self._signals == 1:
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


def _api_server(hold: Holdfast, gate: Gate) -> _Server:
    spec = hold.settings.server
    return _Server(
        _config(
            hold,
            build_app(hold, gate),
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
