"""
DEADLOCK: the agent does the same again, and nothing new comes of it.

======= ===================================================================== =========
rule    what comes again                                                      fires at
======= ===================================================================== =========
rep     the same call, while no call brought anything new                     3
near    the same in a row, but for numbers in the call or in its result       3
cyc     a block of two to four steps, calls and results                       2
say     the same message, while no call brought anything new                  3
pair    the same call with the same result within 20 steps                    3, stop 4
blocked steps in a row all of whose calls were blocked, whichever they are    3
any     the same call in a row, whatever came back                            4, stop 5
again   a call of a tool that is not idempotent, found before it runs         2
======= ===================================================================== =========

A call that was the reason for an intervention before fires ``rep`` at 2. Polls are exempt from all of them, and paging
from those that tell reading on from a loop by what comes back: ``near``, ``cyc`` and ``any``.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Final

from holdfast.monitor.history import Fact, History, Seen
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.verdicts import Evidence, Firing, Severity, State

SURE: Final = {2: 0.9, 3: 0.85, 4: 0.8}
"""How sure a block of so many steps is."""


class Deadlock:
    """Watches for calls and messages that come again."""

    def __init__(self, spec: MonitorSpec) -> None:
        self._spec = spec

    def look(self, history: History, fact: Fact) -> Firing | None:
        """What the newest step shows; the surest sign of several."""
        facts = history.recent(self._spec.window)
        found: list[Firing] = []
        for one in fact.calls:
            if not one.exempt:
                found += self._call(history, facts, one)
        found += self._cycle(history, facts) + self._said(facts) + self._blocked(facts)
        return max(found, key=lambda firing: firing.severity, default=None)

    def again(self, history: History, tool: str, signature: str) -> Firing | None:
        """Whether a call that must not be made twice is about to be; an intervention since makes no difference."""
        if history.rule(tool).idempotent is not False:
            return None
        for fact in list(history.facts)[-self._spec.window :][::-1]:
            same = [one for one in fact.calls if one.signature == signature]
            if any(one.failure is None and not one.blocked for one in same):
                return _firing("again", Severity.STOP, [fact], 2, same[0], f"{tool} was already called so, and did it")
            if fact.new and not same:
                return None
        return None

    def _call(self, history: History, facts: list[Fact], one: Seen) -> list[Firing]:
        spec = self._spec
        found: list[Firing] = []
        same = _without_news(facts, one.signature)
        if len(same) >= (2 if one.signature in history.alarmed else spec.rep):
            found.append(_firing("rep", Severity.STOP, same, len(same), one, f"{one.tool} called again, nothing new"))
        pages = history.rule(one.tool).repeatable == "page"
        near = _streak(facts, lambda each: _near(each, one))
        if not pages and len(near) >= spec.near:
            same_call = _streak(facts, lambda each: each.signature == one.signature)
            sure = Severity.STOP if len(same_call) >= spec.near else Severity.WARN
            detail = f"{one.tool} called again, with other numbers at most"
            found.append(_firing("near", sure, near, len(near), one, detail))
        pairs = [fact for fact in facts if any((each.signature, each.result) == _pair(one) for each in fact.calls)]
        if one.result is not None and (level := _level(len(pairs), spec.pair_warn, spec.pair_stop)):
            found.append(
                _firing("pair", level, pairs, len(pairs), one, f"{one.tool} called again, with the same result")
            )
        calls = _streak(facts, lambda each: each.signature == one.signature)
        if not pages and (level := _level(len(calls), spec.any_warn, spec.any_stop)):
            found.append(_firing("any", level, calls, len(calls), one, f"{one.tool} called in the same way"))
        return found

    def _cycle(self, history: History, facts: list[Fact]) -> list[Firing]:
        times = self._spec.cycles
        for length in SURE:
            last = facts[-length * times :]
            if len(last) < length * times or not all(fact.calls for fact in last):
                continue
            blocks = [fact.pairs for fact in last]
            block = blocks[-length:]
            # A block of one and the same step is a repetition, which the other rules count by their own thresholds.
            if len(set(block)) > 1 and blocks == block * times:
                calls = [one for fact in last[-length:] for one in fact.calls]
                if any(one.exempt or history.rule(one.tool).repeatable == "page" for one in calls):
                    continue
                detail = f"{length} steps, again and again: {', '.join(one.tool for one in calls)}"
                return [_firing("cyc", Severity.STOP, last, times, calls[-1], detail, confidence=SURE[length])]
        return []

    def _blocked(self, facts: list[Fact]) -> list[Firing]:
        row = list(takewhile(lambda fact: fact.calls and all(one.blocked for one in fact.calls), reversed(facts)))
        if len(row) < self._spec.rep:
            return []
        one = row[0].calls[-1]
        return [
            _firing("blocked", Severity.STOP, row[::-1], len(row), one, f"only calls that were blocked, as {one.tool}")
        ]

    def _said(self, facts: list[Fact]) -> list[Firing]:
        said = facts[-1].text if facts else None
        same: list[Fact] = []
        for fact in reversed(facts):
            if said is None or fact.text != said or fact.new:
                break
            same.append(fact)
        if len(same) < self._spec.rep:
            return []
        steps = tuple(fact.step for fact in reversed(same))
        evidence = Evidence(steps=steps, count=len(same), detail="the same message, nothing new", hashes=(said or "",))
        return [Firing(state=State.DEADLOCK, rule="say", severity=Severity.STOP, evidence=evidence)]


def _without_news(facts: list[Fact], signature: str) -> list[Fact]:
    same: list[Fact] = []
    for fact in reversed(facts):
        if any(one.signature == signature for one in fact.calls):
            same.append(fact)
        if fact.new:
            break
    return same[::-1]


def _streak(facts: list[Fact], like: Callable[[Seen], bool]) -> list[Fact]:
    """The facts at the end, in a row, that have such a call."""
    same: list[Fact] = []
    for fact in reversed(facts):
        if not any(map(like, fact.calls)):
            break
        same.append(fact)
    return same[::-1]


def _near(each: Seen, one: Seen) -> bool:
    # Other numbers in and other numbers out is work: a sum, an order, the next page. So is writing row after row.
    return each.near == one.near and (each.signature == one.signature or (one.says and each.result == one.result))


def _pair(one: Seen) -> tuple[str, str | None]:
    return one.signature, one.result


def _level(count: int, warn: int, stop: int) -> Severity | None:
    if count >= stop:
        return Severity.STOP
    return Severity.WARN if count >= warn else None


def _firing(
    rule: str, severity: Severity, facts: list[Fact], count: int, one: Seen, detail: str, confidence: float = 1.0
) -> Firing:
    return Firing(
        state=State.DEADLOCK,
        rule=rule,
        severity=severity,
        evidence=Evidence(
            steps=tuple(fact.step for fact in facts),
            count=count,
            detail=detail,
            hashes=(one.signature, *([one.result] if one.result else [])),
        ),
        confidence=confidence,
        signature=one.signature,
        tool=one.tool,
    )
