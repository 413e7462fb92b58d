"""
What is at which path.

::

    /v1/…   request ─▶ Director decides ─▶ Responder answers
                 ‖
             gone(): the client left, so the answer is stopped
    /sim/…  Control
"""

import asyncio
from typing import Any

import msgspec

from holdfast.clock import Clock
from holdfast.sim.answering import Responder
from holdfast.sim.control import PREFIX, Control
from holdfast.sim.dialogue import BadRequest, Request
from holdfast.sim.director import Director
from holdfast.sim.formats import FORMATS, Anthropic, Format
from holdfast.sim.record import Record, Trail, credential_of, shown_headers
from holdfast.sim.wire import Connection, HttpRequest

JSON = [("content-type", "application/json")]

MODELS = ("sim", "claude-sim", "gpt-sim")
"""What ``GET /v1/models`` lists. Requests may name any model."""

_CREATED = "2026-01-01T00:00:00Z"
_CREATED_S = 1_767_225_600
_BY_PATH = {wire_format.path: wire_format for wire_format in FORMATS}


class Routes:
    """Answers whatever was asked on a connection."""

    def __init__(self, director: Director, trail: Trail, clock: Clock, seed: int) -> None:
        self._director = director
        self._trail = trail
        self._clock = clock
        self._seed = seed
        self._control = Control(director, trail)

    async def answer(self, connection: Connection, http: HttpRequest) -> None:
        """
        Answer one request.

        Raises:
            ConnectionError: the client left, and the answer was stopped.
        """
        wire_format = _BY_PATH.get(http.path)
        if http.method == "POST" and wire_format is not None:
            await self._model_call(connection, http, wire_format)
        elif http.path.startswith(PREFIX):
            status, data = self._control.answer(http.method, http.path, http.body)
            await connection.respond(status, JSON, msgspec.json.encode(data))
        elif (http.method, http.path) == ("GET", "/v1/models"):
            models = _models(anthropic="anthropic-version" in http.headers)
            await connection.respond(200, JSON, msgspec.json.encode(models))
        elif (http.method, http.path) == ("POST", "/v1/messages/count_tokens"):
            await self._count_tokens(connection, http)
        else:
            nothing = {"error": {"type": "not_found_error", "message": f"there is no {http.method} {http.path} here"}}
            await connection.respond(404, JSON, msgspec.json.encode({"type": "error", **nothing}))

    async def _model_call(self, connection: Connection, http: HttpRequest, wire_format: Format) -> None:
        record = self._trail.begin(wire_format.name, shown_headers(http.headers))
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer(connection, http, wire_format, record))
                leaving = group.create_task(connection.gone())
                await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                record.client_left = record.client_left or not answering.done()
                answering.cancel()
                leaving.cancel()
        finally:
            self._trail.finish(record)
        if record.client_left:
            raise ConnectionAbortedError("the client left")

    async def _answer(self, connection: Connection, http: HttpRequest, wire_format: Format, record: Record) -> None:
        responder = Responder(connection, wire_format, record, self._clock)
        try:
            if http.body is None:
                record.error = f"the body is larger than {connection.max_body_bytes} bytes"
                await responder.refuse("too_large")
                return
            try:
                request = self._parsed(http, wire_format)
            except BadRequest as bad:
                record.error = bad.message
                await responder.refuse("invalid", bad=bad)
                return
            record.model, record.request = request.model, request
            decision = await self._director.decide(request)
            record.answered_by, record.fault_by, record.error = decision.answered_by, decision.fault_by, decision.error
            if decision.error:
                await responder.refuse("server_error", request.model)
                return
            record.fault = decision.reply.fault.kind if decision.reply.fault else None
            await responder.give(request, decision, self._seed)
        except ConnectionError:
            record.client_left = True
        finally:
            record.status = connection.status

    def _parsed(self, http: HttpRequest, wire_format: Format) -> Request:
        return wire_format.parse(_object(http.body), shown_headers(http.headers), credential_of(http.headers))

    async def _count_tokens(self, connection: Connection, http: HttpRequest) -> None:
        anthropic = Anthropic()
        try:
            request = anthropic.parse_uncounted(_object(http.body), {}, "")
        except BadRequest as bad:
            problem = anthropic.problem("invalid", "", "", bad)
            await connection.respond(problem.status, JSON, problem.body)
            return
        await connection.respond(200, JSON, msgspec.json.encode({"input_tokens": request.input_tokens}))


def _object(body: bytes | None) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise BadRequest(f"The request body is not valid JSON: {wrong}") from wrong
    if not isinstance(value, dict):
        raise BadRequest("The request body is not a JSON object.")
    return value


def _models(*, anthropic: bool) -> dict[str, Any]:
    if anthropic:
        named = [{"type": "model", "id": m, "display_name": m, "created_at": _CREATED} for m in MODELS]
        return {"data": named, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
    listed = [{"id": m, "object": "model", "created": _CREATED_S, "owned_by": "holdfast-sim"} for m in MODELS]
    return {"object": "list", "data": listed}
