"""The conventions a machine can check. An exception is named here, where a reviewer sees it."""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path
from typing import Any

import pytest

from holdfast import errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "holdfast"

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 80
LONGER_ALL_THE_SAME: frozenset[str] = frozenset()
"""Files as ``path`` and functions as ``path:name``, each of which somebody decided to leave long."""

CLIENTS = {
    "anthropic": {"agents/models.py"},
    "asyncpg": {"coord/postgres.py", "store/postgres_link.py"},
    "fastapi": {"server/"},
    "genai_prices": {"budget/prices.py"},
    "h11": {"sim/"},
    "httptools": {"server/"},
    "httpx2": {"replica/webhooks.py"},
    "msgspec": {""},
    "openai": {"agents/models.py"},
    "opentelemetry": {"telemetry/"},
    "prometheus_client": {"telemetry/"},
    "pydantic": {""},
    "pydantic_ai": {"adapters/", "agents/", "runtime.py"},
    "pydantic_core": {"adapters/"},
    "redis": {"coord/redis.py"},
    "rich": {"cli/"},
    "sqlite3": {"store/"},
    "starlette": {"server/"},
    "structlog": {"telemetry/", "runtime.py", "server/edge.py"},
    "typer": {"cli/"},
    "uvicorn": {"server/", "cli/"},
    "uvloop": {"cli/"},
    "yaml": {"config/", "ops/", "sim/"},
}
"""Which library may be imported where; ``sqlite3`` is Python's own, and a client all the same."""

# Written so that this file does not contain what it looks for.
BANNED = {
    "a path of one machine": re.compile(r"(?<![\w.~$}-])/(?:work|root|Users)/"),
    "a package registry's host": re.compile(r"pypi\.org|python(?:hosted)\.org"),
}
SUPPRESSION = re.compile(r"#\s*(?:ruff:\s*)?(noqa|type:\s*ignore|pragma|mypy:|pyright)")
WITH_REASON = re.compile(
    r"#\s*(?:noqa: [A-Z]+\d+(?:, [A-Z]+\d+)* - \S.*"
    r"|type: ignore\[[\w-]+(?:, ?[\w-]+)*\]  # \S.*"  # mypy takes nothing but a second comment after the bracket
    r"|pragma: no (?:cover|branch) - \S.*)"
)


def tracked() -> list[Path]:
    """What belongs to the project: as git has it or, in an unpacked archive, all but what a build leaves behind."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
        return [ROOT / name for name in sorted(listed) if name and (ROOT / name).is_file()]
    left = re.compile(r"/(\.venv|data|dist|__pycache__|\.\w+_cache|\.hypothesis|\.schemathesis|[^/]+\.egg-info)/")
    return [
        path for path in sorted(ROOT.rglob("*")) if path.is_file() and not left.search(f"/{path.relative_to(ROOT)}")
    ]


FILES = tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return ""


def test_there_is_something_to_check() -> None:
    assert name(PACKAGE / "turn.py") in {name(path) for path in PYTHON}


def test_nothing_is_left_to_be_done_in_the_source() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX)\b")
    assert [name(path) for path in FILES if path.is_relative_to(PACKAGE) and unfinished.search(text(path))] == []


def test_every_suppression_carries_its_code_and_its_reason() -> None:
    bare = [
        f"{name(path)}:{token.start[0]}: {token.string}"
        for path in PYTHON
        for token in tokenize.generate_tokens(io.StringIO(text(path)).readline)
        if token.type == tokenize.COMMENT and SUPPRESSION.search(token.string) and not WITH_REASON.search(token.string)
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("comment", "fine"),
    [
        ("# noqa: S311 - jitter, never secrets", True),
        ("# noqa: S311, FBT001 - the library's signature", True),
        ("# noqa: S311", False),
        ("# noqa", False),
        ("# ruff: noqa", False),
        ("# type: ignore[arg-type]  # the stub is wrong", True),
        ("# type: ignore[arg-type]", False),
        ("# type: ignore", False),
        ("# pragma: no cover - only on Windows", True),
        ("# pragma: no cover", False),
        ("# mypy: ignore-errors", False),
    ],
)
def test_what_counts_as_a_reason(comment: str, fine: bool) -> None:  # noqa: FBT001 - a column of the table above
    assert SUPPRESSION.search(comment)
    assert bool(WITH_REASON.search(comment)) == fine


def test_files_are_no_longer_than_one_idea() -> None:
    """Tests are lists of examples and may be longer."""
    long = {name(path) for path in PYTHON if not path.is_relative_to(ROOT / "tests")}
    long = {path for path in long if len(text(ROOT / path).splitlines()) > MOST_LINES_OF_A_FILE}
    assert long == {path for path in LONGER_ALL_THE_SAME if ":" not in path}


def test_functions_fit_a_glance_or_a_long_straight_story() -> None:
    long = {
        f"{name(path)}:{node.name}"
        for path in PYTHON
        for node in ast.walk(ast.parse(text(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION
    }
    assert long == {path for path in LONGER_ALL_THE_SAME if ":" in path}


@pytest.mark.parametrize("what", BANNED)
def test_no_file_contains(what: str) -> None:
    assert [f"{name(path)}: {found[0]}" for path in FILES if (found := BANNED[what].search(text(path)))] == []


def test_a_fragment_of_the_change_log_is_named_after_its_change_and_kind() -> None:
    fragments = [path for path in FILES if path.parent == ROOT / "changes" and path.name != "README.md"]
    named = re.compile(r"[a-z0-9][a-z0-9-]*\.(added|changed|fixed|removed|security)\.md")
    assert [path.name for path in fragments if not named.fullmatch(path.name) or not text(path).strip()] == []


def test_every_module_says_what_it_is() -> None:
    modules = [path for path in PYTHON if path.is_relative_to(PACKAGE) and text(path).strip()]
    assert [name(path) for path in modules if not ast.get_docstring(ast.parse(text(path)))] == []


def test_every_error_is_in_the_drawn_tree() -> None:
    """The documentation, the statuses and the exit code are made from ``holdfast.errors`` alone."""
    tree = {cls.__name__ for cls in errors.every_error() if cls.__module__.startswith(errors.__name__)}
    elsewhere = [
        f"{name(path)}:{node.name}"
        for path in PYTHON
        if path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / "errors")
        for node in ast.walk(ast.parse(text(path)))
        if isinstance(node, ast.ClassDef) and tree & {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    ]
    assert elsewhere == []
    assert [cls for cls in tree if cls not in (errors.__doc__ or "")] == []


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)}:{node.lineno}: import from holdfast, not from a dot"
            found.add(str(node.module).partition(".")[0])
    return found - {"holdfast"}


def test_a_library_is_imported_only_where_it_is_allowed() -> None:
    strangers = [
        f"{path.relative_to(PACKAGE).as_posix()} imports {library}"
        for path in PYTHON
        if path.is_relative_to(PACKAGE)
        for library in sorted(imported(path))
        if library in CLIENTS or library not in sys.stdlib_module_names
        if not path.relative_to(PACKAGE).as_posix().startswith(tuple(CLIENTS.get(library, ())))
    ]
    assert strangers == []


def test_every_library_that_is_imported_is_declared() -> None:
    project: dict[str, Any] = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    declared = {re.split(r"[\[<>=~! ;]", one)[0].lower().replace("-", "_") for one in wanted}
    come_with = {
        "opentelemetry": "opentelemetry_api",
        "pydantic_ai": "pydantic_ai_slim",
        "pydantic_core": "pydantic",
        "yaml": "pyyaml",
        "starlette": "fastapi",
    }
    come_with |= {"anthropic": "pydantic_ai_slim", "openai": "pydantic_ai_slim", "httptools": "uvicorn"}
    needed = {library for path in PYTHON if path.is_relative_to(PACKAGE) for library in imported(path)}
    missing = {come_with.get(library, library) for library in needed - set(sys.stdlib_module_names)} - declared
    assert missing == set()
