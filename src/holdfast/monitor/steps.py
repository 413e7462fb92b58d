"""
What the monitor is told: one step is one message of the model and what became of the calls in it.

Calls of one message run side by side: the model has seen none of their results when it asked for them. Times are
nanoseconds of the process's own clock; 0 where nobody kept them.
"""

from dataclasses import dataclass
from typing import Final

WORLD: Final = frozenset(
    {"overloaded", "rate_limited", "quota", "server", "network", "auth", "cancelled", "refused", "breaker_open"}
)
"""Classes of failure that are not the agent's: they never count."""

VAGUE: Final = frozenset({"", "error", "tool_error", "unknown"})
"""Classes that say nothing: the text of the error is read instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """
    One tool call, and what became of it.

    Attributes:
        id: The framework's name for the call; empty where it has none.
        tool: Which tool.
        args: As the model wrote them, text or parsed JSON.
        result: What the tool answered, or the text of its error; empty before it ran.
        error: Its class of failure, as text; empty to read it from ``result``; None where it succeeded.
        tokens: That the result adds to the conversation, >= 0.
        duration_s: How long it took, >= 0.
        blocked: Whether the monitor or a rule answered in its place, so that it did not run.
    """

    tool: str
    args: object = None
    id: str = ""
    result: str = ""
    error: str | None = None
    tokens: int = 0
    duration_s: float = 0.0
    blocked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """
    A statement that somebody makes, in a form that can be compared.

    Attributes:
        subject: What it is about; compared without regard to case.
        value: What is said of it.
        source: Who says so: a call's id, a tool, a document. Statements of one source replace each other.
        confidence: In [0, 1].
        evidence: Ids of the calls that support it; only an answer's claims need them.
    """

    subject: str
    value: str
    source: str = ""
    confidence: float = 1.0
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One message of the model, after its calls have ended.

    Attributes:
        text: What the model said beside its calls.
        calls: In the order of the message.
        tokens: That the model call used, both ways, >= 0.
        nanodollars: What it cost, >= 0.
        at: When the step ended.
        failure: The class of failure where no message came at all; None where one did. Never counts.
        confidence: As stated by the model, in [0, 1]; None where it stated none.
        agreement: Share of samples or voters that agree, in [0, 1]; None where nobody was asked.
        claims: Statements that the calls' results or the message make.
        left: Shares in [0, 1] that are left of budgets which somebody else keeps, each with what it is of; 0 where only
            one more step is sure to fit.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    tokens: int = 0
    nanodollars: int = 0
    at: int = 0
    failure: str | None = None
    confidence: float | None = None
    agreement: float | None = None
    claims: tuple[Claim, ...] = ()
    left: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    What the model wants to end the run with.

    Attributes:
        text: The answer.
        claims: Its statements with the ids of the calls that support them; None where it is not structured so.
        confidence: As stated, in [0, 1]; None to take it from the words.
    """

    text: str
    claims: tuple[Claim, ...] | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """
    What a run may use; None is unlimited.

    Attributes:
        steps: Messages of the model, > 0.
        tokens: Of all model calls, > 0.
        nanodollars: For all model calls, > 0.
        started: When the run began, for ``wall_s``.
        wall_s: Seconds from ``started``, > 0.
    """

    steps: int | None = None
    tokens: int | None = None
    nanodollars: int | None = None
    started: int = 0
    wall_s: float | None = None
