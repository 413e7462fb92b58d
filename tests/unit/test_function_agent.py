"""A plain async function as an agent."""

import asyncio

import pytest

from holdfast.adapters import FunctionAgent, FunctionTurn
from holdfast.errors import AgentFailed, AttemptTimedOut
from holdfast.events import Event, ModelFinished, TextDelta, ToolFinished, TurnIds
from holdfast.guard import Attempt, Guard, GuardSpec, Policies
from holdfast.store import Past
from holdfast.testing import loop_clock
from holdfast.turn import Ask, Turn


async def no_model(_turn: Turn, _prompt: str, _instructions: str | None) -> str:
    raise AssertionError("this handler asks no model")


def turn_for(message: str, *past: Past, spec: GuardSpec | None = None) -> tuple[Turn, list[Event]]:
    events: list[Event] = []
    ask = Ask(message=message, principal="p", session_id="s", trace_id="0" * 32, request_id="r")
    guard = Guard(Policies(spec or GuardSpec(), loop_clock()), events.append)
    return Turn(ask, TurnIds("s", "t-1", "0" * 32, "a"), past, guard, events.append), events


async def test_what_it_returns_is_the_reply_and_what_it_says_is_shown_before() -> None:
    async def handler(turn: FunctionTurn) -> str:
        turn.say("thinking… ")
        return f"{turn.principal} in {turn.session_id} said {turn.message} after {turn.past[0].reply}"

    turn, events = turn_for("hi", Past(message="a", reply="b", format="plain", messages=b""))
    reply = await FunctionAgent(handler, "a", no_model).answer(turn)
    assert reply.text == "p in s said hi after b"
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["thinking… "]


async def test_tools_are_called_under_their_own_names_and_within_their_limit() -> None:
    async def search(query: str) -> str:
        return f"found {query}"

    async def slow() -> str:
        await asyncio.sleep(60)
        return "never"

    async def handler(turn: FunctionTurn) -> str:
        hit = await turn.tool(search, query="x")
        try:
            await turn.tool(slow)
        except AttemptTimedOut:
            return f"{hit}, and gave up"
        return "never"

    turn, events = turn_for("go", spec=GuardSpec(tool_s=2))
    reply = await FunctionAgent(handler, "a", no_model).answer(turn)
    assert reply.text == "found x, and gave up"
    finished = [event for event in events if isinstance(event, ToolFinished)]
    assert [(e.call_id.rpartition("-")[0], e.tool, e.status) for e in finished] == [
        ("search", "search", "ok"),
        ("slow", "slow", "timeout"),
    ]


async def test_any_client_may_be_called_through_the_guard() -> None:
    async def send(attempt: Attempt) -> str:
        attempt.used(10, 3)
        return "answered"

    async def handler(turn: FunctionTurn) -> str:
        return await turn.call_model("mine", "small", send)

    turn, events = turn_for("go")
    assert (await FunctionAgent(handler, "a", no_model).answer(turn)).text == "answered"
    [finished] = [event for event in events if isinstance(event, ModelFinished)]
    assert (finished.provider, finished.model, finished.input_tokens, finished.output_tokens) == (
        "mine",
        "small",
        10,
        3,
    )


async def test_the_configured_model_is_asked_the_message_or_a_prompt_of_ones_own() -> None:
    asked: list[tuple[str, str | None]] = []

    async def ask_model(_turn: Turn, prompt: str, instructions: str | None) -> str:
        asked.append((prompt, instructions))
        return "42"

    async def handler(turn: FunctionTurn) -> str:
        return await turn.model() + await turn.model("and this?", instructions="be brief")

    turn, _ = turn_for("what?")
    assert (await FunctionAgent(handler, "a", ask_model).answer(turn)).text == "4242"
    assert asked == [("what?", None), ("and this?", "be brief")]


async def test_a_handler_that_returns_no_text_has_failed() -> None:
    async def handler(_turn: FunctionTurn) -> str:
        return 7  # type: ignore[return-value]  # the mistake under test

    turn, _ = turn_for("go")
    with pytest.raises(AgentFailed, match="handler a returned int; it must return a str"):
        await FunctionAgent(handler, "a", no_model).answer(turn)
