"""A turn's events as server-sent events: for whoever asked it, and for whoever comes back to it."""

from collections.abc import AsyncIterator, Iterable, Mapping
from types import MappingProxyType

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from holdfast.errors import HoldfastError, Unprocessable
from holdfast.events import TurnEnded
from holdfast.journal import Numbered, encode
from holdfast.replica import Turns, error_of
from holdfast.server.errors import problem
from holdfast.store import TurnRecord

STREAM = "text/event-stream"
LAST_EVENT_ID = "last-event-id"

KEEP_ALIVE_S = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""

MOST_EVENTS = 2**63
"""Numbers of events are below this."""

_STILL_HERE = b": still here\n\n"
_NONE: Mapping[str, str] = MappingProxyType({})
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def accepts_events(request: Request) -> bool:
    """Whether whoever asks wants events as they happen."""
    return STREAM in request.headers.get("accept", "").lower()


def last_event_id(request: Request) -> int:
    """
    The number of the last event that whoever asks has got; 0 for none.

    Raises:
        Unprocessable: it is none that we give.
    """
    given = request.headers.get(LAST_EVENT_ID, "0")
    if not (given.isascii() and given.isdecimal() and int(given[:20]) < MOST_EVENTS):
        raise Unprocessable(f"{LAST_EVENT_ID} must be the id of an event - at `header.{LAST_EVENT_ID}`")
    return int(given)


def feed(turns: Turns, record: TurnRecord, after: int, headers: Mapping[str, str] = _NONE) -> StreamingResponse:
    """A turn's events with higher numbers than ``after``, as they happen, until it has ended or cannot go on here."""
    return StreamingResponse(messages(turns, record, after), headers={**_HEADERS, **headers}, media_type=STREAM)


async def messages(turns: Turns, record: TurnRecord, after: int) -> AsyncIterator[bytes]:
    """
    The events as messages, their numbers as ids.

    A turn that does not succeed, or not here and now, ends with a message called ``error``, whose data is its problem.
    It has no id: whoever comes back is told anew.
    """
    last: Numbered | None = None
    async for batch in turns.watch(record.turn_id, after, KEEP_ALIVE_S):
        yield b"".join(map(_message, batch)) if batch else _STILL_HERE
        last = batch[-1] if batch else last
    if last is not None and last.name == TurnEnded.name and _error_in(last.data).error is None:
        return
    try:
        error = error_of(await turns.ended(record.turn_id))
    except HoldfastError as raised:
        error = raised
    if error is not None:
        told = encode(problem(error, record.trace_id, record.turn_id))
        yield b"event: error\ndata: %s\n\n" % told


def listed(batch: Iterable[Numbered]) -> bytes:
    """The events as JSON."""
    return encode({"events": [{"id": n, "name": name, "data": msgspec.Raw(data)} for n, name, data in batch]})


class _Ended(msgspec.Struct):
    error: str | None = None


_error_in = msgspec.json.Decoder(_Ended).decode


def _message(event: Numbered) -> bytes:
    """One message. Its data is JSON, and so holds no line breaks."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.number, event.name.encode(), event.data)
