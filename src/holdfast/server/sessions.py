"""``/v1/sessions``: what a caller has talked about, and deleting it."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from holdfast.clock import NS, iso
from holdfast.errors import NotFound, SessionBusy
from holdfast.events import Usage
from holdfast.journal import encode
from holdfast.replica import SessionActions, actions_of
from holdfast.runtime import Holdfast
from holdfast.server.auth import Gate
from holdfast.server.cursor import read_cursor, write_cursor
from holdfast.store import SessionSummary, TurnRecord, TurnState
from holdfast.telemetry import logger

_NAME = r"^[^\x00-\x1f\x7f]{1,200}$"

SessionId = Annotated[str, Path(description="The session's name, as the caller chose it.", pattern=_NAME)]
UserId = Annotated[
    str | None,
    Query(description="End user, believed from a delegate key, and on loopback without keys.", pattern=_NAME),
]
Limit = Annotated[int, Query(description="Most items to return.", ge=1, le=200)]
Before = Annotated[int | None, Query(description="Only turns numbered below this.", ge=1, lt=2**63)]

_ACTIONS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Successful Response",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SessionActions"}}},
    }
}


class SessionItem(BaseModel):
    """A session in the list."""

    session_id: str
    turns: int
    created_at: str
    updated_at: str


class SessionList(BaseModel):
    """Sessions, latest first."""

    sessions: list[SessionItem]
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class TurnUsage(BaseModel):
    """What a turn used."""

    model_calls: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float = Field(description="Dollars; those of a model whose price is not known count nothing.")


class TurnItem(BaseModel):
    """One turn of a session."""

    turn_id: str
    number: int
    agent: str
    trace_id: str
    started_at: str
    state: TurnState
    message: str
    outcome: str | None = Field(description="How it ended; null until then, as `duration_s`.")
    duration_s: float | None
    reply: str
    error: str | None
    usage: TurnUsage


class SessionView(BaseModel):
    """A session with its turns, latest first."""

    session_id: str
    turns: list[TurnItem]
    next: int | None = Field(description="Pass as `before` for the next page; null on the last.")


def actions_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The routes of what agents did in sessions. They come before those of sessions, whose names may hold slashes."""
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get(
        "/{session_id:path}/actions",
        operation_id="session_actions",
        summary="What a session's agent did",
        response_class=Response,
        responses=_ACTIONS,
    )
    async def session_actions(
        request: Request, session_id: SessionId, user_id: UserId = None, limit: Limit = 50, before: Before = None
    ) -> Response:
        principal = (await gate.identify(request)).acting_for(user_id)
        found = await _turns_of(hold, principal, session_id, limit + 1, before)
        page = [
            actions_of(turn, await hold.store.units(turn.turn_id), await hold.turns.told_so_far(turn.turn_id, 0))
            for turn in found[:limit]
        ]
        shown = SessionActions(
            session_id=session_id,
            latched=await hold.conduct.latched(found[0].conversation_id) if found else None,
            turns=page,
            next=page[-1].number if len(found) > limit else None,
        )
        return Response(encode(shown), media_type="application/json")

    @router.post(
        "/{session_id:path}/reset",
        operation_id="reset_session",
        status_code=204,
        summary="Let a stopped session go on",
    )
    async def reset_session(request: Request, session_id: SessionId, user_id: UserId = None) -> Response:
        caller = await gate.identify_owner(request)
        found = await _turns_of(hold, caller.acting_for(user_id), session_id, 1, None)
        if found and await hold.conduct.reset(found[0].conversation_id):
            logger.warning("session_reset", principal=caller.principal)
        return Response(status_code=204)

    return router


def sessions_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The routes, for the sessions of whoever asks."""
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get("", operation_id="list_sessions", summary="List sessions")
    async def list_sessions(
        request: Request, user_id: UserId = None, limit: Limit = 50, cursor: str | None = None
    ) -> SessionList:
        principal = (await gate.identify(request)).acting_for(user_id)
        found = await hold.store.sessions(principal, limit + 1, read_cursor(cursor))
        page = found[:limit]
        return SessionList(
            sessions=[_session_item(session) for session in page],
            next=write_cursor(page[-1].updated_ns, page[-1].session_id) if len(found) > limit else None,
        )

    @router.get("/{session_id:path}", operation_id="show_session", summary="Show a session")
    async def show_session(
        request: Request,
        session_id: SessionId,
        user_id: UserId = None,
        limit: Limit = 50,
        before: Before = None,
    ) -> SessionView:
        principal = (await gate.identify(request)).acting_for(user_id)
        found = await _turns_of(hold, principal, session_id, limit + 1, before)
        page = found[:limit]
        return SessionView(
            session_id=session_id,
            turns=[_turn_item(turn) for turn in page],
            next=page[-1].number if len(found) > limit else None,
        )

    @router.delete("/{session_id:path}", operation_id="delete_session", status_code=204, summary="Delete a session")
    async def delete_session(request: Request, session_id: SessionId, user_id: UserId = None) -> Response:
        principal = (await gate.identify(request)).acting_for(user_id)
        try:
            found = await hold.store.forget(principal, session_id)
        except SessionBusy as busy:
            raise SessionBusy("a turn of this session has not ended", retry_after_s=1.0) from busy
        if not found:
            raise NotFound(f"there is no session {session_id}")
        return Response(status_code=204)

    return router


async def _turns_of(
    hold: Holdfast, principal: str, session_id: str, limit: int, before: int | None
) -> list[TurnRecord]:
    """
    The session's turns, latest first.

    Raises:
        NotFound: there is no such session.
    """
    found = await hold.store.turns(principal, session_id, limit, before)
    if found is None:
        raise NotFound(f"there is no session {session_id}")
    return found


def _session_item(session: SessionSummary) -> SessionItem:
    return SessionItem(
        session_id=session.session_id,
        turns=session.turns,
        created_at=iso(session.created_ns),
        updated_at=iso(session.updated_ns),
    )


def _turn_item(turn: TurnRecord) -> TurnItem:
    ending = turn.ending
    usage = ending.usage if ending else Usage()
    return TurnItem(
        turn_id=turn.turn_id,
        number=turn.number,
        agent=turn.agent,
        trace_id=turn.trace_id,
        started_at=iso(turn.started_ns),
        state=turn.state,
        message=turn.message,
        outcome=ending.outcome if ending else None,
        duration_s=ending.duration_ns / NS if ending else None,
        reply=ending.reply if ending else "",
        error=ending.error if ending else None,
        usage=TurnUsage(
            model_calls=usage.model_calls,
            tool_calls=usage.tool_calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=usage.cost_nanos / NS,
        ),
    )
