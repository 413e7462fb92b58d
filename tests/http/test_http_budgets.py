"""Budgets over HTTP: what a refused turn is answered, what a turn cost, and who sees which budgets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from holdfast.sim import running_simulator

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, ProblemOf, Serve

INPUT, OUTPUT, CACHED = 1_000, 100, 400
PRICES = {"tiny": {"input_usd": 2.0, "output_usd": 10.0, "cache_read_usd": 0.5}}
COST_USD = ((INPUT - CACHED) * 2 + CACHED * 0.5 + OUTPUT * 10) / 1_000_000
MESSAGE = "x" * 4 * INPUT
DAY_S = 86_400


@pytest.fixture(scope="module")
def sim() -> Iterator[Any]:
    usage = {"input_tokens": INPUT, "cached_tokens": CACHED, "output_tokens": OUTPUT}
    with running_simulator([{"say": "Fine.", "usage": usage}]) as running:
        yield running


@pytest.fixture
def costly(serve: Serve, connect: Connect, sim: Any) -> Any:
    """A server whose assistant costs something; keywords are settings."""

    def start(model: str = "openai-chat:tiny", **settings: object) -> Api:
        settings = {"budget__prices": PRICES, "llm__max_output_tokens": OUTPUT, **settings}
        return connect(serve(llm__model=model, llm__base_url=f"{sim.url}/v1", llm__api_key="k", **settings))

    return start


def post(api: Api, user: str) -> httpx2.Response:
    """A turn of this user."""
    return api.http.post("/chat", json={"message": MESSAGE, "user_id": user, "agent": "assistant"})


def settled(api: Api, path: str = "/v1/budgets") -> list[Any]:
    """The budgets, once nothing is reserved."""
    for _ in range(500):
        found: list[Any] = api.get(path).json()["budgets"]
        if found and all(budget["reserved"] == 0 for budget in found):
            return found
        time.sleep(0.01)  # noqa: TID251 - what is given back is written soon, in a thread of the server
    raise AssertionError(found)


def test_what_a_turn_cost_is_told_wherever_its_tokens_are(costly: Any) -> None:
    api: Api = costly()
    answer = api.ask(MESSAGE, "s", "assistant")
    assert answer["usage"]["cost_usd"] == pytest.approx(COST_USD)
    turn = api.turn(answer["turn_id"])
    assert turn["usage"] == turn["units"][0]["usage"] == answer["usage"]
    [item] = api.get("/v1/sessions/s").json()["turns"]
    assert item["usage"]["cost_usd"] == pytest.approx(COST_USD)
    with api.watch(answer["turn_id"]) as events:
        told = {event.name: event.data for event in events}
    nanos = round(COST_USD * 10**9)
    assert told["model.finished"]["cost_nanos"] == told["turn.ended"]["usage"]["cost_nanos"] == nanos
    page = api.get("/metrics").text
    [line] = [line for line in page.splitlines() if line.startswith("agent_llm_cost_usd_total{")]
    assert float(line.rpartition(" ")[2]) == pytest.approx(COST_USD)
    assert api.get("/v1/budgets").json() == {"budgets": [], "next": None}


def test_a_turn_on_a_budget_that_is_used_up_is_refused_until_the_day_ends(
    costly: Any, sim: Any, problem_of: ProblemOf
) -> None:
    api: Api = costly(budget__user_usd_per_day=1.5 * COST_USD)
    assert post(api, "anna").status_code == 200
    sent = len(sim.requests)
    settled(api)
    response = post(api, "anna")
    problem = problem_of(response, 402, "budget_exhausted")
    assert (problem["guard"], problem["key_class"], problem["reason"]) == ("budget", "user", "usd_per_day")
    assert 0 < problem["retry_after"] <= DAY_S
    assert int(response.headers["retry-after"]) - 1 <= problem["retry_after"] <= int(response.headers["retry-after"])
    assert "the user anna may use" in problem["detail"]
    assert len(sim.requests) == sent
    turn = api.turn(problem["turn_id"])
    assert (turn["outcome"], turn["error"]["code"]) == ("budget_exhausted", "budget_exhausted")
    page = api.get("/metrics").text
    assert 'agent_turns_total{agent="assistant",outcome="budget_exhausted"} 1.0' in page
    assert post(api, "ben").status_code == 200
    api.server.skip(problem["retry_after"])
    assert post(api, "anna").status_code == 200


def test_a_stream_on_a_budget_that_is_used_up_ends_with_that(costly: Any) -> None:
    api: Api = costly(budget__turn_tokens=10)
    with api.stream(MESSAGE, agent="assistant") as events:
        told = list(events)
    assert told[-1].name == "error"
    assert told[-1].data["code"] == "budget_exhausted"
    assert [event.data["outcome"] for event in told if event.name == "turn.ended"] == ["budget_exhausted"]


def test_a_turn_makes_no_more_steps_than_it_may(serve: Serve, connect: Connect, problem_of: ProblemOf) -> None:
    looping = [{"call": [{"tool": "calculate", "args": {"expression": "1+1"}}], "when": {"tool": "*"}}]
    looping += [{"call": [{"tool": "calculate", "args": {"expression": "1"}}]}]
    with running_simulator(looping) as sim:
        settings = {"llm__base_url": f"{sim.url}/v1", "llm__api_key": "k", "budget__turn_steps": 4}
        api = connect(serve(llm__model="openai-chat:tiny", **settings))
        problem = problem_of(api.post("go", agent="assistant"), 402, "budget_exhausted")
        assert (problem["reason"], problem["key_class"]) == ("steps_per_turn", "turn")
        assert "retry_after" not in problem
        assert len(sim.requests) == 4
        assert api.turn(problem["turn_id"])["usage"]["model_calls"] == 4


def test_a_model_of_unknown_price_is_refused_where_money_is_limited(costly: Any, sim: Any, problem_of: Any) -> None:
    api: Api = costly("openai-chat:unheard-of", budget__all_usd_per_month=5)
    sent = len(sim.requests)
    problem = problem_of(api.post(MESSAGE, agent="assistant"), 403, "price_unknown")
    assert 'budget.prices."openai:unheard-of"' in problem["detail"]
    assert len(sim.requests) == sent


def test_budgets_are_shown_to_whose_they_are_and_all_of_them_to_operators(
    costly: Any, connect: Connect, problem_of: ProblemOf
) -> None:
    api: Api = costly(
        budget__user_tokens_per_day=10_000,
        budget__session_usd=1,
        budget__agent_tokens_per_month=100_000,
        budget__all_usd_per_day=3,
    )
    keys = {name: api.server.add_key(name) for name in ("anna", "ben")}
    operator = connect(api.server, api.server.add_key("olga", "operate"))
    anna, ben = (connect(api.server, key) for key in keys.values())
    anna.ask(MESSAGE, "talk", "assistant")
    used = INPUT + OUTPUT
    [mine] = settled(anna)
    resets_at = mine.pop("resets_at")
    assert mine == {
        "scope": "user",
        "name": "anna",
        "unit": "tokens",
        "every": "day",
        "limit": 10_000,
        "spent": used,
        "reserved": 0,
        "left": 10_000 - used,
    }
    assert resets_at.endswith("T00:00:00.000Z")
    [session, _] = settled(anna, "/v1/budgets?session_id=talk")
    assert (session["scope"], session["unit"], session["resets_at"]) == ("session", "usd", None)
    assert session["spent"] == pytest.approx(COST_USD)
    [bens] = settled(ben)
    assert (bens["name"], bens["spent"]) == ("ben", 0)
    assert [one["name"] for one in settled(ben, "/v1/budgets?user_id=anna")] == ["ben"]
    problem_of(ben.get("/v1/budgets?session_id=talk"), 404, "not_found")
    ben.ask(MESSAGE, "talk", "assistant")
    listed = [(one["scope"], one["name"], one["unit"]) for one in settled(operator)]
    wanted = [("agent", "assistant", "tokens"), ("all", "", "usd"), ("user", "anna", "tokens")]
    assert listed == [*wanted, ("user", "ben", "tokens")]
    paged: list[Any] = []
    cursor = ""
    while cursor is not None:
        page = operator.get("/v1/budgets", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        paged += [(one["scope"], one["name"], one["unit"]) for one in page["budgets"]]
        cursor = page["next"]
    assert paged == listed
    assert [one["name"] for one in settled(operator, "/v1/budgets?user_id=anna")] == ["anna"]
    problem_of(operator.get("/v1/budgets?cursor=nonsense"), 422, "unprocessable")
    problem_of(connect(api.server).get("/v1/budgets"), 401, "unauthenticated")
