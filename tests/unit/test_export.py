"""The way of spans out: where to, in which bounds, and what is counted when nobody takes them."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from holdfast.errors import Misconfigured
from holdfast.telemetry import TelemetrySpec, Tracing, export
from holdfast.telemetry.export import Outbox, Recorder, endpoint, programs_spans
from holdfast.testing import loop_clock

OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HERE = "http://collector:4318"
BATCHES = {"OTEL_BSP_MAX_QUEUE_SIZE": "6", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2", "OTEL_BSP_SCHEDULE_DELAY": "1"}


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({OTLP: ""}, None),
        ({OTLP: HERE}, f"{HERE}/v1/traces"),
        ({OTLP: f"{HERE}/"}, f"{HERE}/v1/traces"),
        ({OTLP: f" {HERE}/otlp "}, f"{HERE}/otlp/v1/traces"),
        ({TRACES: "https://x/y"}, "https://x/y"),
        ({OTLP: HERE, TRACES: "https://x/y"}, "https://x/y"),
        ({OTLP: HERE, "OTEL_SDK_DISABLED": "True"}, None),
        ({OTLP: HERE, "OTEL_SDK_DISABLED": "false"}, f"{HERE}/v1/traces"),
        ({OTLP: HERE, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({OTLP: HERE, "OTEL_TRACES_EXPORTER": "otlp"}, f"{HERE}/v1/traces"),
        ({OTLP: HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, f"{HERE}/v1/traces"),
        (
            {
                OTLP: HERE,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            f"{HERE}/v1/traces",
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
    ],
)
def test_spans_go_where_the_standard_variables_say(environ: dict[str, str], url: str | None) -> None:
    assert endpoint(environ) == url


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({OTLP: "collector:4318"}, f"{OTLP} must begin with http:// or https://, got collector:4318/v1/traces"),
        ({TRACES: "x"}, f"{TRACES} must begin with http:// or https://, got x"),
        ({OTLP: HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is grpc"),
    ],
)
def test_a_way_that_spans_cannot_go_is_refused(environ: dict[str, str], told: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        endpoint(environ)
    assert told in wrong.value.detail


class Collector(SpanExporter):
    """An exporter that the test holds by a string."""

    def __init__(self) -> None:
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Semaphore(0)
        self.batches: list[list[str]] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.release()
        assert self.answers.wait(20)
        self.batches.append([span.name for span in spans])
        if isinstance(self.result, Exception):
            raise self.result
        if self.result is SpanExportResult.FAILURE:
            logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").error("connection %s", "refused")
        return self.result

    def shutdown(self) -> None:
        pass


class Box:
    """An outbox, and what was counted of it."""

    def __init__(self, collector: Collector) -> None:
        self.dropped: Counter[str] = Counter()
        self._more = threading.Condition()
        self.outbox = Outbox(collector, BATCHES, self._drop)

    def _drop(self, reason: str, count: int) -> None:
        with self._more:
            self.dropped[reason] += count
            self._more.notify_all()

    def wait(self, **dropped: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self.dropped == dropped, 20), self.dropped

    def send(self, count: int) -> None:
        where = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
        for number in range(count):
            self.outbox.send(ReadableSpan(f"span {number}", context=where))


@pytest.mark.sockets
async def test_what_is_left_is_sent_at_the_end() -> None:
    collector = Collector()
    box = Box(collector)
    box.send(5)
    await box.outbox.close(20)
    assert sorted(name for batch in collector.batches for name in batch) == [f"span {number}" for number in range(5)]
    assert max(map(len, collector.batches)) <= 2
    assert box.dropped == {}


@pytest.mark.sockets
async def test_a_collector_that_hangs_stops_nobody_and_the_end_comes_in_time() -> None:
    collector = Collector()
    box, loop = Box(collector), asyncio.get_running_loop()
    collector.answers.clear()
    began = loop.time()
    box.send(1)
    assert collector.asked.acquire(timeout=20)
    box.send(20)
    box.wait(queue_full=15)  # One is on its way, five wait.
    await box.outbox.close(0.05)
    assert 0.05 <= loop.time() - began < 5
    assert box.dropped == {"queue_full": 15, "shutdown": 6}
    collector.answers.set()
    assert collector.asked.acquire(timeout=0.2) is False  # What was given up is not sent after all.
    assert box.dropped == {"queue_full": 15, "shutdown": 6}


@pytest.mark.sockets
async def test_what_is_lost_counts_also_where_the_closing_is_cancelled() -> None:
    collector = Collector()
    box = Box(collector)
    collector.answers.clear()
    box.send(3)
    closing = asyncio.get_running_loop().create_task(box.outbox.close(20))
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert box.dropped == {"shutdown": 3}
    collector.answers.set()


@pytest.mark.sockets
@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, OSError("broken"), RuntimeError("out of threads")])
async def test_a_collector_that_is_gone_costs_a_counter_and_one_line(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    collector = Collector()
    box, collector.result = Box(collector), result
    for number in range(1, 4):
        box.send(2)
        box.wait(export_failed=2 * number)
    collector.result = SpanExportResult.SUCCESS
    box.send(2)
    await box.outbox.close(20)
    assert box.dropped == {"export_failed": 6}
    [lost, again] = caplog.records
    assert (lost.message, lost.levelname, again.message) == ("spans_lost", "WARNING", "spans_taken_again")
    why = "connection refused" if result is SpanExportResult.FAILURE else type(result).__name__
    assert lost.__dict__["why"] == why


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5"])
def test_a_bound_that_is_no_number_is_refused(wrong: str) -> None:
    with pytest.raises(Misconfigured, match="OTEL_BSP_MAX_QUEUE_SIZE must be a whole number of at least 1"):
        Outbox(Collector(), {"OTEL_BSP_MAX_QUEUE_SIZE": wrong}, lambda *_: None)


@pytest.mark.sockets
async def test_spans_of_other_code_are_part_of_the_trace_and_kept_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    monkeypatch.setattr(export, "OTLPSpanExporter", lambda _url: collector)
    decided: Counter[str] = Counter()
    recorder = Recorder(
        HERE,
        TelemetrySpec(traces_ratio=0),
        {},
        loop_clock(),
        decided=lambda why: decided.update([why]),
        dropped=lambda *_: None,
    )
    for fails in (False, True):
        ours = recorder.start("ours", SpanKind.INTERNAL, {}, 1, Context(), 7)
        with trace.use_span(ours):
            theirs = recorder.provider.get_tracer("theirs").start_span("theirs")
        if fails:
            theirs.set_status(trace.StatusCode.ERROR)
        theirs.end()
        ours.end()
        assert recorder.keeps(7) == fails
    await recorder.close(20)
    assert collector.batches in ([["theirs", "ours"]], [["theirs"], ["ours"]])
    assert decided == {"dropped": 1, "error": 1}


def test_the_process_is_called_by_the_standard_variables_or_by_our_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert export._resource().attributes["service.name"] == "holdfast"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "support")
    assert export._resource().attributes["service.name"] == "support"
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=sales,deployment.environment.name=staging")
    about = export._resource().attributes
    assert (about["service.name"], about["deployment.environment.name"]) == ("sales", "staging")


async def test_a_program_with_tracing_of_its_own_has_our_spans_among_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert programs_spans() is None
    memory, provider = InMemorySpanExporter(), TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    tracing = Tracing(loop_clock())
    tracing.start = programs_spans()
    with (
        provider.get_tracer("theirs").start_as_current_span("theirs") as theirs,
        tracing.turn("bob", "f" * 32) as spans,
    ):
        assert spans.trace_id == trace.format_trace_id(theirs.get_span_context().trace_id)
    ours, outer = memory.get_finished_spans()
    assert (ours.name, outer.name) == ("invoke_agent bob", "theirs")
    assert ours.parent is not None
    assert outer.context is not None
    assert ours.parent.span_id == outer.context.span_id
