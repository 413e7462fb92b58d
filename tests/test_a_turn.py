"""
One turn, from outside: the companion of docs/a-turn.md and the first test to read.

The built-in assistant on the demo model is asked for a product. Every event is here, in order.
"""

from typing import Any

import msgspec
import pytest

from holdfast import Ask, Holdfast
from holdfast.config import load
from holdfast.events import Event, TextDelta, TurnIds
from holdfast.testing import loop_clock

TRACE = "0af7651916cd43dd8448eb211c80319c"


def holdfast(**flags: object) -> Holdfast:
    named = {name.replace("__", "."): value for name, value in flags.items()}
    settings = load(environ={}, flags={"store.url": "memory:", "telemetry.jsonl_path": "", **named}).settings
    return Holdfast(settings, environ={}, clock=loop_clock())


def ask(message: str, *, principal: str = "ada", streams: bool = True) -> Ask:
    return Ask(message=message, principal=principal, session_id="s", trace_id=TRACE, request_id="r-1", streams=streams)


def plain(event: Event) -> dict[str, Any]:
    """An event without what differs from run to run."""
    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    return {name: value for name, value in told.items() if not name.endswith("tokens") and name != "usage"}


async def test_a_turn_with_a_tool_is_these_events_in_this_order() -> None:
    seen: list[tuple[TurnIds, Event]] = []
    async with holdfast() as hold:
        answer = await hold.begin(ask("What is 17*23?"), watch=[lambda ids, event: seen.append((ids, event))])

    ids = TurnIds("s", answer.turn_id, TRACE, "assistant")
    assert {who for who, _ in seen} == {ids}
    assert answer.turn_id.endswith("-1")
    named = ids._asdict()
    model = {"provider": "function", "model": "demo"}
    ok = {"status": "ok", "duration_s": 0.0, "error": None}
    free = {**ok, "cost_nanos": 0, "first_token_s": 0.0}
    tool = {"call_id": "demo-1-1", "tool": "calculate"}
    assert [(event.name, plain(event)) for _, event in seen if not isinstance(event, TextDelta)] == [
        ("turn.started", {**named, "generation": 1, "after": 0}),
        ("model.started", {"call": 1, **model}),
        ("model.finished", {"call": 1, **model, **free}),
        ("tool.started", {**tool, "args": {"expression": "17*23"}}),
        ("tool.finished", {**tool, **ok, "result": '{"expression":"17*23","result":391}'}),
        ("model.started", {"call": 2, **model}),
        ("model.finished", {"call": 2, **model, **free}),
        ("turn.ended", {**named, "outcome": "success", "reply": answer.reply, "duration_s": 0.0, "error": None}),
    ]

    said = "".join(event.text for _, event in seen if isinstance(event, TextDelta))
    assert said == answer.reply
    assert "17*23 = 391" in answer.reply
    assert "demo model" in answer.reply
    assert (answer.model, answer.usage.model_calls, answer.usage.tool_calls) == ("demo", 2, 1)


async def test_the_text_comes_between_the_second_call_and_its_end() -> None:
    names: list[str] = []
    async with holdfast() as hold:
        await hold.begin(ask("What is 17*23?"), watch=[lambda _ids, event: names.append(event.name)])
    first, last = names.index("text.delta"), len(names) - 1 - names[::-1].index("text.delta")
    assert names[first - 1] == "model.started"
    assert names[last + 1] == "model.finished"
    assert set(names[first : last + 1]) == {"text.delta"}


@pytest.mark.parametrize("streams", [True, False])
async def test_the_next_turn_of_the_session_knows_the_first_and_nobody_elses_does(*, streams: bool) -> None:
    async with holdfast() as hold:
        await hold.begin(ask("My name is Ada.", streams=streams))
        knows = await hold.begin(ask("What is my name?", streams=streams))
        stranger = await hold.begin(ask("What is my name?", principal="bob", streams=streams))
    assert "Ada" in knows.reply
    assert knows.turn_id.endswith("-2")
    assert "Ada" not in stranger.reply
    assert stranger.turn_id.endswith("-1")


async def test_a_turn_that_nobody_watches_streams_nothing_and_answers_the_same() -> None:
    names: list[str] = []
    async with holdfast() as hold:
        watched = await hold.begin(ask("What is 17*23?"))
        unwatched = await hold.begin(
            ask("What is 17*23?", principal="bob", streams=False), watch=[lambda _ids, event: names.append(event.name)]
        )
    assert unwatched.reply == watched.reply
    assert "text.delta" not in names
