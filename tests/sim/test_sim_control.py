"""The control plane: what tests and experiments see, and change, while the simulator runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from holdfast.errors import Misconfigured
from holdfast.sim import Overloaded, RateLimited, SlowFirstToken, When

if TYPE_CHECKING:
    from tests.sim.conftest import Http, Session, Until

pytestmark = pytest.mark.sockets

KEY = "sk-secret-key"
FAILED = (anthropic.APIStatusError, openai.APIStatusError)


async def test_requests_tell_what_arrived_and_what_became_of_it(session: Session, http: Http) -> None:
    async with session([{"name": "greeting", "say": "Hello."}]) as (sim, client), http(sim) as raw:
        await client.ask("hi", extra_headers={"x-tenant": "a"})
        seen = (await raw.get("/sim/requests")).json()
    assert (seen["in_flight"], seen["max_in_flight"], seen["total"]) == (0, 1, 1)
    record = seen["requests"][0]
    assert record["format"] == client.format
    assert record["answered_by"] == "greeting"
    assert record["request"]["messages"][-1]["text"] == "hi"
    assert record["request"]["tools"] == ["weather"]
    assert record["request"]["stream"] is client.stream
    assert record["headers"]["x-tenant"] == "a"
    assert (record["number"], record["status"], record["fault"], record["client_left"]) == (1, 200, None, False)
    assert record["at"] <= record["finished_at"]
    assert record["duration_s"] >= 0


async def test_credentials_are_never_shown(session: Session, http: Http) -> None:
    async with session() as (sim, client), http(sim) as raw:
        await client.ask("hi", extra_headers={"cookie": "a=secret-key; b=secret-key"})
        seen = await raw.get("/sim/requests")
        assert "secret-key" not in seen.text
        assert "secret-key" not in repr(sim.requests)
    record = seen.json()["requests"][0]
    credential = record["request"]["credential"]
    assert credential.startswith("sha256:")
    assert record["headers"].get("x-api-key", credential) == credential
    assert record["headers"].get("authorization", f"Bearer {credential}") == f"Bearer {credential}"


async def test_requests_can_be_forgotten(chat: Session, http: Http) -> None:
    async with chat() as (sim, client), http(sim) as raw:
        await client.ask()
        assert (await raw.delete("/sim/requests")).json() == {"deleted": 1}
        seen = (await raw.get("/sim/requests")).json()
        await client.ask()
    assert (seen["requests"], seen["max_in_flight"], seen["total"]) == ([], 0, 1)
    assert [record.number for record in sim.requests] == [2]


async def test_only_the_last_requests_are_kept(chat: Session) -> None:
    async with chat(keep=2) as (sim, client):
        for _ in range(3):
            await client.ask()
    assert [record.number for record in sim.requests] == [2, 3]


async def test_requests_in_flight_are_counted(chat: Session, http: Http, until: Until) -> None:
    async with chat([{"fault": "hang"}]) as (sim, client), http(sim) as raw:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(client.ask(patience_s=10)) for _ in range(3)]
            await until(lambda: sim.in_flight == 3)
            assert (await raw.get("/sim/health")).json()["in_flight"] == 3
            for task in asking:
                task.cancel()
        await sim.wait_idle()
        health = (await raw.get("/sim/health")).json()
    assert health == {"status": "ok", "in_flight": 0, "max_in_flight": 3, "total": 3}


async def test_the_script_can_be_replaced_and_its_counts_begin_anew(chat: Session, http: Http) -> None:
    once = [{"say": "once", "times": 1}, {"say": "then"}]
    async with chat(once) as (sim, client), http(sim) as raw:
        assert [(await client.ask()).text for _ in range(2)] == ["once", "then"]
        shown = (await raw.get("/sim/script")).json()
        assert shown == {"rules": once}
        assert (await raw.put("/sim/script", json=shown)).json() == shown
        assert (await client.ask()).text == "once"
        sim.use_script([{"say": "new"}])
        assert (await client.ask()).text == "new"


async def test_a_bad_script_leaves_the_one_in_force(chat: Session, http: Http) -> None:
    async with chat([{"say": "old"}]) as (sim, client), http(sim) as raw:
        refused = await raw.put("/sim/script", json=[{"sya": "new"}])
        no_json = await raw.put("/sim/script", content=b"{")
        assert (await client.ask()).text == "old"
    assert (refused.status_code, no_json.status_code) == (400, 400)
    assert refused.json() == {"error": "PUT /sim/script: rules[0]: there is no key 'sya' here; did you mean 'say'?"}
    assert no_json.json()["error"].startswith("the body is not JSON")


async def test_a_python_script_is_shown_by_its_name(chat: Session, http: Http) -> None:
    async with chat(lambda _request, _rng: None) as (sim, _), http(sim) as raw:
        assert "lambda" in (await raw.get("/sim/script")).json()["python"]


async def test_a_fault_is_injected_for_the_next_requests(session: Session, http: Http) -> None:
    async with session([{"say": "fine", "times": 1}, {"say": "again"}]) as (sim, client), http(sim) as raw:
        made = await raw.post("/sim/faults", json={"fault": "overloaded", "times": 2})
        assert (made.status_code, made.json()) == (201, {"name": "faults[0]"})
        for _ in range(2):
            with pytest.raises(FAILED):
                await client.ask()
        assert (await client.ask()).text == "fine"  # the faults used up no turn of the rule
        listed = (await raw.get("/sim/faults")).json()
    assert listed == {
        "faults": [{"name": "faults[0]", "used": 2, "rule": {"fault": {"kind": "overloaded"}, "times": 2}}]
    }
    assert [record.answered_by for record in sim.requests] == ["faults[0]", "faults[0]", "rules[0]"]


async def test_a_fault_stays_until_it_is_deleted(chat: Session, http: Http) -> None:
    async with chat() as (sim, client), http(sim) as raw:
        await raw.post("/sim/faults", json={"fault": {"kind": "rate_limited", "retry_after_s": 1}})
        for _ in range(3):
            with pytest.raises(openai.RateLimitError):
                await client.ask()
        assert (await raw.delete("/sim/faults")).json() == {"deleted": 1}
        assert (await client.ask()).text


async def test_an_injected_fault_may_be_for_some_requests_only(chat: Session) -> None:
    async with chat([{"say": "fine"}]) as (sim, client):
        sim.add_fault(RateLimited(), when=When(model="claude-*"))
        sim.add_fault(SlowFirstToken(seconds=0), times=1)
        sim.add_fault(Overloaded(), after=1, share=0.999999)
        assert (await client.ask()).text == "fine"
        with pytest.raises(openai.RateLimitError):
            await client.ask(model="claude-x")
        with pytest.raises(openai.InternalServerError):
            await client.ask()
        assert sim.clear_faults() == 3
    assert [record.fault_by or record.answered_by for record in sim.requests] == ["faults[1]", "faults[0]", "faults[2]"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"fault": "overlaoded"}, "fault.kind: there is no fault 'overlaoded'; did you mean 'overloaded'?"),
        ({"say": "x"}, "an injected fault has the key fault, and no say, call, finish or usage"),
        ({"fault": "hang", "time": 1}, "there is no key 'time' here; did you mean 'times'?"),
        ({"fault": {"kind": "stall", "second": 1}}, "fault: there is no key 'second' here; did you mean 'seconds'?"),
        ([], "Expected `object`, got `array`"),
    ],
)
async def test_a_bad_fault_is_refused_and_nothing_changes(chat: Session, http: Http, body: Any, said: str) -> None:
    async with chat() as (sim, client), http(sim) as raw:
        answer = await raw.post("/sim/faults", json=body)
        assert (await client.ask()).text
    assert (answer.status_code, answer.json()) == (400, {"error": f"POST /sim/faults: {said}"})


async def test_add_fault_refuses_what_the_route_refuses(chat: Session) -> None:
    async with chat() as (sim, _):
        with pytest.raises(Misconfigured, match="did you mean 'overloaded'"):
            sim.add_fault("overlaoded")


async def test_an_unknown_control_route_is_told(chat: Session, http: Http) -> None:
    async with chat() as (sim, _), http(sim) as raw:
        answer = await raw.get("/sim/nothing")
    assert (answer.status_code, answer.json()) == (404, {"error": "there is no GET /sim/nothing"})
