"""What the monitor finds and does, as events; and how calls that failed are told to it."""

import asyncio

from holdfast.errors import BudgetExhausted, Refused
from holdfast.events import MonitorActed, MonitorDetected
from holdfast.monitor import Intervention, Verdict


def class_of(error: BaseException | None) -> str | None:
    """A class of failure as the monitor has it; empty where only the text tells."""
    match error:
        case None:
            return None
        case BudgetExhausted() | Refused():
            return "refused"
        case asyncio.CancelledError():
            return "cancelled"
        case _:
            return "" if type(error).__name__ in {"ToolError", "ToolFailed", "ModelRetry"} else type(error).__name__


def detected(verdict: Verdict, *, acts: bool) -> MonitorDetected:
    """That a verdict was reached, by a monitor that acts or only observes."""
    evidence = verdict.evidence
    return MonitorDetected(
        state=verdict.state.value,
        rule=verdict.rule,
        severity="stop" if verdict.severity > 1 else "warn",
        confidence=verdict.confidence,
        rung=verdict.rung,
        opened=verdict.opened,
        acts=acts,
        step=verdict.step,
        steps=list(evidence.steps),
        count=evidence.count,
        detail=evidence.detail,
        hashes=list(evidence.hashes),
        tokens=verdict.tokens,
    )


def acted(verdict: Verdict, intervention: Intervention) -> MonitorActed:
    """That an intervention of a verdict is carried out."""
    texts = ("text", "explanation", "summary", "question", "check")
    text = next((str(getattr(intervention, name)) for name in texts if hasattr(intervention, name)), "")
    return MonitorActed(
        state=verdict.state.value,
        rule=verdict.rule,
        protocol=intervention.kind,
        step=verdict.step,
        tool=getattr(intervention, "tool", None),
        text=text,
    )
