"""
STALL: the agent is busy, and learns nothing; or it has been at it for longer than any run that succeeded.

======= ==================================================================== ===============
rule    what is counted                                                      fires at
======= ==================================================================== ===============
stale   results in a row that say something, all of it seen in this run      3
long    steps, against successful runs of this agent                         p95, stop max
======= ==================================================================== ===============

A result that says no more than that the call was made ("ok", no output) is neither new nor stale: agents that write
get many of them. Lengths count once the agent has norms; past the longest success they fire again at one and a half
times its length, and at twice.
"""

from holdfast.monitor.history import Fact, History
from holdfast.monitor.norms import Norms
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.verdicts import Evidence, Firing, Severity, State


class Stall:
    """Watches for results that were seen before, and for runs that take too long."""

    def __init__(self, spec: MonitorSpec, norms: Norms) -> None:
        self._spec = spec
        self._passed = 0
        self._marks: tuple[float, ...] = ()
        if norms.count(spec.successes):
            longest = norms.longest()
            self._marks = (norms.p95(), longest, longest * 1.5, longest * 2.0)

    def look(self, history: History, fact: Fact) -> Firing | None:
        """What the newest step shows."""
        return self._stale(history, fact) or self._long(history)

    def _stale(self, history: History, fact: Fact) -> Firing | None:
        if not fact.stale:
            return None
        row: list[int] = []
        for each in reversed(history.recent(max(self._spec.window, self._spec.stale_stop))):
            if each.stale is False:
                break
            if each.stale:
                row.append(each.step)
        if len(row) < self._spec.stale_warn:
            return None
        severity = Severity.STOP if len(row) >= self._spec.stale_stop else Severity.WARN
        evidence = Evidence(steps=tuple(row[::-1]), count=len(row), detail="results in a row that were seen before")
        return Firing(state=State.STALL, rule="stale", severity=severity, evidence=evidence)

    def _long(self, history: History) -> Firing | None:
        passed = sum(history.steps > mark for mark in self._marks)
        if passed <= self._passed:
            return None
        self._passed = passed
        detail = (
            f"steps, more than the {self._marks[passed - 1]:g} of {'most' if passed == 1 else 'all'} that succeeded"
        )
        evidence = Evidence(steps=(history.steps,), count=history.steps, detail=detail)
        severity = Severity.WARN if passed == 1 else Severity.STOP
        return Firing(state=State.STALL, rule="long", severity=severity, evidence=evidence)
