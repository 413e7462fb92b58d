"""``/v1/budgets``: what may be spent, what was, and what is left."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from holdfast.budget import Budget, Member
from holdfast.clock import iso
from holdfast.errors import NotFound, Unprocessable
from holdfast.runtime import Holdfast
from holdfast.server.auth import Gate
from holdfast.server.sessions import Limit, UserId
from holdfast.store import Account

Session = Annotated[
    str | None,
    Query(description="The budget of this session of the user's too.", pattern=r"^[^\x00-\x1f\x7f]{1,200}$"),
]
Cursor = Annotated[str | None, Query(description="Where the page begins, as `next` of the one before said.")]


class BudgetView(BaseModel):
    """One limit, as it stands now."""

    scope: Literal["session", "user", "agent", "all"]
    name: str = Field(description="Whose: the session's conversation, the user, the agent; empty for everybody.")
    unit: Literal["tokens", "usd"]
    every: Literal["day", "month", ""] = Field(
        description="How often it is begun anew; empty for as long as there is the session."
    )
    limit: float
    spent: float
    reserved: float = Field(description="Held besides by model calls under way.")
    left: float = Field(description="What a call may take now.")
    resets_at: str | None = Field(description="When it is begun anew, in UTC; null for never.")


class BudgetList(BaseModel):
    """Budgets of a user and a session, or of everybody. There are none where nothing is limited."""

    budgets: list[BudgetView]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


def budgets_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The route: for whose budgets they are, and for operators, who see everybody's."""
    router = APIRouter(prefix="/v1/budgets", tags=["budgets"])

    @router.get("", operation_id="list_budgets", summary="List budgets")
    async def list_budgets(
        request: Request, user_id: UserId = None, session_id: Session = None, limit: Limit = 50, cursor: Cursor = None
    ) -> BudgetList:
        caller = await gate.identify(request)
        if caller.operates and user_id is None and session_id is None:
            found, last = await hold.budgets.everybodys(limit, None if cursor is None else _account(cursor))
            return BudgetList(budgets=_views(found), next=None if last is None else " ".join(last[::-1]))
        user = user_id if caller.operates and user_id else caller.acting_for(user_id)
        turn_id = ""
        if session_id is not None:
            turns = await hold.store.turns(user, session_id, 1, None)
            if not turns:
                raise NotFound(f"there is no session {session_id}")
            turn_id = turns[0].turn_id
        found = await hold.budgets.standing(Member(turn_id, user))
        return BudgetList(budgets=_views([one for one in found if one.scope in {"user", "session"}]), next=None)

    return router


def _views(budgets: Sequence[Budget]) -> list[BudgetView]:
    return [
        BudgetView(
            scope=budget.scope,
            name=budget.name,
            unit="tokens" if budget.unit == "tokens" else "usd",
            every=budget.every,
            limit=budget.limit,
            spent=budget.spent,
            reserved=budget.reserved,
            left=budget.left,
            resets_at=None if budget.resets_ns is None else iso(budget.resets_ns),
        )
        for budget in budgets
    ]


def _account(cursor: str) -> Account:
    """
    The account that a cursor names: its period, its name and its scope.

    Raises:
        Unprocessable: it is no cursor of ours.
    """
    period, _, rest = cursor.partition(" ")
    name, space, scope = rest.rpartition(" ")
    if not space or scope not in {"user", "agent", "all"}:
        raise Unprocessable("cursor: not one that this server gave")
    return Account(scope, name, period)  # type: ignore[arg-type]  # it is one of them
