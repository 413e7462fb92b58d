"""
DRIFT, off unless it is asked for: the agent leaves its goal, or a tool's result gives it orders.

============ ===================================================================== ==========
rule         what is counted                                                       fires at
============ ===================================================================== ==========
off_goal     steps in a row whose calls and words share no word with the goal      6
instruction  a tool's result that tells the agent to forget its instructions       1, STOP
============ ===================================================================== ==========

This is a guess from words. An instruction in a result is also a matter for policy, which knows where it came from.
"""

import re
from typing import Final

from holdfast.monitor.history import Fact, History
from holdfast.monitor.normal import cut, written
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.steps import Step
from holdfast.monitor.verdicts import Evidence, Firing, Severity, State

_WORDS: Final = re.compile(r"[a-z][a-z0-9]{3,}")
_ORDER: Final = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:previous|prior|above|your)\b.{0,20}\binstructions?\b", re.DOTALL
)


class Drift:
    """Compares words with those of the goal."""

    def __init__(self, spec: MonitorSpec, goal: str) -> None:
        self._spec = spec
        self._goal = frozenset(_WORDS.findall(goal.lower()))
        self._away: list[int] = []

    def look(self, history: History, step: Step, fact: Fact) -> Firing | None:
        """What the newest step shows."""
        if not self._spec.drift:
            return None
        ordering = [call.tool for call in step.calls if _ORDER.search(cut(call.result).lower())]
        if ordering:
            evidence = Evidence(steps=(fact.step,), count=1, detail=f"the result of {ordering[0]} gives orders")
            return Firing(
                state=State.DRIFT, rule="instruction", severity=Severity.STOP, evidence=evidence, tool=ordering[0]
            )
        told = " ".join(
            [cut(step.text), *(f"{call.tool} {written(call.args)} {cut(call.result)}" for call in step.calls)]
        )
        if not self._goal or self._goal.intersection(_WORDS.findall(told.lower())):
            self._away.clear()
            return None
        self._away.append(fact.step)
        steps = tuple(number for number in self._away if number > history.since)
        if len(steps) < self._spec.drift_steps:
            return None
        evidence = Evidence(steps=steps, count=len(steps), detail="steps without a word of the goal")
        return Firing(state=State.DRIFT, rule="off_goal", severity=Severity.WARN, evidence=evidence)
