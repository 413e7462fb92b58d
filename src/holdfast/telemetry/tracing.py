"""
Spans of requests and turns: how long they took, and what happened because of what.

::

    POST /chat ─▶ invoke_agent NAME ─┬─▶ chat MODEL                         each attempt at a model call
                                     └─▶ execute_tool NAME ─▶ whatever the tool's own code traces

A span is the current one from its start to its end. Where no spans are recorded, a request's place in its trace is
handed on all the same.
"""

from collections.abc import Callable, Mapping
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Span, SpanKind, TraceFlags

from holdfast.clock import NS, Clock, token_hex
from holdfast.telemetry import attributes as a
from holdfast.telemetry.catalogue_turns import METHODS
from holdfast.telemetry.labels import OTHER
from holdfast.telemetry.own_span import SPAN_KEY, Facts, OwnSpan, Start
from holdfast.telemetry.trace import TraceContext, read_context
from holdfast.telemetry.turn_spans import ERROR, NoSpans, TurnSpans


class Tracing:
    """
    Begins the spans of requests and turns.

    Args:
        clock: The clock spans are timed on.
        propagates: Whether the trace context and the baggage of callers are handed on.
        content: What messages, arguments and results go through before they become part of a span; None leaves them
            out.

    Attributes:
        start: Begins a span; None records none.
        keeps: Whether the trace with this id, though not drawn by lot, is kept as far as is known by now.
    """

    def __init__(self, clock: Clock, *, propagates: bool = True, content: Callable[[str], str] | None = None) -> None:
        self._clock = clock
        self._propagates = propagates
        self._content = content
        self.start: Start | None = None
        self.keeps: Callable[[int], bool] = _keeps_none

    def request(
        self, method: str, path: str, scheme: str, headers: Mapping[str, str], *, spans: bool = True
    ) -> "RequestSpan":
        """
        Begin a request. Its block is the time in which its span is the current one.

        Args:
            method: As asked.
            path: As asked.
            scheme: ``http`` or ``https``.
            headers: Of the request, names in lower case.
            spans: Whether it has a span at all.
        """
        caller = read_context(headers)
        if self.start is None or not spans:
            told = trace.get_current_span(caller)
            known = told.get_span_context()
            trace_id, sampled = TraceContext.of(told).trace_id, known.trace_flags.sampled
            here = TraceContext(trace_id if known.is_valid else token_hex(16), token_hex(8), sampled)
            span = here.as_span(remote=False, state=known.trace_state)
            return RequestSpan(here, span, trace.set_span_in_context(span, caller) if self._propagates else None, 0, "")
        method = method if method in METHODS else OTHER
        began = self._clock.wall_ns()
        about: Facts = {a.METHOD.name: method, a.PATH.name: path, a.SCHEME.name: scheme}
        span = self.start(method, SpanKind.SERVER, about, began, caller)
        return RequestSpan(_place_of(span), span, Context(caller, **{SPAN_KEY: span}), began, method)

    def turn(self, agent: str, trace_id: str, message: str = "") -> "TurnSpans | NoSpans":
        """
        Begin a turn's span. Its block is the time in which it is the current one, and in which its calls are told.

        Args:
            agent: Who answers.
            trace_id: The trace it begins; where the asking code runs in a span, the turn belongs to that one's trace.
            message: What was asked.
        """
        if self.start is None:
            return NoSpans(trace_id)
        return TurnSpans(self.start, self._clock, self._content, agent=agent, trace_id=trace_id, message=message)

    def kept_trace_id(self) -> str | None:
        """The id of the current trace if it is kept, as far as is known by now; else None."""
        if self.start is None:
            return None
        span = get_current().get(SPAN_KEY)
        if type(span) is OwnSpan:
            return trace.format_trace_id(span.trace_id) if span.drawn or self.keeps(span.trace_id) else None
        where = trace.get_current_span().get_span_context()
        kept = where.trace_flags & TraceFlags.SAMPLED or self.keeps(where.trace_id)  # Outside of any trace, neither.
        return trace.format_trace_id(where.trace_id) if kept else None


def _place_of(span: Span) -> TraceContext:
    if type(span) is OwnSpan:
        return TraceContext(f"{span.trace_id:032x}", f"{span.span_id:016x}", span.drawn)
    return TraceContext.of(span)


def _keeps_none(_trace_id: int) -> bool:
    return False


class RequestSpan:
    """
    A request on its way.

    Attributes:
        context: Where it stands in its trace.
    """

    __slots__ = ("_began", "_inside", "_method", "_span", "_token", "context")

    def __init__(self, context: TraceContext, span: Span, inside: Context | None, began: int, method: str) -> None:
        self.context = context
        self._span = span
        self._inside = inside
        self._began = began
        self._method = method

    def __enter__(self) -> Self:
        if self._inside is not None:
            self._token = attach(self._inside)
        return self

    def __exit__(self, *_: object) -> None:
        if self._inside is not None:
            detach(self._token)

    def answered(self, route: str | None, status: int, duration_s: float) -> None:
        """The request is over: the template of its route, if it has one, and its status; 0 is none."""
        if not self._span.is_recording():
            return
        facts: Facts = {a.STATUS_CODE.name: status} if status else {}
        if route is not None:
            self._span.update_name(f"{self._method} {route}")
            facts[a.ROUTE.name] = route
        if status >= 500:
            self._span.set_status(ERROR)
            facts[a.ERROR_TYPE.name] = str(status)
        self._span.set_attributes(facts)
        self._span.end(self._began + round(duration_s * NS))
