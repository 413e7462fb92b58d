"""The metrics page of a server that works: what moves, what Prometheus says to it, and what is never on it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from holdfast.clock import Clock
from holdfast.server.auth import OPERATE
from holdfast.sim import running_simulator

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Serve

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
SECRET = "hunter2"


class Page:
    """One reading of the page."""

    def __init__(self, api: Api) -> None:
        self.text = api.get("/metrics").text
        self.samples = {
            (one.name, frozenset(one.labels.items())): one.value
            for family in text_string_to_metric_families(self.text)
            for one in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def all(self, name: str) -> dict[str, float]:
        """The series of a metric that has one label."""
        return {next(iter(labels))[1]: value for (of, labels), value in self.samples.items() if of == name}


def worked(serve: Serve, connect: Connect, **settings: object) -> Api:
    """A server after a mix of turns that went well and badly, quickly and slowly."""
    api = connect(serve(resilience__turn_s=1, resilience__attempts=2, **settings))
    api.http.post("/chat", json={"message": SECRET, "session_id": SECRET, "user_id": SECRET, "agent": "echo"})
    for question in ("What is 17*23?", f"What is 17*23? {SECRET}", "What is 1/0?"):
        api.ask(question, agent="assistant")
    with api.stream("What time is it, and what is 6*7?", agent="assistant") as events:
        list(events)
    assert api.post("hello", agent="fails").status_code == 500
    assert api.post("slow", agent="talk").status_code == 504
    assert api.post("", agent="echo").status_code == 422
    assert api.post("hello", agent=SECRET).status_code == 404
    assert api.get(f"/{SECRET}").status_code == 404
    return api


def test_what_a_mix_of_turns_does_is_on_the_page(serve: Serve, connect: Connect) -> None:
    page = Page(worked(serve, connect))
    model, calculate = {"provider": "function", "model": "demo"}, {"agent": "assistant", "tool": "calculate"}
    assert page("agent_turns_total", agent="echo", outcome="success") == 1
    assert page("agent_turns_total", agent="assistant", outcome="success") == 4
    assert page("agent_turns_total", agent="fails", outcome="error") == 1
    assert page("agent_turns_total", agent="talk", outcome="timeout") == 1
    assert page("agent_turn_duration_seconds_bucket", agent="talk", le="1.0") == 0
    assert page("agent_turn_duration_seconds_bucket", agent="talk", le="5.0") == 1
    assert page("agent_steps_total", agent="assistant") == page("agent_llm_calls_total", **model, status="ok") == 8
    assert page("agent_llm_duration_seconds_count", **model) == 8
    assert page("agent_llm_first_token_seconds_count", **model) == 2
    assert page("agent_turn_first_token_seconds_count", agent="assistant") == 1
    assert min(page("agent_llm_tokens_total", **model, type=kind) for kind in ("input", "output")) > 0
    assert page("agent_tool_calls_total", **calculate, status="ok") >= 3
    assert page("agent_tool_calls_total", **calculate, status="error") >= 1
    assert page("agent_tool_duration_seconds_count", tool="calculate") >= 4
    assert page("agent_tool_calls_total", agent="assistant", tool="current_time", status="ok") == 1
    assert page("agent_tool_calls_total", agent="assistant", tool="read_file", status="error") == 0
    assert page("agent_health_check_state", check="store", state="healthy") == 1
    assert set(page.all("agent_metric_label_overflow_total").values()) == {0}


def test_what_people_wrote_is_never_on_the_page(serve: Serve, connect: Connect) -> None:
    assert SECRET not in Page(worked(serve, connect)).text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("namespace", ["", "security_agent"])
def test_promtool_has_nothing_to_say(serve: Serve, connect: Connect, namespace: str) -> None:
    page = Page(worked(serve, connect, telemetry__metrics_namespace=namespace)).text
    check = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_a_namespace_goes_in_front_of_our_names_and_of_nobody_elses(serve: Serve, connect: Connect) -> None:
    page = Page(connect(serve(telemetry__metrics_namespace="security_agent")))
    names = {line.split()[2] for line in page.text.splitlines() if line.startswith("# TYPE")}
    ours = {name for name in names if not name.startswith(("process_", "python_"))}
    assert "security_agent_agent_turns_total" in ours
    assert all(name.startswith("security_agent_agent_") for name in ours)
    assert "process_cpu_seconds_total" in names


def test_a_scraper_that_asks_for_openmetrics_gets_it(api: Api) -> None:
    answer = api.get("/metrics", headers={"accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    families = list(openmetrics_families(answer.text))  # type: ignore[no-untyped-call]  # it has no annotations
    assert "agent_turns" in {family.name for family in families}
    assert answer.text.endswith("# EOF\n")


# What a provider does


def test_tokens_failures_and_refusals_of_a_provider_are_told_by_model(serve: Serve, connect: Connect) -> None:
    with running_simulator([{"say": "hello"}], first_token=0.0, per_token=0.0) as sim:
        told: Any = {"llm__model": "anthropic:claude-sonnet-5-5", "llm__base_url": sim.url, "llm__api_key": SECRET}
        api = connect(serve(**told, resilience__breaker_failures=2, resilience__breaker_failure_ratio=1))
        model = {"provider": "anthropic", "model": "claude-sonnet-5-5"}
        before = Page(api)
        assert before("agent_llm_calls_total", **model, status="error") == 0
        usage = api.ask("hello", agent="assistant")["usage"]
        sim.add_fault("server_error")
        for _ in range(3):
            assert api.post("hello", agent="assistant").status_code == 503
        page = Page(api)
    calls = {status: page("agent_llm_calls_total", **model, status=status) for status in ("ok", "error", "rejected")}
    assert calls == {"ok": 1, "error": 2, "rejected": 1}
    assert page("agent_llm_duration_seconds_count", **model) == 3, "nothing was sent the fourth time"
    assert page("agent_llm_tokens_total", **model, type="input") == usage["input_tokens"] > 0
    assert page("agent_llm_tokens_total", **model, type="output") == usage["output_tokens"] > 0
    assert page("agent_steps_total", agent="assistant") == 1
    assert SECRET not in page.text


# The process


def test_who_is_not_let_in_is_counted_by_why(serve: Serve, connect: Connect) -> None:
    server = serve()
    open_ = connect(server)
    assert open_.get("/v1/sessions", headers={"host": "holdfast.example"}).status_code == 403
    order, foreign = "/v1/breakers/none/reset", {"origin": "http://elsewhere.example"}
    assert open_.http.post(order, headers=foreign).status_code == 403
    key = server.add_key("ada", OPERATE)
    short, gone = server.add_key("ada", lasts_s=1), server.add_key("ada")
    server.revoke(gone)
    server.skip(2)
    plain = server.add_key("bob")
    for presented in ("", "hf_none_none", f"{key}x", short, gone):
        assert connect(server, presented).get("/v1/sessions").status_code == 401
    assert connect(server, plain).http.post(order).status_code == 403
    counted = Page(connect(server, key)).all("agent_auth_failures_total")
    assert counted == {"missing": 1, "unknown": 2, "expired": 1, "revoked": 1, "scope": 1, "origin": 2}


def test_a_component_that_fails_is_told_with_its_age(serve: Serve, connect: Connect) -> None:
    server = serve(health__every_s=0.02)
    api = connect(server)
    assert Page(api)("agent_health_check_state", check="store", state="healthy") == 1
    server.store.down = True
    while (page := Page(api))("agent_health_check_state", check="store", state="unhealthy") != 1:
        pass
    assert 0 <= page("agent_health_check_age_seconds", check="store") < 60
    assert page("agent_health_check_state", check="store", state="healthy") == 0
    assert page("agent_health_check_state", check="store", state="unhealthy") == 1


def test_a_session_is_active_while_its_turn_runs(serve: Serve, connect: Connect, said: str) -> None:
    server = serve()
    api = connect(server)
    with connect(server).stream(said, said, "talk") as events:
        next(events)
        page = Page(api)
        assert (page("agent_sessions_active"), page("agent_turns_in_progress", agent="talk")) == (1, 1)
        server.release(said)
        list(events)
    page = Page(api)
    assert (page("agent_sessions_active"), page("agent_turns_in_progress", agent="talk")) == (0, 0)


def test_the_loop_is_watched_while_the_server_runs(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    give_up = Clock().now() + 10 * 10**9
    while Page(api)("agent_event_loop_lag_seconds_count") < 2:
        assert Clock().now() < give_up


def test_two_servers_with_the_same_settings_say_so_whatever_their_secrets(serve: Serve, connect: Connect) -> None:
    def config_hash(**settings: Any) -> str:
        text = Page(connect(serve(**settings))).text
        [line] = [line for line in text.splitlines() if line.startswith("agent_build_info{")]
        return line.partition('config_hash="')[2].partition('"')[0]

    keyed: Any = {"llm__model": "anthropic:claude-sonnet-5-5", "llm__base_url": "http://127.0.0.1:1"}
    one, other = (config_hash(**keyed, llm__api_key=key) for key in ("a", "b"))
    assert one == other
    assert len({one, config_hash(), config_hash(resilience__turn_s=7)}) == 3
