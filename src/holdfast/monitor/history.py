"""
What a run has done so far, as far as the signals ask.

A step becomes a fact: which calls were in it, as signatures, and whether anything in it was new. Same calls of one
message are one call. What was not the agent's fault is left out, and a step that holds nothing else is no fact at all.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from holdfast.clock import NS
from holdfast.monitor.normal import (
    digest,
    error_class,
    informative,
    normal,
    providers_fault,
    without_numbers,
    written,
)
from holdfast.monitor.spec import MonitorSpec, ToolRule
from holdfast.monitor.steps import VAGUE, WORLD, Call, Step

NO_RULE: Final = ToolRule()
KEPT: Final = 256
SEEN: Final = 10_000
DONE: Final = 20
DURATIONS: Final = 9
SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    One call, reduced to what can be compared.

    Attributes:
        tool: Which tool.
        signature: Of the tool and its arguments.
        result: Of what it answered; None for one that was blocked.
        near: Of both, without numbers.
        failure: The class of its error; None where it succeeded or was blocked.
        blocked: Whether something answered in its place.
        says: Whether its result says anything; what does not is neither new nor stale.
        new: Whether the run had not seen this result.
        exempt: Whether it is made again on purpose, as a poll is.
    """

    tool: str
    signature: str
    result: str | None
    near: str
    failure: str | None
    blocked: bool
    says: bool
    new: bool
    exempt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """
    One step.

    Attributes:
        step: Its number, from 1.
        calls: Different ones, in order.
        pairs: Their signatures and results, in an order of their own, for comparing whole steps.
        text: Hash of the message; None where it is short or empty.
        failed: Whether it had calls and all of them were errors.
        new: Whether any call brought a result that the run had not seen.
        stale: Whether its results said something, and all of it had been seen; None where they said nothing.
        progress: Whether it did something new and was no error: a new call, a new result, or a write that succeeded.
    """

    step: int
    calls: tuple[Seen, ...]
    pairs: tuple[str, ...]
    text: str | None
    failed: bool
    new: bool
    stale: bool | None
    progress: bool


def signature(tool: str, args: object) -> str:
    """What two calls have in common that ask the same of the same tool."""
    return digest(f"{tool} {normal(written(args))}")


class History:
    """
    The facts of one run.

    Attributes:
        facts: The last of them, oldest first.
        some_trusted: Whether any tool is declared as trusted.
        since: Number of the step at which the last intervention was made; counters look at those after it.
        alarmed: Signatures that were the reason for an intervention.
        steps: Messages of the model so far, those that brought no facts too.
        tokens: Used by model calls and results.
        nanodollars: Spent on model calls.
        model_answered: Whether any model call succeeded.
        evidence: Signatures of different calls that succeeded.
        succeeded: Ids of the calls that succeeded.
        durations: Seconds that each tool's calls took, the last few.
        done: The last calls that succeeded: their ids, and a line for each.
        good: The arguments of each tool's last call that succeeded.
        failing: The last call that failed, as a line, until one of that tool succeeds; None where there is none.
        written_at: Number of the last step with a write that succeeded; 0 for none.
        checked_at: Number of the last step with a check that succeeded; 0 for none.
        last_failure: Class of the last model call's failure; None where it succeeded.
    """

    def __init__(self, spec: MonitorSpec) -> None:
        self._spec = spec
        self._calls: set[str] = set()
        self._results: set[str] = set()
        self._polls: dict[str, tuple[int, int]] = {}
        self.facts: deque[Fact] = deque(maxlen=KEPT)
        self.some_trusted = any(rule.trusted for rule in spec.tools.values())
        self.since = 0
        self.alarmed: set[str] = set()
        self.steps = 0
        self.tokens = 0
        self.nanodollars = 0
        self.model_answered = False
        self.evidence: set[str] = set()
        self.succeeded: set[str] = set()
        self.durations: dict[str, deque[float]] = {}
        self.done: deque[tuple[str, str]] = deque(maxlen=DONE)
        self.good: dict[str, str] = {}
        self.failing: tuple[str, str] | None = None
        self.written_at = 0
        self.checked_at = 0
        self.last_failure: str | None = None

    def add(self, step: Step) -> Fact | None:
        """Take a step in; None where nothing in it was the agent's doing."""
        self.tokens += step.tokens + sum(call.tokens for call in step.calls)
        self.nanodollars += step.nanodollars
        self.last_failure = step.failure
        if step.failure is not None:
            return None
        self.model_answered = True
        self.steps += 1
        known_calls = len(self._calls)
        wrote = False
        seen: dict[str, Seen] = {}
        fresh: list[str] = []
        for call in step.calls:
            one = self._see(call, step.at)
            if one is None or one.signature in seen:
                continue
            seen[one.signature] = one
            if one.result is not None and one.says:
                fresh.append(one.result)
            wrote = self._keep(call, one) or wrote
        if step.calls and not seen:
            return None
        calls = tuple(seen.values())
        saying = [one for one in calls if one.says and not one.exempt]
        new = any(one.new for one in saying)
        failed = bool(calls) and all(one.failure is not None for one in calls)
        ran = any(not one.blocked and one.failure is None for one in calls)
        remember(self._results, fresh)
        fact = Fact(
            step=self.steps,
            calls=calls,
            pairs=tuple(sorted(f"{one.signature}{one.result}" for one in calls)),
            text=digest(normal(step.text)) if len(step.text) >= 20 else None,
            failed=failed,
            new=new,
            stale=not new if saying else None,
            progress=ran and (len(self._calls) > known_calls or new or wrote),
        )
        self.facts.append(fact)
        return fact

    def recent(self, window: int) -> list[Fact]:
        """The facts that counters look at: at most ``window``, and none before the last intervention; oldest first."""
        found: list[Fact] = []
        for fact in reversed(self.facts):
            if fact.step <= self.since or len(found) == window:
                break
            found.append(fact)
        found.reverse()
        return found

    def rule(self, tool: str) -> ToolRule:
        """What is known of a tool."""
        return self._spec.tools.get(tool, NO_RULE)

    def polled_for_s(self, called: str, now: int) -> float:
        """Seconds since a poll was first made; 0 where it never was."""
        return (now - self._polls.get(called, (now, now))[0]) / NS

    def last_poll(self, called: str) -> int | None:
        """When a poll was last made; None where it never was."""
        poll = self._polls.get(called)
        return None if poll is None else poll[1]

    def _see(self, call: Call, at: int) -> Seen | None:
        failed = call.error is not None and not call.blocked
        vague = call.error in VAGUE
        if failed and (call.error in WORLD or (vague and providers_fault(call.result))):
            return None
        arguments = normal(written(call.args))
        called = digest(f"{call.tool} {arguments}")
        result = normal(call.result)
        hashed = None if call.blocked else digest(result)
        says = not call.blocked and informative(result)
        rule = self.rule(call.tool)
        if rule.repeatable == "poll":
            self._polls[called] = (self._polls.get(called, (at, at))[0], at)
        return Seen(
            tool=call.tool,
            signature=called,
            result=hashed,
            near=digest(f"{call.tool} {without_numbers(arguments)} {without_numbers(result)}"),
            failure=(error_class(call.result) if vague else call.error) if failed else None,
            blocked=call.blocked,
            says=says,
            new=says and hashed not in self._results,
            exempt=rule.repeatable == "poll" and self.polled_for_s(called, at) <= rule.poll_for_s,
        )

    def _keep(self, call: Call, one: Seen) -> bool:
        """Remember what a call did; True for a write that succeeded."""
        remember(self._calls, (one.signature,))
        if one.blocked:
            return False
        self.durations.setdefault(call.tool, deque(maxlen=DURATIONS)).append(call.duration_s)
        line = f"{call.tool}({written(call.args)[:SHOWN]})"
        if one.failure is not None:
            self.failing = (call.tool, f"{line}: {one.failure}")
            return False
        remember(self.evidence, (one.signature,))
        remember(self.succeeded, (call.id,) if call.id else ())
        self.done.append((call.id or f"step {self.steps}", f"{line}: {' '.join(call.result[:SHOWN].split())}"))
        self.good[call.tool] = written(call.args)[:SHOWN]
        if self.failing is not None and self.failing[0] == call.tool:
            self.failing = None
        rule = self.rule(call.tool)
        if rule.check:
            self.checked_at = self.steps
        if rule.idempotent is False or rule.irreversible:
            self.written_at = self.steps
            return True
        return False


def remember(kept: set[str], more: tuple[str, ...] | list[str]) -> None:
    """Add to what was seen, until there is so much that a run of that length needs no memory any more."""
    if len(kept) < SEEN:
        kept.update(more)
