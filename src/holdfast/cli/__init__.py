"""
The command line.

A user's mistake is one readable line and exit code 2, never a traceback.
"""

import sys

import typer

from holdfast._version import __version__
from holdfast.cli import breakers, config, keys, monitor, ops, store, turns
from holdfast.cli.budgets import budgets
from holdfast.cli.chat import chat
from holdfast.cli.doctor import doctor
from holdfast.cli.serve import serve
from holdfast.cli.sim import sim
from holdfast.errors import HoldfastError, Misconfigured

app = typer.Typer(name="holdfast", add_completion=False, pretty_exceptions_enable=False)
app.command()(serve)
app.command()(chat)
app.command()(doctor)
app.command()(sim)
app.command()(budgets)
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")
app.add_typer(store.app, name="store")
app.add_typer(breakers.app, name="breakers")
app.add_typer(turns.app, name="turns")
app.add_typer(ops.app, name="ops")
app.add_typer(monitor.app, name="monitor")


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and exit.")
) -> None:
    """Holdfast: the production layer for AI agents."""
    if version:
        print(f"holdfast {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Run the command line; the entry point of ``holdfast``."""
    try:
        ended = app(standalone_mode=False)
    except typer.TyperException as error:
        if said := error.format_message():  # it is empty where help was shown instead
            print(f"holdfast: {said}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Misconfigured as error:
        print(f"holdfast: {error.detail}", file=sys.stderr)
        sys.exit(2)
    except HoldfastError as error:
        print(f"holdfast: {error.detail}", file=sys.stderr)
        sys.exit(1)
    sys.exit(ended if isinstance(ended, int) else 0)
