"""``/v1/turns`` and idempotency keys: asking again, asking without waiting, looking, stopping, deciding."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import pytest

from holdfast import FunctionTurn
from holdfast.sim import running_simulator
from holdfast.store import Claim, NewTurn, Unit

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Log, ProblemOf, Serve, Server

REPLAYED = "idempotent-replayed"
TURN = {
    *("turn_id", "session_id", "user_id", "agent", "trace_id", "message", "state", "cancelled", "generation"),
    *("outcome", "reply", "error", "model", "degraded", "usage", "started_at", "ended_at", "duration_s"),
}


# The same key


@pytest.mark.parametrize("path", ["/chat", "/v1/chat"])
def test_the_same_key_is_the_same_turn(api: Api, said: str, path: str) -> None:
    body, key = {"message": "hello"}, {"idempotency-key": f"{said}{path}"}
    first, again = (api.http.post(path, json=body, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert (first.headers.get(REPLAYED), again.headers.get(REPLAYED)) == (None, "true")
    assert api.http.post(path, json=body).json()["turn_id"] != first.json()["turn_id"]


def test_the_same_key_is_the_same_problem(api: Api, said: str, log: Log) -> None:
    first, again = (api.post("boo", said, "fails", headers={"idempotency-key": said}) for _ in range(2))
    assert (first.status_code, first.headers.get(REPLAYED)) == (500, None)
    assert (again.status_code, again.headers.get(REPLAYED)) == (500, "true")
    assert again.json() == first.json()
    assert first.json()["turn_id"] == api.get(f"/v1/sessions/{said}").json()["turns"][0]["turn_id"]
    assert len(api.get(f"/v1/sessions/{said}").json()["turns"]) == 1
    assert len(log.all("agent_start")) == 1


def test_two_at_once_with_one_key_run_once(server: Server, connect: Connect, said: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(connect().post, said, None, "talk", headers={"idempotency-key": said}) for _ in range(8)]
        assert server.began[said].wait(5)
        server.release(said)
        answers = [each.result(5) for each in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sorted(answer.headers.get(REPLAYED, "false") for answer in answers) == ["false"] + ["true"] * 7


@pytest.mark.parametrize("other", [{"message": "bye"}, {"session_id": "other"}, {"agent": "past"}])
def test_a_key_that_comes_with_something_else_is_refused(
    api: Api, said: str, other: dict[str, str], problem_of: ProblemOf
) -> None:
    body = {"message": "hello", "session_id": said, "agent": "echo"}
    key = {"idempotency-key": f"{said}{other}".replace(" ", "")}
    assert api.http.post("/chat", json=body, headers=key).status_code == 200
    for accept in ("application/json", "text/event-stream"):
        problem = problem_of(
            api.http.post("/chat", json=body | other, headers={**key, "accept": accept}), 422, "key_reused"
        )
        assert "turn_id" not in problem
    assert api.http.post("/chat", json=body, headers=key).status_code == 200


def test_keys_of_two_users_have_nothing_to_do_with_each_other(api: Api, said: str) -> None:
    key = {"idempotency-key": said}
    turns = [
        api.http.post("/chat", json={"message": message, "user_id": user}, headers=key).json()
        for user, message in (("ada", "one"), ("bob", "two"))
    ]
    assert [turn["reply"] for turn in turns] == ["one", "two"]
    assert turns[0]["turn_id"] != turns[1]["turn_id"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\xe9", "a\tb"])
def test_a_key_that_is_none_is_refused(api: Api, key: str, problem_of: ProblemOf) -> None:
    headers = {b"idempotency-key": key.encode("latin-1")}
    for path in ("/chat", "/v1/turns"):
        response = api.http.post(path, json={"message": "hello"}, headers=headers)
        assert problem_of(response, 422, "unprocessable")["detail"].endswith("at `header.idempotency-key`")


@pytest.mark.parametrize("key", ["!", "~", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'])
def test_any_visible_text_is_a_key(api: Api, said: str, key: str) -> None:
    headers = {"idempotency-key": f"{said}{key}"[-255:]}
    assert api.post("hello", headers=headers).status_code == 200
    assert api.post("hello", headers=headers).headers[REPLAYED] == "true"


def test_a_turn_that_waits_for_its_session_too_long_is_a_conflict_that_names_it(
    serve: Serve, connect: Connect, said: str, problem_of: ProblemOf
) -> None:
    server = serve(server__session_wait_s=0.1)
    api = connect(server)
    with api.stream(said, said, "talk") as events:
        next(events)
        problem = problem_of(api.post("me too", said), 409, "session_busy")
        turn = api.turn(problem["turn_id"])
        assert (turn["outcome"], turn["error"]["code"], turn["error"]["status"]) == ("rejected", "session_busy", 409)
        server.release(said)
        list(events)


# In the background


def test_a_turn_in_the_background_is_accepted_at_once_and_runs(server: Server, api: Api, said: str) -> None:
    response = api.http.post("/v1/turns", json={"message": said, "session_id": said, "agent": "talk"})
    accepted = response.json()
    assert response.status_code == 202
    assert set(accepted) == {"turn_id", "session_id", "trace_id", "state"}
    assert (accepted["session_id"], accepted["state"]) == (said, "running")
    assert response.headers["location"] == f"/v1/turns/{accepted['turn_id']}"
    assert server.began[said].wait(5)
    turn = api.get(response.headers["location"]).json()
    assert set(turn) == TURN | {"units", "monitor"}
    assert (turn["state"], turn["outcome"], turn["reply"], turn["usage"], turn["ended_at"]) == ("running", *[None] * 4)
    assert (turn["message"], turn["user_id"], turn["generation"]) == (said, "anonymous", 1)
    server.release(said)
    ended = api.ended(accepted["turn_id"])
    assert (ended["outcome"], ended["reply"], ended["error"]) == ("success", "one two", None)
    assert ended["ended_at"] >= ended["started_at"]
    assert ended["trace_id"] == accepted["trace_id"] == response.headers["traceparent"].split("-")[1]


def test_turns_of_one_session_in_the_background_run_in_order(server: Server, api: Api, said: str) -> None:
    first = api.begin(said, said, "talk")
    assert server.began[said].wait(5)
    later = [api.begin(f"message {number}", said, "past") for number in (1, 2)]
    assert [turn["state"] for turn in later] == ["queued", "queued"]
    server.release(said)
    assert [api.ended(turn["turn_id"])["reply"] for turn in later] == [said, f"{said} | message 1"]
    assert api.ended(first["turn_id"])["reply"] == "one two"


def test_it_waits_for_its_session_however_long_others_may(serve: Serve, connect: Connect, said: str) -> None:
    server = serve(server__session_wait_s=0)
    api = connect(server)
    api.begin(said, said, "talk")
    assert server.began[said].wait(5)
    waiting = api.begin("and then?", said, "past")
    assert waiting["state"] == "queued"
    assert api.post("me?", said).status_code == 409
    server.release(said)
    assert api.ended(waiting["turn_id"])["reply"] == said


def test_a_key_joins_the_background_with_whoever_waits(server: Server, api: Api, said: str) -> None:
    key = {"idempotency-key": said}
    body = {"message": said, "agent": "talk"}
    begun, again = (api.http.post("/v1/turns", json=body, headers=key) for _ in range(2))
    assert (begun.headers.get(REPLAYED), again.headers.get(REPLAYED)) == (None, "true")
    assert again.json() == begun.json()
    assert again.headers["location"] == begun.headers["location"]
    server.release(said)
    answer = api.http.post("/chat", json=body, headers=key)
    assert (answer.status_code, answer.json()["turn_id"]) == (200, begun.json()["turn_id"])
    assert api.http.post("/v1/turns", json=body, headers=key).json()["state"] == "ended"


def test_what_is_not_accepted_is_a_problem(api: Api, problem_of: ProblemOf) -> None:
    problem_of(api.http.post("/v1/turns", json={"message": " "}), 422, "unprocessable")
    problem_of(api.http.post("/v1/turns", json={"message": "hello", "agent": "nobody"}), 404, "not_found")
    problem_of(api.http.post("/v1/turns", content=b"hello"), 415, "unsupported_media_type")
    assert problem_of(api.http.put("/v1/turns"), 405, "method_not_allowed")


# Looking


def test_a_turn_shows_its_calls(api: Api) -> None:
    answer = api.ask("What is 17*23?", agent="assistant")
    turn = api.turn(answer["turn_id"])
    assert {key: turn[key] for key in ("reply", "usage", "model", "trace_id")} == {
        key: answer[key] for key in ("reply", "usage", "model", "trace_id")
    }
    kinds = [(unit["kind"], unit["state"], unit["attempt"]) for unit in turn["units"]]
    assert kinds == [("model", "done", 1), ("tool", "done", 1), ("model", "done", 1)]
    model, tool, _ = turn["units"]
    assert (tool["name"], tool["effect"], tool["args"]) == ("calculate", "pure", {"expression": "17*23"})
    assert (model["args"], model["usage"]["model_calls"]) == (None, 1)
    assert turn["started_at"] <= model["started_at"] <= model["ended_at"] <= tool["started_at"]


def test_a_failed_turn_shows_its_problem_and_no_more(api: Api, said: str) -> None:
    problem = api.post("boo", said, "fails").json()
    turn = api.turn(problem["turn_id"])
    assert (turn["outcome"], turn["reply"]) == ("error", None)
    assert turn["error"] == {key: problem[key] for key in ("type", "title", "status", "code", "detail")}
    assert "thoughts" not in str(turn)


def test_turns_are_listed_latest_first_page_by_page_and_by_their_state(serve: Serve, connect: Connect) -> None:
    server = serve()
    api = connect(server)
    assert api.get("/v1/turns").json() == {"turns": [], "next": None}
    done = [api.ask(f"message {number}", "s")["turn_id"] for number in range(3)]
    running = api.begin("wait", "t", "talk")["turn_id"]
    assert server.began["wait"].wait(5)
    queued = api.begin("then", "t", "echo")["turn_id"]
    first = api.get("/v1/turns", params={"limit": 3}).json()
    assert [turn["turn_id"] for turn in first["turns"]] == [queued, running, done[2]]
    assert set(first["turns"][0]) == TURN
    second = api.get("/v1/turns", params={"limit": 3, "cursor": first["next"]}).json()
    assert [turn["turn_id"] for turn in second["turns"]] == [done[1], done[0]]
    assert second["next"] is None

    def listed(*states: str) -> list[str]:
        return [turn["turn_id"] for turn in api.get("/v1/turns", params={"state": states}).json()["turns"]]

    assert listed("running") == [running]
    assert listed("queued", "running") == [queued, running]
    assert listed("ended") == done[::-1]
    assert listed("in_doubt") == []
    server.release("wait")
    assert api.ended(queued)["reply"] == "then"


@pytest.mark.parametrize(
    ("query", "where"),
    [("limit=0", "query.limit"), ("state=over", "query.state.0"), ("user_id=a%00b", "query.user_id")],
)
def test_a_wrong_parameter_of_a_list_is_named(api: Api, query: str, where: str, problem_of: ProblemOf) -> None:
    assert problem_of(api.get(f"/v1/turns?{query}"), 422, "unprocessable")["detail"].endswith(f"at {where}")
    problem_of(api.get("/v1/turns?cursor=nope"), 422, "unprocessable")


# Whose they are


@pytest.fixture(scope="module")
def closed(serve: Serve) -> Server:
    """A server with keys."""
    return serve()


def test_somebody_elses_turn_is_not_there(closed: Server, connect: Connect, problem_of: ProblemOf) -> None:
    ada, eve = (connect(closed, closed.add_key(user)) for user in ("ada", "eve"))
    turn_id = ada.ask("my secret", "s")["turn_id"]
    path = f"/v1/turns/{turn_id}"
    assert ada.get(path).status_code == 200
    for answer in (
        eve.get(path),
        eve.get(path, params={"user_id": "ada"}),
        eve.get(f"{path}/events"),
        eve.http.post(f"{path}/cancel"),
        ada.get("/v1/turns/0000000000000000-1"),
    ):
        problem_of(answer, 404, "not_found")
    assert [turn["turn_id"] for turn in eve.get("/v1/turns").json()["turns"]] == []
    assert [turn["turn_id"] for turn in eve.get("/v1/turns?user_id=ada").json()["turns"]] == []
    assert [turn["turn_id"] for turn in ada.get("/v1/turns").json()["turns"]] == [turn_id]
    problem_of(connect(closed).get(path), 401, "unauthenticated")


def test_an_operator_sees_everybodys(closed: Server, connect: Connect, said: str) -> None:
    users = [f"{said}-{name}" for name in ("a", "b")]
    turns = [connect(closed, closed.add_key(user)).ask("hello")["turn_id"] for user in users]
    operator = connect(closed, closed.add_key("otto", "operate"))
    listed = [turn["turn_id"] for turn in operator.get("/v1/turns").json()["turns"]]
    assert listed[:2] == turns[::-1]
    mine = operator.get("/v1/turns", params={"user_id": users[0]}).json()["turns"]
    assert [(turn["turn_id"], turn["user_id"]) for turn in mine] == [(turns[0], users[0])]
    assert operator.turn(turns[1])["user_id"] == users[1]
    assert operator.get(f"/v1/turns/{turns[1]}", params={"user_id": users[0]}).status_code == 404


def test_a_front_end_names_whose_turn_it_is(closed: Server, connect: Connect, said: str) -> None:
    front = connect(closed, closed.add_key("front", "delegate"))
    user = f"ada & {said}"
    response = front.http.post("/v1/turns", json={"message": "hello", "user_id": user})
    turn_id = response.json()["turn_id"]
    assert response.headers["location"] == f"/v1/turns/{turn_id}?user_id={quote(user, safe='')}"
    assert front.get(response.headers["location"]).json()["user_id"] == user
    assert front.get(f"/v1/turns/{turn_id}").status_code == 404
    assert [t["turn_id"] for t in front.get("/v1/turns", params={"user_id": user}).json()["turns"]] == [turn_id]


# Stopping


def cancelled(api: Api, turn_id: str) -> Any:
    response = api.http.post(f"/v1/turns/{turn_id}/cancel")
    assert response.status_code == 200, response.text
    return response.json()


def test_a_turn_that_runs_is_stopped_and_whoever_waits_is_told(
    server: Server, connect: Connect, api: Api, said: str
) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(connect().post, said, said, "talk")
        assert server.began[said].wait(5)
        turn_id = api.get(f"/v1/sessions/{said}").json()["turns"][0]["turn_id"]
        turn = cancelled(api, turn_id)
        problem = waiting.result(5).json()
    assert (turn["state"], turn["outcome"], turn["cancelled"]) == ("ended", "cancelled", True)
    assert turn["error"]["code"] == "turn_cancelled"
    assert (problem["code"], problem["turn_id"]) == ("turn_cancelled", turn_id)
    assert cancelled(api, turn_id) == turn
    assert api.ask("and now?", said, "past")["reply"] == ""


def test_a_turn_that_waits_for_its_session_is_stopped_before_it_begins(server: Server, api: Api, said: str) -> None:
    first = api.begin(said, said, "talk")
    assert server.began[said].wait(5)
    second, third = (api.begin(message, said, "past") for message in ("two", "three"))
    turn = cancelled(api, second["turn_id"])
    assert (turn["outcome"], turn["units"], api.turn(first["turn_id"])["state"]) == ("cancelled", [], "running")
    server.release(said)
    assert api.ended(third["turn_id"])["reply"] == said


def test_a_turn_that_has_ended_stays_as_it_is(api: Api) -> None:
    turn_id = api.ask("hello")["turn_id"]
    before = api.turn(turn_id)
    assert cancelled(api, turn_id) == before
    assert (before["outcome"], before["cancelled"]) == ("success", False)


def test_stopping_a_turn_stops_its_model_call(serve: Serve, connect: Connect) -> None:
    with running_simulator() as sim:
        model = "anthropic:claude-sonnet-5-5"
        api = connect(serve(llm__model=model, llm__base_url=sim.url, llm__api_key="k"))
        sim.add_fault({"kind": "stall", "after_deltas": 0, "seconds": 30})
        turn_id = api.begin("What is 17*23?", agent="assistant")["turn_id"]
        wait_until(lambda: sim.in_flight == 1)
        turn = cancelled(api, turn_id)
        assert turn["outcome"] == "cancelled"
        assert [(unit["kind"], unit["state"]) for unit in turn["units"]] == [("model", "failed")]
        wait_until(lambda: sim.in_flight == 0)
        assert len(sim.requests) == 1


def wait_until(done: Any) -> None:
    pause = threading.Event()
    for _ in range(500):
        if done():
            return
        pause.wait(0.01)  # The other side's threads tell nobody.
    raise AssertionError("it did not come about")


def test_without_keys_no_foreign_page_stops_a_turn(api: Api, problem_of: ProblemOf) -> None:
    turn_id = api.ask("hello")["turn_id"]
    for order in ("cancel", "units/x/resolve"):
        answer = api.http.post(f"/v1/turns/{turn_id}/{order}", headers={"origin": "https://evil.example"})
        problem_of(answer, 403, "forbidden")


# In doubt


class Payments:
    """What a tool that must not be called twice has done."""

    def __init__(self) -> None:
        self.made: list[int] = []

    async def pay(self, amount: int) -> str:
        self.made.append(amount)
        return f"paid {amount}"


class Doubtful:
    """A server with an agent that pays, and a way to have it die while it pays."""

    def __init__(self, serve: Serve) -> None:
        self.payments = Payments()
        pay = self.payments.pay

        async def payer(turn: FunctionTurn) -> str:
            return await turn.tool(pay, amount=7)

        self.server = serve(before=lambda server: server.hold.serve(payer, "payer"), store__lease_s=0.5)

    def die(self, api: Api, user: str, session: str) -> str:
        """A turn that another server began, and left while it paid. Returns its id once it is in doubt."""
        whole = api.ask("pay", f"{session} whole", "payer")
        self.payments.made.clear()
        store = self.server.hold.store
        (unit,) = self.server.run(store.units(whole["turn_id"]))
        begun: Unit = msgspec.structs.replace(unit, state="begun", result=None, ended_ns=None)

        async def leave() -> str:
            new = NewTurn(
                principal=user,
                session_id=session,
                agent="payer",
                trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
                request_id="r",
                source_ip="",
                message="pay",
                owner="dead",
                accepted_ns=self.server.hold.clock.wall_ns(),
            )
            await store.beat("dead")  # Until it has begun to pay.
            record = (await store.accept(new, 1_000)).turn
            await store.put_unit(Claim(record.turn_id, "dead", 1), begun)
            await store.leave("dead")
            return str(record.turn_id)

        turn_id = self.server.run(leave())
        wait_until(lambda: api.turn(turn_id)["state"] == "in_doubt")
        return turn_id


@pytest.fixture(scope="module")
def doubtful(serve: Serve) -> Doubtful:
    return Doubtful(serve)


@pytest.fixture
def asker(doubtful: Doubtful, connect: Connect) -> Api:
    return connect(doubtful.server)


def resolve(api: Api, turn_id: str, key: str, **body: Any) -> Any:
    return api.http.post(f"/v1/turns/{turn_id}/units/{quote(key, safe='')}/resolve", json=body)


def in_doubt(api: Api, turn_id: str) -> str:
    """The key of the one call in doubt."""
    (unit,) = (unit for unit in api.turn(turn_id)["units"] if unit["state"] == "in_doubt")
    assert (unit["effect"], unit["args"], unit["ended_at"]) == ("once", {"amount": 7}, None)
    return str(unit["key"])


def test_what_happened_is_not_done_again(doubtful: Doubtful, asker: Api, said: str, log: Log) -> None:
    turn_id = doubtful.die(asker, "anonymous", said)
    assert [turn["turn_id"] for turn in asker.get("/v1/turns?state=in_doubt").json()["turns"]] == [turn_id]
    key = in_doubt(asker, turn_id)
    assert resolve(asker, turn_id, key, happened=True, result="paid by hand").status_code == 200
    turn = asker.ended(turn_id)
    assert (turn["outcome"], turn["reply"], doubtful.payments.made) == ("success", "paid by hand", [])
    assert turn["generation"] > 2
    (line,) = log.all("unit_resolved")
    told = (line["principal"], line["turn_id"], line["unit"], line["happened"])
    assert told == ("anonymous", turn_id, key, True)
    assert "by hand" not in str(line)


def test_what_did_not_happen_is_done(doubtful: Doubtful, asker: Api, said: str) -> None:
    turn_id = doubtful.die(asker, "anonymous", said)
    assert resolve(asker, turn_id, in_doubt(asker, turn_id), happened=False).status_code == 200
    turn = asker.ended(turn_id)
    assert (turn["outcome"], turn["reply"], doubtful.payments.made) == ("success", "paid 7", [7])


def test_a_turn_in_doubt_can_be_stopped(doubtful: Doubtful, asker: Api, said: str) -> None:
    turn_id = doubtful.die(asker, "anonymous", said)
    turn = cancelled(asker, turn_id)
    assert (turn["state"], turn["outcome"], doubtful.payments.made) == ("ended", "cancelled", [])
    in_doubt(asker, turn_id)


def test_whoever_watches_a_turn_in_doubt_is_told_so(doubtful: Doubtful, asker: Api, said: str) -> None:
    turn_id = doubtful.die(asker, "anonymous", said)
    with asker.watch(turn_id) as events:
        *_, suspended, error = events
    assert (suspended.name, suspended.data["because"]) == ("turn.suspended", "in_doubt")
    assert (error.id, error.name, error.data["code"], error.data["turn_id"]) == (None, "error", "in_doubt", turn_id)
    assert turn_id in error.data["detail"]
    cancelled(asker, turn_id)


def test_only_what_is_in_doubt_can_be_resolved(
    doubtful: Doubtful, asker: Api, said: str, problem_of: ProblemOf
) -> None:
    turn_id = doubtful.die(asker, "anonymous", said)
    key = in_doubt(asker, turn_id)
    problem_of(resolve(asker, turn_id, "no/such#2", happened=True), 404, "not_found")
    problem_of(resolve(asker, "0000000000000000-1", key, happened=True), 404, "not_found")
    problem_of(resolve(asker, turn_id, key), 422, "unprocessable")
    problem_of(resolve(asker, turn_id, key, happened="yes"), 422, "unprocessable")
    in_doubt(asker, turn_id)
    assert resolve(asker, turn_id, key, happened=False).status_code == 200
    assert asker.ended(turn_id)["outcome"] == "success"
    problem_of(resolve(asker, turn_id, key, happened=True), 409, "not_in_doubt")


def test_only_operators_say_what_happened(
    doubtful: Doubtful, serve: Serve, connect: Connect, problem_of: ProblemOf
) -> None:
    server = serve()
    ada, operator = connect(server, server.add_key("ada")), connect(server, server.add_key("otto", "operate"))
    turn_id = ada.ask("What is 17*23?", agent="assistant")["turn_id"]
    key = ada.turn(turn_id)["units"][1]["key"]
    problem_of(resolve(ada, turn_id, key, happened=True), 403, "forbidden")
    problem_of(resolve(operator, turn_id, key, happened=True), 409, "not_in_doubt")
