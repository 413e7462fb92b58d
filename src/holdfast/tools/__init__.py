"""The tools of the built-in assistant: plain async functions, with no agent framework around them."""

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.clock import Clock
from holdfast.tools import calculate, current_time, list_directory, read_file, string_transform
from holdfast.tools.error import ToolError
from holdfast.tools.sandbox import Sandbox
from holdfast.tools.spec import ToolsSpec

__all__ = ["ToolError", "ToolsSpec", "standard_tools"]


def standard_tools(spec: ToolsSpec, clock: Clock) -> list[Callable[..., Awaitable[Any]]]:
    """
    The five standard tools, in the order of their names, bound to what they may touch and to the time.

    Each is an ``async def`` with typed arguments and a Google-style docstring, which is all an agent framework needs
    to describe it to a model. Each returns a dict that JSON can hold, or raises ``ToolError``.
    """
    sandbox = Sandbox(spec.root, spec.hidden)
    return [
        calculate.calculate,
        current_time.bind(clock),
        list_directory.bind(sandbox, spec.max_entries),
        read_file.bind(sandbox, spec.max_read_bytes),
        string_transform.string_transform,
    ]
