"""The public Python names of the package, read from its source without importing it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def api(source: Path) -> str:
    """
    Every public Python name, one a line, so that a change of the interface shows in a diff.

    A package is public in its ``__all__``; a module at the top of the package in its ``__all__`` or, without one,
    in all it defines. Read from the source, so that nothing has to be installed, and the Python version is the same.
    """
    public = {f"{module}.{name}": _definition(source, module, name) for module, name in _public_names(source)}
    homes: dict[ast.AST, str] = {}
    for path, found in public.items():
        if found not in homes or path.count(".") > homes[found].count("."):
            homes[found] = path
    lines: set[tuple[str, str]] = set()
    for path, found in public.items():
        lines.update(_lines(path, found) if homes[found] == path else [(path, f"is {homes[found]}")])
    return "".join(f"{path}: {what}\n" for path, what in sorted(lines))


def _public_names(source: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((source / "holdfast").rglob("*.py")):
        *above, last = path.relative_to(source).with_suffix("").parts
        module = ".".join(above if last == "__init__" else [*above, last])
        if "._" in module or (last != "__init__" and len(above) > 1):
            continue
        top = _top(source, module)
        names = [name for name, node in top.items() if last != "__init__" and not isinstance(node, ast.ImportFrom)]
        if isinstance(listed := top.get("__all__"), ast.Assign):
            names = ast.literal_eval(listed.value)
        yield from ((module, name) for name in names if not name.startswith("_"))


@cache
def _top(source: Path, module: str) -> dict[str, ast.stmt]:
    base = source.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return _defined(ast.parse(path.read_text("utf-8")).body)


def _defined(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or class defines or imports, by name."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        match node:
            case ast.If() | ast.Try():
                found |= _defined(node.body) | _defined(node.orelse)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case ast.ImportFrom():
                found |= {alias.asname or alias.name: node for alias in node.names}
    return found


def _definition(source: Path, module: str, name: str) -> ast.stmt:
    """Where the name is defined, however often it was handed on within the package."""
    node = _top(source, module).get(name)
    if node is None:
        raise SystemExit(f"api.txt: {module}.__all__ names {name}, which {module} does not define")
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast"):
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        return _definition(source, str(node.module), original)
    return node


def _lines(path: str, node: ast.stmt) -> Iterator[tuple[str, str]]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            yield path, f"{_marks(node)}{kind}({ast.unparse(node.args)}){returns}"
        case ast.ClassDef():
            inside = ", ".join(ast.unparse(part) for part in (*node.bases, *node.keywords))
            yield path, f"{_marks(node)}class({inside})"
            for name, member in _defined(node.body).items():
                called = name.endswith("__") and isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
                if called or not name.startswith("_"):
                    yield from _lines(f"{path}.{name}", member)
        case ast.AnnAssign():
            yield path, ast.unparse(node.annotation) + (f" = {ast.unparse(node.value)}" if node.value else "")
        case ast.Assign():
            yield path, f"= {ast.unparse(node.value)}"
        case _:
            yield path, ast.unparse(node)


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    return "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
