"""``holdfast breakers``: the circuit breakers of a running server, over its API."""

import http.client
import os
import sys
from http import HTTPStatus
from typing import Annotated, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Column, Table

from holdfast.errors import HoldfastError, Misconfigured
from holdfast.server.breakers import BreakerList, BreakerView
from holdfast.server.errors import Problem

T = TypeVar("T", bound=BaseModel)

app = typer.Typer(help="See and steer the circuit breakers of a running server.", no_args_is_help=True)

ANSWER_S = 10.0
COLUMNS = ("name", "state", "retry_after_s", "calls", "failed", "slow", "inflight")

Name = Annotated[str, typer.Argument(help="The circuit's name, as `holdfast breakers list` shows it.")]
Url = Annotated[str, typer.Option("--url", help="Where the server is.")]
ApiKey = Annotated[
    str, typer.Option("--key", metavar="env:NAME|KEY", help="API key; orders need one with the scope operate.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

HERE = "http://127.0.0.1:8080"


@app.command(name="list")
def list_breakers(url: Url = HERE, key: ApiKey = "", as_json: AsJson = False) -> None:
    """List every circuit: its state, how long it stays open, and what its window holds."""
    found = _ask(BreakerList, "GET", url, key)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    rows = [tuple(_text(getattr(breaker, column)) for column in COLUMNS) for breaker in found.breakers]
    if not rows:
        print("No circuits: nothing was called yet.")
    elif sys.stdout.isatty():
        table = Table(Column(COLUMNS[0], overflow="fold"), *COLUMNS[1:])  # a name is there to be typed: all of it
        for row in rows:
            table.add_row(*row, style=None if row[1] == "closed" else "yellow")
        Console(markup=False, emoji=False, highlight=False).print(table)  # a name may hold brackets and colons
    else:
        widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
        for row in [COLUMNS, *rows]:
            print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


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
    breaker = _ask(BreakerView, "POST", url, key, f"/{quote(name, safe='')}/{order}")
    print(breaker.model_dump_json(indent=2) if as_json else f"{breaker.name} is {breaker.state}")


def _ask(kind: type[T], method: str, url: str, key: str, path: str = "") -> T:
    """
    What the server answers.

    Raises:
        Misconfigured: the address, the key or the name is wrong; nothing was changed.
        HoldfastError: the server failed.
    """
    headers = {"authorization": f"Bearer {secret}"} if (secret := _secret(key)) else {}
    connection, prefix = _connection(url)
    try:
        connection.request(method, f"{prefix}/v1/breakers{path}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == HTTPStatus.OK:
            return kind.model_validate_json(body)
        said = f"{url}: {msgspec.json.decode(body, type=Problem).detail}"
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Misconfigured(f"cannot reach {url}: {why}; give the server's address with --url") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise Misconfigured(f"{url} does not answer as this version of Holdfast does; correct --url") from error
    finally:
        connection.close()
    raise HoldfastError(said) if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else Misconfigured(said)


def _connection(url: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection, and what paths there begin with."""
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        where = urlsplit(url)
        if where.scheme in kinds and where.hostname:
            return kinds[where.scheme](where.hostname, where.port, timeout=ANSWER_S), where.path.rstrip("/")
    except ValueError:
        pass
    raise Misconfigured(f"--url must be such as {HERE}, got {url}")


def _secret(key: str) -> str:
    secret, name = key, key.removeprefix("env:")
    if name != key:
        secret = os.environ.get(name, "")
        if not secret:
            raise Misconfigured(f"--key is {key}, but the variable {name} is not set")
    if not (secret.isascii() and secret.isprintable()):
        raise Misconfigured("--key must be printable ASCII text, as holdfast keys create prints it")
    return secret


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
