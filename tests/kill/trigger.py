"""
Holds turns at their boundaries, for the test to kill their process there. It is loaded inside the server, by agents.py.

What a turn asks is JSON: ``run`` names it, and ``kill`` lists the places where it is to be killed, one for each time:

    accept after            model2 begun before       middle inside after        end before
    what ┘  └ when          the second model call     within the tool itself     the turn's last commit

At a place, a turn says so in a file, and does nothing any more: the process is killed once every turn is where it is to
be. The file tells the next process with which place to go on.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.store import SQLiteStore
from holdfast.store.postgres import PostgresStore

FOLDER = Path(os.environ.get("KILL_FOLDER", "."))


class Plan(NamedTuple):
    """
    Where a turn is to be killed.

    Attributes:
        run: The turn's name.
        kill: Places, in order.
        beside: Where another call of the turn waits meanwhile, in the first process.
        first: Whether this is that process.
    """

    run: str
    kill: Sequence[str]
    beside: str = ""
    first: bool = False

    async def at(self, place: str) -> None:
        """Go on, unless this is the place."""
        held = FOLDER / f"{self.run}.held"
        times = held.stat().st_size if held.exists() else 0
        if self.first and place == self.beside:
            await asyncio.Event().wait()
        if times < len(self.kill) and self.kill[times] == place:
            note(held, b".")
            await asyncio.Event().wait()


NEVER = Plan("", ())
_plans: dict[str, Plan] = {}
_models: dict[str, list[str]] = {}


def note(path: Path, line: bytes) -> None:
    """Written at once and whole: what is in the file outlives the process."""
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(file, line)
    os.close(file)


def plan_of(name: str) -> Plan:
    """The plan of a turn, by its id or its run."""
    return _plans.get(name, NEVER)


def _read(message: str) -> Plan:
    try:
        asked = json.loads(message)
    except ValueError:
        return NEVER
    if not isinstance(asked, dict) or "kill" not in asked:
        return NEVER
    return Plan(asked["run"], asked["kill"], asked.get("beside", ""))


def _learn(plan: Plan, turn_id: str) -> None:
    _plans[plan.run] = _plans[turn_id] = plan


def _what(turn_id: str, unit: Any) -> str:
    if unit.kind == "tool":
        return f"{unit.name.partition('_')[0]} {unit.state}"
    seen = _models.setdefault(turn_id, [])
    if unit.key not in seen:
        seen.append(unit.key)
    return f"model{seen.index(unit.key) + 1} {unit.state}"


Method = Callable[..., Awaitable[Any]]


def _accept(method: Method) -> Method:
    @wraps(method)
    async def accept(self: Any, turn: Any, *args: Any) -> Any:
        plan = _read(turn.message)
        await plan.at("accept before")
        accepted = await method(self, turn, *args)
        if not accepted.again:
            _learn(plan._replace(first=True), accepted.turn.turn_id)
            await plan.at("accept after")
        return accepted

    return accept


def _claim(method: Method) -> Method:
    @wraps(method)
    async def claim(self: Any, *args: Any) -> Any:
        claimed = await method(self, *args)
        for record in claimed:
            _learn(_read(record.message), record.turn_id)
        return claimed

    return claim


def _put_unit(method: Method) -> Method:
    @wraps(method)
    async def put_unit(self: Any, claim: Any, unit: Any, *args: Any) -> Any:
        plan, what = plan_of(claim.turn_id), _what(claim.turn_id, unit)
        await plan.at(f"{what} before")
        cancelled = await method(self, claim, unit, *args)
        await plan.at(f"{what} after")
        return cancelled

    return put_unit


def _end_turn(method: Method) -> Method:
    @wraps(method)
    async def end_turn(self: Any, claim: Any, *args: Any) -> None:
        plan = plan_of(claim.turn_id)
        await plan.at("end before")
        await method(self, claim, *args)
        await plan.at("end after")

    return end_turn


def _suspend(method: Method) -> Method:
    @wraps(method)
    async def suspend(self: Any, claim: Any, *args: Any) -> None:
        plan = plan_of(claim.turn_id)
        await plan.at("suspend before")
        await method(self, claim, *args)
        await plan.at("suspend after")

    return suspend


def install() -> None:
    """Have every store's writes pass here."""
    stores: tuple[Any, ...] = (SQLiteStore, PostgresStore)
    for store in stores:
        for method, around in (
            ("accept", _accept),
            ("claim", _claim),
            ("put_unit", _put_unit),
            ("end_turn", _end_turn),
            ("suspend", _suspend),
        ):
            setattr(store, method, around(getattr(store, method)))


if "KILL_FOLDER" in os.environ:
    install()
