"""What a caller sees of the policies: through the server, with a provider that is a socket away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from holdfast.sim import running_simulator

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, ProblemOf, Serve, Server

MODEL = "anthropic:claude-sonnet-5-5"
DEFAULTS = {
    "resilience__breaker_failures": 5,
    "resilience__breaker_failure_ratio": 0.5,
    "resilience__credential_s": 600,
    "resilience__attempts": 1,
}


@pytest.fixture
def sim() -> Iterator[Any]:
    with running_simulator([{"say": "hello"}], first_token=0.0, per_token=0.0) as running:
        yield running


@pytest.fixture
def asks(serve: Serve, connect: Connect, sim: Any) -> Any:
    """A server of its own for each test, as breakers remember."""

    def asks(**settings: object) -> Api:
        given = {**DEFAULTS, "llm__model": MODEL, "llm__base_url": sim.url, "llm__api_key": "k", **settings}
        return connect(serve(**given))

    return asks


def at(record: Any) -> float:
    return datetime.fromisoformat(record.at).timestamp()


def breaker(api: Api, name: str) -> Any:
    found = [one for one in api.get("/v1/breakers").json()["breakers"] if one["name"].startswith(name)]
    assert len(found) == 1, found
    return found[0]


async def together(server: Server, count: int, **more: Any) -> list[httpx2.Response]:
    """``count`` callers, each with a session of their own, at once."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, timeout=30, trust_env=False, limits=limits) as client:

        async def ask(number: int) -> httpx2.Response:
            body = {"message": f"hello {number}", "agent": "assistant", **more}
            return await client.post("/chat", json=body)

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(number)) for number in range(count)]
    return [task.result() for task in asked]


def test_a_provider_that_is_down_is_left_alone_and_tried_again_until_it_works(
    asks: Any, sim: Any, problem_of: ProblemOf
) -> None:
    api = asks()
    sim.add_fault("server_error")
    for _ in range(5):
        problem_of(api.post("hello", agent="assistant"), 503, "model_unavailable")
    assert len(sim.requests) == 5
    refused = api.post("hello", agent="assistant")
    problem = problem_of(refused, 503, "circuit_open")
    assert 48 <= problem["retry_after"] <= 72
    assert int(refused.headers["retry-after"]) == -int(-problem["retry_after"] // 1)
    assert (problem["guard"], problem["key_class"], problem["reason"]) == ("breaker", "target", "open")
    assert len(sim.requests) == 5, "nothing was sent"

    sim.clear_faults()
    api.server.skip(73)
    assert api.ask("hello", agent="assistant")["reply"] == "hello"
    assert breaker(api, f"model:{MODEL}")["state"] == "half_open"
    assert api.ask("hello", agent="assistant")["reply"] == "hello"
    assert breaker(api, f"model:{MODEL}")["state"] == "closed"


def test_while_it_is_down_another_model_answers_and_the_answer_says_so(asks: Any, sim: Any) -> None:
    api = asks(llm__fallbacks=("demo",))
    sim.add_fault("server_error")
    answers = [api.ask("What is 17*23?", agent="assistant") for _ in range(8)]
    assert all("391" in answer["reply"] for answer in answers)
    assert {(answer["degraded"], answer["via"]) for answer in answers} == {(True, "demo")}
    # The demo model is asked twice a turn; each of the two begins with the model that is meant to answer.
    assert len(sim.requests) == 5
    assert answers[0]["because"] == "server"
    assert answers[-1]["because"] == "circuit_open"
    sim.clear_faults()
    api.server.skip(73)
    answer = api.ask("hello", agent="assistant")
    assert (answer["reply"], answer["degraded"], answer["via"]) == ("hello", False, None)


def test_a_streamed_turn_falls_back_too_and_tells_it(asks: Any, sim: Any) -> None:
    api = asks(llm__fallbacks=("demo",))
    sim.add_fault("overloaded")
    with api.stream("What is 17*23?", agent="assistant") as events:
        told = list(events)
    used = [event.data for event in told if event.name == "fallback.used"]
    assert used
    assert used[0] == {"via": "demo", "because": "overloaded"}
    assert "391" in told[-1].data["reply"]


@pytest.mark.parametrize("streams", [False, True])
def test_a_failure_that_passes_is_not_seen(asks: Any, sim: Any, *, streams: bool) -> None:
    api = asks(resilience__attempts=4)
    sim.add_fault("server_error", times=1)
    if streams:
        with api.stream("hello", agent="assistant") as events:
            told = list(events)
        assert told[-1].data["reply"] == "hello"
        assert [event.data["status"] for event in told if event.name == "model.finished"] == ["error", "ok"]
    else:
        answer = api.ask("hello", agent="assistant")
        assert (answer["reply"], answer["usage"]["model_calls"], answer["degraded"]) == ("hello", 2, False)
    assert len(sim.requests) == 2


@pytest.mark.sockets
async def test_one_probe_at_a_time_whoever_else_asks(asks: Any, sim: Any) -> None:
    api = asks(resilience__breaker_failures=1)
    sim.add_fault("server_error", times=1)
    api.post("hello", agent="assistant")
    api.server.skip(73)
    sim.requests.clear()
    sim.add_fault({"kind": "slow_first_token", "seconds": 0.4})
    answers = await together(api.server, 200)
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(200) + codes.count(503) == 200
    assert len(sim.requests) == codes.count(200)
    assert sim.max_in_flight == 1


@pytest.mark.sockets
async def test_a_provider_that_names_a_time_is_not_asked_before_it_and_then_not_by_all_at_once(
    asks: Any, sim: Any, problem_of: ProblemOf
) -> None:
    api = asks()
    sim.add_fault({"kind": "rate_limited", "retry_after_s": 1}, times=1)
    limited = api.post("hello", agent="assistant")
    assert problem_of(limited, 503, "model_unavailable")["retry_after"] == 1
    answers = await together(api.server, 30)
    assert {answer.status_code for answer in answers} == {200}
    came = sorted(at(record) for record in list(sim.requests)[1:])
    assert len(came) == 30
    assert came[0] - at(sim.requests[0]) >= 0.99
    assert sum(time - came[0] < 0.2 for time in came) <= 6, "twenty a second at first"
    assert came[-1] - came[0] > 0.5


def test_an_account_without_credit_is_closed_for_every_model_at_once(
    asks: Any, sim: Any, problem_of: ProblemOf
) -> None:
    api = asks(resilience__attempts=4)
    sim.add_fault("quota", times=1)
    assert api.post("hello", agent="assistant").status_code in (502, 503)
    assert len(sim.requests) == 1, "asking again helps nobody"
    problem = problem_of(api.post("hello", agent="assistant"), 503, "circuit_open")
    assert (problem["key_class"], problem["reason"]) == ("credential", "forced_open")
    assert 590 <= problem["retry_after"] <= 600
    assert len(sim.requests) == 1
    assert breaker(api, "model:credential:anthropic")["state"] == "forced_open"
    api.server.skip(601)
    assert api.ask("hello", agent="assistant")["reply"] == "hello"


def test_a_stream_that_breaks_after_its_first_token_is_not_made_again(asks: Any, sim: Any) -> None:
    sim.use_script([{"say": "a rather long answer that breaks off"}])
    api = asks(resilience__attempts=4, llm__fallbacks=("demo",))
    sim.add_fault({"kind": "reset", "after_deltas": 3}, times=1)
    with api.stream("hello", agent="assistant") as events:
        told = list(events)
    assert told[-1].name == "error"
    assert any(event.name == "text.delta" for event in told)
    assert len(sim.requests) == 1
    assert not [event for event in told if event.name == "fallback.used"]


@pytest.mark.sockets
async def test_one_user_who_floods_spends_nobody_elses_share(serve: Serve, problem_of: ProblemOf) -> None:
    server = serve(resilience__user_per_s=10, resilience__user_burst=20, resilience__all_per_s=1_000)
    flood = await together(server, 100, user_id="greedy", agent="echo")
    admitted = [answer for answer in flood if answer.status_code == 200]
    assert 20 <= len(admitted) <= 40, "a burst, and ten for each second that it took"
    refused = next(answer for answer in flood if answer.status_code == 429)
    problem = problem_of(refused, 429, "rate_limited")
    assert (problem["guard"], problem["key_class"]) == ("rate", "user")
    assert 0 < problem["retry_after"] <= 0.2
    assert refused.headers["retry-after"] == "1"
    others = await together(server, 20, user_id="modest", agent="echo")
    assert {answer.status_code for answer in others} == {200}


@pytest.mark.sockets
async def test_more_turns_than_may_run_wait_and_the_least_important_are_refused(
    serve: Serve, problem_of: ProblemOf
) -> None:
    server = serve(resilience__turns=2)
    headers = {"priority": "u=7"}
    limits = httpx2.Limits(max_connections=None)
    async with (
        httpx2.AsyncClient(base_url=server.url, timeout=30, trust_env=False, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):

        def ask(message: str, **more: Any) -> asyncio.Task[httpx2.Response]:
            return group.create_task(client.post("/chat", json={"message": message, "agent": "talk"}, **more))

        running = [ask("first"), ask("second")]
        for message in ("first", "second"):
            await asyncio.get_running_loop().run_in_executor(None, server.began[message].wait, 20)
        batch = [ask(f"batch {number}", headers=headers) for number in range(12)]
        done, _ = await asyncio.wait(batch, return_when=asyncio.FIRST_COMPLETED)
        problem = problem_of(done.pop().result(), 503, "shed")
        assert (problem["guard"], problem["key_class"]) == ("shed", "all")
        assert problem["retry_after"] >= 1
        for message in ("first", "second", *(f"batch {number}" for number in range(12))):
            server.release(message)
    assert {task.result().status_code for task in running} == {200}
    assert {task.result().status_code for task in batch} == {200, 503}
    assert server.hold.policies.shedder.stats.in_use == 0
