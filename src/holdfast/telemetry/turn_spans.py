"""
The spans of one turn: its own, and one for each attempt at a model call and for each tool call.

They are made of the turn's events. A span is the current one in the context that its call runs in: calls that run at
the same time each have their own children.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from holdfast.clock import NS, Clock
from holdfast.errors import HandedOver
from holdfast.events import (
    Event,
    FallbackUsed,
    ModelFinished,
    ModelStarted,
    Observer,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnIds,
    TurnStarted,
    TurnSuspended,
)
from holdfast.telemetry import attributes as a
from holdfast.telemetry.own_span import SPAN_KEY, Facts, OwnSpan, Start

FAILED = frozenset({"error", "timeout", "rejected", "budget_exhausted"})
"""Statuses and outcomes that make a span a failed one, and keep its trace. What somebody decided is no failure."""

ERROR = Status(StatusCode.ERROR)

TellSaid = Callable[[Callable[[], str], Callable[[], str]], None]
"""Says what a model call was asked, and what it answered."""

_encode = msgspec.json.Encoder().encode
_TRACE_ID = re.compile(r"[0-9a-f]{32}")

_turn: ContextVar["TurnSpans | None"] = ContextVar("holdfast_turn_spans", default=None)
_CALL = "holdfast-call"
"""What a context has the innermost call under."""


class NoSpans:
    """A turn that nobody traces."""

    __slots__ = ("observers", "trace_id")

    def __init__(self, trace_id: str) -> None:
        self.trace_id = trace_id
        self.observers: Sequence[Observer] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Call(NamedTuple):
    """A call whose span is open, and what was around it in its context."""

    key: int | str
    span: Span
    began: int
    before: Context


class TurnSpans:
    """
    The spans of one turn. Its block is the time in which the turn's own is the current one.

    Args:
        start: Begins each of them.
        clock: The clock they are timed on.
        content: What messages, arguments and results go through; None leaves them out.
        agent: Who answers.
        trace_id: The trace that begins with the turn, unless it is part of one already.
        message: What was asked.

    Attributes:
        trace_id: The trace they belong to.
        observers: What is to be told the turn's events.
    """

    __slots__ = (
        "_agent",
        "_asked",
        "_began",
        "_clock",
        "_content",
        "_open",
        "_span",
        "_start",
        "_tokens",
        "observers",
        "trace_id",
    )

    def __init__(
        self,
        start: Start,
        clock: Clock,
        content: Callable[[str], str] | None,
        *,
        agent: str,
        trace_id: str,
        message: str,
    ) -> None:
        self._start = start
        self._clock = clock
        self._content = content
        self._agent = agent
        self._asked: dict[int, ModelStarted] = {}
        self._open: list[_Call] = []
        self._began = self._clock.wall_ns()
        about: Facts = {a.OPERATION.name: "invoke_agent", a.AGENT_NAME.name: agent}
        if self._content is not None and message:
            about[a.INPUT_MESSAGES.name] = self._content(_said("user", message))
        self._span = start(f"invoke_agent {agent}", SpanKind.INTERNAL, about, self._began, None, _number(trace_id))
        own = self._span if type(self._span) is OwnSpan else self._span.get_span_context()
        self.trace_id = trace.format_trace_id(own.trace_id)
        self.observers: Sequence[Observer] = (self.observe,)

    def __enter__(self) -> Self:
        self._tokens = attach(Context(get_current(), **{SPAN_KEY: self._span})), _turn.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span.is_recording():  # It ended before it had begun, or in a way that no event tells.
            if isinstance(error, Exception):
                self._span.set_attribute(a.ERROR_TYPE.name, getattr(error, "code", type(error).__name__))
                self._span.set_status(ERROR)
            self._span.end(self._clock.wall_ns())
        with suppress(ValueError):  # Another context ends it, which was never in it.
            _turn.reset(self._tokens[1])
            detach(self._tokens[0])

    def observe(self, _ids: TurnIds, event: Event) -> None:
        """An observer: begins and ends the spans of calls, and ends the turn's."""
        take_in = self._TAKE_IN.get(type(event))
        if take_in is not None:
            take_in(self, event)

    def sent(self, call: int) -> None:
        """The policies have let this attempt at a model call through: its span begins."""
        asked = self._asked.pop(call, None)
        if asked is not None:
            self._begin(call, f"chat {asked.model}", SpanKind.CLIENT, self._about_model(asked))

    def teller(self) -> TellSaid:
        """Says later what the current model call was asked and answered, for whoever wants content."""
        if self._content is None:
            return _say_nothing
        span, content = trace.get_current_span(), self._content

        def tell(asked: Callable[[], str], answered: Callable[[], str]) -> None:
            with suppress(Exception):  # As with observers: what watches a call must not break it.
                span.set_attribute(a.INPUT_MESSAGES.name, content(asked()))
                span.set_attribute(a.OUTPUT_MESSAGES.name, content(answered()))

        return tell

    def _model_started(self, event: ModelStarted) -> None:
        self._asked[event.call] = event

    def _turn_started(self, event: TurnStarted) -> None:
        of_session = {a.CONVERSATION.name: event.session_id} if event.session_id else {}
        self._span.set_attributes({a.TURN.name: event.turn_id, **of_session})

    def _fell_back(self, event: FallbackUsed) -> None:
        self._span.set_attributes({a.FALLBACK_VIA.name: event.via, a.FALLBACK_BECAUSE.name: event.because})

    def _suspended(self, event: TurnSuspended) -> None:
        self._span.set_attribute(a.ERROR_TYPE.name, event.because)
        if event.because != HandedOver.code:  # A process that stops has not failed.
            self._span.set_status(ERROR)
        self._span.end(self._clock.wall_ns())

    def _about_model(self, call: ModelStarted | ModelFinished) -> Facts:
        return {
            a.OPERATION.name: "chat",
            a.PROVIDER.name: call.provider,
            a.REQUEST_MODEL.name: call.model,
            a.AGENT_NAME.name: self._agent,
            a.ATTEMPT.name: call.call,
        }

    def _model_finished(self, event: ModelFinished) -> None:
        call = self._take(event.call)
        if call is None:  # It was refused.
            self._asked.pop(event.call, None)
            began, about = self._clock.wall_ns() - round(event.duration_s * NS), self._about_model(event)
            span = self._start(f"chat {event.model}", SpanKind.CLIENT, about, began)
        else:
            span, began = call.span, call.began
        facts: Facts = {a.INPUT_TOKENS.name: event.input_tokens, a.OUTPUT_TOKENS.name: event.output_tokens}
        if event.cache_read_tokens:
            facts[a.CACHE_READ.name] = event.cache_read_tokens
        if event.cache_write_tokens:
            facts[a.CACHE_WRITE.name] = event.cache_write_tokens
        if event.reasoning_tokens:
            facts[a.REASONING.name] = event.reasoning_tokens
        if event.cost_nanos is not None:
            facts[a.COST.name] = event.cost_nanos / NS
        if event.first_token_s is not None:
            facts[a.FIRST_CHUNK.name] = event.first_token_s
        _end(span, began, event, facts)

    def _tool_started(self, event: ToolStarted) -> None:
        about: Facts = {
            a.OPERATION.name: "execute_tool",
            a.TOOL_NAME.name: event.tool,
            a.TOOL_TYPE.name: "function",
            a.TOOL_CALL.name: event.call_id,
            a.AGENT_NAME.name: self._agent,
        }
        if self._content is not None:
            about[a.TOOL_ARGUMENTS.name] = self._content(bytes(event.args).decode())
        self._begin(event.call_id, f"execute_tool {event.tool}", SpanKind.INTERNAL, about)

    def _tool_finished(self, event: ToolFinished) -> None:
        call = self._take(event.call_id)
        if call is not None:
            facts: Facts = {}
            if self._content is not None and event.status == "ok":
                facts[a.TOOL_RESULT.name] = self._content(event.result)
            _end(call.span, call.began, event, facts)

    def _ended(self, event: TurnEnded) -> None:
        facts: Facts = {
            a.OUTCOME.name: event.outcome,
            a.MODEL_CALLS.name: event.usage.model_calls,
            a.TOOL_CALLS.name: event.usage.tool_calls,
            a.INPUT_TOKENS.name: event.usage.input_tokens,
            a.OUTPUT_TOKENS.name: event.usage.output_tokens,
        }
        if event.usage.cost_nanos:
            facts[a.COST.name] = event.usage.cost_nanos / NS
        if event.error is not None:
            facts[a.ERROR_TYPE.name] = event.error
        if self._content is not None and event.reply:
            facts[a.OUTPUT_MESSAGES.name] = self._content(_said("assistant", event.reply))
        self._span.set_attributes(facts)
        if event.outcome in FAILED:
            self._span.set_status(ERROR)
        # A turn that another process began has lasted longer than its span here.
        self._span.end(min(self._began + round(event.duration_s * NS), self._clock.wall_ns()))

    _TAKE_IN: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {
        TurnStarted: _turn_started,
        ModelStarted: _model_started,
        ModelFinished: _model_finished,
        ToolStarted: _tool_started,
        ToolFinished: _tool_finished,
        FallbackUsed: _fell_back,
        TurnSuspended: _suspended,
        TurnEnded: _ended,
    }

    def _begin(self, key: int | str, name: str, kind: SpanKind, about: Facts) -> None:
        began, before = self._clock.wall_ns(), get_current()
        span = self._start(name, kind, about, began, before)
        call = _Call(key, span, began, before)
        attach(Context(before, **{SPAN_KEY: span, _CALL: call}))
        self._open.append(call)

    def _take(self, key: int | str) -> _Call | None:
        """The open call of that key, and the context that was around it put back. Ids may be the same in two places."""
        mine = get_current().get(_CALL)
        if type(mine) is _Call and mine.key == key and mine in self._open:
            attach(mine.before)
        else:  # What is abandoned may be closed from another context, where there is nothing to put back.
            mine = next((call for call in self._open if call.key == key), None)
        if mine is not None:
            self._open.remove(mine)
        return mine


def in_model_call() -> bool:
    """Whether this code runs in an attempt at a model call that has a span."""
    mine = _innermost()
    return mine is not None and isinstance(mine.key, int)


def _innermost() -> _Call | None:
    call = get_current().get(_CALL)
    return call if isinstance(call, _Call) else None


def model_sent(call: int) -> None:
    """The policies have let the turn's attempt ``call`` at a model call through. For the guard; never raises."""
    spans = _turn.get()
    if spans is not None:
        try:  # noqa: SIM105 - a third of the time that ``suppress`` takes
            spans.sent(call)
        except Exception:  # noqa: BLE001, S110 - as with observers: what watches a call must not break it
            pass


def model_teller() -> TellSaid:
    """
    Says later what the model call that is being sent now was asked and answered, each as JSON; for adapters.

    It calls what it is given only where content is wanted, and never raises.
    """
    spans = _turn.get()
    return _say_nothing if spans is None else spans.teller()


def _say_nothing(_asked: Callable[[], str], _answered: Callable[[], str]) -> None:
    """Nobody wants to know."""


def _end(span: Span, began: int, event: ModelFinished | ToolFinished, facts: Facts) -> None:
    facts[a.STATUS.name] = event.status
    if event.status != "ok":
        facts[a.ERROR_TYPE.name] = event.error or event.status
    span.set_attributes(facts)
    if event.status in FAILED:
        span.set_status(ERROR)
    span.end(began + round(event.duration_s * NS))


def _said(role: str, text: str) -> str:
    return _encode([{"role": role, "parts": [{"type": "text", "content": text}]}]).decode()


def _number(trace_id: str) -> int:
    return int(trace_id, 16) if _TRACE_ID.fullmatch(trace_id) else 0
