"""``holdfast config``: whether the settings are right, what they are, and what they may be."""

import json
import os
import sys
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from holdfast.cli.run import ConfigPath
from holdfast.config import FILES, Loaded, describe, json_schema, load

app = typer.Typer(help="Check, show and describe the settings.", no_args_is_help=True)

MASK = "**********"


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
    rows = [(key.name, _value(loaded, key.name), loaded.origin(key.name)) for part in describe() for key in part.keys]
    if as_json:
        print(json.dumps({key: {"value": value, "origin": origin} for key, value, origin in rows}, indent=2))
        return
    cells = [(key, _text(value), origin) for key, value, origin in rows]
    if sys.stdout.isatty():
        table = Table("key", "value", "origin")
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


def _value(loaded: Loaded, name: str) -> object:
    """As JSON has it, with secrets masked."""
    section, key = name.split(".")
    spec = getattr(loaded.settings, section)
    return MASK if isinstance(getattr(spec, key), SecretStr) else spec.model_dump(mode="json")[key]


def _text(value: object) -> str:
    """On one line, whatever the value holds."""
    return value if isinstance(value, str) and value and value.isprintable() else json.dumps(value, ensure_ascii=False)
