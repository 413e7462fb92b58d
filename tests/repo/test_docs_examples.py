"""
What the documents show works: code runs, settings load, commands exist, links lead somewhere.

An example that cannot run here says so in its first line: ```` ```python no-run ````.
"""

import ast
import asyncio
import importlib
import inspect
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast.config import describe, load

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]: +(\S+)", re.MULTILINE)
VARIABLE = re.compile(r"\bHOLDFAST_[A-Z0-9]+__[A-Z0-9_]+\b")
KEYS = {key.name: key for section in describe() for key in section.keys}
SECTIONS = "|".join(section.name for section in describe())


class Block(NamedTuple):
    document: Path
    line: int
    words: tuple[str, ...]
    text: str


def blocks(*languages: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{block.document.relative_to(ROOT)}:{block.line}")
        for document in DOCUMENTS
        for block in fenced(document)
        if block.words and block.words[0] in languages and "no-run" not in block.words
    ]


def fenced(document: Path) -> Iterator[Block]:
    whole = document.read_text("utf-8")
    for found in FENCE.finditer(whole):
        text = re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        yield Block(document, whole.count("\n", 0, found.start("text")) + 1, tuple(found["info"].split()), text)


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text("utf-8"))


def documents() -> list[Any]:
    return [pytest.param(document, id=str(document.relative_to(ROOT))) for document in DOCUMENTS]


# Code and settings


@pytest.mark.parametrize("block", blocks("python", "py"))
def test_every_python_example_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)  # where pydantic and dataclasses look annotations up
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(block.document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, module.__dict__)
        return

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await eval(code, module.__dict__)

    asyncio.run(bounded())


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_settings_example_loads(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("holdfast.toml").write_text(block.text, "utf-8")
    load(environ=dict.fromkeys(re.findall(r"\benv:(\w+)", block.text), "secret"))


@pytest.mark.parametrize("document", documents())
def test_every_setting_that_a_document_names_exists(document: Path) -> None:
    text = prose(document)
    shown = document.read_text("utf-8") if document.name != "configuration.md" else text
    variables = {key.variable for key in KEYS.values()}
    assert set(VARIABLE.findall(shown)) <= variables
    assert set(re.findall(rf"`((?:{SECTIONS})\.[a-z_]+_(?:s|bytes|tokens))`", text)) <= set(KEYS)


# Commands


def commands(block: Block) -> Iterator[list[str]]:
    text = re.sub(r"\\\n\s*", " ", block.text)
    shown = [line for line in text.splitlines() if block.words[0] != "console" or line.startswith("$ ")]
    for written in shown:
        line = re.sub(r"(?<!\S)\d?[<>]+&?\d? ?[^\s;|&]+", "", written.removeprefix("$ "))  # redirections
        words = shlex.split(re.sub(r"(&&|\|\||[;|&])(?=\s|$)", r" \1 ", line), comments=True)
        command: list[str] = []
        for word in [*words, ";"]:
            if word not in {"&&", "||", ";", "|", "&"}:
                command.append(word)
                continue
            while command and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", command[0], re.DOTALL):
                del command[0]
            if command[1:3] == ["-m", "holdfast"]:
                del command[:2]
            if command:
                yield command
            command = []


def parse(command: Any, arguments: list[str]) -> None:
    """Raise what the command line would say about an unknown command, option or argument; run nothing."""
    context = command.context_class(command, info_name=command.name)
    context.allow_interspersed_args = not hasattr(command, "commands")
    _, rest, _ = command.make_parser(context).parse_args(list(arguments))
    if hasattr(command, "commands") and rest:
        assert rest[0] in command.commands, f"there is no command {rest[0]}"
        parse(command.commands[rest[0]], rest[1:])
    else:
        assert rest == [], f"{command.name} takes no {rest}"


def holdfast() -> Any:
    typer = importlib.import_module("typer.main")
    return typer.get_command(importlib.import_module("holdfast.cli").app)


@pytest.mark.parametrize("block", blocks("console", "bash", "sh", "shell"))
def test_every_command_line_uses_commands_targets_and_options_that_exist(block: Block) -> None:
    for program, *arguments in commands(block):
        if Path(program).name == "holdfast":
            parse(holdfast(), arguments)
        elif program == "make":
            makefile = (ROOT / "Makefile").read_text("utf-8")
            targets = {
                name for line in re.findall(r"^([\w. -]+):(?!=)", makefile, re.MULTILINE) for name in line.split()
            }
            assert {word for word in arguments if not re.match(r"-|\w+=", word)} <= targets


# Links


def slugs(document: Path) -> set[str]:
    """The anchors that the headings of a document have."""
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', prose(document)))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(document), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        twins = [slug, *(f"{slug}-{number}" for number in range(1, 100))]
        found.add(next(twin for twin in twins if twin not in found))
    return found


@pytest.mark.parametrize("document", documents())
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for pair in LINK.findall(re.sub(r"`[^`\n]*`", "code", prose(document))):
        link = pair[0] or pair[1]
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no {target.relative_to(ROOT)}"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor and target.suffix == ".md":
            assert anchor in slugs(target), f"{link}: {target.name} has no such heading"
