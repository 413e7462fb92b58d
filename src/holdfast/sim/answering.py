"""
Give one answer over one connection, with its latency and its fault.

::

    decision ─┬─ fault in place of an answer ─▶ error body, reset, or silence
              └─ answer ─┬─ stream ─▶ opening events, wait, delta, wait, delta, …, closing events
                         └─ whole  ─▶ wait, JSON body
"""

import asyncio
import hashlib
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec

from holdfast.clock import NS, Clock
from holdfast.sim.dialogue import (
    CHARS_PER_TOKEN,
    Answer,
    BadRequest,
    Request,
    ToolCall,
    Usage,
    json_text,
    tokens,
)
from holdfast.sim.director import Decision
from holdfast.sim.faults import (
    ErrorAnswer,
    Hang,
    Interruption,
    MalformedToolArgs,
    Reset,
    SlowFirstToken,
    Stall,
    StreamError,
    Truncated,
)
from holdfast.sim.formats.base import Event, Format
from holdfast.sim.record import Record
from holdfast.sim.wire import Connection, Headers

SSE = ("content-type", "text/event-stream; charset=utf-8")


class Responder:
    """
    Answers one request in one format.

    Attributes:
        record: Where deltas sent are counted; the status is the connection's.
    """

    def __init__(self, connection: Connection, wire_format: Format, record: Record, clock: Clock) -> None:
        self.record = record
        self._connection = connection
        self._format = wire_format
        self._clock = clock
        self._request_id = f"req_sim_{record.number:06}"
        self._headers: Headers = [(wire_format.request_id_header, self._request_id)]

    async def give(self, request: Request, decision: Decision, seed: int) -> None:
        """Answer as decided. Returns when the response is out, or never where it hangs."""
        fault = decision.reply.fault
        if isinstance(fault, ErrorAnswer):
            await self.refuse(fault.kind, request.model, _retry_after(fault, self._clock))
        elif isinstance(fault, Hang):
            await _for_ever()
        elif isinstance(fault, Reset) and fault.after_deltas is None:
            self._connection.reset()
        else:
            answer = answer_to(request, decision, f"{seed}:{self.record.number}", self._clock.wall_ns() // NS)
            await (self._stream(answer, decision) if request.stream else self._whole(answer, decision))

    async def refuse(
        self, kind: str, model: str = "", headers: Headers | None = None, bad: BadRequest | None = None
    ) -> None:
        """Answer with an error in the provider's shape."""
        problem = self._format.problem(kind, model, self._request_id, bad)
        content_type = ("content-type", problem.content_type)
        await self._connection.respond(problem.status, [content_type, *self._headers, *(headers or [])], problem.body)

    async def _stream(self, answer: Answer, decision: Decision) -> None:
        connection, rng = self._connection, decision.rng
        breaks = decision.reply.fault if isinstance(decision.reply.fault, Interruption | Reset) else None
        connection.start(200, [SSE, ("cache-control", "no-cache"), *self._headers])
        for sent, event in enumerate(self._format.events(answer)):
            if breaks is not None and (
                event.closing or (event.delta and self.record.deltas >= (breaks.after_deltas or 0))
            ):
                if not await self._broken_at(event, breaks, sent):
                    return
                breaks = None
            if event.delta:
                pause_s = decision.per_token.draw(rng) if self.record.deltas else _first_token_s(decision)
                if pause_s > 0:
                    await connection.flush()
                    await asyncio.sleep(pause_s)
                self.record.deltas += 1
            connection.feed(event.data)
        await connection.end()

    async def _broken_at(self, event: Event, fault: Interruption | Reset, sent: int) -> bool:
        """Let the fault happen before ``event``; says whether the stream goes on."""
        connection = self._connection
        if isinstance(fault, Stall):
            await connection.flush()
            await _stalled(fault)
            return True
        if isinstance(fault, Reset):
            await connection.flush()
            connection.reset()
            return False
        cut = isinstance(fault, Truncated)
        connection.feed(event.data[: len(event.data) // 2] if cut else self._format.stream_error(sent))
        await connection.end()
        return False

    async def _whole(self, answer: Answer, decision: Decision) -> None:
        connection, fault = self._connection, decision.reply.fault
        further = range(max(0, answer.output_tokens - 1))
        await asyncio.sleep(_first_token_s(decision) + sum(decision.per_token.draw(decision.rng) for _ in further))
        if isinstance(fault, StreamError):
            await self.refuse("server_error", answer.request.model)
            return
        body = msgspec.json.encode(self._format.body(answer))
        half = body[: len(body) // 2]
        headers = [("content-type", "application/json"), *self._headers]
        if isinstance(fault, Truncated):
            await connection.respond(200, headers, half)
        elif isinstance(fault, Stall | Reset):
            connection.start(200, [*headers, ("content-length", str(len(body)))])
            connection.feed(half)
            await connection.flush()
            if isinstance(fault, Reset):
                connection.reset()
                return
            await _stalled(fault)
            connection.feed(body[len(half) :])
            await connection.end()
        else:
            await connection.respond(200, headers, body)


def answer_to(request: Request, decision: Decision, salt: str, created_s: int) -> Answer:
    """The reply made ready for the wire: ids, argument text, token counts, and cut to the request's ``max_tokens``."""
    reply = decision.reply
    text, calls, finish = reply.say, reply.call, reply.finish or "stop"
    # Ids come from the request too: a simulator that was restarted must not repeat an id within one conversation.
    seed = hashlib.sha256(salt.encode() + msgspec.json.encode(request.body)).hexdigest()
    if request.max_tokens is not None and tokens(text) > request.max_tokens:
        text, calls, finish = text[: request.max_tokens * CHARS_PER_TOKEN], (), "length"
    ready = []
    for n, call in enumerate(calls):
        arguments = json_text(call.args)
        if isinstance(reply.fault, MalformedToolArgs):
            # Not just cut short: the Anthropic SDK's helper takes unfinished JSON for finished.
            arguments = arguments.replace(":", " ", 1) if call.args else "{,}"
        ready.append(ToolCall(id=f"{seed[:20]}{n:02}", tool=call.tool, arguments=arguments))
    usage = reply.usage or Usage()
    output = tokens(text) + sum(tokens(call.tool) + tokens(call.arguments) for call in ready)
    return Answer(
        id=seed[:24],
        created_s=created_s,
        text=text,
        calls=tuple(ready),
        finish=finish,
        input_tokens=request.input_tokens if usage.input_tokens is None else usage.input_tokens,
        output_tokens=max(1, output) if usage.output_tokens is None else usage.output_tokens,
        cached_tokens=usage.cached_tokens or 0,
        cache_write_tokens=usage.cache_write_tokens or 0,
        reasoning_tokens=usage.reasoning_tokens or 0,
        request=request,
    )


def _first_token_s(decision: Decision) -> float:
    fault = decision.reply.fault
    return fault.seconds if isinstance(fault, SlowFirstToken) else decision.first_token.draw(decision.rng)


def _retry_after(fault: ErrorAnswer, clock: Clock) -> Headers:
    if fault.retry_after_s is None:
        return []
    if fault.retry_after_as == "milliseconds":
        return [("retry-after-ms", str(round(fault.retry_after_s * 1000)))]
    if fault.retry_after_as == "date":
        # Dates know whole seconds: rounded up, so that nobody comes back too early.
        at = datetime.fromtimestamp(math.ceil(clock.wall_ns() / NS), UTC) + timedelta(
            seconds=math.ceil(fault.retry_after_s)
        )
        return [("retry-after", format_datetime(at, usegmt=True))]
    return [("retry-after", str(math.ceil(fault.retry_after_s)))]


async def _stalled(fault: Stall) -> None:
    if fault.seconds is None:
        await _for_ever()
    else:
        await asyncio.sleep(fault.seconds)


async def _for_ever() -> None:
    await asyncio.Event().wait()
