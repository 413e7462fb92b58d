"""
Which traces are kept: a share drawn by lot, and every one that fails.

::

    span ends ─┬─ drawn by lot ────────────────────────────────────────▶ kept: head
               └─ held until its trace ends here ─┬─ a span failed ─────▶ kept: error
                                                  ├─ it took too long ──▶ kept: slow
                                                  ├─ nothing of that ───▶ dropped
                                                  └─ no room or too many ▶ limited

The lot is drawn from the trace's id at its start, so that everybody who sees the trace draws the same. What was not
drawn is recorded all the same and held here. A trace ends here when none of its spans is open any more; one that
fails is let go at its first failed span, with all that comes after.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import AlwaysRecordSampler, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags

from holdfast.clock import NS, Clock
from holdfast.telemetry.attributes import SAMPLING_REASON
from holdfast.telemetry.own_span import OwnSpan

MOST_TRACES = 4_096
"""Traces held at once; the oldest gives way."""

MOST_SPANS = 32_768
"""Spans held at once, of all traces; the oldest trace gives way."""

MOST_SPANS_OF_A_TRACE = 1_024
"""Spans of one trace that are held; further ones are left out, failed ones never."""

MOST_AGE_S = 900.0
"""Seconds a trace is held; one that has not ended by then has lost its end."""


def sampler(ratio: float) -> Sampler:
    """Draws ``ratio`` of the traces that begin here, follows the caller's decision in others, and records all."""
    return AlwaysRecordSampler(ParentBased(TraceIdRatioBased(ratio)))


Ended = ReadableSpan | OwnSpan


class _Held:
    """One trace that was not drawn: its ended spans, and what is known of it."""

    __slots__ = ("began", "kept", "limited", "open", "slow", "spans")

    def __init__(self, began: int) -> None:
        self.began = began
        self.spans: list[Ended] = []
        self.open = 0
        self.slow = False
        self.kept: str | None = None
        self.limited = False


class Tail(SpanProcessor):
    """
    Holds spans until their trace is decided.

    Args:
        send: Takes each span that is kept.
        clock: The clock that traces age on.
        decided: Told ``head``, ``error``, ``slow``, ``dropped`` or ``limited`` for each trace.
        slow_s: Seconds that a span must take for its trace to be kept for that; None keeps none.
        most_per_s: Traces a second that are kept though they were not drawn: in an outage, every one fails.
    """

    def __init__(
        self,
        send: Callable[[ReadableSpan], None],
        clock: Clock,
        decided: Callable[[str], None],
        *,
        slow_s: float | None = None,
        most_per_s: float = 100.0,
    ) -> None:
        self._send = send
        self._clock = clock
        self._decided = decided
        self._slow_ns = None if slow_s is None else round(slow_s * NS)
        self._per_s = most_per_s
        self._left = self._most = max(1.0, most_per_s)
        self._left_at = clock.now()
        self._lock = Lock()  # Tools that are not async run in threads.
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._spans = 0
        self._kept: OrderedDict[int, str] = OrderedDict()

    @property
    def held(self) -> tuple[int, int]:
        """How many traces are held now, and how many of their spans."""
        return len(self._held), self._spans

    def keeps(self, trace_id: int) -> bool:
        """Whether a trace that was not drawn is kept, as far as is known by now."""
        held = self._held.get(trace_id)
        return trace_id in self._kept if held is None else held.kept is not None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the interface's
        """One more of the SDK's spans is open."""
        where = span.context
        if not where.trace_flags & TraceFlags.SAMPLED:
            self._begun(where.trace_id)

    def on_end(self, span: ReadableSpan) -> None:
        """One of the SDK's spans has ended."""
        where = span.context
        if where is None:
            return
        if not where.trace_flags & TraceFlags.SAMPLED:
            self._take(where.trace_id, (span,), closes=True)
            return
        if span.parent is None or span.parent.is_remote:
            self._decided("head")
        self._send(span)

    def begun(self, span: OwnSpan) -> None:
        """One more of our spans is open, that goes with no other."""
        if not span.drawn:
            self._begun(span.trace_id)

    def ended(self, span: OwnSpan) -> None:
        """One of ours has ended: send it, or take it and those that go with it as the drawing above has it."""
        if not span.drawn:
            self._take(span.trace_id, span.whole(), closes=span.told)
            return
        if span.first:
            self._decided("head")
        self._send(span.readable(None))

    def _begun(self, trace_id: int) -> None:
        with self._lock:
            held = self._held.get(trace_id) or self._begin(trace_id)
            held.open += 1

    def _take(self, trace_id: int, spans: Sequence[Ended], *, closes: bool) -> None:
        """Ended spans of a trace that was not drawn; ``closes`` is whether one of them was told to be open."""
        with self._lock:
            reason, let_go = self._ended(trace_id, spans, closes=closes)
        for one in let_go:
            self._send(one.readable(reason) if isinstance(one, OwnSpan) else _as_kept(one, reason))

    def _ended(self, trace_id: int, spans: Sequence[Ended], *, closes: bool) -> tuple[str, Sequence[Ended]]:
        held = self._held.get(trace_id)
        if held is None:  # It gave way before its end.
            kept = self._kept.get(trace_id)
            return (kept, spans) if kept else ("", ())
        let_go: list[Ended] = []
        held.open -= closes
        if held.open == 0 and held.kept is None and self._slow_ns is None and _all_well(spans):
            self._forget(trace_id, "limited" if held.limited else "dropped")  # The usual end: nothing to look at again.
            return "", ()
        for span in spans:
            failed = span.status.status_code is StatusCode.ERROR
            if self._slow_ns is not None:
                held.slow = held.slow or (span.end_time or 0) - (span.start_time or 0) >= self._slow_ns
            if held.kept is not None:
                let_go.append(span)
            elif failed and self._keep(trace_id, held, "error"):
                let_go = [*self._taken(held), span]
            elif len(held.spans) < MOST_SPANS_OF_A_TRACE:
                held.spans.append(span)
                self._spans += 1
        if self._spans > MOST_SPANS:
            self._make_room()
        if held.open <= 0 and trace_id in self._held:
            if held.kept is None and held.slow and self._keep(trace_id, held, "slow"):
                let_go = self._taken(held)
            self._forget(trace_id, "limited" if held.limited else "dropped")
        return held.kept or "", let_go

    def _begin(self, trace_id: int) -> _Held:
        held = self._held[trace_id] = _Held(self._clock.now())
        held.kept = self._kept.get(trace_id)
        self._make_room()
        return held

    def _keep(self, trace_id: int, held: _Held, reason: str) -> bool:
        """Decide to keep the trace, if there is room for one more this second."""
        now = self._clock.now()
        self._left = min(self._most, self._left + (now - self._left_at) / NS * self._per_s)
        self._left_at = now
        held.limited = self._left < 1
        if held.limited:
            return False
        self._left -= 1
        held.kept = self._kept[trace_id] = reason
        if len(self._kept) > MOST_TRACES:
            self._kept.popitem(last=False)
        self._decided(reason)
        return True

    def _taken(self, held: _Held) -> list[Ended]:
        spans, held.spans = held.spans, []
        self._spans -= len(spans)
        return spans

    def _make_room(self) -> None:
        """Let the oldest trace go as long as there are too many, or it is too old."""
        while self._held:
            trace_id, oldest = next(iter(self._held.items()))
            too_many = len(self._held) > MOST_TRACES or self._spans > MOST_SPANS
            if not too_many and self._clock.now() - oldest.began <= MOST_AGE_S * NS:
                return
            self._forget(trace_id, "limited")

    def _forget(self, trace_id: int, decision: str) -> None:
        held = self._held.pop(trace_id)
        self._taken(held)
        if held.kept is None:
            self._decided(decision)


def _all_well(spans: Sequence[Ended]) -> bool:
    """Of ours, those that failed do not wait for others: it is enough to look at the last."""
    return spans[-1].status.status_code is not StatusCode.ERROR


def _as_kept(span: ReadableSpan, reason: str) -> ReadableSpan:
    """``span`` as one that was drawn: what is not is left out by every exporter."""
    where = span.context
    if where is not None:
        flags = TraceFlags(where.trace_flags | TraceFlags.SAMPLED)
        where = SpanContext(
            where.trace_id, where.span_id, is_remote=False, trace_flags=flags, trace_state=where.trace_state
        )
    return ReadableSpan(
        name=span.name,
        context=where,
        parent=span.parent,
        resource=span.resource,
        attributes={**(span.attributes or {}), SAMPLING_REASON.name: reason},
        events=span.events,
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
    )
