"""Webhooks over real HTTP: a turn begins in the background, and its end is told to a server that listens for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Log, ProblemOf, Serve, Server

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
PATIENCE_S = 20.0


class Delivery(NamedTuple):
    """What came: its path, its headers by lower-case name, and its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def turn(self) -> Any:
        """The turn that is told of, from a body whose signature is right."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert self.headers["webhook-signature"] == f"v1,{expected}"
        return json.loads(self.body)


class Receiver:
    """Listens, and answers with each of ``statuses`` in turn, and then with 204."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.deliveries: list[Delivery] = []
        self._more = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._more:
                    receiver.deliveries.append(Delivery(self.path, headers, body))
                    status = receiver._statuses.pop(0) if receiver._statuses else 204
                    receiver._more.notify_all()
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/ended?of=turns"

    def wait(self, count: int = 1) -> list[Delivery]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.deliveries) >= count, PATIENCE_S)
            return list(self.deliveries)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.replica.webhooks.WAITS_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr("holdfast.replica.webhooks._POLL_S", 0.05)


def telling(serve: Serve, receiver: Receiver, **settings: object) -> Server:
    return serve(server__webhook_hosts=(receiver.host,), server__webhook_secret=SECRET, **settings)


def test_the_end_of_a_turn_is_told_signed(serve: Serve, connect: Connect, receiver: Receiver, said: str) -> None:
    server = telling(serve, receiver)
    api = connect(server)
    accepted = api.begin(said, said, "talk", webhook=receiver.url)
    assert server.began[said].wait(5)
    assert receiver.deliveries == []
    server.release(said)
    (delivery,) = receiver.wait()
    assert delivery.path == "/ended?of=turns"
    assert delivery.headers["webhook-id"] == accepted["turn_id"]
    assert delivery.headers["content-type"] == "application/json"
    shown = api.turn(accepted["turn_id"])
    del shown["units"], shown["monitor"]
    assert delivery.turn == shown
    assert (shown["state"], shown["outcome"], shown["reply"]) == ("ended", "success", "one two")


def test_a_turn_that_failed_or_was_stopped_is_told_too(
    serve: Serve, connect: Connect, receiver: Receiver, said: str
) -> None:
    api = connect(telling(serve, receiver))
    api.begin("boo", None, "fails", webhook=receiver.url)
    (failed,) = receiver.wait()
    assert (failed.turn["outcome"], failed.turn["error"]["code"]) == ("error", "agent_failed")
    assert b"thoughts" not in failed.body
    stopped = api.begin(said, None, "talk", webhook=receiver.url)["turn_id"]
    api.http.post(f"/v1/turns/{stopped}/cancel")
    assert receiver.wait(2)[1].turn["outcome"] == "cancelled"


def test_it_is_told_until_it_is_taken_and_then_no_more(serve: Serve, connect: Connect, log: Log) -> None:
    receiver = Receiver(500, 302)
    try:
        api = connect(telling(serve, receiver))
        turn_id = api.begin("hello", webhook=receiver.url)["turn_id"]
        deliveries = receiver.wait(3)
        assert [delivery.turn["turn_id"] for delivery in deliveries] == [turn_id] * 3
        assert [delivery.headers["webhook-id"] for delivery in deliveries] == [turn_id] * 3
        second = api.begin("hello", webhook=receiver.url)["turn_id"]
        assert [delivery.turn["turn_id"] for delivery in receiver.wait(4)] == [turn_id] * 3 + [second]
        assert [(line["error"], line["tries"]) for line in log.all("webhook_failed")] == [
            ("status_500", 1),
            ("status_302", 2),
        ]
    finally:
        receiver.stop()


def test_what_could_not_be_told_is_told_by_the_next_server(
    serve: Serve, connect: Connect, tmp_path: Path, log: Log
) -> None:
    receiver = Receiver(*[503] * 2)
    store = f"sqlite:{tmp_path / 'hold.db'}"
    try:
        first = telling(serve, receiver, store__url=store)
        turn_id = connect(first).begin("hello", webhook=receiver.url)["turn_id"]
        log.wait("webhook_failed")
        first.stop()
        telling(serve, receiver, store__url=store)
        assert {delivery.turn["turn_id"] for delivery in receiver.wait(3)} == {turn_id}
    finally:
        receiver.stop()


def test_a_webhook_is_part_of_what_the_same_key_comes_with(
    serve: Serve, connect: Connect, receiver: Receiver, said: str, problem_of: ProblemOf
) -> None:
    api = connect(telling(serve, receiver))
    key = {"idempotency-key": said}
    body = {"message": "hello", "webhook": receiver.url}
    turns = [api.http.post("/v1/turns", json=body, headers=key).json()["turn_id"] for _ in range(2)]
    assert turns[0] == turns[1]
    problem_of(api.http.post("/v1/turns", json={"message": "hello"}, headers=key), 422, "key_reused")
    assert [delivery.turn["turn_id"] for delivery in receiver.wait()] == turns[:1]


def test_nobody_is_told_whom_the_operator_has_not_named(
    serve: Serve, connect: Connect, api: Api, receiver: Receiver, problem_of: ProblemOf
) -> None:
    named = connect(telling(serve, receiver))
    port = receiver.host.partition(":")[2]
    for asked, url in ((api, receiver.url), (named, "https://evil.example/"), (named, f"http://localhost:{port}/")):
        problem = problem_of(
            asked.http.post("/v1/turns", json={"message": "hello", "webhook": url}), 422, "unprocessable"
        )
        assert problem["detail"].startswith("webhook must be")
    assert receiver.deliveries == []


def test_the_circuit_of_a_host_is_among_the_breakers(
    serve: Serve, connect: Connect, receiver: Receiver, log: Log
) -> None:
    api = connect(telling(serve, receiver))
    api.begin("hello", webhook=receiver.url)
    receiver.wait()
    name = f"webhook:{receiver.host}"
    api.http.post(f"/v1/breakers/{name}/force-open")
    assert {each["name"]: each["state"] for each in api.get("/v1/breakers").json()["breakers"]}[name] == "forced_open"
    api.begin("hello", webhook=receiver.url)
    log.wait("agent_complete", 2)
    assert len(receiver.deliveries) == 1
