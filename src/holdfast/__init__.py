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
    from holdfast.runtime import Holdfast
    from holdfast.tools import ToolError
    from holdfast.turn import Answer, Ask, Turn

_HOMES = {
    "Answer": "holdfast.turn",
    "Ask": "holdfast.turn",
    "FunctionTurn": "holdfast.adapters",
    "Holdfast": "holdfast.runtime",
    "HoldfastError": "holdfast.errors",
    "Misconfigured": "holdfast.errors",
    "ToolError": "holdfast.tools",
    "Turn": "holdfast.turn",
}

__all__ = [
    "Answer",
    "Ask",
    "FunctionTurn",
    "Holdfast",
    "HoldfastError",
    "Misconfigured",
    "ToolError",
    "Turn",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
