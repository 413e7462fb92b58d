"""
PANIC: nobody is sure what is true; and NOVELTY: two sources say different things.

============= ============================================================================== ==========
rule          what is compared                                                               fires at
============= ============================================================================== ==========
disagreement  share of samples or voters that agree                                          < 0.5
unsure        stated confidence < 0.4, and 0.2 below what is usual for the agent, in steps
              in a row that bring nothing new                                                2
contradiction a statement, with one that another source made about the same                  differs
untold        at the end: the answer, with the statements in dispute                         leaves out
============= ============================================================================== ==========

An agent states its confidence, or it is read from its words; those alone say little, hence the other conditions.
Missing confidence is normal and says nothing. An answer that is unsure while no call has succeeded is ``unsure`` too.
"""

import re

from holdfast.monitor.history import Fact, History
from holdfast.monitor.normal import written
from holdfast.monitor.norms import Norms
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.steps import Answer, Claim, Step
from holdfast.monitor.verdicts import Evidence, Firing, Severity, State
from holdfast.monitor.words import USUAL, claims, confidence

HELD = 1_000
SHOWN = 60


class Panic:
    """Watches for doubt."""

    def __init__(self, spec: MonitorSpec, norms: Norms) -> None:
        self._spec = spec
        usual = norms.confidence() if norms.count(spec.successes) else None
        self._usual = USUAL if usual is None else usual
        self._unsure: list[int] = []
        self._stated: list[float] = []

    def look(self, history: History, step: Step, fact: Fact) -> Firing | None:
        """What the newest step shows."""
        if step.agreement is not None and step.agreement < self._spec.agreement:
            detail = f"{step.agreement:.0%} agree"
            evidence = Evidence(steps=(fact.step,), count=round(100 * step.agreement), detail=detail)
            return Firing(
                state=State.PANIC,
                rule="disagreement",
                severity=Severity.WARN,
                evidence=evidence,
                confidence=round(1 - step.agreement, 2),
            )
        return self._doubt(history, step, fact)

    def mean(self) -> float | None:
        """Mean confidence of the run's messages; None where none stated any."""
        return sum(self._stated) / len(self._stated) if self._stated else None

    def finish(self, history: History, answer: Answer) -> Firing | None:
        """Whether an answer is unsure, and rests on nothing."""
        stated = confidence(answer.text) if answer.confidence is None else answer.confidence
        if stated is None or not self.unsure(stated) or history.evidence:
            return None
        detail = f"stated confidence {stated:.2f}, and no call supports it"
        evidence = Evidence(steps=(history.steps,), count=0, detail=detail)
        doubt = round(1 - stated, 2)
        return Firing(state=State.PANIC, rule="unsure", severity=Severity.STOP, evidence=evidence, confidence=doubt)

    def unsure(self, stated: float | None) -> bool:
        """Whether confidence is low, and low for this agent."""
        if stated is None or stated >= self._spec.panic_confidence:
            return False
        return round(self._usual - stated, 6) >= self._spec.panic_drop

    def _doubt(self, history: History, step: Step, fact: Fact) -> Firing | None:
        stated = step.confidence if step.confidence is not None else confidence(step.text)
        if stated is not None:
            self._stated.append(stated)
        if not self.unsure(stated) or fact.new:
            self._unsure.clear()
            return None
        self._unsure.append(fact.step)
        steps = tuple(number for number in self._unsure if number > history.since)
        if stated is None or len(steps) < self._spec.panic_steps:
            return None
        evidence = Evidence(steps=steps, count=len(steps), detail=f"stated confidence {stated:.2f}, nothing new")
        return Firing(
            state=State.PANIC,
            rule="unsure",
            severity=Severity.WARN,
            evidence=evidence,
            confidence=round(1 - stated, 2),
        )


class Novelty:
    """
    Watches for contradictions, and keeps what was said of what.

    Attributes:
        conflicts: For each subject in dispute, the two statements.
    """

    def __init__(self, spec: MonitorSpec) -> None:
        self._spec = spec
        self._held: dict[str, Claim] = {}
        self.conflicts: dict[str, tuple[Claim, Claim]] = {}

    def look(self, step: Step, fact: Fact) -> Firing | None:
        """What the newest step shows: statements handed in, and plain ones in results."""
        made = list(step.claims)
        for call in step.calls:
            if call.error is None and not call.blocked:
                made += claims(call.result, f"{call.tool}({written(call.args)[:SHOWN]})")
        found = [pair for claim in made if (pair := self._take(claim)) is not None]
        if not found:
            return None
        told = "; ".join(f"{one.subject}: {_said(one)}, but {_said(other)}" for one, other in found)
        return Firing(
            state=State.NOVELTY,
            rule="contradiction",
            severity=Severity.WARN,
            evidence=Evidence(steps=(fact.step,), count=len(found), detail="sources that say different things"),
            message=f"Sources disagree. {told}. Weigh them, and let the answer tell of the conflict.",
        )

    def untold(self, answer: str) -> str | None:
        """A subject in dispute of which the answer does not name both sides; None where it tells of all of them."""
        text = _plain(answer)
        for subject, pair in self.conflicts.items():
            if not all(re.search(rf"(?<![\w.]){re.escape(_plain(claim.value))}(?!\w)", text) for claim in pair):
                return subject
        return None

    def _take(self, claim: Claim) -> tuple[Claim, Claim] | None:
        if claim.confidence < self._spec.claim_confidence:
            return None
        subject = _plain(claim.subject)
        held = self._held.get(subject)
        if held is None or held.source == claim.source or _plain(held.value) == _plain(claim.value):
            if held is not None or len(self._held) < HELD:
                self._held[subject] = claim
            return None
        if subject in self.conflicts:
            return None
        self.conflicts[subject] = (held, claim)
        return held, claim


def _said(claim: Claim) -> str:
    return f"{claim.value} ({claim.source})" if claim.source else claim.value


def _plain(text: str) -> str:
    return " ".join(text.lower().replace(",", "").split())
