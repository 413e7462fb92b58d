"""
One connection: bounded in time and size also where there is no request yet, or no longer.

::

    open ─▶ head ─▶ body ─▶ answered ─▶ idle ─▶ head …
            timer,  server/ timer while  uvicorn's
            bytes   body.py a body that  keep-alive
                            was answered
                            early comes in

Uvicorn times only the idle connection. What is wrong down here gets the same error shape as everything else.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.clock import token_hex
from holdfast.errors import BodyTimeout, HoldfastError, Invalid
from holdfast.server.errors import problem_response

MAX_HEAD_BYTES = 65_536
"""Bytes of a request's first line and headers."""

_HOP_BY_HOP = frozenset({b"connection", b"upgrade", b"http2-settings"})


class Limits(NamedTuple):
    """
    What a connection is held to.

    Attributes:
        arrive_s: Seconds a request's head may take, and what is left of a body after its answer.
        refused: Told the status of every request that was refused before there was one.
    """

    arrive_s: float
    refused: Callable[[int], None]


class Connection(HttpToolsProtocol):
    """Uvicorn's, with the bounds of ``limits``. An upgrade is ignored, as HTTP allows, and not at the body's cost."""

    def __init__(self, limits: Limits, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Wait for the first request."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a little more of a request."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._head_bytes += len(data) if self._in_head else 0
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(Invalid("this is not HTTP/1.1"))
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(Invalid(f"the request's head has more than {MAX_HEAD_BYTES} bytes"))
        if self._in_head and self._timer is None:
            self._expect()

    def on_message_begin(self) -> None:
        """Note that a head begins: the parser's callback, as the ones below."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Begin the request, unless it has to be read again without its upgrade."""
        if not self.parser.should_upgrade():
            self._arrived()
            self._in_head, self._head_bytes = False, 0
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the body is here."""
        if not self.parser.should_upgrade():
            self._arrived()
            self._in_head = True
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on to the next request. What still comes of a body that was answered early is thrown away, for a time."""
        super().on_response_complete()
        if not self._in_head:
            self._expect()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                self._refuse(Invalid("this server is no proxy"))
                return
            kept = [b"%s: %s\r\n" % header for header in self.headers if header[0] not in _HOP_BY_HOP]
            head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(kept))
            self.parser = httptools.HttpRequestParser(self)
            self._feed(head + data[upgrade.args[0] :])

    def _expect(self) -> None:
        self._arrived()
        self._timer = self.loop.call_later(self._limits.arrive_s, self._overdue)

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _overdue(self) -> None:
        self._timer = None
        if self._answering():  # The next request is not being read meanwhile: that is no fault of its sender's.
            self._expect()
        elif self._in_head and self._head_bytes:
            self._refuse(BodyTimeout(f"the request did not arrive within {self._limits.arrive_s:g} s"))
        else:
            self.transport.close()

    def _refuse(self, error: HoldfastError) -> None:
        if not self._answering() and not self.transport.is_closing():
            answer = problem_response(error, token_hex(16))
            fields = [*answer.raw_headers, (b"connection", b"close")]
            phrase = HTTPStatus(error.status).phrase.encode()
            head = b"HTTP/1.1 %d %s\r\n" % (error.status, phrase) + b"".join(b"%s: %s\r\n" % f for f in fields)
            self.transport.write(head + b"\r\n" + bytes(answer.body))
            self._limits.refused(error.status)
        self.transport.close()
