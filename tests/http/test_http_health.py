"""Health, and the metrics page."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast import Ask
from holdfast.clock import NS, Clock
from holdfast.errors import Draining
from holdfast.lifecycle import Check

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Log, ProblemOf, Serve, Server

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
    store, model, loop = details["components"]
    assert (store["name"], store["state"], store["note"]) == ("store", "healthy", "memory")
    assert (model["name"], model["state"], model["note"]) == ("model", "healthy", "function:demo")
    assert (loop["name"], loop["state"]) == ("event_loop", "healthy")
    for component in (store, model, loop):
        assert 0 <= component["age_s"] < 17
        assert 0 <= component["latency_s"] < 5
        assert component["since"].startswith("20")


def told(api: Api, component: str) -> Any:
    details = api.get("/health/detailed")
    (found,) = (one for one in details.json()["components"] if one["name"] == component)
    return found | {"http": details.status_code, "worst": details.json()["status"]}


def until(api: Api, component: str, state: str) -> Any:
    """What is told of the component, once it is in this state."""
    give_up = Clock().now() + 20 * NS
    while (found := told(api, component))["state"] != state:
        assert Clock().now() < give_up, found
    return found


QUICK: Any = {"health__every_s": 0.02}


def test_without_its_store_a_process_is_alive_but_not_ready(serve: Serve, connect: Connect) -> None:
    server = serve(**QUICK)
    api = connect(server)
    assert api.get("/health/detailed").status_code == 200
    server.store.down = True
    found = until(api, "store", "unhealthy")
    assert (found["http"], found["note"]) == (503, "StoreUnavailable: the disk is on fire")
    assert statuses(api, *LIVE) == dict.fromkeys(LIVE, 200)
    assert statuses(api, "/health", *READY) == dict.fromkeys(["/health", *READY], 503)
    assert api.get("/readyz").json() == {"status": "unhealthy", "phase": "running"}
    server.store.down = False
    until(api, "store", "healthy")
    assert statuses(api, "/health", *READY) == dict.fromkeys(["/health", *READY], 200)


def test_however_many_probes_there_are_the_store_is_asked_in_its_own_time(serve: Serve, connect: Connect) -> None:
    asked: list[int] = []

    def count(server: Server) -> None:
        ping = server.hold.store.ping

        async def counted() -> None:
            asked.append(1)
            await ping()

        server.store.ping = counted

    api = connect(serve(before=count))
    for _ in range(20):
        assert statuses(api, "/health", "/readyz", "/metrics", "/health/detailed")["/readyz"] == 200
    assert len(asked) == 1


def test_why_a_component_failed_only_operators_are_told(serve: Serve, connect: Connect) -> None:
    server = serve()
    user, operator = connect(server, server.add_key("ada")), connect(server, server.add_key("otto", "operate"))
    assert told(operator, "store")["note"] == "memory"
    assert {one["note"] for one in user.get("/health/detailed").json()["components"]} == {None}
    assert told(user, "store")["state"] == "healthy"


def test_models_are_judged_by_their_circuits_and_do_not_turn_readiness_red(serve: Serve, connect: Connect) -> None:
    """Agents may have models of their own, and whoever asks is told more by us than by a load balancer."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    there = {
        "llm__model": "openai-chat:gpt",
        "llm__base_url": f"http://127.0.0.1:{port}/v1",
        "llm__fallbacks": ("demo",),
    }
    server = serve(**QUICK, **there)
    api = connect(server)
    unreached = told(api, "model")
    assert (unreached["state"], unreached["http"]) == ("degraded", 200)
    assert "refused" in unreached["note"].lower()
    with closing(socket.create_server(("127.0.0.1", port))):
        name = until(api, "model", "healthy")["note"]
    breaker = server.hold.policies.model.breaker
    assert breaker is not None

    server.call(partial(breaker.follow, f"model:{name}", "forced_open", None))
    assert until(api, "model", "degraded")["note"] == f"the circuit of {name} is forced_open, function:demo is asked"
    server.call(partial(breaker.follow, "model:function:demo", "forced_open", None))
    found = until(api, "model", "unhealthy")
    assert found["note"] == f"no model is left: {name}, function:demo"
    assert (found["http"], found["worst"]) == (503, "unhealthy")
    for path in ("/health", *READY):
        probe = api.get(path)
        assert (probe.status_code, probe.json()["status"]) == (200, "degraded")
    server.call(partial(breaker.follow, f"model:{name}", "closed", None))
    assert until(api, "model", "healthy")["note"] == name


def test_a_loop_that_is_held_up_turns_liveness_red_and_says_where(serve: Serve, connect: Connect, log: Log) -> None:
    server = serve(health__live_lag_s=0.4, health__loop_blocked_s=0.5)
    api = connect(server)
    assert statuses(api, *LIVE) == dict.fromkeys(LIVE, 200)
    held = threading.Event()

    def hold_up() -> None:
        held.set()
        threading.Event().wait(1.2)

    server.call(hold_up)
    assert held.wait(20)
    assert api.get("/healthz").json() == {"status": "unhealthy", "phase": "running"}
    assert api.get("/readyz").status_code == 200
    while api.get("/health/live").status_code == 503:
        pass
    (line,) = log.all("loop_blocked")
    assert line["blocked_s"] == 0.5
    assert re.search(r"threading.py:\d+ wait < .*test_http_health.py:\d+ hold_up < ", line["where"])
    page = samples(api.get("/metrics").text)
    in_time = page["agent_event_loop_lag_seconds_bucket", frozenset({"le": "0.5"}.items())]
    assert page["agent_event_loop_lag_seconds_count", frozenset()] - in_time == 1


def test_where_nobody_else_may_even_wait_readiness_is_red(serve: Serve, connect: Connect, said: str) -> None:
    server = serve(resilience__turns=1)
    api = connect(server)

    def begin(number: int) -> None:
        ask = Ask(
            message=said, principal="ada", session_id=f"{said}-{number}", trace_id=f"{number:032x}", request_id="r"
        )
        server.hold.begin(ask, "talk")

    for number in range(2):
        server.call(partial(begin, number))
    assert server.began[said].wait(20)
    assert statuses(api, *READY) == dict.fromkeys(READY, 200)
    server.call(partial(begin, 2))
    while server.hold.policies.shedder.stats.queued < 2:
        pass
    assert statuses(api, "/health", *LIVE, *READY) == {"/health": 200} | dict.fromkeys(LIVE, 200) | dict.fromkeys(
        READY, 503
    )
    assert api.get("/health/detailed").status_code == 503
    server.release(said)
    while api.get("/readyz").status_code == 503:
        pass


def test_until_everything_is_open_only_probes_are_answered_and_red(
    serve: Serve, connect: Connect, problem_of: ProblemOf
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    opened, got = threading.Event(), list[Any]()

    def slow(server: Server) -> None:
        got.append(server)
        real = server.hold.store.open

        async def open_() -> None:
            await asyncio.to_thread(opened.wait)
            await real()

        server.store.open = open_

    starting = threading.Thread(target=serve, kwargs={"before": slow, "server.port": port})
    starting.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as early:
            while True:
                with suppress(httpx2.ConnectError):
                    assert early.get("/health/live").status_code == 200
                    break
            for path in ("/health", *READY):
                probe = early.get(path)
                assert (probe.status_code, probe.json()) == (503, {"status": "unhealthy", "phase": "starting"})
            for path in ("/health/detailed", "/v1/sessions", "/metrics", "/none"):
                problem_of(early.get(path), 503, "draining")
            refused = early.post("/chat", json={"message": "hello"})
            assert problem_of(refused, 503, "draining")["retry_after"] == 1
    finally:
        opened.set()
        starting.join()
    api = connect(got[0])
    assert statuses(api, "/health", *LIVE, *READY) == dict.fromkeys(["/health", *LIVE, *READY], 200)


def test_nobody_is_let_in_before_it_is_known_whether_a_key_is_needed(serve: Serve, problem_of: ProblemOf) -> None:
    """Whoever reaches a server that must not be reached would else be in time before it has refused to start."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as api,
        closing(socket.create_server(("127.0.0.1", 0))) as page,
    ):
        port, metrics_port = api.getsockname()[1], page.getsockname()[1]
    asked, counted = threading.Event(), threading.Event()

    def slow(server: Server) -> None:
        real = server.hold.store.keys

        async def keys() -> Any:
            asked.set()
            await asyncio.to_thread(counted.wait)
            return await real()

        server.store.keys = keys

    settings = {"server.port": port, "telemetry.metrics_port": metrics_port}
    starting = threading.Thread(target=serve, kwargs={"before": slow, **settings})
    starting.start()
    try:
        assert asked.wait(20)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as early:
            problem_of(early.post("/chat", json={"message": "hello"}), 503, "draining")
            problem_of(early.get("/metrics"), 503, "draining")
            assert early.get(f"http://127.0.0.1:{metrics_port}/metrics").status_code == 503
            counted.set()
            starting.join()
            assert early.get(f"http://127.0.0.1:{metrics_port}/metrics").status_code == 200
    finally:
        counted.set()
        starting.join()


def test_what_a_program_registers_is_closed_with_the_rest(serve: Serve, connect: Connect, log: Log) -> None:
    closed: list[tuple[str, str]] = []

    def hook(server: Server, name: str) -> Any:
        async def close() -> None:
            closed.append((name, server.hold.drain.phase.value))
            if name == "cache":
                raise LookupError("the cache is gone")

        return close

    def register(server: Server) -> None:
        server.hold.on_stop("early", hook(server, "early"))

    server = serve(before=register)
    server.hold.on_stop("pool", hook(server, "pool"), after=("store",))
    server.hold.on_stop("cache", hook(server, "cache"))
    server.hold.health.add(Check("late", hook(server, "late"), on_failure="degraded"))
    assert connect(server).get("/readyz").status_code == 200
    server.stop()
    assert [one for one in closed if one[0] != "late"] == [(name, "closing") for name in ("cache", "pool", "early")]
    (line,) = log.all("stop_hook_failed")
    assert (line["hook"], line["error"], line["why"]) == ("cache", "LookupError", "the cache is gone")
    with pytest.raises(Draining, match="the hook later was not added"):
        server.hold.on_stop("later", hook(server, "later"))
    phases = [line["phase"] for line in log.all("stop_phase")]
    assert phases == ["lame_duck", "draining", "cancelling", "closing"]
    assert [line["event"] for line in log.lines][-1] == "stopped"


def test_without_a_tool_that_is_required_it_never_counts_as_started(serve: Serve, connect: Connect) -> None:
    api = connect(serve(health__required_tools=("calculate", "search_flights")))
    assert api.get("/health").status_code == 503
    assert told(api, "tools")["note"] == "missing: search_flights"
    assert connect(serve(health__required_tools=("calculate",))).get("/health").status_code == 200


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
