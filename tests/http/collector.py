"""A small OTLP receiver: it keeps the spans that are sent to it over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PATIENCE_S = 20.0
KINDS = {1: "internal", 2: "server", 3: "client"}


class Received(NamedTuple):
    """A span as it came. Ids are hexadecimal; ``parent`` is empty at the root."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    kind: str
    failed: bool
    facts: dict[str, Any]
    resource: dict[str, Any]
    began: int
    ended: int


class Collector:
    """
    Listens on a free port.

    Attributes:
        spans: What was received.
        hangs: Set it, and requests are read and not answered until it is cleared.
        status: What requests are answered with.
    """

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.requests = 0
        self.status = 200
        self._more = threading.Condition()
        self._answers = threading.Event()
        self._answers.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}"}
        self.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"

    @contextmanager
    def listening(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="collector")
        thread.start()
        try:
            yield self
        finally:
            self.answer()
            self._server.shutdown()
            thread.join(PATIENCE_S)
            self._server.server_close()

    def hang(self) -> None:
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    def wait(self, name: str, count: int = 1) -> list[Received]:
        """The spans called so, once there are as many."""
        with self._more:
            assert self._more.wait_for(lambda: len(self._named(name)) >= count, PATIENCE_S), [
                s.name for s in self.spans
            ]
            return self._named(name)

    def trace(self, trace_id: str, count: int) -> list[Received]:
        """The spans of one trace in the order they began, once there are as many."""
        with self._more:
            assert self._more.wait_for(lambda: len(self._of(trace_id)) >= count, PATIENCE_S), [
                s.name for s in self.spans
            ]
            return self._of(trace_id)

    def _named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def _of(self, trace_id: str) -> list[Received]:
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.began)

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._more:
            self.requests += 1
            for group in request.resource_spans:
                resource = _facts(group.resource.attributes)
                for span in (span for scope in group.scope_spans for span in scope.spans):
                    self.spans.append(
                        Received(
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.name,
                            KINDS[span.kind],
                            span.status.code == 2,
                            _facts(span.attributes),
                            resource,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                        )
                    )
            self._more.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if not collector._answers.is_set():
                    collector._answers.wait(PATIENCE_S)
                    return
                if self.path == "/v1/traces" and collector.status == 200:
                    collector._take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
