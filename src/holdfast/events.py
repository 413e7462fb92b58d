"""
Every fact a turn can produce: the one vocabulary.

A turn goes started → message → response → tool → tool result → … → ended. The path of a turn knows only ``emit``;
observers (logs, metrics, the SSE stream, the terminal) take what they need. Fields listed in ``CONTENT`` hold what
people or models wrote: observers other than the caller's own stream leave them out.

::

    turn.started ─▶ model.started ─▶ text.delta* ─▶ model.finished ─┬─▶ turn.ended, turn.suspended
                        ▲                                           │
                        └──── tool.finished ◀── tool.started ◀──────┘
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

CallStatus = Literal["ok", "error", "timeout", "denied", "cancelled", "rejected"]
Outcome = Literal["success", "error", "timeout", "rejected", "cancelled", "budget_exhausted", "guardrail_blocked"]

OUTCOMES: tuple[Outcome, ...] = (
    "success",
    "error",
    "timeout",
    "rejected",
    "cancelled",
    "budget_exhausted",
    "guardrail_blocked",
)

CONTENT = frozenset({"text", "args", "result", "reply", "report"})


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What a turn, or one model call, used.

    Attributes:
        model_calls: Attempts at a model call that were sent.
        tool_calls: Tool calls that were started.
        input_tokens: As the provider counts them; cached tokens are among them.
        output_tokens: As the provider counts them; reasoning tokens are among them.
        cost_nanos: What the tokens cost, in nano-dollars; those of a model whose price is not known count nothing.
    """

    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            model_calls=self.model_calls + other.model_calls,
            tool_calls=self.tool_calls + other.tool_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_nanos=self.cost_nanos + other.cost_nanos,
        )


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # It holds nothing that could be part of a cycle.
    """One fact. ``name`` is what it is called in the stream, in logs and in the documentation."""

    name: ClassVar[str] = ""


class TurnStarted(Event, frozen=True, kw_only=True):
    """
    The turn is accepted, and kept: it will end, whatever happens to this server.

    It begins once the earlier turns of its session have ended. ``generation`` counts the servers that ran it: one that
    goes on where another left it tells what that one could not keep anew, so events numbered above ``after`` are void.
    """

    name: ClassVar[str] = "turn.started"
    session_id: str
    turn_id: str
    trace_id: str
    agent: str
    generation: int = 1
    after: int = 0


class ModelStarted(Event, frozen=True, kw_only=True):
    """One attempt at a model call is about to be sent. ``call`` counts from 1 within the turn."""

    name: ClassVar[str] = "model.started"
    call: int
    provider: str
    model: str


class TextDelta(Event, frozen=True, kw_only=True):
    """The model said a little more of its answer."""

    name: ClassVar[str] = "text.delta"
    text: str


class ModelFinished(Event, frozen=True, kw_only=True):
    """
    The attempt ended. ``first_token_s`` is None where the answer was not streamed or never began.

    Tokens are as the provider counts them: those read from its cache and written to it are among ``input_tokens``,
    reasoning is among ``output_tokens``. ``cost_nanos`` is what they cost, in nano-dollars; None where
    the model's price is not known.
    """

    name: ClassVar[str] = "model.finished"
    call: int
    provider: str
    model: str
    status: CallStatus
    duration_s: float
    first_token_s: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int | None = None
    error: str | None = None


class FallbackUsed(Event, frozen=True, kw_only=True):
    """Another model answered than was meant to. ``because`` is the class of failure, or the code of the refusal."""

    name: ClassVar[str] = "fallback.used"
    via: str
    because: str


class ToolStarted(Event, frozen=True, kw_only=True):
    """A tool is about to run. ``args`` is JSON."""

    name: ClassVar[str] = "tool.started"
    call_id: str
    tool: str
    args: msgspec.Raw


class ToolFinished(Event, frozen=True, kw_only=True):
    """The tool ended. ``result`` is what it answered, as text and cut to a readable length; empty unless ``ok``."""

    name: ClassVar[str] = "tool.finished"
    call_id: str
    tool: str
    status: CallStatus
    duration_s: float
    result: str = ""
    error: str | None = None


class MonitorDetected(Event, frozen=True, kw_only=True):
    """
    The run shows a critical state: newly where ``opened``, or one more sign of it. ``acts`` is False in shadow.

    ``steps`` are the numbers of the steps it rests on, ``hashes`` those of what came again, ``tokens`` those that the
    run had used. ``rung`` is how far the ladder has got; 0 only observes.
    """

    name: ClassVar[str] = "monitor.detected"
    state: str
    rule: str
    severity: Literal["warn", "stop"]
    confidence: float
    rung: int
    opened: bool
    acts: bool
    step: int
    steps: list[int]
    count: int
    detail: str
    hashes: list[str]
    tokens: int


class MonitorActed(Event, frozen=True, kw_only=True):
    """The monitor changed the run. ``text`` is what the agent, or the one who asked, is told."""

    name: ClassVar[str] = "monitor.acted"
    state: str
    rule: str
    protocol: str
    step: int
    tool: str | None = None
    text: str = ""


class StateChanged(Event, frozen=True, kw_only=True):
    """The run's most urgent critical state is another one, or ``none``."""

    name: ClassVar[str] = "monitor.state"
    was: str
    state: str


class MonitorEnded(Event, frozen=True, kw_only=True):
    """
    The run did not end as usual: it was stopped, it asks back, or its answer is not verified.

    ``check`` is what the answer lacks. ``latched`` says whether later turns of the session are stopped too, until
    somebody resets it. ``report`` is what a run that was stopped leaves behind.
    """

    name: ClassVar[str] = "monitor.ended"
    outcome: str
    check: str | None = None
    latched: bool = False
    report: msgspec.Raw = msgspec.Raw(b"null")


class TurnEnded(Event, frozen=True, kw_only=True):
    """The turn is over and its outcome is stored. ``error`` is an error code, or None for a success."""

    name: ClassVar[str] = "turn.ended"
    session_id: str
    turn_id: str
    trace_id: str
    agent: str
    outcome: Outcome
    reply: str
    usage: Usage
    duration_s: float
    error: str | None = None


class TurnSuspended(Event, frozen=True, kw_only=True):
    """
    The turn goes on later: on another server, or once somebody has said what became of a call.

    ``because`` is an error code, and ``unit`` the key of that call.
    """

    name: ClassVar[str] = "turn.suspended"
    session_id: str
    turn_id: str
    trace_id: str
    agent: str
    because: str
    unit: str | None = None


EVERY_EVENT: tuple[type[Event], ...] = (
    TurnStarted,
    ModelStarted,
    TextDelta,
    ModelFinished,
    FallbackUsed,
    ToolStarted,
    ToolFinished,
    MonitorDetected,
    MonitorActed,
    StateChanged,
    MonitorEnded,
    TurnSuspended,
    TurnEnded,
)

Emit = Callable[[Event], None]
"""How the path of a turn tells what happened. Never blocks and never raises."""


class TurnIds(NamedTuple):
    """
    Which turn an event belongs to.

    Attributes:
        session_id: The caller's name for the conversation.
        turn_id: Names the turn among all; its last part counts the turns of its conversation from 1.
        trace_id: 32 hexadecimal digits, as in W3C trace context; one per turn unless the caller gave one.
        agent: Which agent answers.
    """

    session_id: str
    turn_id: str
    trace_id: str
    agent: str


Observer = Callable[[TurnIds, Event], None]
"""Takes in what happens. Never blocks; one that raises is counted and left out of that event."""

Takers = Mapping[type[Event], Callable[[TurnIds, Any], None]]
"""What takes in events of which kinds: an observer that is not asked about the others."""
