"""The catalogue has every line that the code writes to the log, and no other."""

import ast
import re
from pathlib import Path

from holdfast.telemetry.catalogue import LOG_EVENTS

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "holdfast"
METHODS = {"debug", "info", "warning", "error", "critical"}
NOTICE = re.compile(
    r'"((?:adaptive|breaker|budget|bulkhead|deadline|fallback|hedge|rate|retry|share|timeout)\.[a-z_]+)"'
)


def written() -> dict[str, set[str]]:
    """Each line's name, and the fields that are named where it is written; those of notices are looked up elsewhere."""
    found: dict[str, set[str]] = {"shed": set()}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.parent.name in {"resilience", "guard"}:
            found |= {name.replace(".", "_"): set() for name in NOTICE.findall(text)}
        for node in ast.walk(ast.parse(text)):
            named = isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
            if isinstance(node, ast.Call) and named and _writes(node.func):
                fields = found.setdefault(ast.literal_eval(node.args[0]), set())
                fields |= {field.arg for field in node.keywords if field.arg is not None}
    return found


def _writes(function: ast.expr) -> bool:
    """Whether it is ``logger.info`` and the like, also where one of two is chosen first."""
    if isinstance(function, ast.IfExp):
        return _writes(function.body)
    if isinstance(function, ast.Name):
        return function.id == "write"
    of = function.value if isinstance(function, ast.Attribute) else None
    return isinstance(of, ast.Name) and of.id == "logger" and function.attr in METHODS  # type: ignore[attr-defined]  # it has one


def test_the_catalogue_has_every_line_of_the_log() -> None:
    catalogue = {entry.name: {field.name for field in entry.fields} for entry in LOG_EVENTS}
    lines = written()
    assert sorted(lines) == sorted(catalogue)
    assert {name: fields - catalogue[name] for name, fields in lines.items() if fields - catalogue[name]} == {}


def test_names_are_unique_and_end_in_a_sentence() -> None:
    assert len({entry.name for entry in LOG_EVENTS}) == len(LOG_EVENTS)
    for entry in LOG_EVENTS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", entry.name)
        assert all(text.endswith(".") for text in (entry.help, *(field.help for field in entry.fields)))
