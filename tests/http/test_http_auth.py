"""Who may ask, and as whom."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.clock import NS, Clock
from holdfast.errors import Unauthenticated
from holdfast.server import auth
from holdfast.server.auth import Gate, make_key
from holdfast.store import MemoryStore

if TYPE_CHECKING:
    from starlette.requests import Request
    from tests.http.conftest import Api, Connect, Log, ProblemOf, Serve, Server

GUARDED = ["/v1/sessions", "/v1/sessions/s", "/health/detailed", "/metrics", "/openapi.json"]
PROBES = ["/health", "/health/live", "/health/ready", "/healthz", "/readyz"]


@pytest.fixture(scope="module")
def closed(serve: Serve) -> Server:
    """A server that has a key."""
    server = serve()
    server.add_key("root")
    return server


def test_an_open_server_needs_no_key(api: Api) -> None:
    assert api.ask("hello")["reply"] == "hello"
    assert {api.get(path).status_code for path in [*PROBES, *GUARDED]} == {200, 404}


@pytest.mark.parametrize("path", GUARDED)
def test_once_a_key_exists_everything_needs_one(
    closed: Server, connect: Connect, path: str, problem_of: ProblemOf
) -> None:
    response = connect(closed).get(path)
    problem_of(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == 'Bearer realm="holdfast"'
    assert connect(closed, closed.add_key("ada")).get(path).status_code in {200, 404}


def test_once_a_key_exists_asking_needs_one(closed: Server, connect: Connect, problem_of: ProblemOf) -> None:
    for headers in ({}, {"accept": "text/event-stream"}):
        problem_of(connect(closed).post("hello", headers=headers), 401, "unauthenticated")
    problem_of(connect(closed).delete("/v1/sessions/s"), 401, "unauthenticated")
    assert connect(closed, closed.add_key("ada")).ask("hello")["reply"] == "hello"


@pytest.mark.parametrize("path", PROBES)
def test_probes_never_need_a_key(closed: Server, connect: Connect, path: str) -> None:
    assert connect(closed).get(path).status_code == 200


def test_a_key_goes_into_either_header(closed: Server, connect: Connect) -> None:
    key, api = closed.add_key("ada"), connect(closed)
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer   {key}"},
        {"x-api-key": key},
        {"authorization": "Basic YTpi", "x-api-key": key},
    ):
        assert api.get("/v1/sessions", headers=headers).status_code == 200


def test_a_key_that_is_no_good_is_refused_and_the_answer_never_says_why(
    closed: Server, connect: Connect, problem_of: ProblemOf
) -> None:
    good, other = closed.add_key("ada"), closed.add_key("bob")
    revoked, expired = closed.add_key("ada"), closed.add_key("ada", lasts_s=1)
    closed.revoke(revoked)
    closed.skip(2)
    (_, key_id, secret), api = good.split("_"), connect(closed)
    wrong = [
        revoked,
        expired,
        "",
        "hf",
        "hf__",
        f"hf_{key_id}",
        f"hf_{key_id}_",
        f"hf_{key_id}_{secret}x",
        f"hf_{key_id}_{secret.upper()}",
        f"hf_{key_id}_{other.split('_')[2]}",
        f"xx_{key_id}_{secret}",
        f"hf_000000000000_{secret}",
        secret,
        "\xe9" * 40,
        "x" * 10_000,
    ]
    said = set()
    for key in wrong:
        bearer = f"Bearer {key}".strip().encode("latin-1")
        for headers in ({b"authorization": bearer}, {b"x-api-key": key.encode("latin-1")}):
            response = api.get("/v1/sessions", headers=headers)
            said.add((problem_of(response, 401, "unauthenticated")["detail"], response.headers["www-authenticate"]))
    assert len(said) == 1
    assert api.get("/v1/sessions", headers={"x-api-key": good}).status_code == 200


def test_every_key_has_conversations_of_its_own(
    closed: Server, connect: Connect, said: str, problem_of: ProblemOf
) -> None:
    ada, bob = (connect(closed, closed.add_key(f"{name} {said}")) for name in ("ada", "bob"))
    ada.ask("my name is Ada", said)
    assert bob.ask("who am I?", said, "past")["reply"] == ""
    assert bob.ask("and now?", said, "past")["turn_id"] != ada.ask("and now?", said, "past")["turn_id"]
    assert bob.delete(f"/v1/sessions/{said}").status_code == 204
    problem_of(bob.get(f"/v1/sessions/{said}"), 404, "not_found")
    assert [turn["message"] for turn in ada.get(f"/v1/sessions/{said}").json()["turns"]] == [
        "and now?",
        "my name is Ada",
    ]


def test_two_keys_of_one_user_share_their_conversations(closed: Server, connect: Connect, said: str) -> None:
    one, two = (connect(closed, closed.add_key(f"ada {said}")) for _ in range(2))
    one.ask("my name is Ada", said)
    assert two.ask("who am I?", said, "past")["reply"] == "my name is Ada"


def test_only_a_delegate_may_name_its_user(closed: Server, connect: Connect, said: str) -> None:
    ada = connect(closed, closed.add_key(f"ada {said}"))
    front = connect(closed, closed.add_key(f"front {said}", "delegate"))
    ada.ask("my name is Ada", said)
    body = {"message": "who am I?", "session_id": said, "agent": "past", "user_id": f"ada {said}"}
    assert front.http.post("/chat", json=body).json()["reply"] == "my name is Ada"
    assert front.get(f"/v1/sessions/{said}", params={"user_id": f"ada {said}"}).status_code == 200
    assert front.get(f"/v1/sessions/{said}").status_code == 404

    eve = connect(closed, closed.add_key(f"eve {said}"))
    assert eve.http.post("/chat", json=body).json()["reply"] == ""
    assert eve.get("/v1/sessions", params={"user_id": f"ada {said}"}).json()["sessions"][0]["turns"] == 1
    assert eve.delete(f"/v1/sessions/{said}", params={"user_id": f"ada {said}"}).status_code == 204
    assert ada.get(f"/v1/sessions/{said}").status_code == 200


def test_a_new_key_and_a_revocation_are_in_force_within_two_seconds(serve: Serve, connect: Connect) -> None:
    server = serve()
    api = connect(server)
    assert api.get("/v1/sessions").status_code == 200
    key = server.add_key("ada")
    assert api.get("/v1/sessions").status_code == 401
    mine = connect(server, key)
    assert mine.get("/v1/sessions").status_code == 200
    server.revoke(key)
    server.skip(2)
    assert mine.get("/v1/sessions").status_code == 401


def test_revoking_every_key_does_not_open_the_server_again(serve: Serve, connect: Connect) -> None:
    server = serve()
    server.revoke(server.add_key("ada"))
    server.skip(10)
    assert connect(server).post("hello").status_code == 401


# Other names for this machine


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "testserver", "0.0.0.0",
     "[::]", "10.0.0.1:8080", "2130706433", "", "localhost:8080@evil.example"],
)  # fmt: skip
def test_an_open_server_answers_to_no_foreign_name(api: Api, host: str, problem_of: ProblemOf) -> None:
    """A web page may have its own name resolve to 127.0.0.1: the browser then sends that name."""
    for path in GUARDED:
        assert "localhost" in problem_of(api.get(path, headers={"host": host}), 403, "forbidden")["detail"]
    problem_of(api.post("hello", headers={"host": host}), 403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8080"])
def test_an_open_server_answers_to_every_loopback_name(api: Api, host: str) -> None:
    assert api.get("/v1/sessions", headers={"host": host}).status_code == 200


def test_a_server_with_keys_answers_to_any_name(closed: Server, connect: Connect) -> None:
    api = connect(closed, closed.add_key("ada"))
    assert api.get("/v1/sessions", headers={"host": "agents.example"}).status_code == 200


# How keys are kept and compared


def test_of_a_key_only_a_digest_is_kept(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    server = serve(store__url=f"sqlite:{tmp_path / 'hold.db'}")
    key = server.add_key("ada")
    assert connect(server, key).ask("hello")["reply"] == "hello"
    secret = key.split("_")[2]
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"hello" in kept
    assert hashlib.sha256(secret.encode()).digest() in kept
    assert secret.encode() not in kept
    assert bytes.fromhex(secret) not in kept


def test_no_key_is_ever_logged(closed: Server, connect: Connect, log: Log) -> None:
    key = closed.add_key("ada")
    connect(closed, key).ask("hello")
    connect(closed, f"{key}x").post("hello")
    assert [line["status"] for line in log.wait("http_request", 2)] == [200, 401]
    assert key.split("_")[2] not in str(log.lines)


class _Sent:
    """As much of a request as the gate looks at."""

    def __init__(self, key: str = "", host: str = "localhost") -> None:
        self.headers = {"x-api-key": key, "host": host}


def _request(key: str = "") -> Request:
    sent: Any = _Sent(key)
    return sent  # type: ignore[no-any-return]  # it stands in for one


async def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    class Spy:
        @staticmethod
        def compare_digest(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return hmac.compare_digest(one, other)

    monkeypatch.setattr(auth, "hmac", Spy)
    store, clock = MemoryStore(), Clock()
    key = make_key("ada", (), clock)
    await store.add_key(key.stored)
    assert (await Gate(store, clock).identify(_request(key.text))).principal == "ada"
    assert compared == [(key.stored.digest, key.stored.digest)]


async def test_keys_are_read_once_every_two_seconds_however_many_ask() -> None:
    now, reads = [0], []

    class Counting(MemoryStore):
        async def keys(self) -> Any:
            reads.append(now[0])
            return await super().keys()

    gate = Gate(Counting(), Clock(lambda: now[0], lambda: now[0]))
    for tenth in range(50):
        now[0] = tenth * NS // 10
        await gate.identify(_request())
    assert [read / NS for read in reads] == [0, 2, 4]


async def test_a_key_expires_to_the_nanosecond() -> None:
    now = [0]
    store, clock = MemoryStore(), Clock(lambda: 0, lambda: now[0])
    key = make_key("ada", (), clock, lasts_s=10)
    await store.add_key(key.stored)
    gate = Gate(store, clock)
    now[0] = 10 * NS - 1
    await gate.identify(_request(key.text))
    now[0] += 1
    with pytest.raises(Unauthenticated):
        await gate.identify(_request(key.text))
