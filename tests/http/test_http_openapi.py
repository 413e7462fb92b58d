"""
The document at ``/openapi.json``, and whether the server keeps to it.

After a change that is meant, refresh the golden file: ``python tests/http/test_http_openapi.py``
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.routing import Route

from holdfast import Holdfast
from holdfast.config import load
from holdfast.errors import every_error
from holdfast.events import EVERY_EVENT
from holdfast.server import build_app

if TYPE_CHECKING:
    from tests.http.conftest import Api, Serve, Server

GOLDEN = Path(__file__).with_name("openapi.json")
ROUTES = {
    "/chat": {"post"},
    "/v1/chat": {"post"},
    "/v1/turns": {"get", "post"},
    "/v1/turns/{turn_id}": {"get"},
    "/v1/turns/{turn_id}/events": {"get"},
    "/v1/turns/{turn_id}/cancel": {"post"},
    "/v1/turns/{turn_id}/units/{key}/resolve": {"post"},
    "/v1/sessions": {"get"},
    "/v1/sessions/{session_id}": {"get", "delete"},
    "/v1/sessions/{session_id}/actions": {"get"},
    "/v1/sessions/{session_id}/reset": {"post"},
    "/v1/breakers": {"get"},
    "/v1/budgets": {"get"},
    "/v1/breakers/{name}/reset": {"post"},
    "/v1/breakers/{name}/force-open": {"post"},
    "/v1/breakers/{name}/disable": {"post"},
    "/v1/slo": {"get"},
    "/v1/log-level": {"get"},
    "/v1/log-level/{level}": {"post"},
    "/health": {"get"},
    "/health/live": {"get"},
    "/health/ready": {"get"},
    "/health/detailed": {"get"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/openapi.json": {"get"},
}


def described() -> dict[str, Any]:
    """The document as a server gives it out, but for its version."""
    hold = Holdfast(load(environ={}, flags={"store.url": "memory:"}).settings, environ={})
    app: Any = build_app(hold)
    document: dict[str, Any] = app._app.openapi()
    document["info"]["version"] = "0"
    return document


def as_text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def test_the_document_is_the_one_that_was_agreed_on() -> None:
    now, agreed = as_text(described()), GOLDEN.read_text("utf-8")
    assert now == agreed, "the API has changed; if that is meant: python tests/http/test_http_openapi.py"


def test_it_is_openapi_31_and_lists_every_route(api: Api) -> None:
    document = api.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    assert {path: set(methods) for path, methods in document["paths"].items()} == ROUTES
    schemathesis.openapi.from_dict(document).validate()


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    document = described()
    text = as_text(document)
    schemas = set(document["components"]["schemas"])
    assert {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]} == schemas


def test_every_operation_has_a_name_of_its_own_and_tells_its_errors_in_one_shape() -> None:
    operations = [operation for methods in described()["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"]
        for status, response in operation["responses"].items():
            health = operation["tags"] == ["health"] and status == "503"
            if status[0] in "45" and not health:
                assert list(response["content"]) == ["application/problem+json"]


def test_the_only_statuses_are_those_of_our_errors() -> None:
    known = {str(error.status) for error in every_error()} | {"200", "202", "204"}
    operations = [operation for methods in described()["paths"].values() for operation in methods.values()]
    assert {status for operation in operations for status in operation["responses"]} <= known


def test_the_chat_routes_are_alike_but_for_their_names() -> None:
    paths = described()["paths"]
    assert {**paths["/chat"]["post"], "operationId": ""} == {**paths["/v1/chat"]["post"], "operationId": ""}


def test_no_route_is_served_that_is_not_described() -> None:
    hold = Holdfast(load(environ={}, flags={"store.url": "memory:"}).settings, environ={})
    app: Any = build_app(hold)
    plain = {route.path for route in app._app.routes if isinstance(route, Route)}
    assert plain <= set(ROUTES)


# Random requests, right and wrong ones


@pytest.fixture(scope="module")
def fuzzed(serve: Serve) -> Server:
    """A server that is asked everything, and so must not wait for long."""
    return serve(resilience__turn_s=5, server__session_wait_s=5)


schema = schemathesis.openapi.from_dict(described())
EASY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]


def keeps_to_its_document(case: schemathesis.Case[Any], server: Server) -> None:
    """No failure of ours, no status, type or shape that is not described, wrong data refused, right data taken."""
    # The document cannot say which cursors were given out, which keys were used, and whom the operator lets be told.
    told: dict[str, Any] = case.body if isinstance(case.body, dict) else {}
    query: dict[str, Any] = dict(case.query or {})
    headers: dict[str, Any] = dict(case.headers or {})
    unsaid = (query.get("cursor"), headers.get("idempotency-key"), told.get("webhook"))
    guessed: Any = [positive_data_acceptance] if any(value is not None for value in unsaid) else None
    case.call_and_validate(base_url=server.url, excluded_checks=guessed)


@schema.parametrize()
@settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=EASY)
def test_the_server_keeps_to_its_document(case: schemathesis.Case[Any], fuzzed: Server) -> None:
    keeps_to_its_document(case, fuzzed)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=400, deadline=None, database=None, suppress_health_check=EASY)
def test_the_server_keeps_to_its_document_however_often_it_is_asked(
    case: schemathesis.Case[Any], fuzzed: Server
) -> None:
    keeps_to_its_document(case, fuzzed)


def test_the_events_of_a_stream_are_described_elsewhere() -> None:
    """OpenAPI 3.1 cannot say what events a stream has: ``docs/events.md`` does, rendered from the code."""
    document = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
    assert [event.name for event in EVERY_EVENT if f"## {event.name}\n" not in document] == []


if __name__ == "__main__":
    GOLDEN.write_text(as_text(described()), "utf-8")
