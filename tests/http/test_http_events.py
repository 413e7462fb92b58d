"""The events of a turn, for whoever comes back to it: while it runs, after its end, and from the middle on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast import FunctionTurn
from holdfast.store import Claim, NewTurn, Said

if TYPE_CHECKING:
    from tests.http.conftest import Api, ProblemOf, Sent, Serve, Server

STREAM = {"accept": "text/event-stream"}


def names(events: list[Sent]) -> list[str]:
    return [event.name for event in events]


# Asked again with the same key


def test_a_broken_stream_goes_on_after_the_last_event_that_came(server: Server, api: Api, said: str) -> None:
    with api.stream(said, said, "talk", idempotency_key=said) as events:
        first = [next(events), next(events)]
    server.release(said)
    with api.stream(said, said, "talk", idempotency_key=said, last_event_id="2") as events:
        rest = list(events)
    assert [event.id for event in first + rest] == list(range(1, len(first + rest) + 1))
    assert names(first + rest) == ["turn.started", "text.delta", "text.delta", "turn.ended"]
    assert rest[-1].data["turn_id"] == first[0].data["turn_id"]


@pytest.mark.parametrize("last", [None, "0", "1", "3", "4", "99"])
def test_a_turn_that_has_ended_is_told_again_from_anywhere(
    server: Server, api: Api, said: str, last: str | None
) -> None:
    server.release(said)
    with api.stream(said, None, "talk", idempotency_key=said) as events:
        whole = list(events)
    headers = {} if last is None else {"last_event_id": last}
    with api.stream(said, None, "talk", idempotency_key=said, **headers) as events:
        assert list(events) == whole[int(last or 0) :]


def test_a_repeat_says_that_it_is_one(api: Api, said: str) -> None:
    headers = STREAM | {"idempotency-key": said}
    first, again = (api.post("hello", headers=headers) for _ in range(2))
    assert (first.headers.get("idempotent-replayed"), again.headers.get("idempotent-replayed")) == (None, "true")
    assert again.text == first.text


def test_a_new_turn_is_told_from_its_beginning_whatever_came_before(api: Api, said: str) -> None:
    with api.stream("hello", said, idempotency_key=said, last_event_id="3") as events:
        assert [event.id for event in events] == [1, 2]


@pytest.mark.parametrize("last", ["-1", "one", "1.0", "9" * 30, "1 2"])
def test_an_id_that_was_never_given_is_refused(api: Api, last: str, problem_of: ProblemOf) -> None:
    turn_id = api.ask("hello")["turn_id"]
    headers = STREAM | {"last-event-id": last}
    for answer in (api.post("hello", headers=headers), api.get(f"/v1/turns/{turn_id}/events", headers=headers)):
        assert problem_of(answer, 422, "unprocessable")["detail"].endswith("at `header.last-event-id`")


# By the turn's id


def test_whoever_comes_late_is_told_everything_and_the_rest_as_it_happens(server: Server, api: Api, said: str) -> None:
    turn_id = api.begin(said, said, "talk")["turn_id"]
    assert server.began[said].wait(5)
    with api.watch(turn_id) as events, api.watch(turn_id, last_event_id="1") as later:
        assert names([next(events), next(events)]) == ["turn.started", "text.delta"]
        assert next(later).id == 2
        server.release(said)
        rest = list(events)
        assert names(rest) == ["text.delta", "turn.ended"]
        assert list(later) == rest


def test_a_turn_that_waits_for_its_session_is_watched_from_before_it_begins(
    server: Server, api: Api, said: str
) -> None:
    api.begin(said, said, "talk")
    assert server.began[said].wait(5)
    turn_id = api.begin("then", said, "past")["turn_id"]
    with api.watch(turn_id) as events:
        assert next(events).name == "turn.started"
        server.release(said)
        assert [event.data["reply"] for event in events] == [said]


def test_after_the_end_the_same_is_told_as_while_it_ran(api: Api, said: str) -> None:
    with api.stream("What is 17*23?", said, "assistant") as events:
        live = list(events)
    turn_id = live[0].data["turn_id"]
    with api.watch(turn_id) as events:
        assert list(events) == live
    with api.watch(turn_id, last_event_id=str(live[3].id)) as events:
        assert list(events) == live[4:]
    with api.watch(turn_id, last_event_id=str(live[-1].id)) as events:
        assert list(events) == []


def test_a_turn_that_failed_ends_with_its_problem_whenever_it_is_watched(api: Api, said: str) -> None:
    with api.stream("boo", said, "fails") as events:
        live = list(events)
    turn_id = live[0].data["turn_id"]
    for last in ("0", "1", "2", "99"):
        with api.watch(turn_id, last_event_id=last) as events:
            got = list(events)
        assert got[-1] == live[-1]
        assert [event.id for event in got[:-1]] == [event.id for event in live[:-1] if (event.id or 0) > int(last)]
    assert (live[-1].id, live[-1].name, live[-1].data["code"]) == (None, "error", "agent_failed")
    assert "thoughts" not in str(live)


def test_they_are_a_list_for_whoever_does_not_watch(server: Server, api: Api, said: str) -> None:
    turn_id = api.begin(said, said, "talk")["turn_id"]
    assert server.began[said].wait(5)
    path = f"/v1/turns/{turn_id}/events"
    so_far = api.get(path).json()["events"]
    assert [(event["id"], event["name"]) for event in so_far] == [(1, "turn.started"), (2, "text.delta")]
    server.release(said)
    api.ended(turn_id)
    rest = api.get(path, params={"after": 2}).json()["events"]
    assert [event["name"] for event in rest] == ["text.delta", "turn.ended"]
    assert api.get(path, headers={"last-event-id": "3"}).json()["events"] == rest[1:]
    assert api.get(path, params={"after": 4}).json() == {"events": []}
    with api.watch(turn_id) as events:
        assert [event._asdict() for event in events] == so_far + rest


@pytest.mark.parametrize("asked", [{"stream": True}, {"stream": False}, {}])
def test_a_turn_in_the_background_says_word_by_word_only_what_it_was_asked_to(api: Api, asked: dict[str, Any]) -> None:
    turn_id = api.begin("What is 17*23?", agent="assistant", **asked)["turn_id"]
    api.ended(turn_id)
    told = [event["name"] for event in api.get(f"/v1/turns/{turn_id}/events").json()["events"]]
    assert ("text.delta" in told) is asked.get("stream", False)
    assert told[-1] == "turn.ended"


def test_text_that_is_no_unicode_does_not_break_a_stream(serve: Serve, connect: Any, said: str) -> None:
    async def halves(turn: FunctionTurn) -> str:
        turn.say("half a pair: \ud83d")
        turn.say("and on")
        return "done"

    api: Api = connect(serve(before=lambda server: server.hold.serve(halves, "halves")))
    with api.stream(said, said, "halves") as events:
        live = list(events)
    assert [event.data["text"] for event in live if event.name == "text.delta"] == ["half a pair: ?", "and on"]
    with api.watch(live[0].data["turn_id"]) as events:
        assert list(events) == live


def test_events_that_another_server_told_come_first(server: Server, api: Api, said: str) -> None:
    """A turn that another server began, told of, and left: this one goes on with it."""

    async def leave() -> str:
        new = NewTurn(
            principal="anonymous",
            session_id=said,
            agent="talk",
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            request_id="r",
            source_ip="",
            message=said,
            owner="dead",
            accepted_ns=server.hold.clock.wall_ns(),
        )
        await server.store.beat("dead")
        turn_id = str((await server.store.accept(new, 1_000)).turn.turn_id)
        told = [[1, "turn.started", {"turn_id": turn_id}], [2, "text.delta", {"text": "before"}]]
        await server.store.suspend(Claim(turn_id, "dead", 1), None, Said(2, json.dumps(told).encode()))
        return turn_id

    turn_id = server.run(leave())
    assert server.began[said].wait(5)
    with api.watch(turn_id) as events, api.watch(turn_id, last_event_id="2") as later:
        before = [next(events), next(events)]
        started = next(events)
        assert [event.id for event in before] == [1, 2]
        assert (started.name, started.data["generation"], started.data["after"]) == ("turn.started", 2, 2)
        assert (started.id or 0) > 1_000_000
        assert next(later) == started
        server.release(said)
        rest = list(events)
        assert names(rest) == ["text.delta", "text.delta", "turn.ended"]
        assert list(later) == rest
    with api.watch(turn_id) as events:
        assert list(events) == [*before, started, *rest]


def test_a_server_that_stops_sends_those_away_who_watch_what_goes_on_elsewhere(
    serve: Serve, connect: Any, said: str, tmp_path: Any
) -> None:
    server = serve(store__url=f"sqlite:{tmp_path / 'hold.db'}", shutdown__deadline_s=2)
    api: Api = connect(server)
    with api.stream(said, said, "talk") as events:
        turn_id = next(events).data["turn_id"]
        next(events)
        server.begin_to_stop()
        *_, suspended, error = events
    assert (suspended.name, suspended.data["because"]) == ("turn.suspended", "handed_over")
    assert (error.id, error.name, error.data["code"], error.data["turn_id"]) == (None, "error", "handed_over", turn_id)
    server.stop()
    later = serve(store__url=f"sqlite:{tmp_path / 'hold.db'}")
    later.release(said)
    assert connect(later).ended(turn_id)["reply"] == "one two"


def test_any_server_on_the_store_knows_the_turn(serve: Serve, connect: Any, said: str, tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'hold.db'}"
    one, other = serve(store__url=store), serve(store__url=store)
    key = {"idempotency-key": said}
    with ThreadPoolExecutor() as pool:
        first = pool.submit(connect(one).post, said, said, "talk", headers=key)
        assert one.began[said].wait(5)
        api: Api = connect(other)
        (turn,) = api.get("/v1/turns").json()["turns"]
        assert turn["state"] == "running"
        again = pool.submit(connect(other).post, said, said, "talk", headers=key)
        with api.watch(turn["turn_id"]) as events:
            one.release(said)
            assert names(list(events)) == ["turn.started", "text.delta", "text.delta", "turn.ended"]
    assert again.result().content == first.result().content
    assert again.result().headers["idempotent-replayed"] == "true"
    assert not other.began[said].is_set()
