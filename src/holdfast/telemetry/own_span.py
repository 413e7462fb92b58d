"""
Our own spans: lighter than the SDK's, as most of them are never sent.

A turn has half a dozen, and nine turns of ten are dropped at their end. These keep what they are told in a plain
dictionary, and become what exporters take only when their trace is kept. One that was not drawn by lot waits with the
span that it began in, and goes with that one; at once if it failed. For other code in the process they are spans as any
others: it can add to the current one, and begin its own below it.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import Attributes, AttributeValue

from holdfast.clock import Clock
from holdfast.telemetry.attributes import SAMPLING_REASON

Facts = dict[str, str | int | float]

_ID = (1 << 64) - 1
_UNSET = Status(StatusCode.UNSET)
_DRAWN, _NOT_DRAWN = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_MOST_ATTRIBUTES = 128
_PLAIN = frozenset({str, int, float, bool})

MOST_BELOW = 64
"""Spans that wait with the one they began in; then they go all together."""

[SPAN_KEY] = trace.set_span_in_context(trace.INVALID_SPAN, Context())
"""What a context has its span under: to look there oneself takes a fifth of the time."""


class Start(Protocol):
    """Begins a span."""

    def __call__(
        self, name: str, kind: SpanKind, about: Facts, began: int, within: Context | None = None, trace_id: int = 0
    ) -> Span:
        """
        Begin a span, without making it the current one.

        Args:
            name: What it is.
            kind: As in OpenTelemetry.
            about: What is known of it.
            began: When, in nanoseconds since 1970.
            within: Where its parent is; None takes the current context.
            trace_id: The trace that begins with it, where it has no parent; 0 leaves that to chance.
        """


class OwnSpan(Span):
    """
    One span.

    Attributes:
        trace_id: Which trace it belongs to.
        drawn: Whether that was drawn by lot.
        status: How it went.
        start_time, end_time: In nanoseconds since 1970; the end is None as long as it is open.
        above: The open span that it goes with; None where its end is told.
        told: Whether its beginning was told.
        below: Spans that began in it, and go with it; None where there are none.
    """

    status = _UNSET
    end_time: int | None = None
    above: "OwnSpan | None" = None
    told = False
    below: "list[OwnSpan] | None" = None
    _span_id = 0
    _events: Sequence[Event] = ()
    _links: Sequence[Link] = ()

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        about: Facts,
        began: int,
        trace_id: int,
        parent: "OwnSpan | SpanContext | None",
        made_by: "OwnSpans",
        *,
        drawn: bool,
    ) -> None:
        self.trace_id = trace_id
        self.drawn = drawn
        self.start_time = began
        self._name = name
        self._kind = kind
        self._facts: dict[str, AttributeValue] = about  # type: ignore[assignment]  # nobody else has it
        self.parent = parent
        self._made_by = made_by

    @property
    def first(self) -> bool:
        """Whether it has no parent in this process."""
        parent = self.parent
        return type(parent) is not OwnSpan and (parent is None or parent.is_remote)  # type: ignore[union-attr]  # a remote parent is a SpanContext

    @property
    def span_id(self) -> int:
        """Names it in its trace. Most spans are dropped before anybody asks."""
        if not self._span_id:
            self._span_id = self._made_by.bits(64) or 1
        return self._span_id

    @property
    def context(self) -> SpanContext:
        """Where it stands in its trace."""
        return self._placed(_DRAWN if self.drawn else _NOT_DRAWN)

    def _placed(self, flags: TraceFlags) -> SpanContext:
        above: OwnSpan | SpanContext | None = self
        while isinstance(above, OwnSpan):
            above = above.parent
        state = None if above is None else above.trace_state
        return SpanContext(self.trace_id, self.span_id, is_remote=False, trace_flags=flags, trace_state=state)

    def end(self, end_time: int | None = None) -> None:
        """End it, now or at ``end_time``. Ending it again changes nothing."""
        if self.end_time is not None:
            return
        self.end_time = self._made_by.clock.wall_ns() if end_time is None else end_time
        above, self.above = self.above, None
        if above is not None:
            beside = above.below or []
            if self.status is _UNSET and len(beside) < MOST_BELOW:
                return
            above.below = [one for one in beside if one.end_time is None]
            self.below = [*(one for one in beside if one.end_time is not None and one is not self), *(self.below or ())]
        self._made_by.ended(self)

    def whole(self) -> "list[OwnSpan]":
        """It, and before it what ended in it. What is still open in it is on its own from now on."""
        found: list[OwnSpan] = []
        below, self.below = self.below, None
        for one in below or ():
            if one.end_time is None:
                one.above = None
                self._made_by.begin(one)
            else:
                found += one.whole() if one.below else (one,)
        found.append(self)
        return found

    def get_span_context(self) -> SpanContext:
        """Where it stands in its trace."""
        return self.context

    def is_recording(self) -> bool:
        """Whether it is open."""
        return self.end_time is None

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add to what is known of it; nothing after its end, as it may be on its way out."""
        if self.end_time is None:
            self._facts.update(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add to what is known of it; nothing after its end."""
        if self.end_time is None:
            self._facts[key] = value

    def update_name(self, name: str) -> None:
        """Call it so."""
        self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went."""
        self.status = status if isinstance(status, Status) else Status(status, description)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Something happened in it, now or at ``timestamp``."""
        self._events = (*self._events, Event(name, attributes, timestamp or self._made_by.clock.wall_ns()))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """It has to do with another span too."""
        self._links = (*self._links, Link(context, attributes))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 - the interface's
    ) -> None:
        """An exception was raised in it, text and all."""
        kind = type(exception)
        told: dict[str, AttributeValue] = {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}",
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def readable(self, reason: str | None) -> ReadableSpan:
        """It as exporters take it: as one that was drawn; ``reason`` is why it is kept if it was not."""
        parent = self.parent
        facts = self._facts if reason is None else {**self._facts, SAMPLING_REASON.name: reason}
        plain = len(facts) <= _MOST_ATTRIBUTES and _PLAIN.issuperset(map(type, facts.values()))
        return ReadableSpan(
            name=self._name,
            context=self._placed(_DRAWN),
            parent=None if parent is None else _where(parent),
            resource=self._made_by.resource,
            attributes=facts if plain else BoundedAttributes(_MOST_ATTRIBUTES, facts),
            events=self._events,
            links=self._links,
            kind=self._kind,
            instrumentation_scope=self._made_by.scope,
            status=self.status,
            start_time=self.start_time,
            end_time=self.end_time,
        )


class OwnSpans:
    """
    Begins our own spans.

    Args:
        clock: The clock they are timed on; also where chance comes from.
        ratio: Share of the traces that begin here that are drawn.
        resource: What is said of the process in each of them.
        version: Of Holdfast.
        begun: Told of each span that begins, but for those that go with another.
        ended: Told of each of those that ends.

    Attributes:
        bits: Draws so many bits.
    """

    def __init__(
        self,
        clock: Clock,
        ratio: float,
        resource: Resource,
        version: str,
        *,
        begun: Callable[[OwnSpan], None],
        ended: Callable[[OwnSpan], None],
    ) -> None:
        self.clock = clock
        self.resource = resource
        self.scope = InstrumentationScope("holdfast", version)
        self.ended = ended
        self._begun = begun
        self.bits = clock.random.getrandbits
        self._drawn_below = round(ratio * (_ID + 1))

    def start(
        self, name: str, kind: SpanKind, about: Facts, began: int, within: Context | None = None, trace_id: int = 0
    ) -> OwnSpan:
        """Begin a span; see ``Start``."""
        around = (get_current() if within is None else within).get(SPAN_KEY)
        if type(around) is OwnSpan:  # The usual case, and the one with nothing to look into.
            span = OwnSpan(name, kind, about, began, around.trace_id, around, self, drawn=around.drawn)
            if not span.drawn and around.end_time is None:
                span.above = around
                if around.below is None:
                    around.below = [span]
                else:
                    around.below.append(span)
                return span
        else:
            parent = around.get_span_context() if isinstance(around, Span) else None
            if parent is not None and parent.is_valid:
                trace_id, drawn = parent.trace_id, bool(parent.trace_flags & TraceFlags.SAMPLED)
            else:
                parent, trace_id = None, trace_id or self.bits(128) or 1
                drawn = trace_id & _ID < self._drawn_below
            span = OwnSpan(name, kind, about, began, trace_id, parent, self, drawn=drawn)
        self.begin(span)
        return span

    def begin(self, span: OwnSpan) -> None:
        """Tell that ``span`` is open, and goes with no other."""
        span.told = True
        self._begun(span)


def _where(of: OwnSpan | SpanContext) -> SpanContext:
    return of.context if isinstance(of, OwnSpan) else of
