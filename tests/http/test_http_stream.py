"""The same turn as server-sent events, while it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.events import EVERY_EVENT

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Serve, Server


def test_the_events_of_a_turn_come_with_ids_that_count_from_one(api: Api, said: str) -> None:
    with api.stream("What is 17*23?", said, "assistant") as events:
        got = list(events)
    assert [event.id for event in got] == list(range(1, len(got) + 1))
    names = [event.name for event in got]
    assert set(names) <= {event.name for event in EVERY_EVENT}
    once = list(dict.fromkeys(names))
    assert once == [
        "turn.started",
        "model.started",
        "model.finished",
        "tool.started",
        "tool.finished",
        "text.delta",
        "turn.ended",
    ]
    first, last = got[0].data, got[-1].data
    assert set(first) == {"session_id", "turn_id", "trace_id", "agent", "generation", "after"}
    assert (first["session_id"], last["outcome"], last["error"]) == (said, "success", None)
    text = "".join(event.data["text"] for event in got if event.name == "text.delta")
    assert text == last["reply"]
    assert "391" in text


def test_a_stream_carries_the_ids_in_its_headers_and_is_not_kept(api: Api) -> None:
    headers = {"accept": "text/event-stream", "x-request-id": "req-7"}
    response = api.post("hello", headers=headers)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"] == "req-7"
    assert response.headers["traceparent"].split("-")[1] in response.text


@pytest.mark.parametrize("accept", ["text/event-stream", "Text/Event-Stream;q=0.9, */*", "a/b, text/event-stream"])
def test_whoever_accepts_events_gets_them(api: Api, accept: str) -> None:
    assert "event: turn.ended\n" in api.post("hello", headers={"accept": accept}).text


def test_events_arrive_while_the_agent_still_talks(server: Server, api: Api, said: str) -> None:
    with api.stream(said, said, "talk") as events:
        assert [next(events).name, next(events).data] == ["turn.started", {"text": "one "}]
        assert server.hold.drain.in_progress == 1
        server.release(said)
        assert [event.data.get("text") or event.data["reply"] for event in events] == ["two", "one two"]


def test_a_client_that_leaves_does_not_stop_the_turn(server: Server, api: Api, said: str) -> None:
    with api.stream(said, said, "talk") as events:
        next(events)
    server.release(said)
    assert api.ask("what was that?", said, "past")["reply"] == said


def test_a_client_that_leaves_while_it_waits_for_json_does_not_stop_the_turn(
    server: Server, connect: Connect, api: Api, said: str
) -> None:
    with pytest.raises(Exception, match=r"timed? ?out"):
        connect().post(said, said, "talk", timeout=0.2)
    server.release(said)
    assert api.ask("what was that?", said, "past")["reply"] == said


def test_a_turn_that_fails_ends_its_stream_with_the_problem(api: Api, said: str) -> None:
    with api.stream("boo", said, "fails") as events:
        got = list(events)
    assert [event.name for event in got] == ["turn.started", "turn.ended", "error"]
    assert [event.id for event in got] == [1, 2, None]
    assert (got[1].data["outcome"], got[1].data["error"]) == ("error", "agent_failed")
    problem = got[2].data
    assert (problem["status"], problem["code"], problem["trace_id"]) == (500, "agent_failed", got[0].data["trace_id"])
    assert problem["turn_id"] == got[0].data["turn_id"]
    assert "thoughts" not in str(got)


def test_a_turn_that_never_begins_is_an_error_and_no_stream(api: Api) -> None:
    response = api.post("hello", agent="nobody", headers={"accept": "text/event-stream"})
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


def test_a_stream_that_nobody_reads_does_not_hold_the_turn_up(serve: Serve, connect: Connect, said: str) -> None:
    server = serve()
    with connect(server).stream(said, said, "talk"):
        server.release(said)
        assert connect(server).ask("done?", said, "past")["reply"] == said
