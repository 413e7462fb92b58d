from typing import Any, get_args

import pytest

from holdfast.tools.error import ToolError
from holdfast.tools.string_transform import MAX_CHARS, Operation, string_transform


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("uppercase", "  ÅB C "),
        ("lowercase", "  åb c "),
        ("trim", "åB c"),
        ("trim_start", "åB c "),
        ("trim_end", "  åB c"),
        ("reverse", " c Bå  "),
        ("length", 7),
    ],
)
async def test_each_operation_does_what_its_name_says(operation: Operation, result: str | int) -> None:
    assert await string_transform("  åB c ", operation) == {"operation": operation, "result": result}


async def test_an_unknown_operation_is_refused_with_those_there_are() -> None:
    unknown: Any = "rot13"
    with pytest.raises(ToolError) as refused:
        await string_transform("a", unknown)
    assert all(operation in str(refused.value) for operation in get_args(Operation))


async def test_a_text_that_is_too_long_is_refused() -> None:
    assert (await string_transform("a" * MAX_CHARS, "length"))["result"] == MAX_CHARS
    with pytest.raises(ToolError, match="100001 characters"):
        await string_transform("a" * (MAX_CHARS + 1), "length")
