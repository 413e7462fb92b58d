"""What is said to those whose budget is used up: which one it is, what is left of it, and when it begins anew."""

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.budget.limits import Budget
from holdfast.clock import NS, iso
from holdfast.errors import BudgetExhausted

SOON_S = 1.0
"""Seconds after which to ask again where it is only what calls under way hold that leaves no room."""


class Wanted(NamedTuple):
    """What a call may use, in tokens and nano-dollars."""

    tokens: int
    nanos: int

    def of(self, unit: str) -> float:
        """The same in ``unit``."""
        return self.tokens if unit == "tokens" else self.nanos / NS


def turn_exhausted(unit: str, limit: float, used: float, wanted: float) -> BudgetExhausted:
    """The refusal of a call that does not fit into its turn's own limit, in ``steps``, ``tokens`` or ``usd``."""
    return BudgetExhausted(
        f"the turn may use {_amount(limit, unit)} and has used {_amount(used, unit)}; "
        f"its next model call may take {_amount(wanted, unit)}",
        guard="budget",
        key_class="turn",
        reason=f"{unit}_per_turn",
    )


def exhausted(budgets: Sequence[Budget], wanted: Wanted, wall_ns: int) -> BudgetExhausted:
    """The refusal of a call that does not fit into one of ``budgets``: of the one that begins anew last."""
    short = [budget for budget in budgets if wanted.of(budget.unit) > budget.left] or budgets
    budget = max(short, key=lambda one: (_waits_s(one, wanted, wall_ns), one.limit))
    waits_s = _waits_s(budget, wanted, wall_ns)
    unit, period = budget.unit, f" a {budget.every}" if budget.every else ""
    whose = {"all": "everybody together", "agent": f"the agent {budget.name}"}.get(
        budget.scope, f"the {budget.scope}" + (f" {budget.name}" if budget.scope == "user" else "")
    )
    held = f", {_amount(budget.reserved, unit)} are reserved by calls under way" if budget.reserved else ""
    resets = "" if budget.resets_ns is None else f"; it begins anew at {iso(budget.resets_ns)}"
    return BudgetExhausted(
        f"{whose} may use {_amount(budget.limit, unit)}{period}: {_amount(budget.spent, unit)} are spent{held} and "
        f"{_amount(budget.left, unit)} are left; this model call may take {_amount(wanted.of(unit), unit)}{resets}",
        retry_after_s=None if waits_s == _FOR_EVER else waits_s,
        guard="budget",
        key_class=budget.scope,
        reason=f"{unit}_per_{budget.every or budget.scope}",
    )


def only_held(budgets: Sequence[Budget], wanted: Wanted) -> Budget | None:
    """A budget that has room but for what calls under way hold; None where one has none even without that."""
    short = [budget for budget in budgets if wanted.of(budget.unit) > budget.left]
    if not short or any(_is_spent(budget, wanted) for budget in short):
        return None
    return short[0]


_FOR_EVER = float("inf")


def _is_spent(budget: Budget, wanted: Wanted) -> bool:
    return round((budget.spent + wanted.of(budget.unit) - budget.limit) * NS) > 0


def _waits_s(budget: Budget, wanted: Wanted, wall_ns: int) -> float:
    if not _is_spent(budget, wanted):
        return SOON_S
    if budget.resets_ns is None or wanted.of(budget.unit) > budget.limit:
        return _FOR_EVER
    return max(SOON_S, (budget.resets_ns - wall_ns) / NS)


def _amount(value: float, unit: str) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".") + " USD" if unit == "usd" else f"{value:.0f} {unit}"
