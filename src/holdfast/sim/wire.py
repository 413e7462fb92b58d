"""
HTTP/1.1 on one connection, with nothing between us and the socket: so that a reset is a reset.

::

    next_request() ─▶ respond(), or start() ─▶ feed()* ─▶ end() ─▶ next_request() …
                      reset() at any time; gone() waits beside them for the client to leave
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11

READ_BYTES = 65_536

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """
    One request, read to its end.

    Attributes:
        path: Without the query.
        headers: By lower-case name; the last of several wins.
        body: None where it was larger than allowed; it was read, and thrown away.
    """

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)


class Connection:
    """
    The server's side of one connection.

    Attributes:
        status: Status of the response under way, or None before its first byte.
        max_body_bytes: Larger request bodies are not kept.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_body_bytes: int) -> None:
        self.status: int | None = None
        self.max_body_bytes = max_body_bytes
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        self._head_only = False
        # Waiting for `drain` then means: the kernel has it all. A reset would otherwise take back what was written.
        writer.transport.set_write_buffer_limits(high=0)

    async def next_request(self) -> HttpRequest | None:
        """
        The next request, or None where the client closed the connection, or it cannot be used again.

        Raises:
            h11.RemoteProtocolError: what came is not HTTP.
            ConnectionError: the client reset the connection.
        """
        self.status = None
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        if self._http.our_state is not h11.IDLE:
            return None
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        body, length = bytearray(), 0
        while isinstance(part := await self._event(), h11.Data):
            length += len(part.data)
            if length <= self.max_body_bytes:
                body += part.data
        self._head_only = head.method == b"HEAD"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        path = urlsplit(head.target.decode("latin-1")).path
        return HttpRequest(
            head.method.decode("ascii"), path, headers, None if length > self.max_body_bytes else bytes(body)
        )

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response. The body of an answer to HEAD is left out, as HTTP asks."""
        self.start(status, [*headers, ("content-length", str(len(body)))])
        if not self._head_only:
            self.feed(body)
        await self.end()

    def start(self, status: int, headers: Headers) -> None:
        """Write the head of a response; without a ``content-length`` among the headers, the body is chunked."""
        self.status = status
        self._write(h11.Response(status_code=status, headers=[("server", "holdfast-sim"), *headers]))

    def feed(self, data: bytes) -> None:
        """Write a part of the body, as one chunk where it is chunked."""
        if data:
            self._write(h11.Data(data=data))

    async def flush(self) -> None:
        """Wait until the kernel has all that was written."""
        await self._writer.drain()

    async def end(self) -> None:
        """Finish the response."""
        self._write(h11.EndOfMessage())
        await self.flush()

    def reset(self) -> None:
        """Send a TCP RST in place of a proper end. What was written and not flushed is lost."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self._http.send_failed()

    async def gone(self) -> None:
        """Wait until the client has left. What else it sends meanwhile is kept for ``next_request``."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(READ_BYTES):
                self._http.receive_data(data)

    async def close(self) -> None:
        """Close the connection; does not wait for data that the client does not take."""
        if self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(READ_BYTES))
        return event

    def _write(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> None:
        self._writer.write(self._http.send(event) or b"")
