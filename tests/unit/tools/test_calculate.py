import math
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.tools.calculate import MAX_BITS, calculate
from holdfast.tools.error import ToolError


def value(expression: str) -> int | float:
    """Run the tool without a loop: it waits for nothing."""
    work: Coroutine[Any, Any, dict[str, Any]] = calculate(expression)
    with pytest.raises(StopIteration) as stop:
        work.send(None)
    done = stop.value.value
    assert done["expression"] == expression
    result: int | float = done["result"]
    return result


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("17*23", 391),
        ("2^10 + 1", 1025),
        ("2**3**2", 512),
        ("(3+4)/2", 3.5),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("2 - -3", 5),
        ("10**300 + 1", 10**300 + 1),
        ("sqrt(2)", math.sqrt(2)),
        ("log(8, 2)", 3.0),
        ("ln(e)", 1.0),
        ("cos(2*pi)", 1.0),
        ("min(3, 1, 2) + max(7)", 8),
        ("round(2.567, 2)", 2.57),
        ("round(2.5) + floor(1.9) + ceil(1.1)", 5),
        ("factorial(20)", math.factorial(20)),
        ("pow(2, 8) + abs(-1)", 257),
        (" 1 +\n 2 ", 3),
        ("+".join(["1"] * 500), 500),
        ("(" * 100 + "1" + ")" * 100, 1),
    ],
)
def test_it_calculates_as_python_does(expression: str, result: float) -> None:
    assert value(expression) == result
    assert type(value(expression)) is type(result)


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "10**10**10",
        "2^-(10**999)",
        "(2**4000)*(2**4000)",
        "factorial(10**9)",
        "factorial(factorial(6))",
        "round(123, -10**9)",
        "(" * 400 + "1" + ")" * 400,
        "(" * 10_000,
        "-" * 999 + "1",
        "1" + "**1" * 300,
        "sin(" * 150 + "1" + ")" * 150,
        "9" * 10_000,
        "a" * 10**7,
        "1e999",
        "1e308*10",
        "10**400*1.0",
    ],
)
def test_what_would_take_long_or_grow_big_is_refused(expression: str) -> None:
    with pytest.raises(ToolError):
        calculate(expression).send(None)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1/0", "divides by zero"),
        ("1 % 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("sqrt(-1)", "sqrt is not defined for -1"),
        ("log(0)", "log is not defined for 0"),
        ("(-8) ** 0.5", "not a real number"),
        ("factorial(2.5)", "whole number"),
        ("round(1.5, 0.5)", "whole number of digits"),
        ("10**400*1.0", "too large"),
        ("abs(1, 2)", r"abs takes 1 argument\(s\), not 2"),
        ("max()", "not 0"),
        ("frobnicate(1)", "no 'frobnicate'"),
        ("x + 1", "no 'x'"),
        ("1,000 * 2", "write 1000"),
        ("", "Not a complete"),
        ("2 +", "Not a complete"),
        ("007", "Not a complete"),
        ("5!", "Not arithmetic"),
    ],
)
def test_a_refusal_says_what_was_wrong(expression: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        calculate(expression).send(None)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "().__class__",
        "abs.__self__",
        "'a' * 10**9",
        "[1] * 10**9",
        "{1: 2}",
        "f'{1}'",
        "lambda: 1",
        "(x := 1)",
        "max(*(1, 2))",
        "max(**abs)",
        "1 if 2 else 3",
        "1 and 2",
        "not 1",
        "1 is 1",
        "1 < 2",
        "True",
        "None",
        "1j",
        "1_000",
        "0x10",
        "1 << 10",
        "~1",
        "2 (3)",
        "abs",
        "await 1",
        "\uff12+\uff12",
        "1\x00",
    ],
)
def test_nothing_but_arithmetic_is_understood(expression: str) -> None:
    with pytest.raises(ToolError):
        calculate(expression).send(None)


numbers = st.integers(0, 10**6).map(str) | st.floats(0.001, 10**6).map(repr)
powers = st.tuples(numbers, st.integers(0, 3)).map(lambda pair: f"{pair[0]}**{pair[1]}")
arithmetic = st.recursive(
    numbers | powers,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        )
        | inner.map(lambda text: f"-{text}")
        | st.tuples(st.sampled_from(["abs", "floor", "max"]), inner).map(lambda t: f"{t[0]}({t[1]})")
    ),
    max_leaves=12,
)
PYTHON = {"__builtins__": {}, "abs": abs, "floor": math.floor, "max": lambda *values: max(values)}


@given(arithmetic)
@settings(deadline=None)
def test_it_always_agrees_with_python(expression: str) -> None:
    try:
        expected = eval(expression, PYTHON)
    except ArithmeticError:
        with pytest.raises(ToolError):
            calculate(expression).send(None)
        return
    assert value(expression) == expected
    assert type(value(expression)) is type(expected)


pieces = st.sampled_from(
    [*"0123456789.+-*/%^(), eE", "**", "//", "9**9", "1e308", "99999", "sqrt(", "factorial(", "if "]
)
names = st.sampled_from(
    ["log(", "round(", "pow(", "max(", "pi", "inf", "nan", "x", "'", "\n", "lambda ", "not ", "[", "="]
)


@given(st.lists(pieces | names, max_size=60).map("".join) | st.text())
@settings(max_examples=300, deadline=None)
def test_whatever_it_is_given_it_answers_with_a_bounded_number_or_a_tool_error(expression: str) -> None:
    try:
        calculate(expression).send(None)
    except ToolError:
        return
    except StopIteration as stop:
        result = stop.value["result"]
    assert type(result) in {int, float}
    assert math.isfinite(result) if isinstance(result, float) else result.bit_length() <= MAX_BITS
