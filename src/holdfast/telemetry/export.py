"""
The way of spans out: to a collector by OTLP over HTTP, as OpenTelemetry's standard variables say.

::

    span ends ─▶ Tail ─▶ kept ─▶ a bounded queue ─▶ a thread ─▶ OTEL_EXPORTER_OTLP_ENDPOINT

Without an endpoint there is nothing of this. What the collector does not take in time is counted, and nobody waits.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.util.types import Attributes

from holdfast._version import __version__
from holdfast.clock import Clock
from holdfast.errors import Misconfigured
from holdfast.telemetry.logs import logger
from holdfast.telemetry.own_span import Facts, OwnSpans, Start
from holdfast.telemetry.spec import TelemetrySpec
from holdfast.telemetry.tail import Tail, sampler
from holdfast.telemetry.turn_spans import in_model_call

_OTLP = "OTEL_EXPORTER_OTLP_"
_EXPORTERS_LOGGER = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")

TELLS_THE_SAME = frozenset({"com.anthropic.sdk.python"})
"""Clients that record each call they make by themselves, unasked."""

Dropped = Callable[[str, int], None]
"""Told why spans were lost, and how many: ``queue_full``, ``export_failed``, ``shutdown``."""


def endpoint(environ: Mapping[str, str]) -> str | None:
    """
    Where spans go by the standard variables; None where they go nowhere.

    Raises:
        Misconfigured: to no HTTP address, or by another protocol than OTLP over HTTP.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter not in ("", "otlp"):
        return None
    name, url = f"{_OTLP}TRACES_ENDPOINT", environ.get(f"{_OTLP}TRACES_ENDPOINT", "").strip()
    if not url and (base := environ.get(f"{_OTLP}ENDPOINT", "").strip()):
        name, url = f"{_OTLP}ENDPOINT", f"{base.rstrip('/')}/v1/traces"
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise Misconfigured(f"{name} must begin with http:// or https://, got {url}")
    for protocol in (f"{_OTLP}TRACES_PROTOCOL", f"{_OTLP}PROTOCOL"):
        if by := environ.get(protocol, "").strip():
            if by != "http/protobuf":
                raise Misconfigured(f"{protocol} is {by}, but spans are sent by http/protobuf alone")
            break
    return url


def programs_spans() -> Start | None:
    """Begins spans of the program that Holdfast runs in, where that one has set up OpenTelemetry itself."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    tracer = provider.get_tracer("holdfast", __version__)

    def start(
        name: str, kind: SpanKind, about: Facts, began: int, within: Context | None = None, trace_id: int = 0
    ) -> Span:
        del trace_id  # The program's own ids are its to choose.
        return tracer.start_span(name, within, kind, about, start_time=began)

    return start


class Outbox:
    """
    Sends kept spans to the collector: in batches, from a thread of its own.

    Args:
        exporter: Sends one batch, and may take its time.
        environ: Where OTEL_BSP_MAX_QUEUE_SIZE and its like are looked up.
        dropped: Told what was lost.

    Attributes:
        exporter: As given.
    """

    def __init__(self, exporter: SpanExporter, environ: Mapping[str, str], dropped: Dropped) -> None:
        self._room = _whole(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 4_096)
        # The thread holds Python's lock while it encodes a batch: a small one stops the loop for a short time only.
        most = min(self._room, _whole(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 128))
        delay_ms = _whole(environ, "OTEL_BSP_SCHEDULE_DELAY", 2_000)
        self.exporter = exporter
        self._dropped = dropped
        self._lock = threading.Lock()
        self._waiting = 0
        self._given_up = False
        self._failing = False
        self._batches = BatchSpanProcessor(
            _Batches(self),
            max_queue_size=self._room,
            schedule_delay_millis=delay_ms,
            max_export_batch_size=most,
        )

    def send(self, span: ReadableSpan) -> None:
        """Take a span, or drop it where too many wait. Never waits."""
        with self._lock:
            taken = self._waiting < self._room
            self._waiting += taken
        if taken:
            self._batches.on_end(span)
        else:
            self._dropped("queue_full", 1)

    async def close(self, seconds: float) -> None:
        """Send what is left, for so long at most."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._batches.shutdown()  # type: ignore[no-untyped-call]  # it has no annotations
            with suppress(RuntimeError):  # The loop did not wait, and has ended.
                loop.call_soon_threadsafe(closed.set)

        # A daemon: a collector that hangs is not waited for at exit, as asyncio's own threads would be.
        threading.Thread(target=close, name="holdfast-spans-close", daemon=True).start()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await closed.wait()
        finally:  # What is lost counts also where whoever closes it is out of patience.
            with self._lock:
                self._given_up, lost, self._waiting = True, self._waiting, 0
            if lost:
                self._dropped("shutdown", lost)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch, and count it if it is lost. For the thread; may take as long as the exporter does."""
        if self._given_up:
            return SpanExportResult.FAILURE
        listener = _LastWords()
        _EXPORTERS_LOGGER.addFilter(listener)
        try:
            result = self.exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever the exporter raises, the batch is lost
            result, listener.said = SpanExportResult.FAILURE, type(error).__name__
        finally:
            _EXPORTERS_LOGGER.removeFilter(listener)
        with self._lock:
            if self._given_up:
                return result
            self._waiting -= len(spans)
        if result is SpanExportResult.SUCCESS:
            if self._failing:
                logger.info("spans_taken_again")
        else:
            self._dropped("export_failed", len(spans))
            if not self._failing:
                logger.warning("spans_lost", why=listener.said)
        self._failing = result is not SpanExportResult.SUCCESS
        return result


class _Batches(SpanExporter):
    """Takes batches from the SDK's thread."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._outbox.export(spans)

    def shutdown(self) -> None:
        self._outbox.exporter.shutdown()


class _LastWords(logging.Filter):
    """Keeps what the exporter would write to the log from this thread, again and again, every few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.said = ""
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        self.said = record.getMessage()
        return False


class _Provider(TracerProvider):
    """Of the tracers of other code, those that would record our model calls once more keep silent in them."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        tracer = super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        return _Beside(tracer) if instrumenting_module_name in TELLS_THE_SAME else tracer


class _Beside(Tracer):
    """Begins no span in one of our model calls: sums over both would count its tokens twice."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(self, name: str, context: Context | None = None, *args: Any, **more: Any) -> Span:
        if in_model_call():
            return trace.NonRecordingSpan(trace.get_current_span(context).get_span_context())
        return self._tracer.start_span(name, context, *args, **more)

    def start_as_current_span(self, *args: Any, **more: Any) -> Any:
        return self._tracer.start_as_current_span(*args, **more)


class Recorder:
    """
    Records spans, and sends those that are kept.

    Args:
        url: The collector's address for traces.
        spec: How many are kept.
        environ: Where the standard variables are looked up.
        clock: The clock that traces age on.
        decided: Told what was decided about each trace.
        dropped: Told what was lost.

    Attributes:
        start: Begins one of our spans.
        keeps: Whether the trace with this id, though not drawn by lot, is kept as far as is known by now.
        provider: For other code in the process that begins spans.

    Raises:
        Misconfigured: a variable holds what the exporter cannot use.
    """

    def __init__(
        self,
        url: str,
        spec: TelemetrySpec,
        environ: Mapping[str, str],
        clock: Clock,
        *,
        decided: Callable[[str], None],
        dropped: Dropped,
    ) -> None:
        try:
            exporter = OTLPSpanExporter(url)
            self._outbox = Outbox(exporter, environ, dropped)
        except ValueError as error:
            raise Misconfigured(f"a variable OTEL_* holds what the exporter cannot use: {error}") from error
        self._tail = Tail(
            self._outbox.send, clock, decided, slow_s=spec.traces_slow_s, most_per_s=spec.traces_failed_per_s
        )
        about = _Unchanging(_resource())
        spans = OwnSpans(clock, spec.traces_ratio, about, __version__, begun=self._tail.begun, ended=self._tail.ended)
        self.start: Start = spans.start
        self.keeps = self._tail.keeps
        self.provider = _Provider(sampler=sampler(spec.traces_ratio), resource=about, shutdown_on_exit=False)
        self.provider.add_span_processor(self._tail)

    async def close(self, seconds: float) -> None:
        """Send what was kept and not sent yet, for so long at most. What is held is dropped."""
        await self._outbox.close(seconds)


class _Unchanging(Resource):
    """The same, but for its hash, which is made once: encoders ask each span for it, and it goes through JSON."""

    def __init__(self, same: Resource) -> None:
        super().__init__(same.attributes, same.schema_url)
        self._hash = hash(same)

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    def __hash__(self) -> int:
        return self._hash


def _resource() -> Resource:
    found = Resource.create({"service.version": __version__})
    if str(found.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "holdfast"}))
    return found


def _whole(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not int(text):
        raise Misconfigured(f"{name} must be a whole number of at least 1, got {text}")
    return int(text)
