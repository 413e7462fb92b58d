"""``POST /chat``, ``POST /v1/chat`` and ``POST /v1/turns``: the hot routes, plain Starlette and msgspec."""

import re
from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from holdfast.clock import token_hex
from holdfast.errors import HoldfastError, Unprocessable
from holdfast.journal import digest_of, encode
from holdfast.replica import Begun
from holdfast.resilience import Priority
from holdfast.runtime import Holdfast
from holdfast.server.auth import Caller, Gate
from holdfast.server.body import read_json
from holdfast.server.errors import problem_response
from holdfast.server.feed import accepts_events, feed, last_event_id
from holdfast.server.priority import read_priority
from holdfast.store import TurnState
from holdfast.turn import Ask

# Python's `$` also matches before a line break at the end; other readers of the pattern need it all the same.
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]

Address = Annotated[str, Meta(max_length=64)]
Webhook = Annotated[str, Meta(min_length=1, max_length=2_000)]

IDEMPOTENCY_KEY = "idempotency-key"
KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"
REPLAYED = "idempotent-replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class ChatBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. Fields that are not among these are ignored."""

    message: Annotated[
        str, Meta(min_length=1, description="What to ask the agent; not blank.", extra_json_schema={"pattern": r"\S"})
    ]
    session_id: Annotated[Name | None, Meta(description="Conversation to go on with; a new one without it.")] = None
    user_id: Annotated[
        Name | None, Meta(description="End user, believed from a delegate key, and on loopback without keys.")
    ] = None
    agent: Annotated[Name | None, Meta(description="Agent to ask; the default agent without it.")] = None
    source_ip: Annotated[Address | None, Meta(description="A hint; the address is taken from the connection.")] = None


class TurnBody(ChatBody, frozen=True, kw_only=True):
    """What is asked, by somebody who does not wait for the answer. Fields that are not among these are ignored."""

    stream: Annotated[
        bool, Meta(description="Whether its events are to have the answer word by word, for whoever watches them.")
    ] = False
    webhook: Annotated[
        Webhook | None,
        Meta(description="Address to tell when it has ended; its host must be among `server.webhook_hosts`."),
    ] = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that is kept, and so will end."""

    turn_id: str
    session_id: str
    trace_id: str
    state: TurnState


_chat_decoder = msgspec.json.Decoder(ChatBody)
_turn_decoder = msgspec.json.Decoder(TurnBody)


class Chat:
    """Answers those who ask: with JSON, or server-sent events where the caller accepts them, or at once."""

    def __init__(self, hold: Holdfast, gate: Gate) -> None:
        self._hold = hold
        self._gate = gate

    async def post(self, request: Request) -> Response:
        """
        One turn, for somebody who waits for it.

        Raises:
            HoldfastError: the turn was not accepted.
        """
        caller = await self._gate.identify(request)
        body = await read_json(request, _chat_decoder, self._hold.settings.server)
        streams, after = accepts_events(request), last_event_id(request)
        ask = _ask(request, caller, body, streams=streams, priority=Priority.INTERACTIVE)
        begun = self._hold.begin(ask, body.agent)
        if streams:
            record = await begun.accepted
            return feed(self._hold.turns, record, after if begun.again else 0, _replayed(begun))
        try:
            answer = await begun
        except HoldfastError as error:
            if not begun.accepted.done() or begun.accepted.exception() is not None:
                raise
            record = begun.accepted.result()
            return problem_response(error, record.trace_id, record.turn_id, _replayed(begun))
        return Response(encode(answer), headers=_replayed(begun), media_type="application/json")

    async def post_turn(self, request: Request) -> Response:
        """
        One turn, for somebody who comes back for it, or is told.

        Raises:
            HoldfastError: the turn was not accepted.
        """
        caller = await self._gate.identify(request)
        body = await read_json(request, _turn_decoder, self._hold.settings.server)
        if body.webhook is not None:
            self._hold.webhooks.check(body.webhook)
        ask = _ask(request, caller, body, streams=body.stream, priority=Priority.BATCH)
        ask = msgspec.structs.replace(ask, webhook=body.webhook, waits=True)
        begun = self._hold.begin(ask, body.agent)
        record = await begun.accepted
        whose = "" if record.principal == caller.principal else f"?user_id={quote(record.principal, safe='')}"
        headers = {"location": f"/v1/turns/{record.turn_id}{whose}", **_replayed(begun)}
        accepted = Accepted(
            turn_id=record.turn_id, session_id=record.session_id, trace_id=record.trace_id, state=record.state
        )
        return Response(encode(accepted), 202, headers, media_type="application/json")


def _ask(request: Request, caller: Caller, body: ChatBody, *, streams: bool, priority: Priority) -> Ask:
    if not body.message.strip():
        raise Unprocessable("message must not be blank - at `$.message`")
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise Unprocessable(f"it must be 1 to 255 visible ASCII characters - at `header.{IDEMPOTENCY_KEY}`")
    return Ask(
        message=body.message,
        principal=caller.acting_for(body.user_id),
        session_id=body.session_id or f"s_{token_hex(8)}",
        trace_id=request.state.trace.trace_id,
        request_id=request.state.request_id,
        source_ip=request.client.host if request.client else "",
        streams=streams,
        priority=read_priority(request.headers.get("priority", ""), priority),
        key=key,
        digest=b"" if key is None else _digest(body),
    )


def _digest(body: ChatBody) -> bytes:
    """Of everything that the same key must come with. Whose key it is need not be in it: nobody sees another's."""
    webhook = body.webhook if isinstance(body, TurnBody) else None
    return digest_of(encode((body.message, body.session_id, body.agent, webhook)))


def _replayed(begun: Begun) -> dict[str, str]:
    return {REPLAYED: "true"} if begun.again else {}
