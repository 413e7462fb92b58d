"""Steps that several of the embedded store's jobs have in common, within their transactions."""

import sqlite3
from typing import Any

from holdfast.errors import KeyReused, NotOwner
from holdfast.store.records import Accepted, NewTurn, Past, Said, TurnRecord, Unit, fit_window
from holdfast.store.sqlite_file import named_statements
from holdfast.store.sqlite_rows import Where, newest_first, unit_row

SQL = named_statements("sqlite")


def again(asked: NewTurn, known: TurnRecord) -> Accepted:
    """A turn that was accepted before under the same key, which must have come with the same."""
    if asked.digest != known.digest:
        raise KeyReused
    return Accepted(known, again=True, past=None)


def check_owned(db: sqlite3.Connection, owned: tuple[str, int, str, int]) -> Any:
    """Whether an owned turn is to be stopped, and its state. Raises NotOwner where it is another one's."""
    found = db.execute(SQL["owned"], owned).fetchone()
    if found is None:
        raise NotOwner
    return found


def is_busy(db: sqlite3.Connection, at: Where) -> bool:
    """Whether an earlier turn of the session has not ended."""
    return bool(db.execute(SQL["busy"], at).fetchone()[0])


def past_of(db: sqlite3.Connection, at: Where, window_tokens: int) -> tuple[Past, ...]:
    """The earlier turns that fit into the window."""
    if at[1] == 1 or window_tokens <= 0:
        return ()
    return fit_window(newest_first(db.execute(SQL["past"], at)), window_tokens)


def put(db: sqlite3.Connection, at: Where, unit: Unit | None, said: Said | None) -> None:
    """Keep a unit and events of a turn, where there are any."""
    if unit is not None:
        db.execute(SQL["put_unit"], unit_row(at, unit))
    if said is not None:
        db.execute(SQL["put_said"], (*at, said.last, said.events))
