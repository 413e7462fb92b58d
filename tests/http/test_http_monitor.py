"""The behaviour monitor, live: agents with a script are told, held back, stopped, or left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from holdfast import FunctionTurn

if TYPE_CHECKING:
    from tests.http.conftest import Api, Connect, Log, Serve, Server

pytestmark = pytest.mark.sockets

NOTE = "Note from the system"

Say = Callable[[list[ModelMessage], AgentInfo], str | list[ToolCallPart]]


def call(tool: str, **args: object) -> ToolCallPart:
    return ToolCallPart(tool, args)


def scripted(say: Say, *tools: Callable[..., Any], tokens: int = 5) -> Agent[None, str]:
    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        said = say(messages, info)
        parts = [TextPart(said)] if isinstance(said, str) else said
        return ModelResponse(parts=parts, usage=RequestUsage(input_tokens=tokens - 1, output_tokens=1))

    return Agent(FunctionModel(model, model_name="scripted"), tools=tools)


def told(messages: list[ModelMessage]) -> list[str]:
    """What the last message tells the model besides questions and results."""
    texts = [str(part.content) for part in messages[-1].parts if isinstance(part, UserPromptPart)]
    return [text for text in texts if NOTE in text or "The answer is not taken" in text]


def results(messages: list[ModelMessage]) -> list[str]:
    """What the tools of this turn answered."""
    begun = [at for at, one in enumerate(messages) if isinstance(one, ModelRequest) and asks(one)][-1]
    parts = [part for one in messages[begun:] for part in one.parts]
    return [str(part.content) for part in parts if isinstance(part, ToolReturnPart)]


def asks(message: ModelRequest) -> bool:
    return any(isinstance(part, UserPromptPart) for part in message.parts) and not told([message])


def names(info: AgentInfo) -> list[str]:
    return [tool.name for tool in info.function_tools]


async def look_up(word: str) -> str:
    return f"nothing is known of {word} in this catalogue"


async def ask_elsewhere(word: str) -> str:
    return f"the archive tells that {word} was founded in 1907"


def begin(serve: Serve, connect: Connect, agents: dict[str, object], **settings: object) -> Api:
    def serving(server: Server) -> None:
        for name, agent in agents.items():
            server.hold.serve(agent, name)

    return connect(serve(before=serving, **{"monitor.mode": "act", **settings}))


def monitored(api: Api, answer: Any) -> Any:
    return api.turn(answer["turn_id"])["monitor"]


def kinds(found: Any) -> list[str]:
    return [one["protocol"] for one in found["interventions"]]


def test_a_looping_agent_is_told_then_held_back_then_made_to_use_another_tool_and_answers(
    serve: Serve, connect: Connect, log: Log
) -> None:
    heard: list[list[str]] = []
    answers: list[str] = []

    def say(messages: list[ModelMessage], info: AgentInfo) -> str | list[ToolCallPart]:
        heard.append(told(messages))
        answers[:] = results(messages)
        if "look_up" in names(info):
            return [call("look_up", word="acme")]
        return "It was founded in 1907." if "1907" in "".join(answers) else [call("ask_elsewhere", word="acme")]

    ran: list[str] = []

    async def counted(word: str) -> str:
        ran.append(word)
        return await look_up(word)

    counted.__name__ = "look_up"
    api = begin(serve, connect, {"loops": scripted(say, counted, ask_elsewhere)}, **{"monitor.any_warn": 2})
    answer = api.ask("When was acme founded?", agent="loops", session="looping")
    assert (answer["reply"], answer["outcome"]) == ("It was founded in 1907.", "success")
    found = monitored(api, answer)
    assert [(one["state"], one["rung"]) for one in found["detections"]] == [
        ("deadlock", 1),
        ("deadlock", 2),
        ("deadlock", 3),
    ]
    assert list(dict.fromkeys(kinds(found))) == ["nudge", "block_call", "hide_tool", "force_other"]
    assert found["outcome"] is None
    assert not found["latched"]
    assert len(ran) == 4  # What came after was answered in the tool's place.
    assert "Not run: look_up was called in the same way" in answers[4]
    assert sum(bool(notes) for notes in heard) == 3
    history = api.get("/v1/sessions/looping/actions").json()
    (turn,) = history["turns"]
    assert [(one["tool"], one["blocked"], one["state"]) for one in turn["actions"]] == [
        *[("look_up", False, "done")] * 4,
        *[("look_up", True, "failed")] * 2,
        ("ask_elsewhere", False, "done"),
    ]
    assert turn["monitor"] == found
    assert turn["actions"][0]["args"] == {"word": "acme"}
    assert [line["state"] for line in log.all("state_transition")] == ["deadlock", "none"]
    assert {line["level"] for line in log.all("protocol_activation")} == {"warning"}
    page = api.get("/metrics").text
    assert 'agent_critical_states_total{state="deadlock"} 1.0' in page
    assert 'agent_protocol_overrides_total{protocol="force_other"} 1.0' in page
    assert 'agent_state_turns{state="deadlock"} 0.0' in page


def test_one_that_ignores_everything_is_stopped_with_what_it_has_and_stays_so_until_it_is_reset(
    serve: Serve, connect: Connect, log: Log
) -> None:
    asked = 0

    def say(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        nonlocal asked
        asked += 1
        return [call("look_up", word="acme")]

    api = begin(serve, connect, {"stubborn": scripted(say, look_up, ask_elsewhere)})
    answer = api.ask("When was acme founded?", agent="stubborn", session="stuck")
    assert answer["outcome"] == "guardrail_blocked"
    assert "Stopped before the end" in answer["reply"]
    assert "nothing is known of acme" in answer["reply"]
    assert asked < 20
    found = monitored(api, answer)
    assert (found["outcome"], found["latched"]) == ("stopped_partial", True)
    assert found["report"]["resume"] == answer["turn_id"]
    assert found["report"]["recommendations"]
    assert found["report"]["frequencies"]["deadlock"] >= 3
    assert found["interventions"][-1]["protocol"] == "stop_partial"
    (line,) = log.all("circuit_breaker_trip")
    assert line["level"] == "critical"
    assert api.get("/v1/sessions/stuck/actions").json()["latched"]
    before = asked
    again = api.ask("And now?", agent="stubborn", session="stuck")
    assert (again["outcome"], asked) == ("guardrail_blocked", before)
    assert "the session is stopped until it is reset" in again["reply"]
    assert monitored(api, again)["outcome"] == "tripped"
    assert api.ask("And elsewhere?", agent="stubborn", session="another")["outcome"] == "guardrail_blocked"
    assert asked > before  # Another session is not stopped from its start.
    assert api.http.post("/v1/sessions/stuck/reset").status_code == 204
    before = asked
    assert api.ask("And now?", agent="stubborn", session="stuck")["outcome"] == "guardrail_blocked"
    assert asked > before
    assert 'agent_monitor_trips_total{state="deadlock"} 3.0' in api.get("/metrics").text
    assert api.http.post("/v1/sessions/unknown/reset").status_code == 404
    assert api.get("/v1/sessions/unknown/actions").status_code == 404


def test_in_shadow_everything_is_told_and_nothing_is_changed(serve: Serve, connect: Connect) -> None:
    ran = 0

    async def count(word: str) -> str:
        nonlocal ran
        ran += 1
        return await look_up(word)

    def say(messages: list[ModelMessage], info: AgentInfo) -> str | list[ToolCallPart]:
        assert not told(messages)
        assert names(info) == ["count"]
        return "I found nothing." if len(results(messages)) == 6 else [call("count", word="acme")]

    for mode in ("shadow", "auto"):
        ran = 0
        api = begin(serve, connect, {"loops": scripted(say, count)}, **{"monitor.mode": mode})
        answer = api.ask("When was acme founded?", agent="loops")
        assert (answer["reply"], answer["outcome"], ran) == ("I found nothing.", "success", 6)
        found = monitored(api, answer)
        assert found["detections"]
        assert not any(one["acts"] or one["rung"] for one in found["detections"])
        assert found["interventions"] == []


def test_switched_off_it_says_nothing(serve: Serve, connect: Connect) -> None:
    def say(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        return "I found nothing." if len(results(messages)) == 6 else [call("look_up", word="acme")]

    api = begin(serve, connect, {"loops": scripted(say, look_up)}, **{"monitor.mode": "off"})
    assert monitored(api, api.ask("When?", agent="loops"))["detections"] == []


def test_an_overconfident_answer_without_evidence_is_sent_back_once_naming_the_check(
    serve: Serve, connect: Connect
) -> None:
    heard: list[str] = []

    def learns(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        heard.extend(told(messages))
        if told(messages):
            return [call("ask_elsewhere", word="acme")]
        return "It was in 1907." if results(messages) else "It was definitely, certainly, absolutely founded in 1850."

    def insists(messages: list[ModelMessage], _info: AgentInfo) -> str:
        heard.extend(told(messages))
        return "It was definitely, certainly, absolutely founded in 1850."

    api = begin(serve, connect, {"learns": scripted(learns, ask_elsewhere), "insists": scripted(insists, look_up)})
    answer = api.ask("When was acme founded?", agent="learns")
    assert (answer["reply"], answer["outcome"]) == ("It was in 1907.", "success")
    assert len(heard) == 1
    assert "the answer is stated as certain, and no call supports it" in heard[0]
    assert "1850" not in heard[0]
    found = monitored(api, answer)
    assert kinds(found) == ["refuse_finish"]
    assert found["outcome"] is None
    heard.clear()
    answer = api.ask("When was acme founded?", agent="insists")
    assert answer["outcome"] == "success"
    assert len(heard) == 1  # It is sent back once.
    found = monitored(api, answer)
    assert found["outcome"] == "done_unverified"
    assert found["check"] == "the answer is stated as certain, and no call supports it"


@pytest.mark.parametrize("asks_back", [False, True])
def test_a_confused_one_abstains_or_asks(serve: Serve, connect: Connect, *, asks_back: bool) -> None:
    def say(messages: list[ModelMessage], _info: AgentInfo) -> str:
        if any("do not guess" in note for note in told(messages)):
            return "I do not know when it was founded."
        return "Perhaps it was 1850, or maybe 1907; possibly neither, I think it might be lost."

    api = begin(serve, connect, {"confused": scripted(say, look_up)}, **{"monitor.asks": asks_back})
    answer = api.ask("When was acme founded?", agent="confused", session="doubt")
    found = monitored(api, answer)
    assert answer["outcome"] == "success"
    assert found["detections"][0]["state"] == "panic"
    if asks_back:
        assert answer["reply"].startswith("I am not sure of the answer")
        assert found["outcome"] == "needs_human"
        assert not found["latched"]
    else:
        assert answer["reply"] == "I do not know when it was founded."
        assert kinds(found) == ["force_final"]


def test_an_agent_that_is_told_two_things_tells_of_both(serve: Serve, connect: Connect) -> None:
    async def first() -> str:
        return "The year of founding is 1850."

    async def second() -> str:
        return "The year of founding is 1907."

    def say(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        notes = told(messages)
        if any("Sources disagree" in note for note in notes):
            return "One source says 1850, another 1907."
        done = len(results(messages))
        return "It was 1850." if done == 2 else [call(("first", "second")[done])]

    api = begin(serve, connect, {"two": scripted(say, first, second)})
    answer = api.ask("When was acme founded?", agent="two")
    assert answer["reply"] == "One source says 1850, another 1907."
    assert [one["state"] for one in monitored(api, answer)["detections"]] == ["novelty"]


def test_a_run_short_of_tokens_answers_before_the_limit(serve: Serve, connect: Connect) -> None:
    def say(messages: list[ModelMessage], info: AgentInfo) -> str | list[ToolCallPart]:
        if any("Answer now with what is known" in note for note in told(messages)):
            assert info.model_settings is not None
            assert info.model_settings.get("tool_choice") == "none"
            return f"So far: {len(results(messages))} pages read, more are left."
        assert info.function_tools
        return [call("read", page=len(results(messages)))]

    async def read(page: int) -> str:
        return f"page {page}: {'abcdefghijklmnop'[page] * 30}"

    agents: dict[str, object] = {"reads": scripted(say, read, tokens=100)}
    settings = {"budget.turn_tokens": 1_000, "budget.answer_tokens": 50}
    api = begin(serve, connect, agents, **settings)
    answer = api.ask("Read it all", agent="reads")
    assert answer["outcome"] == "success"
    assert answer["reply"].startswith("So far: ")
    used = answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"]
    assert 700 <= used <= 1_000
    found = monitored(api, answer)
    assert {one["state"] for one in found["detections"]} == {"scarcity"}
    assert kinds(found)[-1] == "force_final"


def test_a_run_that_ignores_that_ends_with_what_it_has_and_no_error(serve: Serve, connect: Connect) -> None:
    def say(messages: list[ModelMessage], _info: AgentInfo) -> list[ToolCallPart]:
        return [call("read", page=len(results(messages)))]

    async def read(page: int) -> str:
        return f"page {page}: {'abcdefghijklmnopqrstuvwxyz'[page] * 30}"

    agents: dict[str, object] = {"reads": scripted(say, read, tokens=100)}
    settings = {"budget.turn_tokens": 1_000, "budget.answer_tokens": 50}
    api = begin(serve, connect, agents, **settings)
    answer = api.ask("Read it all", agent="reads", session="s")
    assert answer["outcome"] == "budget_exhausted"
    assert "page 3" in answer["reply"]
    assert answer["usage"]["input_tokens"] + answer["usage"]["output_tokens"] <= 1_000
    found = monitored(api, answer)
    assert (found["outcome"], found["latched"]) == ("stopped_partial", False)
    assert api.ask("Go on", agent="reads", session="s")["usage"]["model_calls"] > 3  # A new turn has a new budget.


def test_a_tool_that_is_polled_is_waited_for_and_not_held_against_the_agent(serve: Serve, connect: Connect) -> None:
    def say(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        return "It is done." if results(messages)[-1:] == ["done"] else [call("status", job=1)]

    asked = 0

    async def status(job: int) -> str:
        nonlocal asked
        asked += 1
        return "done" if asked == 8 else f"job {job} is still running, please wait for it"

    rules = {"status": {"repeatable": "poll", "poll_every_s": 0.01}}
    api = begin(serve, connect, {"polls": scripted(say, status)}, **{"monitor.tools": rules})
    answer = api.ask("Is it done?", agent="polls")
    assert (answer["reply"], asked) == ("It is done.", 8)
    found = monitored(api, answer)
    assert (found["detections"], found["interventions"]) == ([], [])


def test_the_same_call_made_side_by_side_counts_once(serve: Serve, connect: Connect) -> None:
    def say(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        return "Nothing." if results(messages) else [call("look_up", word="acme") for _ in range(6)]

    api = begin(serve, connect, {"wide": scripted(say, look_up)})
    answer = api.ask("When?", agent="wide")
    assert monitored(api, answer)["detections"] == []
    assert answer["usage"]["tool_calls"] == 6


def test_what_a_provider_does_never_counts(serve: Serve, connect: Connect) -> None:
    failed = 0

    def say(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        nonlocal failed
        failed += 1
        if failed < 3:
            raise ModelHTTPError(529, "scripted", {"error": "overloaded"})
        return "Here I am."

    settings = {"resilience.attempts": 10, "resilience.retry_ratio": 1}
    api = begin(serve, connect, {"waits": scripted(say, look_up)}, **settings)
    answer = api.ask("Are you there?", agent="waits")
    assert answer["reply"] == "Here I am."
    assert monitored(api, answer)["detections"] == []


def test_an_async_function_is_watched_by_its_calls(serve: Serve, connect: Connect) -> None:
    blocked: list[str] = []

    async def loops(turn: FunctionTurn) -> str:
        for _ in range(5):
            try:
                await turn.tool(look_up, word=turn.message)
            except Exception as error:  # noqa: BLE001 - what a handler makes of it is its own affair
                blocked.append(str(error))
                return await turn.tool(ask_elsewhere, word=turn.message)
        return "nothing"

    async def never_ends(turn: FunctionTurn) -> str:
        while True:
            try:
                await turn.tool(look_up, word=turn.message)
            except Exception:  # noqa: BLE001 - as some would
                continue

    async def boasts(turn: FunctionTurn) -> str:
        return f"It is definitely, certainly, absolutely {turn.message}."

    api = begin(serve, connect, {"loops": loops, "boasts": boasts, "never": never_ends}, **{"resilience.turn_s": 3})
    answer = api.ask("acme", agent="loops")
    assert "1907" in answer["reply"]
    assert len(blocked) == 1
    assert "Not run: look_up was called in the same way" in blocked[0]
    assert kinds(monitored(api, answer)) == ["nudge", "block_call", "block_call"]
    answer = api.ask("acme", agent="boasts")
    assert answer["outcome"] == "success"
    assert monitored(api, answer)["outcome"] == "done_unverified"
    answer = api.ask("acme", agent="never")
    assert answer["outcome"] == "guardrail_blocked"
    assert "nothing is known of acme" in answer["reply"]


def test_what_cannot_be_undone_waits_for_a_person_where_evidence_is_missing(serve: Serve, connect: Connect) -> None:
    wiped: list[str] = []

    async def wipe(disk: str) -> str:
        wiped.append(disk)
        return "wiped"

    def say(messages: list[ModelMessage], _info: AgentInfo) -> str | list[ToolCallPart]:
        return "Done." if results(messages) else [call("wipe", disk="a")]

    settings = {"monitor.tools": {"wipe": {"irreversible": True}}, "monitor.min_evidence": 2}
    api = begin(serve, connect, {"wipes": scripted(say, wipe)}, **settings)
    answer = api.ask("Clean up", agent="wipes", session="disk")
    assert (answer["outcome"], wiped) == ("success", [])
    assert answer["reply"].startswith("May wipe run? It cannot be undone")
    assert monitored(api, answer)["outcome"] == "needs_human"
    (turn,) = api.get("/v1/sessions/disk/actions").json()["turns"]
    assert turn["actions"] == []  # It was not made, and not answered either.
