"""What a connection may do: bytes that are no request, or a request that never comes."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from holdfast.server.connection import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Dial, Log, Serve, Server, Wire

HEAD = b"POST /chat HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = b'{"message":"hello"}'
GET = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def hasty(serve: Serve) -> Server:
    """A server that waits for nobody."""
    return serve(server__body_timeout_s=0.3)


def whole(head: bytes = HEAD, body: bytes = BODY) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def refused(wire: Wire, status: int) -> dict[str, Any]:
    got, headers, body = wire.answer()
    assert got == status
    assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
    assert wire.ended()
    problem: dict[str, Any] = httpx2.Response(got, content=body).json()
    assert set(problem) == {"type", "title", "status", "code", "detail", "trace_id"}
    return problem


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD + b"content-length: many\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT example:443 HTTP/1.1\r\nhost: example\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_in_the_same_shape(dial: Dial, api: Api, sent: bytes, log: Log) -> None:
    wire = dial()
    wire.send(sent)
    assert refused(wire, 400)["code"] == "invalid"
    assert [line["status"] for line in log.wait("http_refused")] == [400]
    assert api.ask("still there?")["reply"] == "still there?"


def test_chunks_that_are_none_are_refused(dial: Dial, api: Api) -> None:
    wire = dial()
    wire.send(HEAD + b"transfer-encoding: chunked\r\n\r\nhello\r\n")
    wire.ended()
    assert api.ask("still there?")["reply"] == "still there?"


@pytest.mark.parametrize("piece", [b"x-filler: %s\r\n" % (b"y" * 1000), b"z" * 1000])
def test_a_head_has_its_limit(dial: Dial, piece: bytes) -> None:
    wire = dial()
    wire.send(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-long: 1")
    wire.send(b"\r\n" if piece.endswith(b"\n") else b"")
    try:
        for _ in range(1_000):
            wire.send(piece)
    except (BrokenPipeError, ConnectionResetError):
        return
    assert str(MAX_HEAD_BYTES) in refused(wire, 400)["detail"]


def test_a_client_that_says_nothing_is_let_go(hasty: Server, dial: Dial) -> None:
    assert dial(hasty).ended()


def test_a_client_that_never_ends_its_head_is_told_so(hasty: Server, dial: Dial) -> None:
    wire = dial(hasty)
    wire.send(HEAD)
    assert refused(wire, 408)["code"] == "body_timeout"


def test_a_head_that_is_dribbled_has_no_longer(hasty: Server, dial: Dial) -> None:
    wire = dial(hasty)
    dribble(wire, HEAD + b"x: " + b"y" * 1000)
    assert wire.answer()[0] == 408


def test_a_body_that_is_dribbled_has_no_longer(hasty: Server, dial: Dial) -> None:
    wire = dial(hasty)
    wire.send(HEAD + b"content-length: 1000\r\n\r\n")
    dribble(wire, b'"' + b"x" * 998)
    status, headers, body = wire.answer()
    assert (status, headers["connection"]) == (408, "close")
    assert b"0.3 s" in body
    assert wire.ended()


def dribble(wire: Wire, data: bytes) -> bytes:
    """Send byte by byte until the other side answers, and return what is there of the answer; nothing where it left."""
    for byte in data:
        wire.send(bytes([byte]))
        if select.select([wire.socket], [], [], 0.02)[0]:
            return wire.socket.recv(1, socket.MSG_PEEK)
    raise AssertionError("all of it was taken")


def test_a_body_that_was_refused_early_may_be_sent_to_its_end(dial: Dial) -> None:
    """So that a client which sends first and reads then gets its answer, and keeps its connection."""
    wire = dial()
    wire.send(whole(HEAD.replace(b"application/json", b"text/plain"), b"x" * 3_000_000))
    assert wire.answer()[0] == 415
    wire.send(whole())
    assert wire.answer()[0] == 200


def test_but_not_for_ever(hasty: Server, dial: Dial) -> None:
    wire = dial(hasty)
    wire.send(HEAD.replace(b"application/json", b"text/plain") + b"content-length: 1000000\r\n\r\n")
    assert wire.answer()[0] == 415
    assert dribble(wire, b"x" * 1_000) == b""


def test_a_client_that_leaves_amid_its_body_is_no_error_of_ours(dial: Dial, log: Log) -> None:
    wire = dial()
    wire.send(HEAD + b"content-length: 1000\r\n\r\nhel")
    wire.close()
    assert [line["status"] for line in log.wait("http_request")] == [400]
    assert not log.all("turn_failed")


def test_requests_that_come_at_once_are_answered_in_order(dial: Dial) -> None:
    wire = dial()
    wire.send(GET + whole() + GET)
    assert [wire.answer()[0] for _ in range(3)] == [200, 200, 200]


def test_a_slow_turn_is_not_taken_for_a_slow_client(hasty: Server, dial: Dial, said: str) -> None:
    wire = dial(hasty)
    wire.send(whole(body=b'{"message":"%s","agent":"talk"}' % said.encode()) + GET + b"GET /health/l")
    assert hasty.began[said].wait(5)
    assert dial(hasty).ended()  # longer than a head may take has passed by now
    hasty.release(said)
    assert [wire.answer()[0], wire.answer()[0]] == [200, 200]


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"a/1, b"])
def test_an_upgrade_is_ignored_and_the_body_is_not(dial: Dial, upgrade: bytes) -> None:
    """Java's own client proposes h2c with the first request on a connection, whatever its method."""
    wire = dial()
    asks = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %s\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n" % upgrade
    request = whole(HEAD + asks)
    wire.send(request[:-5])
    wire.send(request[-5:] + GET)
    status, _, body = wire.answer()
    assert (status, b'"reply":"hello"' in body) == (200, True)
    assert wire.answer()[0] == 200


def test_a_client_that_expects_to_be_asked_is_asked_unless_it_would_be_refused(dial: Dial) -> None:
    wire = dial()
    expects = HEAD + b"expect: 100-continue\r\n"
    wire.send(expects + b"content-length: %d\r\n\r\n" % len(BODY))
    assert wire.answer()[0] == 100
    wire.send(BODY)
    assert wire.answer()[0] == 200
    wire = dial()
    wire.send(expects + b"content-length: 999999999\r\n\r\n")
    assert wire.answer()[0] == 413


def test_what_is_refused_below_http_is_counted(server: Server, connect: Connect, dial: Dial) -> None:
    def counted() -> float:
        name = "agent_http_requests_total"
        found = server.hold.metrics.registry.get_sample_value(
            name, {"method": "_other", "route": "_other", "code": "400"}
        )
        return found or 0

    before = counted()
    wire = dial()
    wire.send(b"hello\r\n\r\n")
    wire.ended()
    assert counted() == before + 1
    assert connect().get("/health/live").status_code == 200
