"""The application: its routes, and what lies around them."""

from collections.abc import Callable, Collection
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from holdfast.errors import HoldfastError, Unprocessable
from holdfast.lifecycle import Phase
from holdfast.runtime import Holdfast
from holdfast.server.auth import Gate
from holdfast.server.breakers import breakers_router
from holdfast.server.budgets import budgets_router
from holdfast.server.chat import IDEMPOTENCY_KEY, REPLAYED, Chat
from holdfast.server.edge import Edge
from holdfast.server.errors import handle_holdfast_error, handle_http_exception, handle_unexpected, problem_response
from holdfast.server.feed import LAST_EVENT_ID
from holdfast.server.health import health_router
from holdfast.server.log_level import log_level_router
from holdfast.server.openapi import CHAT_PATHS, TURNS_PATH, describe, openapi_router
from holdfast.server.sessions import actions_router, sessions_router
from holdfast.server.slo import slo_router
from holdfast.server.turns import turns_router


def build_app(hold: Holdfast, gate: Gate | None = None, opening: Callable[[], bool] | None = None) -> ASGIApp:
    """
    The ASGI application that serves ``hold``, which the caller enters and leaves.

    Args:
        hold: What is served.
        gate: Tells callers apart; None makes one.
        opening: Whether nothing but probes is to be answered yet; None is until ``hold`` has been entered.
    """
    gate = gate or Gate(hold.store, hold.clock, hold.metrics.auth_failed)
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        # Its spans would begin a trace beside the one that the edge has begun, and its logs quote what people wrote.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_exception_handler(Exception, handle_unexpected)
    app.add_exception_handler(HoldfastError, handle_holdfast_error)
    app.add_exception_handler(HTTPException, handle_http_exception)
    app.add_exception_handler(RequestValidationError, _handle_wrong_parameter)
    chat = Chat(hold, gate)
    for path in CHAT_PATHS:
        app.add_route(path, chat.post, methods=["POST"], include_in_schema=False)
    app.add_route(TURNS_PATH, chat.post_turn, methods=["POST"], include_in_schema=False)
    app.include_router(turns_router(hold, gate))
    app.include_router(actions_router(hold, gate))
    app.include_router(sessions_router(hold, gate))
    app.include_router(breakers_router(hold, gate))
    app.include_router(budgets_router(hold, gate))
    app.include_router(log_level_router(gate))
    app.include_router(slo_router(hold, gate))
    app.include_router(health_router(hold, gate))
    app.include_router(openapi_router(app, gate))

    def openapi() -> dict[str, Any]:
        return describe(app)

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    paths: dict[str, dict[str, Any]] = openapi()["paths"]
    hold.metrics.begin_routes(
        (method.upper(), path, told["responses"]) for path, methods in paths.items() for method, told in methods.items()
    )
    served = _with_cors(app, hold.settings.server.cors_origins)
    return Edge(
        served,
        frozenset(paths),
        hold.metrics,
        hold.traces.tracing,
        hold.clock,
        opening or (lambda: hold.drain.phase is Phase.STARTING),
    )


TRACE_HEADERS = ("baggage", "traceparent", "tracestate")


def _with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Around the whole application, so that its errors can be read from a page too."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=[
            *("authorization", "content-type", "x-api-key", "x-request-id", IDEMPOTENCY_KEY, LAST_EVENT_ID),
            *TRACE_HEADERS,
        ],
        expose_headers=["location", "retry-after", "traceparent", "x-request-id", REPLAYED],
    )


async def _handle_wrong_parameter(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    said = "; ".join(f"{wrong['msg']} - at {'.'.join(map(str, wrong['loc']))}" for wrong in error.errors())
    return problem_response(Unprocessable(said), request.state.trace.trace_id)
