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
    BudgetExhausted,
    CircuitOpen,
    Diverged,
    Draining,
    Forbidden,
    HandedOver,
    HoldfastError,
    InDoubt,
    KeyReused,
    MethodNotAllowed,
    ModelMalformed,
    ModelRejected,
    ModelUnavailable,
    NotFound,
    NotInDoubt,
    NotJson,
    NotOwner,
    NotSupportedMedia,
    PriceUnknown,
    QueueFull,
    RateLimited,
    SessionBusy,
    Shed,
    StoreUnavailable,
    StreamBroken,
    TimedOut,
    TooLarge,
    TurnAbandoned,
    TurnCancelled,
    Unauthenticated,
    UnitFailed,
    Unprocessable,
)
from holdfast.replica import Answer, SessionActions, TurnDetail
from holdfast.server.auth import Gate
from holdfast.server.chat import IDEMPOTENCY_KEY, KEY_PATTERN, REPLAYED, Accepted, ChatBody, TurnBody
from holdfast.server.errors import PROBLEM_JSON, Problem
from holdfast.server.feed import LAST_EVENT_ID, STREAM
from holdfast.server.turns import EventList, ResolveBody, TurnList

CHAT_PATHS = ("/chat", "/v1/chat")
TURNS_PATH = "/v1/turns"
_RESOLVE_PATH = "/v1/turns/{turn_id}/units/{key}/resolve"
_SHAPES = (ChatBody, TurnBody, ResolveBody, Answer, Accepted, TurnList, TurnDetail, EventList, SessionActions, Problem)
_Errors = tuple[type[HoldfastError], ...]
_GUARDED: _Errors = (Unauthenticated, Forbidden, MethodNotAllowed, HoldfastError, StoreUnavailable)
_BODY: _Errors = (NotJson, NotFound, BodyTimeout, TooLarge, NotSupportedMedia, Unprocessable)
_BEGIN: _Errors = (*_GUARDED, *_BODY, KeyReused, Draining, TurnCancelled, RateLimited, QueueFull, Shed)
_CHAT: _Errors = (
    *_BEGIN,
    AgentFailed,
    TurnAbandoned,
    Diverged,
    UnitFailed,
    HandedOver,
    NotOwner,
    SessionBusy,
    InDoubt,
    ModelRejected,
    ModelMalformed,
    ModelUnavailable,
    StreamBroken,
    CircuitOpen,
    BudgetExhausted,
    PriceUnknown,
    TimedOut,
)
_OPEN = {"/health", "/health/live", "/health/ready", "/healthz", "/readyz"}
_ERRORS: dict[tuple[str, str], _Errors] = {
    ("get", "/v1/sessions"): (*_GUARDED, Unprocessable),
    ("get", "/v1/sessions/{session_id}"): (*_GUARDED, NotFound, Unprocessable),
    ("get", "/v1/sessions/{session_id}/actions"): (*_GUARDED, NotFound, Unprocessable),
    ("post", "/v1/sessions/{session_id}/reset"): (*_GUARDED, NotFound, Unprocessable),
    ("delete", "/v1/sessions/{session_id}"): (*_GUARDED, NotFound, Unprocessable, SessionBusy),
    ("get", TURNS_PATH): (*_GUARDED, Unprocessable),
    ("get", "/v1/budgets"): (*_GUARDED, NotFound, Unprocessable),
    ("get", "/v1/turns/{turn_id}"): (*_GUARDED, NotFound, Unprocessable),
    ("get", "/v1/turns/{turn_id}/events"): (*_GUARDED, NotFound, Unprocessable),
    ("post", "/v1/turns/{turn_id}/cancel"): (*_GUARDED, NotFound, Unprocessable),
    ("post", _RESOLVE_PATH): (*_GUARDED, *_BODY, NotInDoubt),
    ("post", "/v1/breakers/{name}/reset"): (*_GUARDED, NotFound),
    ("post", "/v1/breakers/{name}/force-open"): (*_GUARDED, NotFound),
    ("post", "/v1/breakers/{name}/disable"): (*_GUARDED, NotFound),
    ("post", "/v1/log-level/{level}"): (*_GUARDED, NotFound, Unprocessable),
}
_KEY_PARAMETER = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": KEY_PATTERN},
    "description": "Names the turn among the caller's: asked again under the same key, it is the same turn, running or "
    f"ended, and the answer says `{REPLAYED}: true`. Good until `store.keep_turns_s` after its end.",
}
_PRIORITY_PARAMETER = {
    "name": "priority",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "RFC 9218: `u=0` to `u=3` where somebody waits, `u=4` and `u=5` for a step of another agent, `u=6` "
    "and `u=7` for what can wait. It decides who is served when not everybody can be.",
}
_LAST_PARAMETER = {
    "name": LAST_EVENT_ID,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
    "description": "The id of the last event that was received: the ones after it are sent.",
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
        _, described = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
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
        document["paths"][TURNS_PATH]["post"] = _begin()
        document["paths"]["/v1/turns/{turn_id}/events"]["get"]["parameters"].append(_LAST_PARAMETER)
        document["paths"][_RESOLVE_PATH]["post"]["requestBody"] = _body("ResolveBody")
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
    responses.update(_problems(_ERRORS.get((method, path), _GUARDED)))
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


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _chat(path: str) -> dict[str, Any]:
    answers = {
        "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
        STREAM: {"schema": {"type": "string"}},
    }
    return {
        "tags": ["chat"],
        "summary": "Ask an agent",
        "description": "Answers with JSON, or with the turn's events as they happen where the caller accepts "
        "`text/event-stream`.",
        "operationId": "chat" if path == "/chat" else "chat_v1",
        "parameters": [_PRIORITY_PARAMETER, _KEY_PARAMETER, _LAST_PARAMETER],
        "requestBody": _body("ChatBody"),
        "responses": {"200": {"description": "The turn succeeded.", "content": answers}, **_problems(_CHAT)},
        "security": [{"bearer": []}, {"apiKey": []}, {}],
    }


def _begin() -> dict[str, Any]:
    accepted = {
        "description": "The turn is accepted, and will end.",
        "headers": {"Location": {"description": "Where the turn is shown.", "schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
    }
    return {
        "tags": ["turns"],
        "summary": "Begin a turn",
        "description": "Answers as soon as the turn is accepted. It waits for earlier turns of its session for as long "
        "as they take.",
        "operationId": "begin_turn",
        "parameters": [_PRIORITY_PARAMETER, _KEY_PARAMETER],
        "requestBody": _body("TurnBody"),
        "responses": {"202": accepted, **_problems(_BEGIN)},
        "security": [{"bearer": []}, {"apiKey": []}, {}],
    }
