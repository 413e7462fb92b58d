"""Rows in columns: drawn on a terminal, and plain for whatever reads them next."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table


def print_table(columns: Sequence[str], rows: Sequence[tuple[str, ...]], marked: Sequence[bool]) -> None:
    """Print ``rows`` under the names of their columns; those that are ``marked`` stand out on a terminal."""
    if sys.stdout.isatty():
        table = Table(Column(columns[0], overflow="fold"), *columns[1:])  # the first is there to be typed: all of it
        for row, mark in zip(rows, marked, strict=True):
            table.add_row(*row, style="yellow" if mark else None)
        Console(markup=False, emoji=False, highlight=False).print(table)  # a name may hold brackets and colons
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [tuple(columns), *rows]:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
