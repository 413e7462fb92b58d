"""
The outermost layer of the application: what happens to every request, whatever it asks.

    ids in ▸ the route's work ▸ an error that nobody expected becomes a 500 ▸ ids out, counted, traced, logged
"""

import asyncio
import re
from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from holdfast.clock import NS, Clock, token_hex
from holdfast.errors import Draining, HoldfastError
from holdfast.server.errors import problem_response, template_of
from holdfast.telemetry import OTHER, Metrics, Tracing, log_failure, logger

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
PROBES = frozenset({"/health", "/health/live", "/health/ready", "/healthz", "/readyz"})
"""Routes that are answered before everything is open, too."""
QUIET = PROBES | {"/metrics"}
"""Routes that probes and scrapers ask again and again: logged at debug level, unless they fail."""


class Edge:
    """
    Gives each request its ids, and tells metrics and logs how it ended.

    Args:
        app: What serves the request.
        routes: The templates of the routes there are; every other path is told as ``_other``.
        metrics: Where requests are counted.
        tracing: Where their spans begin.
        clock: The clock they are timed on.
        opening: Whether the process still opens what it needs, so that only probes can be answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Collection[str],
        metrics: Metrics,
        tracing: Tracing,
        clock: Clock,
        opening: Callable[[], bool],
    ) -> None:
        self._app = app
        self._routes = routes
        self._metrics = metrics
        self._tracing = tracing
        self._clock = clock
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        path: str = scope["path"]
        span = self._tracing.request(scope["method"], path, scope["scheme"], request.headers, spans=path not in QUIET)
        trace = span.context
        asked_id = request.headers.get("x-request-id", "")
        request_id = asked_id if _REQUEST_ID.fullmatch(asked_id) else token_hex(8)
        request.state.trace = trace
        request.state.request_id = request_id
        # HEAD is a GET whose body the server below leaves out.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        began = self._clock.now()
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ids = [(b"x-request-id", request_id.encode()), (b"traceparent", trace.traceparent().encode())]
                message = {**message, "headers": [*message["headers"], *ids]}
            await send(message)

        with span, bound_contextvars(request_id=request_id, trace_id=trace.trace_id):
            try:
                app = self._app
                if path not in PROBES and self._opening():
                    app = problem_response(Draining("the process is starting", retry_after_s=1.0), trace.trace_id)
                await app(inner, receive, send_with_ids)
            except asyncio.CancelledError:
                if status:
                    raise
                # The server is closing and gave up waiting for this request. Nobody around us needs to hear of it.
                await problem_response(Draining(), trace.trace_id)(scope, receive, send_with_ids)
            except Exception as error:  # noqa: BLE001 - the last line of defence: a caller gets an answer, the log a line
                log_failure(error)
                if not status:
                    unexpected = HoldfastError("unexpected error")
                    await problem_response(unexpected, trace.trace_id)(scope, receive, send_with_ids)
            finally:
                asked, duration_s = template_of(inner), (self._clock.now() - began) / NS
                route = asked if asked in self._routes else OTHER
                span.answered(None if route is OTHER else route, status, duration_s)
                self._tell(scope["method"], route, status, duration_s)

    def _tell(self, method: str, route: str, status: int, duration_s: float) -> None:
        self._metrics.answered(method, route, status, duration_s)
        quiet = route in QUIET and status < 400
        write = logger.debug if quiet else logger.info
        write("http_request", method=method, route=route, status=status, duration_s=round(duration_s, 6))
