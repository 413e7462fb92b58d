"""``GET /v1/slo``: what this process has counted, over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.ops.slo import SLOS

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, ProblemOf, Serve


def shown(api: Api) -> dict[str, Any]:
    answer = api.get("/v1/slo")
    assert answer.status_code == 200, answer.text
    return {slo["name"]: slo for slo in answer.json()["slos"]}


def test_before_anything_was_asked_every_budget_is_full(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    answer = api.get("/v1/slo").json()
    assert answer["since"].endswith("Z")
    slos = {slo["name"]: slo for slo in answer["slos"]}
    assert {name: slo["objective"] for name, slo in slos.items()} == {
        "availability": 0.999,
        "first_token": 0.95,
        "errors": 0.99,
    }
    for slo in slos.values():
        assert slo["promise"]
        told = {key: slo[key] for key in ("events", "bad_events", "error_ratio", "budget_remaining", "kept")}
        assert told == {"events": 0, "bad_events": 0, "error_ratio": 0, "budget_remaining": 1, "kept": True}


def test_turns_that_fail_use_up_two_budgets_at_their_speeds(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    for _ in range(3):
        api.ask("hello", agent="echo")
    api.post("hello", agent="fails")
    slos = shown(api)
    for name, left in {"availability": -249.0, "errors": -24.0}.items():
        slo = slos[name]
        assert (slo["events"], slo["bad_events"], slo["error_ratio"], slo["kept"]) == (4, 1, 0.25, False)
        assert slo["budget_remaining"] == pytest.approx(left)
    assert slos["first_token"]["events"] == 0


def test_what_is_asked_wrongly_or_too_often_is_no_failure_of_ours(serve: Serve, connect: Connect) -> None:
    api = connect(serve(resilience__user_burst=2, resilience__user_per_s=1))
    assert api.post("hello", agent="nobody").status_code == 404
    assert api.http.post("/chat", json={}).status_code == 422
    statuses = [api.post("hello", agent="echo").status_code for _ in range(5)]
    assert 429 in statuses
    slos = shown(api)
    assert slos["errors"]["events"] == 7
    assert slos["availability"]["events"] == statuses.count(200)
    assert all(slo["bad_events"] == 0 and slo["kept"] for slo in slos.values())


def test_a_streamed_answer_has_a_first_token(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    with api.stream("hello", agent="assistant") as events:
        list(events)
    first = shown(api)["first_token"]
    assert (first["events"], first["bad_events"], first["budget_remaining"]) == (1, 0, 1)


def test_a_budget_that_is_used_up_to_the_last_event_is_kept(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    for _ in range(99):
        api.ask("hello", agent="echo")
    api.post("hello", agent="fails")
    errors = shown(api)["errors"]
    assert (errors["events"], errors["bad_events"], errors["budget_remaining"], errors["kept"]) == (100, 1, 0, True)


def test_what_may_be_bad_is_not_more_than_may_be_whatever_a_computer_makes_of_a_tenth(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.server.slo.SLOS", [replace(slo, objective=0.9) for slo in SLOS])
    api = connect(serve())
    for _ in range(9):
        api.ask("hello", agent="echo")
    api.post("hello", agent="fails")
    assert 1 - 0.1 / (1 - 0.9) < 0
    errors = shown(api)["errors"]
    assert (errors["error_ratio"], errors["budget_remaining"], errors["kept"]) == (0.1, 0, True)


def test_objectives_are_metrics_too_and_a_namespace_changes_nothing_here(serve: Serve, connect: Connect) -> None:
    api = connect(serve(telemetry__metrics_namespace="security_agent"))
    api.ask("hello", agent="echo")
    found = {
        sample.labels["slo"]: sample.value
        for family in text_string_to_metric_families(api.get("/metrics").text)
        for sample in family.samples
        if sample.name == "security_agent_agent_slo_objective_ratio"
    }
    slos = shown(api)
    assert found == {name: slo["objective"] for name, slo in slos.items()}
    assert slos["availability"]["events"] == slos["errors"]["events"] == 1


def test_it_needs_a_credential_where_there_are_any(serve: Serve, connect: Connect, problem_of: ProblemOf) -> None:
    server = serve()
    key = server.add_key("ada")
    problem_of(connect(server).get("/v1/slo"), 401, "unauthenticated")
    assert shown(connect(server, key))
    assert connect(server, key).http.post("/v1/slo").status_code == 405
