"""The tool ``string_transform``: one simple change to a text."""

from collections.abc import Callable
from typing import Any, Literal, get_args

from holdfast.journal.effects import effect
from holdfast.tools.error import ToolError

MAX_CHARS = 100_000

Operation = Literal["uppercase", "lowercase", "trim", "trim_start", "trim_end", "reverse", "length"]

_APPLY: dict[str, Callable[[str], str | int]] = {
    "uppercase": str.upper,
    "lowercase": str.lower,
    "trim": str.strip,
    "trim_start": str.lstrip,
    "trim_end": str.rstrip,
    "reverse": lambda text: text[::-1],
    "length": len,
}


@effect("pure")
async def string_transform(text: str, operation: Operation) -> dict[str, Any]:
    """
    Change a text's case, trim or reverse it, or measure its length in characters.

    Gives `operation` and `result`, the new text, or a number for `length`.

    Args:
        text: The text to change, at most 100000 characters.
        operation: What to do. `trim` takes white space from both ends, `trim_start` and `trim_end` from one.
    """
    if len(text) > MAX_CHARS:
        raise ToolError(f"The text has {len(text)} characters, more than the {MAX_CHARS} that can be changed at once.")
    if operation not in _APPLY:
        raise ToolError(f"There is no operation {str(operation)[:50]!r}: use one of {', '.join(get_args(Operation))}.")
    return {"operation": operation, "result": _APPLY[operation](text)}
