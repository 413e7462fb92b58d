"""``holdfast turns``: the turns of a running server, over its API."""

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
import typer

from holdfast.cli.api import HERE, ApiKey, AsJson, Url, ask, asked
from holdfast.cli.chat import INTERRUPTED
from holdfast.cli.table import print_table
from holdfast.errors import HoldfastError, Misconfigured
from holdfast.replica import TurnDetail
from holdfast.server.feed import STREAM
from holdfast.server.turns import STATES, TurnList

app = typer.Typer(help="See, stop and decide the turns of a running server.", no_args_is_help=True)

COLUMNS = ("turn_id", "state", "outcome", "agent", "user_id", "started_at")
UNITS = ("key", "kind", "name", "attempt", "state", "effect", "args")
PATH = "/v1/turns"
WATCH_S = 60.0
"""Seconds of silence after which a server is thought dead: it says that it is still there every fifteen."""

TurnId = Annotated[str, typer.Argument(help="The turn's id, as `holdfast turns list` shows it.")]
User = Annotated[str | None, typer.Option(help="Whose turn it is, for keys that name whom they act for.")]

_list = msgspec.json.Decoder(TurnList).decode
_detail = msgspec.json.Decoder(TurnDetail).decode


@app.command(name="list")
def list_turns(
    state: Annotated[list[str] | None, typer.Option(help=f"Only turns that are: {', '.join(STATES)}.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's; an operator sees everybody's without it.")] = None,
    limit: Annotated[int, typer.Option(help="Most turns to show, the latest ones.", min=1, max=200)] = 50,
    url: Url = HERE,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """List turns, latest first: how each stands, or how it ended."""
    query = [("limit", str(limit)), *(("state", each) for each in state or ()), *_user(user)]
    found = ask(_list, "GET", url, key, f"{PATH}?{urlencode(query)}")
    if as_json:
        _print_json(found)
    elif found.turns:
        rows = [tuple(_text(getattr(turn, column)) for column in COLUMNS) for turn in found.turns]
        print_table(COLUMNS, rows, [turn.state == "in_doubt" for turn in found.turns])
    else:
        print("No turns.")


@app.command()
def show(turn_id: TurnId, user: User = None, url: Url = HERE, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Show a turn with its calls: what was asked, what became of it, and what each call was given."""
    _show(ask(_detail, "GET", url, key, _path(turn_id, "", user)), as_json)


@app.command()
def cancel(turn_id: TurnId, user: User = None, url: Url = HERE, key: ApiKey = "", as_json: AsJson = False) -> None:
    """Stop a turn: the call that is under way is given up, and no further one made."""
    turn = ask(_detail, "POST", url, key, _path(turn_id, "/cancel", user))
    if as_json:
        _print_json(turn)
    else:
        print(f"{turn.turn_id} is {turn.state}" + (f": {turn.outcome}" if turn.outcome else ""))


@app.command()
def resolve(
    turn_id: TurnId,
    unit: Annotated[str, typer.Argument(metavar="CALL", help="The call's key, as `holdfast turns show` shows it.")],
    happened: Annotated[
        bool | None, typer.Option("--happened/--did-not-happen", help="Whether the call took effect.")
    ] = None,
    result: Annotated[str, typer.Option(help="What it returned, as JSON, if it happened.")] = "null",
    url: Url = HERE,
    key: ApiKey = "",
    as_json: AsJson = False,
) -> None:
    """Say what became of a call that nobody knows the outcome of; its turn goes on with that."""
    if happened is None:
        raise Misconfigured("say whether the call took effect: --happened, with --result, or --did-not-happen")
    try:
        returned: Any = msgspec.json.decode(result)
    except msgspec.DecodeError as error:
        raise Misconfigured(f"--result must be JSON, such as '\"done\"': {error}") from error
    if not happened and returned is not None:
        raise Misconfigured("--result is what a call returned that happened; leave it out")
    body = {"happened": happened, "result": returned}
    turn = ask(_detail, "POST", url, key, _path(turn_id, f"/units/{quote(unit, safe='')}/resolve"), body)
    if as_json:
        _print_json(turn)
    else:
        print(f"{unit} {'happened' if happened else 'did not happen'}; {turn.turn_id} is {turn.state}")


@app.command()
def watch(
    turn_id: TurnId,
    after: Annotated[int, typer.Option(help="Only events with higher ids.", min=0)] = 0,
    user: User = None,
    url: Url = HERE,
    key: ApiKey = "",
) -> None:
    """Print a turn's events as they happen, one JSON object a line, until it has ended."""
    headers = {"accept": STREAM, "last-event-id": str(after)}
    try:
        with asked("GET", url, key, _path(turn_id, "/events", user), headers=headers, wait_s=WATCH_S) as answer:
            _print_events(answer)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _print_events(lines: Iterable[bytes]) -> None:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
            continue
        if fields.get("event") == "error":
            raise HoldfastError(str(json.loads(fields["data"])["detail"]))
        if "event" in fields:
            number, data = int(fields["id"]), json.loads(fields["data"])
            print(json.dumps({"id": number, "name": fields["event"], "data": data}), flush=True)
        fields = {}


def _path(turn_id: str, order: str, user: str | None = None) -> str:
    query = urlencode(_user(user))
    return f"{PATH}/{quote(turn_id, safe='')}{order}" + (f"?{query}" if query else "")


def _user(user: str | None) -> list[tuple[str, str]]:
    return [] if user is None else [("user_id", user)]


def _show(turn: TurnDetail, as_json: bool) -> None:
    if as_json:
        _print_json(turn)
        return
    error = None if turn.error is None else f"{turn.error.code}: {turn.error.detail}"
    for name in (*COLUMNS, "trace_id", "generation", "cancelled", "duration_s", "message", "reply"):
        if (value := getattr(turn, name)) is not None:
            print(f"{name:<11} {_text(value)}")
    if error is not None:
        print(f"{'error':<11} {_text(error)}")
    if turn.units:
        print()
        rows = [tuple(_text(getattr(unit, column)) for column in UNITS) for unit in turn.units]
        print_table(UNITS, rows, [unit.state == "in_doubt" for unit in turn.units])


def _print_json(value: msgspec.Struct) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _text(value: object) -> str:
    """A value in one line, without what could steer a terminal."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return "".join(char if char.isprintable() else " " for char in text)
