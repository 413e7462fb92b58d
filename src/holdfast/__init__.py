"""
The production layer for AI agents: nothing an agent does is unseen, unbounded, repeated or unaccounted for.

The names of a first program. They are loaded when they are asked for, so that a part that stands alone, such as
``holdfast.resilience``, brings nothing else with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from holdfast._version import __version__

if TYPE_CHECKING:
    from holdfast.adapters import FunctionTurn
    from holdfast.errors import HoldfastError, Misconfigured
    from holdfast.journal import DID_NOT_HAPPEN, UNKNOWN, Happened, effect, idempotency_key
    from holdfast.replica import Answer
    from holdfast.runtime import Holdfast
    from holdfast.tools import ToolError
    from holdfast.turn import Ask, Turn

_HOMES = {
    "DID_NOT_HAPPEN": "holdfast.journal",
    "UNKNOWN": "holdfast.journal",
    "Answer": "holdfast.replica",
    "Ask": "holdfast.turn",
    "FunctionTurn": "holdfast.adapters",
    "Happened": "holdfast.journal",
    "Holdfast": "holdfast.runtime",
    "HoldfastError": "holdfast.errors",
    "Misconfigured": "holdfast.errors",
    "ToolError": "holdfast.tools",
    "Turn": "holdfast.turn",
    "effect": "holdfast.journal",
    "idempotency_key": "holdfast.journal",
}

__all__ = [
    "DID_NOT_HAPPEN",
    "UNKNOWN",
    "Answer",
    "Ask",
    "FunctionTurn",
    "Happened",
    "Holdfast",
    "HoldfastError",
    "Misconfigured",
    "ToolError",
    "Turn",
    "__version__",
    "effect",
    "idempotency_key",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
