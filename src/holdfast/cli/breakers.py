"""``holdfast breakers``: the circuit breakers of a running server, over its API."""

from typing import Annotated
from urllib.parse import quote

import typer

from holdfast.cli.api import HERE, ApiKey, AsJson, Url, ask
from holdfast.cli.table import print_table
from holdfast.server.breakers import BreakerList, BreakerView

app = typer.Typer(help="See and steer the circuit breakers of a running server.", no_args_is_help=True)

COLUMNS = ("name", "state", "retry_after_s", "calls", "failed", "slow", "inflight")
PATH = "/v1/breakers"

Name = Annotated[str, typer.Argument(help="The circuit's name, as `holdfast breakers list` shows it.")]


@app.command(name="list")
def list_breakers(url: Url = HERE, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List every circuit: its state, how long it stays open, and what its window holds."""
    found = ask(BreakerList.model_validate_json, "GET", url, key, PATH)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    rows = [tuple(_text(getattr(breaker, column)) for column in COLUMNS) for breaker in found.breakers]
    if rows:
        print_table(COLUMNS, rows, [breaker.state != "closed" for breaker in found.breakers])
    else:
        print("No circuits: nothing was called yet.")


@app.command()
def reset(name: Name, url: Url = HERE, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Close a circuit, and forget what it has seen."""
    _order("reset", name, url, key, as_json)


@app.command()
def force_open(name: Name, url: Url = HERE, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Let nobody through until it is reset."""
    _order("force-open", name, url, key, as_json)


@app.command()
def disable(name: Name, url: Url = HERE, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Let everybody through, and learn nothing, until it is reset."""
    _order("disable", name, url, key, as_json)


def _order(order: str, name: str, url: str, key: str, as_json: bool) -> None:
    path = f"{PATH}/{quote(name, safe='')}/{order}"
    breaker = ask(BreakerView.model_validate_json, "POST", url, key, path)
    print(breaker.model_dump_json(indent=2) if as_json else f"{breaker.name} is {breaker.state}")


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
