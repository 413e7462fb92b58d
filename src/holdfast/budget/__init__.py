"""What turns may spend: steps, tokens and money, reserved before a model call and settled after it."""

from holdfast.budget.budgets import Budgets, Member
from holdfast.budget.limits import Budget
from holdfast.budget.prices import Price, Prices, Rates
from holdfast.budget.spec import BudgetSpec, ModelPrice
from holdfast.budget.turn import Booking, Estimate, Left, TurnBudget

__all__ = [
    "Booking",
    "Budget",
    "BudgetSpec",
    "Budgets",
    "Estimate",
    "Left",
    "Member",
    "ModelPrice",
    "Price",
    "Prices",
    "Rates",
    "TurnBudget",
]
