"""``/v1/sessions``."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, ProblemOf, Serve, Server


def test_sessions_are_listed_latest_first_and_page_by_page(serve: Serve, connect: Connect) -> None:
    api = connect(serve())
    assert api.get("/v1/sessions").json() == {"sessions": [], "next": None}
    for session in ("a", "b", "c", "a"):
        api.ask("hello", session)
    first = api.get("/v1/sessions", params={"limit": 2}).json()
    assert [(session["session_id"], session["turns"]) for session in first["sessions"]] == [("a", 2), ("c", 1)]
    second = api.get("/v1/sessions", params={"limit": 2, "cursor": first["next"]}).json()
    assert [session["session_id"] for session in second["sessions"]] == ["b"]
    assert second["next"] is None
    for session in first["sessions"]:
        assert set(session) == {"session_id", "turns", "created_at", "updated_at"}
        assert session["created_at"] <= session["updated_at"]


def test_a_session_shows_its_turns_latest_first_and_page_by_page(api: Api, said: str) -> None:
    answers = [api.ask(f"message {number}", said) for number in (1, 2, 3)]
    path = f"/v1/sessions/{said}"
    first = api.get(path, params={"limit": 2}).json()
    assert first["session_id"] == said
    assert [turn["message"] for turn in first["turns"]] == ["message 3", "message 2"]
    assert first["next"] == 2
    second = api.get(path, params={"limit": 2, "before": first["next"]}).json()
    assert ([turn["number"] for turn in second["turns"]], second["next"]) == ([1], None)
    turn, answer = second["turns"][0], answers[0]
    assert {key: turn[key] for key in ("turn_id", "trace_id", "reply", "outcome", "usage")} == {
        key: answer[key] for key in ("turn_id", "trace_id", "reply", "outcome", "usage")
    }
    assert set(turn) - set(answer) == {*("number", "agent", "started_at", "state", "duration_s", "message", "error")}


def test_a_turn_that_runs_is_shown_without_an_end(server: Server, api: Api, said: str) -> None:
    with api.stream(said, said, "talk") as events:
        next(events)
        turn = api.get(f"/v1/sessions/{said}").json()["turns"][0]
        assert (turn["state"], turn["outcome"], turn["duration_s"], turn["reply"]) == ("running", None, None, "")
        server.release(said)
        list(events)
    turn = api.get(f"/v1/sessions/{said}").json()["turns"][0]
    assert (turn["state"], turn["outcome"], turn["reply"]) == ("ended", "success", "one two")


def test_a_failed_turn_is_shown_with_its_error_and_without_its_text(api: Api, said: str) -> None:
    api.post("boo", said, "fails")
    turn = api.get(f"/v1/sessions/{said}").json()["turns"][0]
    assert (turn["outcome"], turn["error"], turn["reply"]) == ("error", "agent_failed", "")


def test_a_deleted_session_is_gone_and_its_name_begins_anew(api: Api, said: str, problem_of: ProblemOf) -> None:
    api.ask("hello", said)
    response = api.delete(f"/v1/sessions/{said}")
    assert (response.status_code, response.content) == (204, b"")
    problem_of(api.get(f"/v1/sessions/{said}"), 404, "not_found")
    problem_of(api.delete(f"/v1/sessions/{said}"), 404, "not_found")
    answer = api.ask("hello again", said, "past")
    assert (answer["reply"], answer["turn_id"].rpartition("-")[2]) == ("", "1")


def test_a_session_is_not_deleted_while_a_turn_of_it_runs(
    server: Server, api: Api, said: str, problem_of: ProblemOf
) -> None:
    with api.stream(said, said, "talk") as events:
        next(events)
        problem_of(api.delete(f"/v1/sessions/{said}"), 409, "session_busy")
        server.release(said)
        list(events)
    assert api.delete(f"/v1/sessions/{said}").status_code == 204


@pytest.mark.parametrize("name", ["with space", "tenant/42", "/", "a//b", "a?b#c%20", "ümläut ☃", "x" * 200, "..x"])
def test_whatever_a_session_is_called_it_can_be_shown_and_deleted(api: Api, name: str) -> None:
    api.ask("hello", name)
    path = f"/v1/sessions/{quote(name, safe='')}"
    assert api.get(path).json()["session_id"] == name
    assert api.delete(path).status_code == 204


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "%%%", "é", "A" * 5000, *(base64.urlsafe_b64encode(b).decode() for b in (b"-1 a", b"1", b"\xff 1"))],
)
def test_a_cursor_that_was_never_given_is_refused(api: Api, cursor: str, problem_of: ProblemOf) -> None:
    problem_of(api.get("/v1/sessions", params={"cursor": cursor}), 422, "unprocessable")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/v1/sessions?limit=0", "query.limit"),
        ("/v1/sessions?limit=201", "query.limit"),
        ("/v1/sessions?limit=many", "query.limit"),
        ("/v1/sessions?user_id=", "query.user_id"),
        ("/v1/sessions?user_id=a%00b", "query.user_id"),
        ("/v1/sessions/s?before=0", "query.before"),
        ("/v1/sessions/s?before=99999999999999999999", "query.before"),
        ("/v1/sessions/a%09b", "path.session_id"),
        (f"/v1/sessions/{'x' * 201}", "path.session_id"),
        ("/v1/sessions/", "path.session_id"),
    ],
)
def test_a_wrong_parameter_is_named(api: Api, path: str, where: str, problem_of: ProblemOf) -> None:
    assert problem_of(api.get(path), 422, "unprocessable")["detail"].endswith(f"at {where}")


def test_an_open_server_keeps_the_sessions_of_named_users_apart(api: Api, said: str) -> None:
    mine = {"message": "my name is Ada", "session_id": said, "user_id": f"ada {said}"}
    assert api.http.post("/chat", json=mine).status_code == 200
    assert api.ask("who am I?", said, "past")["reply"] == ""
    listed = api.get("/v1/sessions", params={"user_id": f"ada {said}"}).json()["sessions"]
    assert [session["session_id"] for session in listed] == [said]
    assert api.get(f"/v1/sessions/{said}", params={"user_id": "eve"}).status_code == 404
    assert api.delete(f"/v1/sessions/{said}", params={"user_id": f"ada {said}"}).status_code == 204
    assert api.get(f"/v1/sessions/{said}").status_code == 200


def test_a_restart_keeps_the_sessions(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'hold.db'}"
    before = serve(store__url=store)
    first = connect(before).ask("my name is Ada", "s")
    before.stop()
    api = connect(serve(store__url=store))
    second = api.ask("who am I?", "s", "past")
    assert second["reply"] == "my name is Ada"
    assert second["turn_id"] == first["turn_id"].replace("-1", "-2")
    assert len(api.get("/v1/sessions/s").json()["turns"]) == 2
