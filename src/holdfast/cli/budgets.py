"""``holdfast budgets``: what may be spent on a running server, and what is left of it, over its API."""

from typing import Annotated
from urllib.parse import urlencode

import typer

from holdfast.cli.api import HERE, ApiKey, AsJson, Url, ask
from holdfast.cli.table import print_table
from holdfast.server.budgets import BudgetList, BudgetView

COLUMNS = ("scope", "name", "every", "unit", "limit", "spent", "reserved", "left", "resets_at")
PATH = "/v1/budgets"

User = Annotated[str, typer.Option("--user", help="This user's budgets alone.")]
Session = Annotated[str, typer.Option("--session", help="That of this session too.")]


def budgets(url: Url = HERE, key: ApiKey = "", user: User = "", session: Session = "", as_json: AsJson = False) -> None:
    """List budgets: what may be spent a day or a month, what was, and what is left."""
    given = {"user_id": user, "session_id": session, "limit": "200"}
    found: list[BudgetView] = []
    cursor: str | None = ""
    while cursor is not None:
        asked = {name: value for name, value in {**given, "cursor": cursor}.items() if value}
        page = ask(BudgetList.model_validate_json, "GET", url, key, f"{PATH}?{urlencode(asked)}")
        found += page.budgets
        cursor = page.next
    if as_json:
        print(BudgetList(budgets=found, next=None).model_dump_json(indent=2))
        return
    rows = [tuple(_text(getattr(budget, column)) for column in COLUMNS) for budget in found]
    if rows:
        print_table(COLUMNS, rows, [budget.left <= 0 for budget in found])
    else:
        print("No budgets: nothing is limited, or nothing was spent yet.")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return "-" if value in (None, "") else str(value)
