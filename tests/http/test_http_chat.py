"""``POST /chat`` and ``POST /v1/chat``, answered in one piece."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Log, ReadEvents, Serve, Server

STREAM = "text/event-stream"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("path", ["/chat", "/v1/chat"])
def test_an_answer_has_exactly_the_documented_keys(api: Api, path: str) -> None:
    response = api.http.post(path, json={"message": "What is 17*23?", "agent": "assistant"})
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    known = ["session_id", "turn_id", "trace_id", "reply", "outcome", "model", "usage", "degraded", "via", "because"]
    assert list(answer) == known
    assert (answer["degraded"], answer["via"], answer["because"]) == (False, None, None)
    assert (answer["outcome"], answer["model"]) == ("success", "demo")
    assert "391" in answer["reply"]
    assert list(answer["usage"]) == ["model_calls", "tool_calls", "input_tokens", "output_tokens", "cost_usd"]
    assert (answer["usage"]["model_calls"], answer["usage"]["tool_calls"]) == (2, 1)


def test_the_agent_that_is_named_answers_and_the_default_one_otherwise(api: Api) -> None:
    assert api.ask("hello")["reply"] == "hello"  # echo, which was served first
    assert api.ask("hello", agent="past")["reply"] == ""


def test_the_second_message_of_a_session_sees_the_first(api: Api, said: str) -> None:
    first = api.ask("my name is Ada", said)
    second = api.ask("who am I?", said, agent="past")
    assert second["reply"] == "my name is Ada"
    assert second["session_id"] == first["session_id"] == said


def test_a_session_without_a_name_gets_one_of_its_own(api: Api) -> None:
    names = {api.ask("hello")["session_id"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"s_[0-9a-f]{16}", name) for name in names)


def test_turn_ids_count_the_turns_of_their_session(api: Api, said: str) -> None:
    turns = [api.ask("hello", said)["turn_id"] for _ in range(3)]
    conversations = {turn.rpartition("-")[0] for turn in turns}
    assert len(conversations) == 1
    assert [turn.rpartition("-")[2] for turn in turns] == ["1", "2", "3"]
    assert api.ask("hello", f"{said} other")["turn_id"].rpartition("-")[0] not in conversations


def test_a_failed_turn_is_counted_but_not_remembered(api: Api, said: str) -> None:
    assert api.post("boo", said, "fails").status_code == 500
    answer = api.ask("hello", said, "past")
    assert (answer["reply"], answer["turn_id"].rpartition("-")[2]) == ("", "2")


def test_two_messages_of_one_session_are_answered_one_after_the_other(server: Server, api: Api, said: str) -> None:
    with ThreadPoolExecutor() as pool:
        first = pool.submit(api.ask, said, said, "talk")
        assert server.began[said].wait(5)
        second = pool.submit(api.ask, "and then?", said, "past")
        assert api.ask("meanwhile", f"{said} other")["reply"] == "meanwhile"
        assert not second.done()
        server.release(said)
        assert first.result(5)["turn_id"].endswith("-1")
        assert second.result(5)["turn_id"].endswith("-2")
        assert second.result(5)["reply"] == said


def test_a_session_that_is_taken_is_a_conflict_where_nobody_waits(serve: Serve, connect: Connect, said: str) -> None:
    server = serve(server__session_wait_s=0)
    api = connect(server)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(api.ask, said, said, "talk")
        assert server.began[said].wait(5)
        busy = api.post("me too", said)
        streamed = api.post("me too", said, headers={"accept": "text/event-stream"})
        server.release(said)
        first.result(5)
    for refused in (busy, streamed):
        assert (refused.status_code, refused.json()["code"]) == (409, "session_busy")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
    assert api.ask("now?", said)["turn_id"].endswith("-2")


def test_a_message_that_still_waits_when_the_server_stops_is_answered(
    serve: Serve, connect: Connect, said: str, read_events: ReadEvents
) -> None:
    server = serve()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(connect(server).post, said, said, "talk")
        assert server.began[said].wait(5)
        waiting = [pool.submit(connect(server).post, "me too", said, headers={"accept": a}) for a in ("*/*", STREAM)]
        while server.hold.drain.in_progress < 3:
            pass
        server.stop()
        plain, streamed = waiting
        for stopped in (running, plain):
            assert stopped.result().status_code == 503
            assert stopped.result().headers["content-type"] == "application/problem+json"
            assert stopped.result().json()["code"] == "turn_cancelled"
        *_, ended, error = read_events(iter(streamed.result().text.splitlines()))
    assert (ended.name, ended.data["outcome"]) == ("turn.ended", "cancelled")
    assert (error.id, error.name, error.data["code"]) == (None, "error", "turn_cancelled")


# Ids


def test_a_trace_that_the_caller_began_is_carried_on(api: Api) -> None:
    response = api.post("hello", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
    assert response.json()["trace_id"] == TRACE
    version, trace_id, span_id, flags = response.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    assert re.fullmatch(r"[0-9a-f]{16}", span_id)
    assert span_id != SPAN


@pytest.mark.parametrize(
    "header",
    [
        "",
        "hello",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_begins_a_new_trace(api: Api, header: str) -> None:
    response = api.post("hello", headers={"traceparent": header})
    trace_id = response.json()["trace_id"]
    assert re.fullmatch(r"[0-9a-f]{32}", trace_id)
    assert trace_id != TRACE
    assert response.headers["traceparent"].split("-")[1] == trace_id


@pytest.mark.parametrize("given", ["req-1", "A.b:c_d-9", "x" * 128])
def test_a_sane_request_id_comes_back(api: Api, given: str) -> None:
    assert api.post("hello", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, '"quoted"', "semi;colon", "\xe9t\xe9"])
def test_any_other_request_id_is_replaced(api: Api, given: str) -> None:
    response = api.get("/health/live", headers={b"x-request-id": given.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["x-request-id"])


def test_the_ids_of_a_turn_are_in_its_log_lines_and_its_words_are_not(api: Api, log: Log) -> None:
    answer = api.ask("a very private question", headers={"x-request-id": "req-1"})
    lines = [log.wait(event)[0] for event in ("agent_start", "agent_complete", "http_request")]
    assert {(line["request_id"], line["trace_id"]) for line in lines} == {("req-1", answer["trace_id"])}
    assert "private" not in str(log.lines)


def test_the_address_is_the_connections_and_not_the_bodys(server: Server, api: Api, said: str) -> None:
    body = {"message": "hello", "session_id": said, "source_ip": "203.0.113.9"}
    api.http.post("/chat", json=body, headers={"x-forwarded-for": "203.0.113.8"})
    turns = server.run(server.hold.store.turns("anonymous", said, 1, None))
    assert turns is not None
    assert turns[0].source_ip == "127.0.0.1"


def test_a_trusted_proxy_is_believed(serve: Serve, connect: Connect, said: str) -> None:
    server = serve(server__trusted_proxies=("127.0.0.0/8",))
    connect(server).ask("hello", said, headers={"x-forwarded-for": "203.0.113.8"})
    turns = server.run(server.hold.store.turns("anonymous", said, 1, None))
    assert turns is not None
    assert turns[0].source_ip == "203.0.113.8"
