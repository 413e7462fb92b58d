"""``POST /chat`` and ``POST /v1/chat``: the hot route, plain Starlette and msgspec."""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from holdfast.clock import token_hex
from holdfast.errors import Unprocessable
from holdfast.runtime import Holdfast
from holdfast.server.auth import Gate
from holdfast.server.body import read_json
from holdfast.server.feed import Feed, encode
from holdfast.server.priority import read_priority
from holdfast.turn import Ask

# Python's `$` also matches before a line break at the end; other readers of the pattern need it all the same.
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]

Address = Annotated[str, Meta(max_length=64)]


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


_decoder = msgspec.json.Decoder(ChatBody)


class Chat:
    """Answers chat requests: JSON, or server-sent events where the caller accepts them."""

    def __init__(self, hold: Holdfast, gate: Gate) -> None:
        self._hold = hold
        self._gate = gate

    async def post(self, request: Request) -> Response:
        """
        One turn.

        Raises:
            HoldfastError: the turn did not succeed, or was not begun.
        """
        caller = await self._gate.identify(request)
        body = await read_json(request, _decoder, self._hold.settings.server)
        if not body.message.strip():
            raise Unprocessable("message must not be blank - at `$.message`")
        streams = "text/event-stream" in request.headers.get("accept", "").lower()
        ask = Ask(
            message=body.message,
            principal=caller.acting_for(body.user_id),
            session_id=body.session_id or f"s_{token_hex(8)}",
            trace_id=request.state.trace.trace_id,
            request_id=request.state.request_id,
            source_ip=request.client.host if request.client else "",
            streams=streams,
            priority=read_priority(request.headers.get("priority", "")),
        )
        if streams:
            return await self._stream(ask, body.agent)
        answer = await self._hold.begin(ask, body.agent)
        return Response(encode(answer), media_type="application/json")

    async def _stream(self, ask: Ask, agent: str | None) -> Response:
        feed = Feed()
        answer = self._hold.begin(ask, agent, (feed.take,))
        if not await feed.begun(answer):
            await answer  # It was refused before it began: that is an answer of its own, and no stream.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(feed.messages(answer, ask.trace_id), headers=headers, media_type="text/event-stream")
