"""
SCARCITY: what the run may use runs out.

========= =============================================================== =========================
rule      what is compared                                                fires at
========= =============================================================== =========================
forecast  used + what successes still needed from here, with the budget   more than the budget: rung 1
used      steps, tokens, money, seconds, with the budget                  0.70, 0.85, 0.95: rungs 1, 2, 3
last      used + two more steps, with the budget                          more than the budget: rung 3
========= =============================================================== =========================

Each level fires once. ``last`` makes the next step the answer while one more still fits: a step is taken to need what
the last one did, or what they did on average if that is more. The forecast needs norms and three steps: the run's own
use for each step, times the steps that past successes of that length still had before them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.clock import NS
from holdfast.monitor.history import History
from holdfast.monitor.norms import Norms
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.steps import Budget
from holdfast.monitor.verdicts import Evidence, Firing, Severity, State

ENOUGH_STEPS = 3


class Use(NamedTuple):
    """How much of one budget is used, in its own unit."""

    what: str
    used: float
    limit: float

    def ratio(self) -> float:
        """Share that is used; 1 and more is all of it."""
        return self.used / self.limit

    def left(self) -> str:
        """What is left, for a reader."""
        return f"{max(0, self.limit - self.used):g} of {self.limit:g} {self.what}"


class Scarcity:
    """Watches the budget."""

    def __init__(self, spec: MonitorSpec, norms: Norms, budget: Budget) -> None:
        self._spec = spec
        self._budget = budget
        self._norms = norms if norms.count(spec.successes) else None
        self._level = 0
        self._before: dict[str, float] = {}

    def look(self, history: History, now: int, left: Sequence[tuple[str, float]] = ()) -> Firing | None:
        """What is used now; ``left`` are shares that are left of budgets which somebody else keeps."""
        uses = self.uses(history, now)
        shares = [Use(f"% of the {what}", round(100 * (1 - share)), 100) for what, share in left]
        spec = self._spec
        if not uses and not shares:
            return None
        most = max([*uses, *shares], key=Use.ratio)
        ratios = (spec.tell_ratio, spec.finish_ratio, spec.final_ratio)
        level = sum(most.ratio() >= ratio for ratio in ratios)
        rule = "used"
        if level < len(ratios) and (last := self._last(uses, history.steps)) is not None:
            most, level, rule = last, len(ratios), "last"
        if level == 0 and (short := self._short(uses, history.steps)) is not None:
            most, level, rule = short, 1, "forecast"
        if level <= self._level:
            return None
        self._level = level
        return Firing(
            state=State.SCARCITY,
            rule=rule,
            severity=Severity.STOP if level == len(ratios) else Severity.WARN,
            evidence=Evidence(steps=(history.steps,), count=round(100 * most.ratio()), detail=f"{most.left()} left"),
            level=level,
            message=f"What is left: {', '.join(use.left() for use in (uses if most in uses else [*uses, most]))}.",
        )

    def spent(self, history: History, now: int) -> Use | None:
        """The budget of which nothing is left; None where there is something of each."""
        return next((use for use in self.uses(history, now) if use.ratio() >= 1), None)

    def seconds_left(self, now: int) -> float | None:
        """Seconds until the time is over; None where it is not limited."""
        return None if self._budget.wall_s is None else self._budget.wall_s - (now - self._budget.started) / NS

    def uses(self, history: History, now: int) -> list[Use]:
        """How much of each limited budget is used."""
        budget = self._budget
        found = (
            ("steps", history.steps, budget.steps),
            ("tokens", history.tokens, budget.tokens),
            ("nano-dollars", history.nanodollars, budget.nanodollars),
            ("seconds", (now - budget.started) / NS, budget.wall_s),
        )
        return [Use(what, used, limit) for what, used, limit in found if limit is not None]

    def _last(self, uses: list[Use], steps: int) -> Use | None:
        """The budget into which one more step fits, and not two; None where all have room."""
        found = None
        for use in uses:
            need = max(use.used - self._before.get(use.what, 0), use.used / max(1, steps))
            self._before[use.what] = use.used
            if found is None and use.used + 2 * need > use.limit:
                found = use
        return found

    def _short(self, uses: list[Use], steps: int) -> Use | None:
        if self._norms is None or steps < ENOUGH_STEPS or not (left := self._norms.left(steps)):
            return None
        return next((use for use in uses if use.used * (1 + left / steps) > use.limit), None)
