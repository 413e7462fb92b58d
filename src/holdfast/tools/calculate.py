"""
The tool ``calculate``: arithmetic, and nothing else.

::

    text ─▶ only numbers, known names, operators? ─▶ ast ─▶ walk the few node types there are ─▶ number
                     │ no                                          │ anything else, or too big
                     └──────────────── ToolError ◀─────────────────┘

Nothing is evaluated by Python, and each step is bounded before it is taken: an integer never grows past ``MAX_BITS``.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from typing import Any

from holdfast.journal.effects import effect
from holdfast.tools.error import ToolError

MAX_CHARS = 1_000
MAX_DEPTH = 50
MAX_BITS = 4_096
MAX_FACTORIAL = 1_000
MAX_ROUND_DIGITS = 300

Number = int | float


def _power(base: Number, exponent: Number) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and (base.bit_length() - 1) * exponent > MAX_BITS:
        raise ToolError(f"{_brief(base)} to the power of {_brief(exponent)} has more than {MAX_BITS} bits.")
    return base**exponent


def _factorial(n: Number) -> int:
    if not isinstance(n, int) or n < 0:
        raise ToolError(f"factorial takes a whole number that is not negative, not {_brief(n)}.")
    if n > MAX_FACTORIAL:
        raise ToolError(f"The factorial of {_brief(n)} is too large.")
    return math.factorial(n)


def _round(value: Number, digits: Number | None = None) -> Number:
    if digits is None:
        return round(value)
    if not isinstance(digits, int) or abs(digits) > MAX_ROUND_DIGITS:
        raise ToolError(f"round takes a whole number of digits up to {MAX_ROUND_DIGITS}, not {_brief(digits)}.")
    return round(value, digits)


def _brief(number: Number) -> str:
    text = str(number)
    return text if len(text) <= 30 else f"{text[:12]}… ({len(text)} digits)"


_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {  # what it is called, and how many arguments it takes
    "abs": (abs, 1, 1),
    "acos": (math.acos, 1, 1),
    "asin": (math.asin, 1, 1),
    "atan": (math.atan, 1, 1),
    "atan2": (math.atan2, 2, 2),
    "ceil": (math.ceil, 1, 1),
    "cos": (math.cos, 1, 1),
    "degrees": (math.degrees, 1, 1),
    "exp": (math.exp, 1, 1),
    "factorial": (_factorial, 1, 1),
    "floor": (math.floor, 1, 1),
    "ln": (math.log, 1, 1),
    "log": (math.log, 1, 2),
    "log10": (math.log10, 1, 1),
    "log2": (math.log2, 1, 1),
    "max": (lambda *values: max(values), 1, MAX_CHARS),
    "min": (lambda *values: min(values), 1, MAX_CHARS),
    "pow": (_power, 2, 2),
    "radians": (math.radians, 1, 1),
    "round": (_round, 1, 2),
    "sin": (math.sin, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "tan": (math.tan, 1, 1),
}
_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}

# What the parser is handed: no strings, attributes, comparisons or line ends ever reach it.
_TOKEN = re.compile(
    r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])|[A-Za-z]\w*(?![\w.])|\*\*|//|[-+*/%(),]| ", re.ASCII
)


@effect("pure")
async def calculate(expression: str) -> dict[str, Any]:
    """
    Work out an arithmetic expression.

    Gives the `expression` and its `result`, a number: exact for integers, up to about 1200 digits.

    Args:
        expression: Such as `2 * (3 + 4) ** 2` or `sqrt(2) / 3`. Operators: + - * / // % and ** or ^ for powers.
            Functions: sqrt, exp, ln, log(x) or log(x, base), log2, log10, sin, cos, tan, asin, acos, atan, atan2,
            degrees, radians, abs, round(x) or round(x, digits), floor, ceil, min, max, pow, factorial. Constants: pi,
            e, tau. Angles are in radians. At most 1000 characters.
    """
    try:
        result = _value(_parsed(expression), 0)
    except ZeroDivisionError:
        raise ToolError("That divides by zero.") from None
    except OverflowError:
        raise ToolError("A number in there is too large for a calculation with decimals.") from None
    return {"expression": expression, "result": result}


def _parsed(expression: str) -> ast.expr:
    if len(expression) > MAX_CHARS:
        raise ToolError(f"The expression has {len(expression)} characters, more than the {MAX_CHARS} allowed.")
    text = " ".join(expression.replace("^", "**").split())
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if not token:
            raise ToolError(f"Not arithmetic, from {text[at : at + 20]!r}: use numbers, + - * / // % ** and functions.")
        at = token.end()
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last three: nested too deep for the parser
        raise ToolError(f"Not a complete arithmetic expression: {text[:100]!r}.") from None


def _value(node: ast.expr, depth: int) -> Number:
    """The node's value. A long chain such as ``1 + 2 + 3 + …`` nests to the left and costs no depth."""
    if depth > MAX_DEPTH:
        raise ToolError(f"The expression is nested more than {MAX_DEPTH} deep.")
    chain: list[ast.BinOp] = []
    while isinstance(node, ast.BinOp):
        chain.append(node)
        node = node.left
    value = _operand(node, depth)
    for step in reversed(chain):
        value = _bounded(_OPERATORS[type(step.op)](value, _value(step.right, depth + 1)))
    return value


def _operand(node: ast.expr, depth: int) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            return _bounded(_SIGNS[type(sign)](_value(operand, depth + 1)))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _called(name, [_value(arg, depth + 1) for arg in args])
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name not in _FUNCTIONS:
            raise ToolError(
                f"There is no {name[:50]!r} here. Functions: {', '.join(_FUNCTIONS)}. Constants: pi, e, tau."
            )
        case ast.Tuple():
            raise ToolError("A comma only separates a function's arguments: write 1000, not 1,000.")
    raise ToolError("Only numbers, + - * / // % ** and functions can be calculated.")


def _called(name: str, args: list[Number]) -> Number:
    function, least, most = _FUNCTIONS[name]
    if not least <= len(args) <= most:
        raise ToolError(
            f"{name} takes {least if least == most else f'{least} to {most}'} argument(s), not {len(args)}."
        )
    try:
        return _bounded(function(*args))
    except ValueError:
        raise ToolError(f"{name} is not defined for {', '.join(map(_brief, args))}.") from None


def _bounded(number: Any) -> Number:
    if isinstance(number, complex):
        raise ToolError("The result is not a real number.")
    if isinstance(number, float) and not math.isfinite(number):
        raise ToolError("A number in there is too large.")
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise ToolError(f"A number in there has more than {MAX_BITS} bits (about 1200 digits).")
    result: Number = number
    return result
