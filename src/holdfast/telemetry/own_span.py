"""
Our own spans: lighter than the SDK's, as most of them are never sent.

A turn has half a dozen, and nine turns of ten are dropped at their end. These keep what they are told in a plain
dictionary, and become what exporters take only when their trace is kept. For other code in the process they are spans
as any others: it can add to the current one, and begin its own below it.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
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
        context: Where it stands in its trace.
        parent: Where its parent stands; None where it has none.
        status: How it went.
        start_time, end_time: In nanoseconds since 1970; the end is None as long as it is open.
    """

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        about: dict[str, AttributeValue],
        began: int,
        where: SpanContext,
        parent: SpanContext | None,
        made_by: "OwnSpans",
    ) -> None:
        self.context = where
        self.parent = parent
        self.status = _UNSET
        self.start_time = began
        self.end_time: int | None = None
        self._name = name
        self._kind = kind
        self._facts: dict[str, AttributeValue] = about
        self._events: Sequence[Event] = ()
        self._links: Sequence[Link] = ()
        self._made_by = made_by

    def end(self, end_time: int | None = None) -> None:
        """End it, now or at ``end_time``. Ending it again changes nothing."""
        if self.end_time is None:
            self.end_time = self._made_by.clock.wall_ns() if end_time is None else end_time
            self._made_by.ended(self)

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
        was = self.context
        where = SpanContext(was.trace_id, was.span_id, is_remote=False, trace_flags=_DRAWN, trace_state=was.trace_state)
        facts = self._facts if reason is None else {**self._facts, SAMPLING_REASON.name: reason}
        plain = len(facts) <= _MOST_ATTRIBUTES and _PLAIN.issuperset(map(type, facts.values()))
        return ReadableSpan(
            name=self._name,
            context=where,
            parent=self.parent,
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
        begun: Told of each span that begins.
        ended: Told of each that ends.
    """

    def __init__(
        self,
        clock: Clock,
        ratio: float,
        resource: Resource,
        version: str,
        *,
        begun: Callable[[SpanContext], None],
        ended: Callable[[OwnSpan], None],
    ) -> None:
        self.clock = clock
        self.resource = resource
        self.scope = InstrumentationScope("holdfast", version)
        self.ended = ended
        self._begun = begun
        self._drawn_below = round(ratio * (_ID + 1))
        self._bits = clock.random.getrandbits

    def start(
        self, name: str, kind: SpanKind, about: Facts, began: int, within: Context | None = None, trace_id: int = 0
    ) -> OwnSpan:
        """Begin a span; see ``Start``."""
        around = trace.get_current_span(within)
        parent: SpanContext | None = around.get_span_context()
        if type(around) is OwnSpan:  # The usual case, and the one with nothing to look into.
            trace_id, state, flags = around.context.trace_id, around.context.trace_state, around.context.trace_flags
        elif parent is not None and parent.is_valid:
            trace_id, state = parent.trace_id, parent.trace_state
            flags = _DRAWN if parent.trace_flags & TraceFlags.SAMPLED else _NOT_DRAWN
        else:
            trace_id = trace_id or self._bits(128) or 1
            parent, state = None, None
            flags = _DRAWN if trace_id & _ID < self._drawn_below else _NOT_DRAWN
        where = SpanContext(trace_id, self._bits(64) or 1, is_remote=False, trace_flags=flags, trace_state=state)
        self._begun(where)
        return OwnSpan(name, kind, {**about}, began, where, parent, self)
