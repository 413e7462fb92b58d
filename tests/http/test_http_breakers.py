"""Circuit breakers over HTTP: what is shown, who may give orders, and that calls obey them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.lifecycle import Component, Report
from holdfast.resilience import Call, FailureClass

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Log, ProblemOf, Serve, Server

    from holdfast.resilience import Pipeline

POLICIES = {
    "resilience__breaker_failures": 5,
    "resilience__breaker_failure_ratio": 0.5,
    "resilience__breaker_open_s": 60,
    "resilience__credential_s": 600,
    "health__every_s": 0.02,
}
ORDERS = ["reset", "force-open", "disable"]
OPEN_S = 72.0
"""Seconds after which a first break of 60 is over, whatever chance adds."""


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    """The one that most tests share, with breakers that open."""
    return serve(**POLICIES)


class Broken(Exception):
    """What the target of a test does."""

    def __init__(self, failure_class: FailureClass) -> None:
        self.failure_class = failure_class


async def call(pipeline: Pipeline, about: Call, failure: FailureClass | None = None, times: int = 1) -> None:
    for _ in range(times):
        with suppress(Broken):
            async with pipeline.attempt(about, 1):
                if failure is not None:
                    raise Broken(failure)


def use(server: Server, tool: str, failures: int = 0) -> str:
    """Call a tool that fails so often, or that works; the name of its circuit."""
    failure = FailureClass.SERVER if failures else None
    server.run(call(server.hold.policies.tool, Call(tool=tool), failure, failures or 1))
    return f"tool:{tool}"


def order(api: Api, name: str, word: str, **more: Any) -> Any:
    return api.http.post(f"/v1/breakers/{quote(name, safe='')}/{word}", **more)


def shown(api: Api) -> dict[str, Any]:
    return {breaker["name"]: breaker for breaker in api.get("/v1/breakers").json()["breakers"]}


def closed(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "pipeline": "tool",
        "key_class": "tool",
        "state": "closed",
        "retry_after_s": None,
        "calls": 0,
        "failed": 0,
        "slow": 0,
        "inflight": 0,
    } | more


def test_nothing_is_shown_before_anything_was_called(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    assert api.get("/v1/breakers").json() == {"breakers": []}
    assert "there is none yet" in order(api, "tool:calculate", "reset").json()["detail"]


def test_a_turn_shows_the_circuits_of_its_model_and_its_tools(api: Api) -> None:
    api.ask("What is 17*23?", agent="assistant")
    found = shown(api)
    assert found["tool:calculate"] == closed("tool:calculate", calls=1)
    model = {"pipeline": "model", "key_class": "target", "calls": 2}
    assert found["model:function:demo"] == closed("model:function:demo", **model)


def test_a_circuit_shows_its_window_its_state_and_how_long_it_stays_open(server: Server, api: Api) -> None:
    name = use(server, "shaky", failures=4)
    assert shown(api)[name] == closed(name, calls=4, failed=4)
    use(server, "shaky", failures=1)
    now = shown(api)[name]
    assert now == closed(name, state="open", retry_after_s=now["retry_after_s"])
    assert 0 < now["retry_after_s"] <= OPEN_S
    server.skip(OPEN_S)
    assert shown(api)[name] == closed(name, state="half_open", retry_after_s=0)


def test_a_credential_that_was_refused_has_a_circuit_that_can_be_reset(server: Server, api: Api) -> None:
    about = Call(target="lab:large@1a2b", credential="lab@1a2b")
    server.run(call(server.hold.policies.model, about, FailureClass.AUTH))
    name = "model:credential:lab@1a2b"
    now = shown(api)[name]
    assert (now["key_class"], now["state"]) == ("credential", "forced_open")
    assert 0 < now["retry_after_s"] <= 600
    assert order(api, name, "reset").json() == closed(name, pipeline="model", key_class="credential")


@pytest.mark.parametrize(
    ("word", "state"), [("reset", "closed"), ("force-open", "forced_open"), ("disable", "disabled")]
)
def test_an_order_answers_with_the_circuit_as_it_is_then(server: Server, api: Api, word: str, state: str) -> None:
    name = use(server, f"wobbly-{word}", failures=5)
    response = order(api, name, word)
    assert response.status_code == 200
    assert response.json() == shown(api)[name] == closed(name, state=state)


@pytest.mark.parametrize("tool", ["a/b", "/", "user@host:22", "a b?c#d%2F", "tëst", "x/reset", "force-open"])
def test_a_name_may_hold_anything(server: Server, api: Api, tool: str) -> None:
    name = use(server, tool)
    assert order(api, name, "force-open").json() == closed(name, state="forced_open")
    assert shown(api)[name]["state"] == "forced_open"


def test_calls_obey_an_order(server: Server, api: Api) -> None:
    ask = "What is 2+3?"
    assert "2+3 = 5" in api.ask(ask, agent="assistant")["reply"]
    order(api, "tool:calculate", "force-open")
    assert "lets nobody through until it is reset" in api.ask(ask, agent="assistant")["reply"]
    order(api, "tool:calculate", "disable")
    assert "2+3 = 5" in api.ask(ask, agent="assistant")["reply"]
    use(server, "calculate", failures=20)
    assert shown(api)["tool:calculate"]["state"] == "disabled"
    order(api, "tool:calculate", "reset")
    use(server, "calculate", failures=5)
    assert shown(api)["tool:calculate"]["state"] == "open"
    order(api, "tool:calculate", "reset")


@pytest.mark.parametrize("word", ORDERS)
@pytest.mark.parametrize("name", ["tool:none", "calculate", "", "assistant", "model:demo", "x" * 2_000])
def test_an_unknown_name_is_not_found_and_the_known_ones_are_told(
    server: Server, api: Api, problem_of: ProblemOf, name: str, word: str
) -> None:
    known = use(server, "known")
    problem = problem_of(order(api, name, word), 404, "not_found")
    assert problem["detail"].startswith(f"there is no circuit {name}; there is ")
    assert known in problem["detail"].partition("; there is ")[2].split(", ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/breakers/tool:x/open", 404),
        ("POST", "/v1/breakers/tool:x", 404),
        ("GET", "/v1/breakers/tool:x", 404),
        ("GET", "/v1/breakers/tool:x/reset", 405),
        ("POST", "/v1/breakers", 405),
    ],
)
def test_there_are_no_other_routes(api: Api, method: str, path: str, status: int) -> None:
    assert api.http.request(method, path).status_code == status


# Who may


@pytest.fixture(scope="module")
def locked(serve: Serve) -> Server:
    """A server that needs a key."""
    server = serve()
    server.add_key("root")
    use(server, "drill")
    return server


def test_whoever_has_a_key_may_look(locked: Server, connect: Connect, problem_of: ProblemOf) -> None:
    problem_of(connect(locked).get("/v1/breakers"), 401, "unauthenticated")
    assert set(shown(connect(locked, locked.add_key("ada")))) == {"tool:drill"}


@pytest.mark.parametrize("word", ORDERS)
def test_orders_need_the_scope(locked: Server, connect: Connect, problem_of: ProblemOf, word: str) -> None:
    problem_of(order(connect(locked), "tool:drill", word), 401, "unauthenticated")
    for scopes in ((), ("delegate",)):
        api = connect(locked, locked.add_key("ada", *scopes))
        before = shown(api)
        problem = problem_of(order(api, "tool:drill", word), 403, "forbidden")
        assert problem["detail"] == "this needs a key with the scope operate"
        problem_of(order(api, "tool:none", word), 403, "forbidden")  # nor are names told
        assert shown(api) == before
    assert order(connect(locked, locked.add_key("otto", "operate")), "tool:drill", word).status_code == 200


@pytest.mark.parametrize("word", ORDERS)
def test_a_page_of_another_origin_gives_no_orders_where_nobody_needs_a_key(
    server: Server, api: Api, problem_of: ProblemOf, word: str
) -> None:
    """A browser sends a POST without a body from anywhere, and asks nobody first."""
    name = use(server, f"paged-{word}")
    for origin in ("https://evil.example", "http://localhost:1", "null", ""):
        problem_of(order(api, name, word, headers={"origin": origin}), 403, "forbidden")
    assert shown(api)[name] == closed(name, calls=1)
    assert order(api, name, word, headers={"origin": server.url}).status_code == 200


def test_a_key_is_good_from_any_page(locked: Server, connect: Connect) -> None:
    api = connect(locked, locked.add_key("otto", "operate"))
    assert order(api, "tool:drill", "reset", headers={"origin": "https://ops.example"}).status_code == 200


def test_who_ordered_what_is_logged(locked: Server, connect: Connect, log: Log) -> None:
    api = connect(locked, locked.add_key("otto", "operate"))
    order(api, "tool:drill", "force-open")
    order(api, "tool:none", "force-open")
    order(connect(locked, locked.add_key("ada")), "tool:drill", "reset")
    log.wait("http_request", 3)
    (line,) = log.all("breaker_ordered")
    told = {name: line[name] for name in ("level", "principal", "circuit", "order")}
    assert told == {"level": "warning", "principal": "otto", "circuit": "tool:drill", "order": "force_open"}
    assert line["request_id"]


# What health and metrics tell of it


def unhealthy() -> Report:
    failed = Component(name="store", state="unhealthy", note="", latency_s=0, age_s=0, since_ns=0, needed=True)
    return Report(state="unhealthy", components=(failed,))


def test_a_tool_that_fails_is_degraded_in_the_details_and_nowhere_else(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(**POLICIES)
    api = connect(server)
    open_, fine, free = use(server, "down", failures=5), use(server, "fine"), use(server, "free")
    order(api, free, "disable")
    details = api.get("/health/detailed")
    assert (details.status_code, details.json()["status"]) == (200, "degraded")
    *checked, failing = details.json()["components"]
    assert {one["name"]: one["state"] for one in checked} == dict.fromkeys(("store", "model", "event_loop"), "healthy")
    assert (failing["name"], failing["state"]) == (open_, "degraded")
    assert (failing["age_s"], failing["since"]) == (None, None)
    assert failing["note"].startswith("circuit open, ")
    breakers = details.json()["breakers"]
    assert breakers["count"] == 3
    assert {one["name"]: one["state"] for one in breakers["not_closed"]} == {open_: "open", free: "disabled"}
    for path in ("/health", "/health/ready", "/readyz"):
        probe = api.get(path)
        assert (probe.status_code, probe.json()["status"]) == (200, "healthy")

    server.skip(OPEN_S)
    assert note_of(api, open_) == "circuit half_open"
    order(api, open_, "force-open")
    assert note_of(api, open_) == "circuit forced_open"
    with monkeypatch.context() as patch:
        patch.setattr(server.hold.health, "report", unhealthy)
        worst = api.get("/health/detailed")
        assert (worst.status_code, worst.json()["status"]) == (503, "unhealthy")
    order(api, open_, "reset")
    assert api.get("/health/detailed").json()["status"] == "healthy"
    assert fine in shown(api)


def note_of(api: Api, component: str) -> str:
    while (details := api.get("/health/detailed").json())["status"] != "degraded":
        pass  # Where time was skipped, no result is fresh until the next round.
    (note,) = [one["note"] for one in details["components"] if one["name"] == component]
    return str(note)


def test_the_details_tell_how_limits_bulkheads_and_shedding_stand(serve: Serve, connect: Connect, said: str) -> None:
    server = serve(resilience__turns=3, resilience__all_per_s=4, resilience__all_burst=8, resilience__user_burst=2)
    api = connect(server)
    use(server, "drill")
    with api.stream(said, said, "talk") as events:
        next(events)
        details = api.get("/health/detailed").json()
        server.release(said)
        list(events)
    everybodys, users = details["limits"][:2]
    turns = {"pipeline": "ingress", "name": "turns", "exhausted": 0, "queued": 0, "keys": 1, "den_s": 1}
    assert everybodys == turns | {"key_class": "all", "num": 4, "burst": 8}
    assert users == turns | {"key_class": "user", "num": 1_000_000, "burst": 2}
    assert {(one["pipeline"], one["key_class"]) for one in details["limits"][2:]} == {
        ("tool", "all"),
        ("tool", "user"),
        ("tool", "tool"),
    }
    assert details["bulkheads"] == [
        {"name": "tool", "in_use": 0, "queued": 0, "limit": 100, "max_queue": 1000, "refused": 0, "waited": 0}
    ]
    assert details["shedding"] == {
        "in_use": 1,
        "queued": 0,
        "limit": 3,
        "overloaded": False,
        "refused": {"interactive": 0, "agent_step": 0, "batch": 0},
        "waited": 0,
    }


def test_the_metrics_page_tells_of_an_open_circuit(serve: Serve, connect: Connect) -> None:
    server = serve()
    api = connect(server)
    api.ask("What is 1+1?", agent="assistant")
    order(api, "tool:calculate", "force-open")
    api.ask("What is 1+2?", agent="assistant")
    found: Any = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(api.get("/metrics").text)
        for sample in family.samples
    }
    states = {state: found["agent_circuit_breaker_state", "tool:calculate", state] for state in ("closed", "open")}
    assert states == {"closed": 0, "open": 1}
    assert found["agent_circuit_breaker_state", "model:function:demo", "closed"] == 1
    assert found["agent_circuit_breaker_transitions_total", "tool:calculate", "open"] == 1
    assert found["agent_circuit_breaker_rejections_total", "tool:calculate"] == 1
    assert found["agent_bulkhead_limit", "tool:assistant"] == 100
    assert found["agent_bulkhead_in_use", "tool:assistant"] == 0
