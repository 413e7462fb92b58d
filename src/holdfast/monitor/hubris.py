"""
HUBRIS: the agent wants to end, or to do what cannot be undone, without the evidence for it.

============= ============================================================================
rule          fires at the end of a run when
============= ============================================================================
unsupported   a claim of a structured answer names no call that succeeded
unchecked     something was written, a tool that checks exists, and it was not used since
evidence      fewer different calls succeeded than the agent's tasks need
overconfident confidence of 0.9 or more is stated, and no call succeeded at all
============= ============================================================================

What an agent's tasks need is ``min_evidence``, or what 95 in 100 of its successes had. Only checks that exist are
asked for. Claims are compared by the ids of calls, never by their words. ``evidence`` also stands before an
irreversible call.
"""

from holdfast.monitor.history import History
from holdfast.monitor.norms import Norms
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.steps import Answer
from holdfast.monitor.verdicts import Evidence, Firing, Severity, State
from holdfast.monitor.words import confidence


class Hubris:
    """Checks that what ends a run rests on something."""

    def __init__(self, spec: MonitorSpec, norms: Norms) -> None:
        self._spec = spec
        learnt = norms.least_evidence() if norms.count(spec.successes) else 0
        self.needed = spec.min_evidence or learnt

    def finish(self, history: History, answer: Answer) -> Firing | None:
        """What is missing for this answer."""
        if answer.claims is not None:
            bare = [claim for claim in answer.claims if not history.succeeded.intersection(claim.evidence)]
            if bare:
                check = f"{len(bare)} of {len(answer.claims)} statements name no call that supports them"
                return self._firing(history, "unsupported", len(bare), check)
        checks = sorted(name for name, rule in self._spec.tools.items() if rule.check)
        if history.written_at > history.checked_at and checks:
            check = f"nothing was checked since the last change; {', '.join(checks)} can do it"
            return self._firing(history, "unchecked", history.written_at, check)
        if firing := self.lacking(history):
            return firing
        stated = confidence(answer.text) if answer.confidence is None else answer.confidence
        if stated is not None and stated >= self._spec.hubris_confidence and not history.evidence:
            check = "the answer is stated as certain, and no call supports it"
            return self._firing(history, "overconfident", 0, check, confidence=stated)
        return None

    def lacking(self, history: History) -> Firing | None:
        """Whether there is less evidence than the agent's tasks need."""
        if len(history.evidence) >= self.needed:
            return None
        check = f"{len(history.evidence)} different calls succeeded, at least {self.needed} are needed"
        return self._firing(history, "evidence", len(history.evidence), check)

    @staticmethod
    def _firing(history: History, rule: str, count: int, check: str, confidence: float = 1.0) -> Firing:
        return Firing(
            state=State.HUBRIS,
            rule=rule,
            severity=Severity.STOP,
            evidence=Evidence(steps=(history.steps,), count=count, detail=check),
            confidence=confidence,
        )
