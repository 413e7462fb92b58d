"""
What the monitor answers with: a state with its evidence, and what to do about it, as plain data.

Nothing here acts. Whoever runs the agent reads the interventions of a verdict and carries them out.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import ClassVar, Final


class State(Enum):
    """What can be wrong with a run, most urgent first: of two at once, the first is acted upon."""

    SCARCITY = "scarcity"
    DEADLOCK = "deadlock"
    THRASH = "thrash"
    PANIC = "panic"
    NOVELTY = "novelty"
    STALL = "stall"
    HUBRIS = "hubris"
    DRIFT = "drift"
    NONE = "none"


class Severity(IntEnum):
    """How sure it is: WARN tells the agent first, STOP holds it back at once."""

    WARN = 1
    STOP = 2


class Outcome(Enum):
    """How a run ended. The first three say nothing against the agent."""

    NOT_STARTED = "not_started"
    PROVIDER_DOWN = "provider_down"
    RATE_LIMITED = "rate_limited"
    DONE = "done"
    DONE_UNVERIFIED = "done_unverified"
    STOPPED_PARTIAL = "stopped_partial"
    TRIPPED = "tripped"
    NEEDS_HUMAN = "needs_human"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """Add a message to the conversation before the next model call."""

    kind: ClassVar[str] = "nudge"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCall:
    """Do not run the calls with this signature; answer them with the explanation."""

    kind: ClassVar[str] = "block_call"
    signature: str
    tool: str
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Run the call ``seconds`` later."""

    kind: ClassVar[str] = "wait"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HideTool:
    """Do not offer the tool for so many ``steps``; None until a call of another one succeeded."""

    kind: ClassVar[str] = "hide_tool"
    tool: str
    steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceOther:
    """Let the next message call a tool, and none but another than ``tool``."""

    kind: ClassVar[str] = "force_other"
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replan:
    """Start again from a summary of what is known, and ask for a new plan."""

    kind: ClassVar[str] = "replan"
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchModel:
    """Ask another model from here on, where there is one."""

    kind: ClassVar[str] = "switch_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedOnly:
    """Offer trusted tools alone, until the state is over."""

    kind: ClassVar[str] = "trusted_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseFinish:
    """Do not take the answer: say which check failed, never what the answer should be."""

    kind: ClassVar[str] = "refuse_finish"
    check: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskUser:
    """Put the question to a person, and go on with what they say."""

    kind: ClassVar[str] = "ask_user"
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishOnly:
    """Offer tools that finish alone, from here to the end."""

    kind: ClassVar[str] = "finish_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceFinal:
    """Offer no tool any more: the next message is the answer, and says what is missing."""

    kind: ClassVar[str] = "force_final"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    What a run that was stopped leaves behind.

    Attributes:
        why: One sentence.
        done: What succeeded, one line for each call, oldest first.
        open_items: What is left to do, as far as is known.
        evidence: Ids of the calls in ``done``, or of their steps.
        frequencies: How often each state was found.
        last: The last detections, newest last.
        recommendations: What whoever is responsible for the agent can change.
        resume: Names the run for whoever goes on with it; empty where it has no name.
    """

    why: str
    done: tuple[str, ...] = ()
    open_items: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    frequencies: dict[str, int] = field(default_factory=dict)
    last: tuple[str, ...] = ()
    recommendations: tuple[str, ...] = ()
    resume: str = ""

    def text(self) -> str:
        """The partial answer, for a reader."""
        parts = [f"Stopped before the end: {self.why}."]
        for title, lines in (("Done so far", self.done), ("Still open", self.open_items)):
            if lines:
                parts.append(f"{title}:\n" + "\n".join(f"- {line}" for line in lines))
        return "\n\n".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPartial:
    """End the run with what it has."""

    kind: ClassVar[str] = "stop_partial"
    report: Report


Intervention = (
    Nudge
    | BlockCall
    | Wait
    | HideTool
    | ForceOther
    | Replan
    | SwitchModel
    | TrustedOnly
    | RefuseFinish
    | AskUser
    | FinishOnly
    | ForceFinal
    | StopPartial
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    What a detection rests on.

    Attributes:
        steps: Numbers of the steps, from 1, oldest first.
        hashes: Of the calls or results that came again.
        count: How often, or how many.
        detail: The same for a reader, without what people or models wrote but the names of tools.
    """

    steps: tuple[int, ...]
    count: int
    detail: str
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """
    What a signal has found in a step; the ladder decides what comes of it.

    Attributes:
        state: Which state shows.
        rule: Which of its rules.
        severity: The point that was reached.
        evidence: What it rests on.
        confidence: That the state holds, in [0, 1].
        signature: The call that came again; None where it is not about one.
        tool: The tool it is about; None where it is not about one.
        level: For a budget, the rung that its level asks for; 0 leaves it to the ladder.
        message: What the agent is told, where the signal knows best; may quote what tools answered.
    """

    state: State
    rule: str
    severity: Severity
    evidence: Evidence
    confidence: float = 1.0
    signature: str | None = None
    tool: str | None = None
    level: int = 0
    message: str = ""


OBSERVE: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    A detection, and what to do about it.

    Attributes:
        state: Which state shows.
        rule: Which of its rules.
        severity: The point that was reached.
        confidence: That the state holds, in [0, 1].
        evidence: What it rests on.
        agent: Whose run it is.
        step: The step after which it was found, or that was about to end; from 1.
        tokens: Tokens that the run had used: what is at stake.
        rung: How far the ladder has got; 0 only observes.
        opened: Whether it is new, and not one more sign of a state that was known.
        interventions: What to carry out, in order; empty on rung 0.
        standing: Whether it only repeats an order that an earlier verdict gave.
    """

    state: State
    rule: str
    severity: Severity
    confidence: float
    evidence: Evidence
    agent: str
    step: int
    tokens: int
    rung: int
    opened: bool
    interventions: tuple[Intervention, ...] = ()
    standing: bool = False

    def stopped(self) -> Report | None:
        """The report, where it ends the run."""
        return next((each.report for each in self.interventions if isinstance(each, StopPartial)), None)
