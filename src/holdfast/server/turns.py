"""``/v1/turns``: how turns stand, their events, stopping them, and saying what became of a call."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from holdfast.errors import HandedOver, NotFound, NotInDoubt
from holdfast.journal import encode, encode_json
from holdfast.replica import TurnView, detail_of, view_of
from holdfast.runtime import Holdfast
from holdfast.server.auth import Caller, Gate
from holdfast.server.body import read_json
from holdfast.server.cursor import read_cursor, write_cursor
from holdfast.server.feed import MOST_EVENTS, accepts_events, feed, last_event_id, listed
from holdfast.server.sessions import Limit, UserId
from holdfast.store import TurnRecord, TurnState
from holdfast.telemetry import logger

CANCEL_S = 5.0
"""Seconds that an order to stop a turn waits for its end."""

STATES: tuple[TurnState, ...] = ("queued", "running", "in_doubt", "ended")

TurnId = Annotated[str, Path(description="The turn's id.", pattern=r"^[0-9A-Za-z-]{1,64}$")]
UnitKey = Annotated[str, Path(description="The call's key, as the turn shows it, URL-encoded.", max_length=1_000)]
States = Annotated[list[TurnState] | None, Query(description="Only turns in one of these states.")]
After = Annotated[
    int, Query(description="Only events with higher ids; `Last-Event-ID` says the same.", ge=0, lt=MOST_EVENTS)
]


class TurnList(msgspec.Struct, frozen=True, kw_only=True):
    """
    Turns, latest first.

    Attributes:
        next: Cursor of the next page; null on the last.
    """

    turns: list[TurnView]
    next: str | None


class EventItem(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a turn. What its data holds is told by its name."""

    id: int
    name: str
    data: dict[str, Any]


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a turn so far, in order."""

    events: list[EventItem]


class ResolveBody(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of a call that nobody knew the outcome of.

    Attributes:
        happened: Whether it took effect. If so it is not made again; otherwise it is.
        result: What it returned, as the agent is to be given it; null where it did not happen.
    """

    happened: bool
    result: Any = None


_resolve_decoder = msgspec.json.Decoder(ResolveBody)


def _answers(name: str) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {200: {"description": "Successful Response", "content": {"application/json": {"schema": schema}}}}


_EVENTS = _answers("EventList")
_EVENTS[200]["content"]["text/event-stream"] = {"schema": {"type": "string"}}


def turns_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The routes: for whose turns they are, and for operators, who see everybody's."""
    router = APIRouter(prefix="/v1/turns", tags=["turns"], default_response_class=Response)
    turns = hold.turns

    @router.get("", operation_id="list_turns", summary="List turns", responses=_answers("TurnList"))
    async def list_turns(
        request: Request, state: States = None, user_id: UserId = None, limit: Limit = 50, cursor: str | None = None
    ) -> Response:
        caller = await gate.identify(request)
        whose = user_id if caller.operates else caller.acting_for(user_id)
        found = await hold.store.find_turns(whose, state or STATES, limit + 1, read_cursor(cursor))
        page = found[:limit]
        more = write_cursor(page[-1].started_ns, page[-1].turn_id) if len(found) > limit else None
        return _json(TurnList(turns=[view_of(record) for record in page], next=more))

    @router.get("/{turn_id}", operation_id="show_turn", summary="Show a turn", responses=_answers("TurnDetail"))
    async def show_turn(request: Request, turn_id: TurnId, user_id: UserId = None) -> Response:
        return await _shown(hold, await _find(hold, await gate.identify(request), turn_id, user_id))

    @router.get("/{turn_id}/events", operation_id="turn_events", summary="Watch a turn", responses=_EVENTS)
    async def turn_events(request: Request, turn_id: TurnId, user_id: UserId = None, after: After = 0) -> Response:
        record = await _find(hold, await gate.identify(request), turn_id, user_id)
        after = max(after, last_event_id(request))
        if accepts_events(request):
            return feed(turns, record, after)
        return Response(listed(await turns.told_so_far(turn_id, after)), media_type="application/json")

    @router.post(
        "/{turn_id}/cancel", operation_id="cancel_turn", summary="Stop a turn", responses=_answers("TurnDetail")
    )
    async def cancel_turn(request: Request, turn_id: TurnId, user_id: UserId = None) -> Response:
        record = await _find(hold, await gate.identify_owner(request), turn_id, user_id)
        if await turns.cancel(turn_id):
            with suppress(TimeoutError, HandedOver):  # Then it is shown as it is.
                async with asyncio.timeout(CANCEL_S):
                    record = await turns.ended(turn_id)
        return await _shown(hold, await hold.store.turn(turn_id) or record)

    @router.post(
        "/{turn_id}/units/{key:path}/resolve",
        operation_id="resolve_unit",
        summary="Say what became of a call",
        responses=_answers("TurnDetail"),
    )
    async def resolve_unit(request: Request, turn_id: TurnId, key: UnitKey) -> Response:
        caller = await gate.identify_operator(request)
        record = await _find(hold, caller, turn_id, None)
        body = await read_json(request, _resolve_decoder, hold.settings.server)
        if all(unit.key != key for unit in await hold.store.units(turn_id)):
            raise NotFound(f"turn {turn_id} has no call {key}")
        result = encode_json(body.result) if body.happened else None
        if not await hold.store.resolve(turn_id, "tool", key, result, hold.clock.wall_ns()):
            raise NotInDoubt(f"the call {key} of turn {turn_id} is not in doubt")
        logger.warning("unit_resolved", principal=caller.principal, turn_id=turn_id, unit=key, happened=body.happened)
        return await _shown(hold, await hold.store.turn(turn_id) or record)

    return router


async def _find(hold: Holdfast, caller: Caller, turn_id: str, user_id: str | None) -> TurnRecord:
    """
    A turn that the caller may see.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    record = await hold.store.turn(turn_id)
    whose = user_id if caller.operates else caller.acting_for(user_id)
    if record is None or whose not in (None, record.principal):
        raise NotFound(f"there is no turn {turn_id}")
    return record


async def _shown(hold: Holdfast, record: TurnRecord) -> Response:
    told = await hold.turns.told_so_far(record.turn_id, 0)
    return _json(detail_of(record, await hold.store.units(record.turn_id), told))


def _json(value: msgspec.Struct) -> Response:
    return Response(encode(value), media_type="application/json")
