"""``holdfast config``: whether the settings are right, what they are, and what they may be."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from holdfast.cli.run import ConfigPath
from holdfast.config import Key, Loaded, describe, json_schema, load
from holdfast.config.files import FILES

app = typer.Typer(help="Check, show and describe the settings.", no_args_is_help=True)


@app.command()
def check(config: ConfigPath = None) -> None:
    """Say whether the settings are right; where they are not, every reason and exit code 2."""
    loaded = load(config, environ=os.environ)
    print(f"OK: {loaded.file or f'no {FILES[0]} here'}, {_given(loaded)} of {len(loaded.origins)} settings given")


@app.command()
def show(
    config: ConfigPath = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show every setting in force and where its value came from; secrets are masked."""
    loaded = load(config, environ=os.environ)
    keys = [key for part in describe() for key in part.keys]
    if as_json:
        told = {key.name: {"value": _value(loaded, key), "origin": loaded.origin(key.name)} for key in keys}
        print(json.dumps(told, indent=2))
        return
    cells = [row for key in keys for row in _rows(loaded, key)]
    if sys.stdout.isatty():
        table = Table(Column("key", no_wrap=True), Column("value", overflow="fold"), Column("origin", overflow="fold"))
        for row in cells:
            table.add_row(*row, style="dim" if row[2] == "default" else None)
        Console(markup=False, emoji=False, highlight=False).print(table)  # a value may hold brackets and colons
        return
    widths = [max(len(row[column]) for row in cells) for column in range(2)]
    for key, text, origin in cells:
        print(f"{key:{widths[0]}}  {text:{widths[1]}}  {origin}")


@app.command()
def schema(config: ConfigPath = None) -> None:  # noqa: ARG001 - every command here takes the same option
    """Print the JSON Schema of the settings file."""
    print(json.dumps(json_schema(), indent=2))


def _given(loaded: Loaded) -> int:
    return sum(origin != "default" for origin in loaded.origins.values())


def _rows(loaded: Loaded, key: Key) -> Iterator[tuple[str, str, str]]:
    """Its row, or the rows of what its tables hold."""
    value, origin = _value(loaded, key), loaded.origin(key.name)
    if not key.keys or not isinstance(value, dict) or not value:
        yield key.name, _text(value), origin
        return
    tables = getattr(getattr(loaded.settings, key.name.split(".")[0]), key.attribute)
    for name, values in value.items():
        for held in key.table(name).keys:
            given = held.attribute in tables[name].model_fields_set
            yield held.name, _text(values[held.attribute]), origin if given else "default"


def _value(loaded: Loaded, key: Key) -> object:
    """As JSON has it. pydantic masks secrets there; what anybody can read in the documentation is none."""
    if loaded.origin(key.name) == "default":
        return key.default
    return getattr(loaded.settings, key.name.split(".")[0]).model_dump(mode="json")[key.attribute]


def _text(value: object) -> str:
    """On one line, whatever the value holds."""
    return value if isinstance(value, str) and value and value.isprintable() else json.dumps(value, ensure_ascii=False)
