"""What is told of a request from end to end: spans that reach a collector by a socket, lines and events with its id."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from prometheus_client.parser import text_string_to_metric_families

from holdfast.clock import NS, Clock
from holdfast.sim import running_simulator
from holdfast.telemetry import set_log_level

if TYPE_CHECKING:
    from tests.http.collector import Collector, Received
    from tests.http.conftest import Api, Connect, Log, ProblemOf, Serve, Server

    from holdfast import FunctionTurn
else:
    from collector import Collector  # pytest puts a test's folder on the path, and mypy the project's

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
KEY = "opensesame" * 3
FORMS = ["anthropic:claude-sonnet-5-5", "openai-chat:gpt-6.1-terra"]


def called_by(number: int = 0, *, sampled: bool = True) -> dict[str, str]:
    """The headers of a caller with a trace of its own."""
    return {"traceparent": f"00-{number:016x}{TRACE[16:]}-{CALLER}-0{int(sampled)}"}


def trace_of(headers: dict[str, str]) -> str:
    return headers["traceparent"].split("-")[1]


async def _looks_up(turn: FunctionTurn) -> str:
    """Three tools at the same time, each with something of its own below it."""
    [tracer] = tracers

    async def look_up(at: int) -> int:
        await asyncio.sleep(0.02 * (3 - at))
        with tracer.start_as_current_span(f"query {at}"):
            await asyncio.sleep(0.01)
        return at

    async with asyncio.TaskGroup() as group:
        for at in range(3):
            group.create_task(turn.tool(look_up, at=at))
    return await turn.model("Go on.") + str(baggage.get_baggage("tier"))


async def _breaks(turn: FunctionTurn) -> str:
    """A tool fails, and the agent makes do without it."""

    async def lookup() -> str:
        raise LookupError("the agent's innermost thoughts")

    try:
        await turn.tool(lookup)
    except LookupError:
        return turn.message
    return ""


tracers: list[trace.Tracer] = []
"""What the agent's own code begins spans with: `holdfast serve` makes it the one of the whole process."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector().listening() as listening:
        yield listening


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def server(collector: Collector, folder: Path, serve: Serve) -> Server:
    """Every trace that its caller does not record is dropped, unless it fails."""

    def before(server: Server) -> None:
        server.hold.serve(_looks_up, "looks_up")
        server.hold.serve(_breaks, "breaks")

    started = serve(
        collector.environ, before, telemetry__traces_ratio=0.0, telemetry__jsonl_path=str(folder / "traces.jsonl")
    )
    recorder = started.hold.traces._recorder
    assert recorder is not None
    tracers.append(recorder.provider.get_tracer("the agent's own"))
    return started


def tree(spans: list[Received]) -> dict[str, set[str]]:
    """The names of spans, by the name of their parent."""
    names = {span.span_id: span.name for span in spans}
    below: dict[str, set[str]] = {}
    for span in spans:
        below.setdefault(names.get(span.parent, span.parent), set()).add(span.name)
    return below


def counted(api: Api, name: str, label: str) -> Counter[str]:
    page = text_string_to_metric_families(api.get("/metrics").text)
    samples = [sample for family in page for sample in family.samples if sample.name == name]
    return Counter({sample.labels[label]: int(sample.value) for sample in samples})


def test_a_turn_with_parallel_tools_is_one_connected_trace(api: Api, collector: Collector) -> None:
    headers = called_by(1) | {"baggage": "tier=gold"}
    answer = api.ask("Hello", agent="looks_up", headers=headers)
    assert answer["trace_id"] == trace_of(headers)
    assert answer["reply"].endswith("gold")
    spans = collector.trace(trace_of(headers), 9)
    assert tree(spans) == {
        CALLER: {"POST /chat"},
        "POST /chat": {"invoke_agent looks_up"},
        "invoke_agent looks_up": {"execute_tool look_up", "chat demo"},
        "execute_tool look_up": {"query 0", "query 1", "query 2"},
    }
    tools = [span.span_id for span in spans if span.name == "execute_tool look_up"]
    assert sorted(span.parent for span in spans if span.name.startswith("query")) == sorted(tools)
    assert {span.resource["service.name"] for span in spans} == {"holdfast"}
    assert not any(span.failed for span in spans)
    by_name = {span.name: span for span in spans}
    assert by_name["POST /chat"].kind == "server"
    assert by_name["chat demo"].kind == "client"
    turn = by_name["invoke_agent looks_up"].facts
    assert (turn["gen_ai.conversation.id"], turn["agent.turn.id"]) == (answer["session_id"], answer["turn_id"])
    assert turn["agent.turn.tool_calls"] == 3


def test_every_line_and_event_and_the_answer_carry_the_traces_id(api: Api, folder: Path, log: Log) -> None:
    headers = called_by(2)
    response = api.post("Hello", agent="looks_up", headers=headers)
    assert response.headers["traceparent"].split("-")[1] == response.json()["trace_id"] == trace_of(headers)
    log.wait("http_request")
    assert {line["event"] for line in log.lines} >= {"agent_start", "agent_complete", "tool_call", "http_request"}
    assert {line["trace_id"] for line in log.lines} == {trace_of(headers)}
    events = wait_for_events(folder / "traces.jsonl", trace_of(headers), "turn.ended")
    assert [event["event"] for event in events] == ["turn.started", *["tool.call"] * 3, "model.call", "turn.ended"]
    assert {(event["turn_id"], event["session_id"]) for event in events} == {
        (response.json()["turn_id"], response.json()["session_id"])
    }


def wait_for_events(path: Path, trace_id: str, last: str) -> list[Any]:
    """The events of one trace, once the last of them is in the file."""
    for _ in range(1_000):
        lines = path.read_text().splitlines() if path.exists() else []
        events = [event for event in map(json.loads, lines) if event["trace_id"] == trace_id]
        if events and events[-1]["event"] == last:
            return events
        threading.Event().wait(0.02)
    raise AssertionError(lines)


def test_the_answer_as_it_happens_is_traced_too(api: Api, collector: Collector) -> None:
    body, headers = {"message": "What is 17*23?", "agent": "assistant"}, called_by(3) | {"accept": "text/event-stream"}
    with api.http.stream("POST", "/v1/chat", json=body, headers=headers) as response:
        assert trace_of(headers) in response.read().decode()
    spans = collector.trace(trace_of(headers), 5)
    assert tree(spans) == {
        CALLER: {"POST /v1/chat"},
        "POST /v1/chat": {"invoke_agent assistant"},
        "invoke_agent assistant": {"chat demo", "execute_tool calculate"},
    }
    by_name = {span.name: span for span in spans}
    assert by_name["POST /v1/chat"].ended >= by_name["chat demo"].ended
    assert "gen_ai.response.time_to_first_chunk" in by_name["chat demo"].facts


def test_what_fails_is_kept_whole_and_what_goes_well_is_not(api: Api, collector: Collector) -> None:
    before = counted(api, "agent_traces_total", "decision")
    for number in range(10, 20):
        api.post("x", agent="fails" if number == 15 else "echo", headers=called_by(number, sampled=False))
    api.ask("x", agent="breaks", headers=called_by(20, sampled=False))
    api.post("x", agent="fails")  # A trace of our own.
    failed = collector.trace(trace_of(called_by(15)), 2)
    assert tree(failed) == {CALLER: {"POST /chat"}, "POST /chat": {"invoke_agent fails"}}
    assert all(span.failed for span in failed)
    assert {span.facts["sampling.reason"] for span in failed} == {"error"}
    assert {span.facts["error.type"] for span in failed} == {"500", "agent_failed"}
    mended = collector.trace(trace_of(called_by(20)), 3)
    assert {span.name for span in mended if span.failed} == {"execute_tool lookup"}
    seen = {span.trace_id for span in collector.spans}
    assert not {trace_of(called_by(number)) for number in range(10, 20) if number != 15} & seen
    since = counted(api, "agent_traces_total", "decision")
    since.subtract(before)
    assert (since["dropped"], since["error"], since["head"], since["limited"]) == (9, 3, 0, 0)
    recorder = api.server.hold.traces._recorder
    assert recorder is not None
    assert recorder._tail.held == (0, 0)


def test_nothing_that_was_said_reaches_the_collector(api: Api, collector: Collector, server: Server) -> None:
    api.post("S3CR3T", agent="echo", headers=called_by(30))
    api.post("S3CR3T", agent="fails", headers=called_by(31))
    api.post("S3CR3T", agent="breaks", headers=called_by(32))
    spans = [span for number in (30, 31, 32) for span in collector.trace(trace_of(called_by(number)), 2)]
    for text in ("S3CR3T", server.secret):
        assert text not in str(spans)


def test_probes_and_scrapes_are_not_traced(api: Api, collector: Collector) -> None:
    for path in ("/health", "/health/live", "/metrics", "/healthz"):
        response = api.get(path, headers=called_by(40))
        assert response.headers["traceparent"].split("-")[1] == trace_of(called_by(40))
    api.get("/nowhere", headers=called_by(41))
    [span] = collector.trace(trace_of(called_by(41)), 1)
    assert (span.name, span.facts["http.response.status_code"], span.failed) == ("GET", 404, False)
    assert trace_of(called_by(40)) not in {span.trace_id for span in collector.spans}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_the_provider_is_asked_in_the_span_of_the_call(
    form: str, accept: str, serve: Serve, connect: Connect, collector: Collector
) -> None:
    with running_simulator() as sim:
        base = sim.url if form.startswith("anthropic") else f"{sim.url}/v1"
        server = serve(collector.environ, llm__model=form, llm__base_url=base, llm__api_key="k")
        number = 50 + FORMS.index(form) * 2 + accept.count("event")
        headers = called_by(number) | {"tracestate": "vendor=1", "baggage": "tier=gold", "accept": accept}
        asked = connect(server).post("What is 17*23?", agent="assistant", headers=headers)
        assert "391" in asked.text
        calls = [span for span in collector.trace(trace_of(headers), 5) if span.name.startswith("chat")]
        assert [record.headers["traceparent"].split("-")[1:3] for record in sim.requests] == [
            [trace_of(headers), span.span_id] for span in calls
        ]
        for record in sim.requests:
            assert record.headers["tracestate"] == "vendor=1"
            assert "baggage" not in record.headers  # What our callers say of themselves is no provider's to read.


def test_content_is_sent_where_that_is_asked_for_and_secrets_are_not(
    serve: Serve, connect: Connect, collector: Collector, folder: Path
) -> None:
    path = folder / "content.jsonl"
    server = serve(collector.environ, telemetry__content=True, telemetry__jsonl_path=str(path))
    for number, accept in ((60, "application/json"), (61, "text/event-stream")):
        headers = called_by(number) | {"accept": accept}
        question = f"What is 17*23? My key is sk-ant-{KEY}."
        connect(server).post(question, agent="assistant", headers=headers)
        spans = {span.name: span.facts for span in collector.trace(trace_of(headers), 5)}
        asked = json.loads(spans["invoke_agent assistant"]["gen_ai.input.messages"])
        said = json.loads(spans["invoke_agent assistant"]["gen_ai.output.messages"])
        assert asked == [
            {
                "role": "user",
                "parts": [{"type": "text", "content": question.replace(f"sk-ant-{KEY}", "[redacted]")}],
            }
        ]
        assert "391" in said[0]["parts"][0]["content"]
        assert json.loads(spans["execute_tool calculate"]["gen_ai.tool.call.arguments"]) == {"expression": "17*23"}
        assert "391" in spans["execute_tool calculate"]["gen_ai.tool.call.result"]
        prompt = json.loads(spans["chat demo"]["gen_ai.input.messages"])
        assert {message["role"] for message in prompt} >= {"user", "assistant"}  # The last call knows the one before.
        assert "391" in spans["chat demo"]["gen_ai.output.messages"]
        assert KEY not in str(spans)
        events = wait_for_events(path, trace_of(headers), "turn.ended")
        assert "391" in events[-1]["metadata"]["reply"]
        assert KEY not in str(events)


def test_where_telemetry_is_off_there_is_none_but_the_log(
    serve: Serve, connect: Connect, collector: Collector, folder: Path, log: Log
) -> None:
    path = folder / "off.jsonl"
    api = connect(serve(collector.environ, telemetry__enabled=False, telemetry__jsonl_path=str(path)))
    before = len(collector.spans)
    assert api.ask("x", agent="echo", headers=called_by(70))["trace_id"] == trace_of(called_by(70))
    log.wait("agent_complete")
    api.server.stop()
    assert not path.exists()
    assert len(collector.spans) == before


def stopped_in_s(server: Server) -> float:
    clock = Clock()
    began = clock.now()
    server.begin_to_stop()
    server._thread.join(20)
    assert not server._thread.is_alive()
    return (clock.now() - began) / NS


def test_a_collector_that_hangs_stops_no_turn_and_the_end_comes_in_time(serve: Serve, connect: Connect) -> None:
    """All the turns are answered while the collector still thinks about the first batch."""
    with Collector().listening() as hanging:
        hanging.hang()
        bounds = {"OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
        server = serve(hanging.environ | bounds, telemetry__traces_ratio=1.0, shutdown__deadline_s=1.0)
        api = connect(server)
        for _ in range(40):
            api.ask("x", agent="echo")
        dropped = counted(api, "agent_telemetry_dropped_total", "reason")
        assert dropped["queue_full"] == 2 * 40 - 20
        assert hanging.spans == []
        assert stopped_in_s(server) < 4
        assert int(server.hold.metrics.dropped.labels("spans", "shutdown")._value.get()) == 20


def test_a_collector_that_is_gone_costs_a_counter_and_one_line(serve: Serve, connect: Connect, log: Log) -> None:
    with socket.socket() as taken:  # Bound, and not listened on.
        taken.bind(("127.0.0.1", 0))
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
            "OTEL_BSP_SCHEDULE_DELAY": "10",
        }
        server = serve(environ, telemetry__traces_ratio=1.0, shutdown__deadline_s=1.0)
        api = connect(server)
        for _ in range(3):
            api.ask("x", agent="echo")
        assert stopped_in_s(server) < 4
    values = server.hold.metrics.dropped
    lost = sum(int(values.labels("spans", why)._value.get()) for why in ("export_failed", "shutdown"))
    assert lost == 6
    assert len(log.all("spans_lost")) <= 1


def test_spans_that_wait_are_sent_when_the_server_stops(serve: Serve, connect: Connect) -> None:
    with Collector().listening() as collector:
        server = serve(collector.environ | {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}, telemetry__traces_ratio=1.0)
        connect(server).ask("x", agent="echo")
        assert collector.spans == []
        stopped_in_s(server)
        assert len(collector.spans) == 2


def test_the_level_of_the_log_can_be_changed_by_operators(
    serve: Serve, connect: Connect, problem_of: ProblemOf, log: Log
) -> None:
    server = serve()
    open_to_all = connect(server)
    try:
        assert open_to_all.get("/v1/log-level").json() == {"log_level": "notset"}
        assert open_to_all.http.post("/v1/log-level/warning").json() == {"log_level": "warning"}
        assert open_to_all.get("/v1/log-level").json() == {"log_level": "warning"}
        [line] = log.all("log_level_ordered")
        assert (line["principal"], line["was"], line["log_level"]) == ("anonymous", "notset", "warning")
        asked = len(log.all("http_request"))
        open_to_all.get("/v1/sessions")
        assert len(log.all("http_request")) == asked <= 1
        open_to_all.http.post("/v1/log-level/info")
        log.wait("http_request", asked + 1)
        problem_of(open_to_all.http.post("/v1/log-level/loud"), 422, "unprocessable")
        user, operator = server.add_key("ada"), server.add_key("bob", "operate")
        problem_of(connect(server, user).http.post("/v1/log-level/debug"), 403, "forbidden")
        assert connect(server, user).get("/v1/log-level").json() == {"log_level": "info"}
        assert connect(server, operator).http.post("/v1/log-level/debug").json() == {"log_level": "debug"}
        problem_of(open_to_all.get("/v1/log-level"), 401, "unauthenticated")
    finally:
        set_log_level("debug")
