"""
THRASH: errors, one after the other, though the calls may differ.

======= ===================================================== ================
rule    what is counted                                       fires at
======= ===================================================== ================
err     steps in a row all of whose calls failed              3, stop 6
cls     failures of one tool and one class within 8 steps     3, stop 6
======= ===================================================== ================

What a provider or a dead dependency did is no step here: it neither counts nor ends a row.
"""

from holdfast.monitor.history import Fact, History
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.verdicts import Evidence, Firing, Severity, State


class Thrash:
    """Watches for errors."""

    def __init__(self, spec: MonitorSpec) -> None:
        self._spec = spec

    def look(self, history: History, fact: Fact) -> Firing | None:
        """What the newest step shows."""
        failed = [one for one in fact.calls if one.failure is not None]
        if not failed:
            return None
        spec = self._spec
        facts = history.recent(max(spec.cls_window, spec.err_stop))
        row: list[Fact] = []
        for each in reversed(facts):
            if not each.failed:
                break
            row.append(each)
        found = [self._firing("err", row[::-1], failed[-1].tool, "errors in a row", spec.err_warn, spec.err_stop)]
        for one in failed:
            kind = [each for each in facts[-spec.cls_window :] if (one.tool, one.failure) in _kinds(each)]
            detail = f"errors of {one.tool} of one class"
            found.append(self._firing("cls", kind, one.tool, detail, spec.cls_warn, spec.cls_stop))
        return max((firing for firing in found if firing), key=lambda firing: firing.severity, default=None)

    @staticmethod
    def _firing(rule: str, facts: list[Fact], tool: str, detail: str, warn: int, stop: int) -> Firing | None:
        if len(facts) < warn:
            return None
        return Firing(
            state=State.THRASH,
            rule=rule,
            severity=Severity.STOP if len(facts) >= stop else Severity.WARN,
            evidence=Evidence(steps=tuple(fact.step for fact in facts), count=len(facts), detail=detail),
            tool=tool,
        )


def _kinds(fact: Fact) -> set[tuple[str, str | None]]:
    return {(one.tool, one.failure) for one in fact.calls if one.failure is not None}
