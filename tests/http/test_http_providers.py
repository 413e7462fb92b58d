"""The built-in assistant over HTTP, on real SDK clients, with a provider that is a socket away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.sim import running_simulator

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Serve

FORMS = ["anthropic:claude-sonnet-5-5", "openai:gpt-6.1-terra", "openai-chat:gpt-6.1-terra"]
QUESTION = "What is 17*23, and which files are here?"


@pytest.fixture(scope="module")
def sim() -> Iterator[Any]:
    with running_simulator() as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    (folder / "only.txt").write_text("here")
    return folder


@pytest.fixture(scope="module", params=FORMS)
def provided(request: pytest.FixtureRequest, serve: Serve, sim: Any, root: Path) -> Any:
    form: str = request.param
    base_url = sim.url if form.startswith("anthropic") else f"{sim.url}/v1"
    return serve(
        llm__model=form,
        llm__base_url=base_url,
        llm__api_key="k",
        tools__root=str(root),
        resilience__model_s=1.0,
        resilience__first_token_s=0.5,
    )


@pytest.fixture
def api(provided: Any, connect: Connect, sim: Any) -> Iterator[Api]:
    yield connect(provided)
    sim.clear_faults()


def test_two_tool_calls_in_one_turn(api: Api) -> None:
    answer = api.ask(QUESTION, agent="assistant")
    assert "391" in answer["reply"]
    assert "only.txt" in answer["reply"]
    usage = answer["usage"]
    assert (usage["model_calls"], usage["tool_calls"]) == (2, 2)
    assert usage["input_tokens"] > usage["output_tokens"] > 0


def test_the_same_turn_as_it_happens(api: Api) -> None:
    with api.stream(QUESTION, agent="assistant") as events:
        told = list(events)
    names = [event.name for event in told]
    assert names.count("tool.finished") == 2
    assert names.count("text.delta") > 3
    said = "".join(event.data["text"] for event in told if event.name == "text.delta")
    assert said == told[-1].data["reply"]
    assert "391" in said


def test_the_second_message_of_a_session_reaches_the_provider_with_the_first(api: Api, sim: Any) -> None:
    session = f"s-{id(api)}"
    api.ask("My name is Ada.", session, "assistant")
    assert "Ada" in api.ask("What is my name?", session, "assistant")["reply"]
    assert [message.text for message in sim.requests[-1].request.messages if message.role == "user"] == [
        "My name is Ada.",
        "What is my name?",
    ]


def test_pieces_arrive_while_the_model_is_still_talking(api: Api, sim: Any) -> None:
    sim.add_fault({"kind": "stall", "after_deltas": 1, "seconds": 0.3})
    with api.stream("hello", agent="assistant") as events:
        for event in events:
            if event.name == "text.delta":
                break
        assert sim.in_flight == 1
        assert [event.name for event in events][-1] == "turn.ended"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "rate_limited", "retry_after_s": 1}, 503, "model_unavailable"),
        ("overloaded", 503, "model_unavailable"),
        ("reset", 503, "model_unavailable"),
        ("unauthorized", 502, "model_rejected"),
        ("hang", 504, "attempt_timed_out"),
    ],
)
def test_a_providers_failure_is_a_problem_and_the_next_turn_is_served(
    api: Api, sim: Any, fault: Any, status: int, code: str
) -> None:
    before = len(sim.requests)
    sim.add_fault(fault, times=1)
    response = api.post("hello", agent="assistant")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers.get("retry-after") == ("1" if isinstance(fault, dict) else None)
    assert len(sim.requests) == before + 1, "it was retried"
    assert api.ask("hello", agent="assistant")["outcome"] == "success"


def test_a_stream_that_breaks_ends_with_an_error_and_is_not_taken_for_an_answer(api: Api, sim: Any) -> None:
    sim.add_fault({"kind": "truncated", "after_deltas": 2}, times=1)
    with api.stream("hello", "cut", "assistant") as events:
        told = list(events)
    assert [event.name for event in told[-2:]] == ["turn.ended", "error"]
    assert (told[-2].data["outcome"], told[-1].data["code"]) == ("error", "stream_broken")
    [turn] = api.get("/v1/sessions/cut").json()["turns"][:1]
    assert (turn["outcome"], turn["reply"]) == ("error", "")
