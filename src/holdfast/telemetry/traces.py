"""
What is told of each turn besides the log and the metrics: its spans, to a collector, and its events, to a file.

Both begin when the process does and end with it. Spans are recorded where the standard variables name a collector, or
where the program that Holdfast runs in has set up OpenTelemetry itself: then they are that one's to keep and to send.
"""

from collections.abc import Callable, Mapping

from opentelemetry import trace

from holdfast.clock import Clock
from holdfast.events import Takers
from holdfast.telemetry.export import Recorder, endpoint, programs_spans
from holdfast.telemetry.jsonl import LineFile, TraceEvents
from holdfast.telemetry.metrics import Metrics
from holdfast.telemetry.spec import TelemetrySpec
from holdfast.telemetry.tracing import Tracing


class Traces:
    """
    Spans and trace events of one process.

    Args:
        spec: Which, how many, and where to.
        environ: Where OpenTelemetry's standard variables are looked up.
        clock: The clock they are timed on.
        redact: Takes secrets out of content, where content is wanted.

    Attributes:
        tracing: Begins the spans.
        url: The collector's address for traces; None where there is none.
        by_event: What is to be told the events of every turn.

    Raises:
        Misconfigured: a standard variable holds what cannot be used.
    """

    def __init__(
        self, spec: TelemetrySpec, environ: Mapping[str, str], clock: Clock, redact: Callable[[str], str]
    ) -> None:
        self._spec = spec
        self._environ = environ
        self._clock = clock
        self._content = redact if spec.content else None
        self._recorder: Recorder | None = None
        self._file: LineFile | None = None
        self._events: TraceEvents | None = None
        self.url = endpoint(environ) if spec.enabled else None
        self.tracing = Tracing(clock, propagates=spec.enabled, content=self._content)
        self.tracing.start = programs_spans() if spec.enabled else None
        self.by_event: Takers = {}

    def open(self, metrics: Metrics) -> None:
        """
        Begin to record, send and write; ``metrics`` counts what becomes of it.

        Raises:
            Misconfigured: a standard variable holds what cannot be used. Nothing was begun.
        """
        if self.url is not None and self.tracing.start is None:
            self._recorder = Recorder(
                self.url,
                self._spec,
                self._environ,
                self._clock,
                decided=lambda decision: metrics.traces.labels(decision).inc(),
                dropped=lambda reason, count: metrics.dropped.labels("spans", reason).inc(count),
            )
            for reason in ("queue_full", "export_failed", "shutdown"):
                metrics.dropped.labels("spans", reason)
            self.tracing.start, self.tracing.keeps = self._recorder.start, self._recorder.keeps
        if self._spec.enabled and self._spec.jsonl_path is not None:
            self._file = LineFile(
                self._spec.jsonl_path,
                max_bytes=self._spec.jsonl_max_bytes,
                files=self._spec.jsonl_files,
                written=metrics.trace_events.inc,
                dropped=lambda reason, count: metrics.dropped.labels("events", reason).inc(count),
            )
            for reason in ("queue_full", "write_failed", "unencodable", "shutdown"):
                metrics.dropped.labels("events", reason)
            self._file.open()
            self._events = TraceEvents(self._file.write, self._clock, self._content)
            self.by_event = self._events.by_event

    async def close(self, seconds: float) -> None:
        """Send and write what is left. Returns within ``seconds``, and the second or less that the file may take."""
        self.by_event, self._events = {}, None
        try:
            if self._recorder is not None:
                self.tracing.start = None
                await self._recorder.close(seconds)
        finally:
            self._recorder = None
            if self._file is not None:
                self._file.close()
                self._file = None

    def notice(self, name: str, pipeline: str, key_class: str, facts: Mapping[str, object]) -> None:
        """What a policy did."""
        if self._events is not None:
            self._events.notice(name, pipeline, key_class, facts)

    def serve_whole_process(self) -> None:
        """Record the spans of all code in this process that uses OpenTelemetry. Once in a process, and for good."""
        if self._recorder is not None:
            trace.set_tracer_provider(self._recorder.provider)
