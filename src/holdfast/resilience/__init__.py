"""Policies that keep a call inside its bounds. Standard library only; usable alone."""

from holdfast.resilience.deadline import remaining_s, within
from holdfast.resilience.turnstile import Turnstile

__all__ = ["Turnstile", "remaining_s", "within"]
