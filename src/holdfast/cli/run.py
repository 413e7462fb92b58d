"""What the commands share: settings from the command line, and one event loop to run in."""

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop

from holdfast.config import Loaded, load
from holdfast.errors import Misconfigured

T = TypeVar("T")

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="PATH", help="Settings file, in place of the one in the working directory."),
]
Targets = Annotated[
    list[str] | None, typer.Argument(metavar="[AGENT]...", help="Agents to serve: module:object or path.py:object.")
]


def settings(path: Path | None, environ: Mapping[str, str], **flags: object) -> Loaded:
    """
    The settings with ``flags`` on top, those that are None left out; ``server__port`` sets ``server.port``.

    Raises:
        Misconfigured: something in them is wrong.
    """
    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return load(path, environ=environ, flags=given)


def run(main: Coroutine[Any, Any, T]) -> T:
    """
    Run ``main`` on a fast event loop.

    Raises:
        Misconfigured: what ``main`` raised, also from inside a task group.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, Misconfigured):
            raise error from None
        raise
