"""Health, and the metrics page."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Serve, Server

LIVE = ["/health/live", "/healthz"]
READY = ["/health/ready", "/readyz"]


def statuses(api: Api, *paths: str) -> dict[str, int]:
    return {path: api.get(path).status_code for path in paths}


@pytest.mark.parametrize("path", ["/health", *LIVE, *READY])
def test_a_probe_is_told_one_word(api: Api, path: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "healthy", "phase": "running"})
    assert response.headers["cache-control"] == "no-store"
    head = api.http.head(path)
    assert (head.status_code, head.content) == (200, b"")


def test_the_details_tell_every_component(api: Api) -> None:
    details = api.get("/health/detailed").json()
    checked = {"status", "phase", "version", "model", "agents", "turns_in_progress", "components"}
    assert set(details) == checked | {"breakers", "limits", "bulkheads", "shedding"}
    assert (details["status"], details["model"], details["turns_in_progress"]) == ("healthy", "demo", 0)
    assert details["agents"] == ["assistant", "echo", "past", "talk", "fails"]
    (store,) = details["components"]
    assert (store["name"], store["state"], store["note"]) == ("store", "healthy", "memory")


def test_without_its_store_a_process_is_alive_but_not_ready(serve: Serve, connect: Connect) -> None:
    server = serve()
    api = connect(server)
    assert api.get("/health/detailed").status_code == 200
    server.store.down = True
    assert statuses(api, *LIVE) == dict.fromkeys(LIVE, 200)
    assert statuses(api, "/health", *READY) == dict.fromkeys(["/health", *READY], 503)
    assert api.get("/readyz").json() == {"status": "unhealthy", "phase": "running"}
    details = api.get("/health/detailed")
    assert (details.status_code, details.json()["components"][0]["state"]) == (503, "unhealthy")
    server.store.down = False
    assert statuses(api, "/health", *READY) == dict.fromkeys(["/health", *READY], 200)


def test_a_process_that_stops_is_alive_but_not_ready(serve: Serve, connect: Connect, said: str) -> None:
    server = serve()
    api = connect(server)
    with connect(server).stream(said, said, "talk") as events:
        next(events)
        server.begin_to_stop()
        while api.get("/readyz").status_code == 200:
            pass
        assert api.get("/readyz").json() == {"status": "unhealthy", "phase": "draining"}
        assert statuses(api, "/health", *LIVE, *READY, "/health/detailed") == {
            "/health": 200,
            **dict.fromkeys(LIVE, 200),
            **dict.fromkeys(READY, 503),
            "/health/detailed": 503,
        }
        assert api.get("/health/detailed").json()["turns_in_progress"] == 1
        assert sample(api.get("/metrics").text, "agent_ready") == 0
        server.release(said)
        list(events)


# Metrics


@pytest.fixture(scope="module")
def measured(serve: Serve) -> Server:
    """A server with a metrics port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    return serve(telemetry__metrics_port=port)


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(page)
        for one in family.samples
    }


def sample(page: str, name: str, **labels: str) -> float:
    return samples(page)[name, frozenset(labels.items())]


def test_the_same_page_is_on_both_ports(measured: Server, connect: Connect) -> None:
    assert measured.metrics_url is not None
    api = connect(measured)
    own = httpx2.get(measured.metrics_url, trust_env=False)
    for page in (own, api.get("/metrics")):
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert sample(page.text, "agent_ready") == 1
    other = httpx2.get(measured.metrics_url.replace("/metrics", "/v1/sessions"), trust_env=False)
    assert other.status_code == 404


def test_the_metrics_port_never_needs_a_key_and_the_api_port_does(measured: Server, connect: Connect) -> None:
    key = measured.add_key("ada")
    assert connect(measured).get("/metrics").status_code == 401
    assert connect(measured, key).get("/metrics").status_code == 200
    assert measured.metrics_url is not None
    assert httpx2.get(measured.metrics_url, trust_env=False).status_code == 200


def test_every_route_has_its_series_from_the_start(serve: Serve, connect: Connect) -> None:
    page = samples(connect(serve()).get("/metrics").text)
    described = connect().get("/openapi.json").json()["paths"]
    for path, methods in described.items():
        for method in methods:
            labels = frozenset({"method": method.upper(), "route": path}.items())
            assert page["agent_http_request_duration_seconds_count", labels] == 0
    for outcome in ("success", "error", "timeout"):
        assert page["agent_turns_total", frozenset({"agent": "echo", "outcome": outcome}.items())] == 0


def test_requests_are_counted_by_template_and_never_by_what_a_caller_wrote(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    for path in ("/v1/sessions/secret", "/v1/sessions/other/secret", "/secret", "/v1/sessions/{session_id}"):
        api.get(path)
    for method in ("PATCH", "PROPFIND", "LOCK"):
        api.http.request(method, "/v1/sessions/secret")
    api.http.head("/health/live")
    api.post("hello", agent="secret")
    page = api.get("/metrics").text
    counted: Any = {
        (labels["method"], labels["route"], labels["code"]): value
        for (name, pairs), value in samples(page).items()
        if name == "agent_http_requests_total" and value and (labels := dict(pairs))
    }
    assert counted == {
        ("GET", "/v1/sessions/{session_id}", "404"): 3,
        ("GET", "_other", "404"): 1,
        ("_other", "/v1/sessions/{session_id}", "405"): 3,
        ("HEAD", "/health/live", "200"): 1,
        ("POST", "/chat", "404"): 1,
    }
    assert "secret" not in page


def test_turns_are_counted_by_agent_and_outcome(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    api.ask("hello")
    api.post("hello", agent="fails")
    page = api.get("/metrics").text
    assert sample(page, "agent_turns_total", agent="echo", outcome="success") == 1
    assert sample(page, "agent_turns_total", agent="fails", outcome="error") == 1
    assert sample(page, "agent_turns_in_progress", agent="echo") == 0
