"""
A turn's events, as somebody watches them.

The turn never waits for who watches it: events are kept until they are read, and a watcher that is slow or gone costs
the memory of one turn's events at most.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from holdfast.errors import HoldfastError
from holdfast.events import Event, TurnIds
from holdfast.server.errors import problem

KEEP_ALIVE_S = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""

_encode = msgspec.json.Encoder().encode


class Feed:
    """Takes a turn's events in, and gives them out as server-sent events with ids that count from 1."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._more = asyncio.Event()

    def take(self, _ids: TurnIds, event: Event) -> None:
        """An observer: keep the event for whoever watches."""
        self._events.append(event)
        self._more.set()

    async def begun(self, ended: asyncio.Future[Any]) -> bool:
        """Wait for the first event. False where the turn ended without any."""
        ended.add_done_callback(lambda _: self._more.set())
        await self._more.wait()
        return bool(self._events)

    async def messages(self, ended: asyncio.Future[Any], trace_id: str) -> AsyncIterator[bytes]:
        """
        The events so far and to come, as server-sent events, until ``ended`` is done and all are given out.

        A turn that did not succeed ends with an event called ``error``, whose data is its problem.
        """
        given = 0
        while True:
            self._more.clear()
            if batch := self._events[given:]:
                yield b"".join(sse(given + n, event.name, encode(event)) for n, event in enumerate(batch, 1))
                given += len(batch)
                continue
            if ended.done():
                error = ended.exception()
                if isinstance(error, HoldfastError):
                    yield sse(given + 1, "error", encode(problem(error, trace_id)))
                return
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await self._more.wait()
            except TimeoutError:
                yield b": still here\n\n"


def encode(value: msgspec.Struct) -> bytes:
    """``value`` as JSON, with a question mark for each half of a surrogate pair, which a model may well say."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, enc_hook=msgspec.json.decode)  # the hook is for JSON inside, already encoded
        return json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")


def sse(number: int, name: str, data: bytes) -> bytes:
    """One server-sent event. ``data`` is JSON, and so holds no line breaks."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), data)
