"""
W3C trace context: which trace a request belongs to (https://www.w3.org/TR/trace-context/), and what goes with it.

    traceparent, tracestate, baggage ─▶ Incoming ─▶ the context that the request is served in ─▶ outgoing()
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from opentelemetry import propagate, trace
from opentelemetry.baggage import clear, get_all
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from holdfast.clock import token_hex

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MOST_STATE_CHARS = 512
_baggage = W3CBaggagePropagator()
_trace_context = TraceContextTextMapPropagator()


class TraceContext(NamedTuple):
    """
    Where a request stands in its trace.

    Attributes:
        trace_id: 32 hexadecimal digits, the same for everything that happens because of one cause.
        span_id: 16 hexadecimal digits: this request.
        sampled: Whether the trace is recorded.
    """

    trace_id: str
    span_id: str
    sampled: bool

    def traceparent(self) -> str:
        """The header that hands this context on."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def as_span(self, *, remote: bool, state: trace.TraceState | None = None) -> trace.Span:
        """A span that is recorded nowhere here and only says where it stands."""
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if self.sampled else trace.TraceFlags.DEFAULT)
        where = trace.SpanContext(int(self.trace_id, 16), int(self.span_id, 16), remote, flags, state)
        return trace.NonRecordingSpan(where)

    @classmethod
    def of(cls, span: trace.Span) -> "TraceContext":
        """Where ``span`` stands."""
        where = span.get_span_context()
        ids = trace.format_trace_id(where.trace_id), trace.format_span_id(where.span_id)
        return cls(*ids, where.trace_flags.sampled)


def read_traceparent(header: str | None) -> TraceContext:
    """The context of a request with this ``traceparent`` header: a new trace where it is missing or malformed."""
    caller = _caller(header)
    if caller is None:
        return TraceContext(token_hex(16), token_hex(8), sampled=False)
    return caller._replace(span_id=token_hex(8))


def _caller(header: str | None) -> TraceContext | None:
    """Where the caller stands, by its ``traceparent`` header."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    known = version != "ff" and not (version == "00" and rest) and trace_id.strip("0") and parent_id.strip("0")
    return TraceContext(trace_id, parent_id, bool(int(flags, 16) & 1)) if known else None


def read_context(headers: Mapping[str, str]) -> Context:
    """What a caller's headers say: the span it asks from, and its baggage. Missing and malformed ones say nothing."""
    context = Context()
    if (caller := _caller(headers.get("traceparent"))) is not None:
        state = headers.get("tracestate", "")
        known = trace.TraceState.from_header([state]) if 0 < len(state) <= _MOST_STATE_CHARS else None
        context = trace.set_span_in_context(caller.as_span(remote=True, state=known), context)
    if baggage := headers.get("baggage"):
        context = _baggage.extract({"baggage": baggage}, context)
    return context


def outgoing() -> dict[str, str]:
    """
    Headers for a call to somewhere else: they make what happens there part of the current trace.

    They have the formats that ``OTEL_PROPAGATORS`` names: by default W3C trace context, and baggage.
    """
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@contextmanager
def among_strangers() -> Iterator[dict[str, str]]:
    """
    The time of a call to somebody who has no business with our callers: the block runs without their baggage.

    Some clients send on by themselves whatever is in the context. Yields the headers that make the call part of the
    current trace.
    """
    before = get_current()
    headers: dict[str, str] = {}
    _trace_context.inject(headers)
    if not get_all(before):
        yield headers
        return
    attach(clear(before))
    try:
        yield headers
    finally:
        attach(before)
