"""Whatever is sent, the answer is one problem with the right status, the log has a line, and the server goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from holdfast import Holdfast, HoldfastError

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Log, ProblemOf, Serve, Server

JSON = {"content-type": "application/json"}
DEEP = b"[" * 10_000 + b"]" * 10_000


@pytest.fixture(autouse=True)
def _the_server_goes_on(api: Api, log: Log) -> Iterator[None]:
    """Around every test: what was refused was logged with its status, and the next message is answered."""
    yield
    assert any(line["status"] >= 400 for line in log.wait("http_request"))
    assert api.ask("still there?")["reply"] == "still there?"


NOT_JSON = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut short": b'{"message": "hel',
    "followed by more": b'{"message": "hello"} {}',
    "single quotes": b"{'message': 'hello'}",
    "not a number": b'{"message": NaN}',
    "a byte order mark": b'\xef\xbb\xbf{"message": "hello"}',
    "invalid UTF-8": b'{"message": "\xff\xfe"}',
    "overlong UTF-8": b'{"message": "\xc0\xaf"}',
    "an encoded surrogate": b'{"message": "\xed\xa0\x80"}',
    "half a surrogate pair": b'{"message": "\\ud800"}',
    "the other half": b'{"message": "\\udc00 x"}',
    "a bare line break": b'{"message": "a\nb"}',
    "nested too deep": b'{"message": "hello", "x": ' + DEEP + b"}",
    "UTF-16": '{"message": "hello"}'.encode("utf-16"),
}


@pytest.mark.parametrize("what", NOT_JSON)
def test_what_is_not_json_is_a_bad_request(api: Api, what: str, problem_of: ProblemOf) -> None:
    problem_of(api.http.post("/chat", content=NOT_JSON[what], headers=JSON), 400, "not_json")


WRONG_SHAPE = {
    "a list": ([], "object"),
    "a text": ("hello", "object"),
    "a deep nest": (json.loads(b"[" * 500 + b"]" * 500), "object"),
    "no message": ({}, "message"),
    "no message but more": ({"text": "hello"}, "message"),
    "a number for a message": ({"message": 1}, "$.message"),
    "null for a message": ({"message": None}, "$.message"),
    "a list for a message": ({"message": ["hello"]}, "$.message"),
    "an empty message": ({"message": ""}, "$.message"),
    "a blank message": ({"message": " \t\n\u3000"}, "$.message"),
    "a number for a session": ({"message": "hello", "session_id": 1}, "$.session_id"),
    "an empty session": ({"message": "hello", "session_id": ""}, "$.session_id"),
    "a huge session": ({"message": "hello", "session_id": "x" * 201}, "$.session_id"),
    "NUL in a session": ({"message": "hello", "session_id": "a\0b"}, "$.session_id"),
    "a line break in a session": ({"message": "hello", "session_id": "a\nb"}, "$.session_id"),
    "a line break behind a session": ({"message": "hello", "session_id": "ab\n"}, "$.session_id"),
    "DEL in a session": ({"message": "hello", "session_id": "a\x7f"}, "$.session_id"),
    "an escape in a user": ({"message": "hello", "user_id": "\x1b[31m"}, "$.user_id"),
    "a huge user": ({"message": "hello", "user_id": "x" * 201}, "$.user_id"),
    "a truth for an agent": ({"message": "hello", "agent": True}, "$.agent"),
    "a huge address": ({"message": "hello", "source_ip": "x" * 65}, "$.source_ip"),
}


@pytest.mark.parametrize("what", WRONG_SHAPE)
def test_json_of_the_wrong_shape_is_unprocessable_and_the_answer_says_where(
    api: Api, what: str, problem_of: ProblemOf
) -> None:
    body, where = WRONG_SHAPE[what]
    assert where in problem_of(api.http.post("/v1/chat", json=body), 422, "unprocessable")["detail"]


@pytest.mark.parametrize(
    "media_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
def test_a_body_that_is_not_declared_as_json_is_not_read(
    api: Api, media_type: str | None, problem_of: ProblemOf
) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    response = api.http.post("/chat", content=b'{"message": "hello"}', headers=headers)
    problem_of(response, 415, "unsupported_media_type")


def test_an_agent_that_does_not_exist_is_not_found_and_the_answer_says_which_do(
    api: Api, problem_of: ProblemOf
) -> None:
    problem = problem_of(api.post("hello", agent="nobody"), 404, "not_found")
    assert problem["detail"] == "there is no agent nobody; there is assistant, echo, fails, past, talk"


@pytest.mark.parametrize("path", ["/", "/chats", "/chat/", "/v1", "/v2/chat", "/health/", "/docs", "/../etc/passwd"])
def test_a_route_that_does_not_exist_is_not_found(api: Api, path: str, log: Log, problem_of: ProblemOf) -> None:
    problem_of(api.get(path), 404, "not_found")
    assert [line["route"] for line in log.wait("http_request")] == ["_other"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/chat", "POST"),
        ("DELETE", "/v1/chat", "POST"),
        ("OPTIONS", "/chat", "POST"),
        ("POST", "/v1/sessions", "GET, HEAD"),
        ("PATCH", "/v1/sessions/s", "DELETE, GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("BREW", "/chat", "POST"),
        ("TRACE", "/metrics", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    api: Api, method: str, path: str, allowed: str, problem_of: ProblemOf
) -> None:
    if method == "BREW":
        assert api.http.request(method, path).status_code == 400  # the parser knows the registered methods only
        problem_of(api.get("/chat"), 405, "method_not_allowed")
        return
    response = api.http.request(method, path)
    problem_of(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allowed


def test_head_of_a_wrong_route_has_no_body(api: Api) -> None:
    assert (api.http.head("/chat").status_code, api.http.head("/chat").content) == (405, b"")


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_megabytes_are_too_large(api: Api, chunked: bool, problem_of: ProblemOf) -> None:  # noqa: FBT001 - a column
    body = json.dumps({"message": "x" * 10_000_000}).encode()
    content: Any = (body[at : at + 65_536] for at in range(0, len(body), 65_536)) if chunked else body
    problem_of(api.http.post("/chat", content=content, headers=JSON), 413, "too_large")


def test_a_body_of_exactly_the_limit_is_taken(serve: Serve, connect: Connect, api: Api, problem_of: ProblemOf) -> None:
    small = connect(serve(server__max_body_bytes=2_000))
    body = b'{"message":"%s"}' % (b"x" * (2_000 - 14))
    assert len(body) == 2_000
    assert small.http.post("/chat", content=body, headers=JSON).status_code == 200
    problem_of(small.http.post("/chat", content=body + b" ", headers=JSON), 413, "too_large")
    problem_of(small.http.post("/chat", content=iter([body, b" "]), headers=JSON), 413, "too_large")
    assert api.get("/none").status_code == 404


def test_an_agent_that_raises_is_an_error_that_says_nothing_of_its_insides(
    server: Server, api: Api, log: Log, problem_of: ProblemOf
) -> None:
    response = api.post("hello", agent="fails")
    assert problem_of(response, 500, "agent_failed")["detail"] == "The agent failed."
    assert server.secret not in response.text
    assert "LookupError" not in response.text
    (failed,) = log.wait("turn_failed")
    assert (failed["cause"], failed["trace_id"]) == ("LookupError", response.json()["trace_id"])
    assert server.secret not in str([line for line in log.lines if line["level"] != "debug"])


def test_a_turn_that_takes_too_long_is_a_gateway_timeout(
    serve: Serve, connect: Connect, api: Api, said: str, problem_of: ProblemOf
) -> None:
    server = serve(resilience__turn_s=0.2)
    problem_of(connect(server).post(said, said, "talk"), 504, "deadline_exceeded")
    assert connect(server).get(f"/v1/sessions/{said}").json()["turns"][0]["outcome"] == "timeout"
    assert api.get("/none").status_code == 404


def test_a_server_that_stops_takes_no_new_turns_and_says_when_to_come_again(
    serve: Serve, connect: Connect, api: Api, said: str, problem_of: ProblemOf
) -> None:
    server = serve()
    going = connect(server)
    with going.stream(said, said, "talk") as events:
        next(events)
        server.begin_to_stop()
        _until_not_ready(connect(server))
        for headers in ({}, {"accept": "text/event-stream"}):
            refused = connect(server).post("hello", headers=headers)
            problem_of(refused, 503, "draining")
            assert 1 <= int(refused.headers["retry-after"]) <= 5
        server.release(said)
        assert [event.name for event in events][-1] == "turn.ended"
    assert api.get("/none").status_code == 404  # the line that every test here leaves


def _until_not_ready(api: Api) -> None:
    while api.get("/health/ready").status_code != 503:
        pass


def test_a_store_that_fails_is_unavailable(serve: Serve, connect: Connect, api: Api, problem_of: ProblemOf) -> None:
    server = serve()
    server.store.down = True
    client = connect(server)
    server.skip(5)
    for response in (client.post("hello"), client.get("/v1/sessions"), client.delete("/v1/sessions/s")):
        problem = problem_of(response, 503, "store_unavailable")
        assert "fire" not in str(problem)
    server.store.down = False
    assert client.ask("hello")["reply"] == "hello"
    assert api.get("/none").status_code == 404


def test_a_mistake_of_ours_is_one_problem_too(
    server: Server, api: Api, log: Log, monkeypatch: pytest.MonkeyPatch, problem_of: ProblemOf
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError(server.secret)

    monkeypatch.setattr(server.hold.health, "report", broken)
    monkeypatch.setattr(Holdfast, "begin", broken)
    for response in (api.get("/health"), api.post("hello")):
        problem_of(response, 500, HoldfastError.code)
        assert server.secret not in response.text
    assert [line["cause"] for line in log.wait("turn_failed", 2)] == ["ZeroDivisionError"] * 2
    monkeypatch.undo()


# Odd, and fine


def test_what_is_odd_but_right_is_taken(api: Api, said: str) -> None:
    odd = "NUL \0, \x1b[31m, \u202e, \ufffd, \U0001f600, \r\n" + "ä" * 1000
    assert api.ask(odd, said)["reply"] == odd
    assert api.get(f"/v1/sessions/{said}").json()["turns"][0]["message"] == odd
    pair = api.http.post("/chat", content=b'{"message": "\\ud83d\\ude00"}', headers=JSON)
    assert pair.json()["reply"] == "\U0001f600"
    unknown = api.http.post("/chat", json={"message": "hello", "temperature": 1, "reply": None})
    assert unknown.json()["reply"] == "hello"  # fields that are not listed are ignored, as the document says
    merge = api.http.post("/chat", content=b'{"message":"hello"}', headers={"content-type": "Application/LD+JSON; a=b"})
    assert merge.status_code == 200
    assert api.get("/none").status_code == 404
