"""
What a tool does to the world, as far as a second call of it is concerned.

::

    class        after a crash, with the call under way
    pure         made again: it only reads
    idempotent   made again with the same idempotency key, which the tool can ask for
    reconcile    asked about: its own ``reconcile`` says whether it happened
    once         not made again: the turn waits for somebody to say whether it happened. What nobody declared is this.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from holdfast.errors import Misconfigured
from holdfast.store import Effect

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__holdfast_effect__"


class Happened(NamedTuple):
    """The effect happened, and this is what the call returned."""

    result: Any


class Unclear(Enum):
    """What else a ``reconcile`` may find."""

    DID_NOT_HAPPEN = "did not happen"
    UNKNOWN = "unknown"


DID_NOT_HAPPEN = Unclear.DID_NOT_HAPPEN
UNKNOWN = Unclear.UNKNOWN

Reconcile = Callable[[Mapping[str, Any], str], Awaitable[Happened | Unclear]]
"""Finds out whether a call happened, from its arguments and its idempotency key. Called again if it was cut short."""


class Declared(NamedTuple):
    """What is known of a tool: its effect, and how to find out about it where that is ``reconcile``."""

    effect: Effect
    reconcile: Reconcile | None = None


ONCE = Declared("once")
PURE = Declared("pure")


def effect(kind: Effect, *, reconcile: Reconcile | None = None) -> Callable[[F], F]:
    """
    Declare what a tool does to the world: ``@effect("pure")``.

    Args:
        kind: ``pure``, ``idempotent``, ``once`` or ``reconcile``, as told above.
        reconcile: For ``reconcile`` alone: finds out whether a call happened.

    Raises:
        Misconfigured: ``reconcile`` is missing, or given to another kind.
    """
    if (kind == "reconcile") != (reconcile is not None):
        raise Misconfigured("a tool whose effect is `reconcile` needs a function `reconcile=`, and no other one does")
    declared = Declared(kind, reconcile)

    def declare(tool: F) -> F:
        setattr(tool, _ATTRIBUTE, declared)
        return tool

    return declare


def declared_effect(tool: object) -> Declared | None:
    """What ``effect`` declared of ``tool``; None where nobody did."""
    found = getattr(tool, _ATTRIBUTE, None) or getattr(getattr(tool, "__func__", None), _ATTRIBUTE, None)
    return found if isinstance(found, Declared) else None


current_key: ContextVar[str | None] = ContextVar("holdfast_idempotency_key", default=None)
inside: ContextVar[str] = ContextVar("holdfast_inside", default="")
"""The call this code runs in, by its name within the turn; empty outside any."""


def idempotency_key() -> str:
    """
    The key of the tool call this code runs in: the same whenever this call is made, and no other's.

    Hand it on to whatever the tool asks to do something, so that it can tell a repeated request from a new one.

    Raises:
        RuntimeError: this is no tool call.
    """
    key = current_key.get()
    if key is None:
        raise RuntimeError("there is an idempotency key within a tool call only")
    return key
