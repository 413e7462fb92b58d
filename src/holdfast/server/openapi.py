"""
One OpenAPI document for every route.

FastAPI describes its own; the chat routes and the errors, which are msgspec's and ours, are added here.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi

from holdfast._version import __version__
from holdfast.errors import (
    AgentFailed,
    BodyTimeout,
    CircuitOpen,
    Draining,
    Forbidden,
    HoldfastError,
    MethodNotAllowed,
    ModelMalformed,
    ModelRejected,
    ModelUnavailable,
    NotFound,
    NotJson,
    NotSupportedMedia,
    QueueFull,
    RateLimited,
    SessionBusy,
    Shed,
    StoreUnavailable,
    StreamBroken,
    TimedOut,
    TooLarge,
    TurnCancelled,
    Unauthenticated,
    Unprocessable,
)
from holdfast.server.auth import Gate
from holdfast.server.chat import ChatBody
from holdfast.server.errors import PROBLEM_JSON, Problem
from holdfast.turn import Answer

CHAT_PATHS = ("/chat", "/v1/chat")
_GUARDED: tuple[type[HoldfastError], ...] = (
    Unauthenticated,
    Forbidden,
    MethodNotAllowed,
    HoldfastError,
    StoreUnavailable,
)
_CHAT: tuple[type[HoldfastError], ...] = (
    *_GUARDED,
    Draining,
    TurnCancelled,
    AgentFailed,
    NotJson,
    NotFound,
    BodyTimeout,
    SessionBusy,
    TooLarge,
    NotSupportedMedia,
    Unprocessable,
    ModelRejected,
    ModelMalformed,
    ModelUnavailable,
    StreamBroken,
    RateLimited,
    CircuitOpen,
    QueueFull,
    Shed,
    TimedOut,
)
_OPEN = {"/health", "/health/live", "/health/ready", "/healthz", "/readyz"}
_SESSION_ERRORS: dict[str, tuple[type[HoldfastError], ...]] = {
    "get": (*_GUARDED, NotFound, Unprocessable),
    "delete": (*_GUARDED, NotFound, Unprocessable, SessionBusy),
}


def openapi_router(app: FastAPI, gate: Gate) -> APIRouter:
    """The route that shows the document."""
    router = APIRouter(tags=["service"])

    @router.get("/openapi.json", operation_id="openapi", summary="This document")
    async def openapi(request: Request) -> dict[str, Any]:
        await gate.identify(request)
        return app.openapi()

    return router


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once and kept by the application."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Holdfast",
            version=__version__,
            summary="The production layer for AI agents.",
            routes=app.routes,
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        _, described = msgspec.json.schema_components(
            (ChatBody, Answer, Problem), ref_template="#/components/schemas/{name}"
        )
        schemas.update(described)
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _add_errors(path, method, operation)
        for path in CHAT_PATHS:
            document["paths"][path] = {"post": _chat(path)}
        app.openapi_schema = document
    return app.openapi_schema


def _add_errors(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    if path in _OPEN:
        if path not in {"/health/live", "/healthz"}:
            responses["503"] = {"description": "Not ready.", "content": responses["200"]["content"]}
        return
    operation["security"] = [{"bearer": []}, {"apiKey": []}, {}]
    errors = _GUARDED
    if path.startswith("/v1/sessions"):
        errors = _SESSION_ERRORS[method]
    elif path.startswith("/v1/breakers/"):
        errors = (*_GUARDED, NotFound)
    elif path.startswith("/v1/log-level/"):
        errors = (*_GUARDED, NotFound, Unprocessable)
    responses.update(_problems(errors))
    if path == "/health/detailed":
        responses["503"] = {
            "description": f"Not healthy. {responses['503']['description']}",
            "content": responses["200"]["content"] | responses["503"]["content"],
        }


def _problems(errors: Iterable[type[HoldfastError]]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.public)
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        str(status): {"description": " ".join(said), "content": content} for status, said in sorted(by_status.items())
    }


def _chat(path: str) -> dict[str, Any]:
    answers = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
        "text/event-stream": {"schema": {"type": "string"}},
    }
    return {
        "tags": ["chat"],
        "summary": "Ask an agent",
        "description": "Answers with JSON, or with the turn's events as they happen where the caller accepts "
        "`text/event-stream`.",
        "operationId": "chat" if path == "/chat" else "chat_v1",
        "parameters": [
            {
                "name": "priority",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "RFC 9218: `u=0` to `u=3` where somebody waits, `u=4` and `u=5` for a step of another "
                "agent, `u=6` and `u=7` for what can wait. It decides who is served when not everybody can be.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatBody"}}},
        },
        "responses": {"200": {"description": "The turn succeeded.", "content": answers}, **_problems(_CHAT)},
        "security": [{"bearer": []}, {"apiKey": []}, {}],
    }
