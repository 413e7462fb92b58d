"""The Pydantic AI adapter against real SDK clients, over a socket, with a provider that fails as providers do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from pydantic import SecretStr
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

from holdfast.adapters import PydanticAgent
from holdfast.agents.models import build_model, settings_of
from holdfast.agents.spec import LLMSpec
from holdfast.clock import Clock
from holdfast.errors import (
    AttemptTimedOut,
    HoldfastError,
    ModelMalformed,
    ModelRejected,
    ModelUnavailable,
    StreamBroken,
)
from holdfast.events import Event, ModelFinished, TextDelta, ToolFinished, TurnIds
from holdfast.guard import Guard, GuardSpec, Policies
from holdfast.sim import Simulator
from holdfast.turn import Ask, Turn

pytestmark = pytest.mark.sockets

FORMS = ["anthropic:claude-sonnet-5-5", "openai:gpt-6.1-terra", "openai-chat:gpt-6.1-terra"]
WEATHER = [
    {"when": {"tool": "weather"}, "say": "It rains in Rome and snows in Oslo, so take a coat and an umbrella."},
    {"when": {"text_contains": "weather"}, "say": "Let me look.", "call": [
        {"tool": "weather", "args": {"city": "Rome"}}, {"tool": "weather", "args": {"city": "Oslo"}},
    ]},
    {"say": "Hello there, how are you today?"},
]  # fmt: skip


async def weather(city: str) -> str:
    """Tell the weather."""
    return f"{city}: {'rain' if city == 'Rome' else 'snow'}"


def turn_for(message: str, *, streams: bool, spec: GuardSpec | None = None) -> tuple[Turn, list[Event]]:
    events: list[Event] = []
    ask = Ask(message=message, principal="p", session_id="s", trace_id="0" * 32, request_id="r", streams=streams)
    guard = Guard(Policies((spec or GuardSpec()).model_copy(update={"attempts": 1}), Clock()), events.append)
    return Turn(ask, TurnIds("s", "t-1", "0" * 32, "a"), (), guard, events.append), events


@asynccontextmanager
async def served(
    form: str, script: Any = WEATHER, *, sends_max_tokens: bool = True
) -> AsyncIterator[tuple[PydanticAgent, Simulator]]:
    async with Simulator(script) as sim:
        base_url = sim.url if form.startswith("anthropic") else f"{sim.url}/v1"
        model = build_model(LLMSpec(model=form, base_url=base_url, api_key=SecretStr("k")), {}, 30.0)
        settings = settings_of(LLMSpec()) if sends_max_tokens else None
        async with PydanticAgent(Agent(model, tools=[weather], model_settings=settings), "a") as agent:
            yield agent, sim


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_a_turn_with_parallel_tool_calls(form: str, *, streams: bool) -> None:
    async with served(form) as (agent, sim):
        turn, events = turn_for("what is the weather?", streams=streams)
        reply = await agent.answer(turn)
    assert reply.text == "It rains in Rome and snows in Oslo, so take a coat and an umbrella."
    assert {(e.tool, e.result) for e in events if isinstance(e, ToolFinished)} == {
        ("weather", "Rome: rain"),
        ("weather", "Oslo: snow"),
    }
    deltas = [e.text for e in events if isinstance(e, TextDelta)]
    assert ("".join(deltas).endswith(reply.text) and len(deltas) > 3) if streams else deltas == []
    finished = [e for e in events if isinstance(e, ModelFinished)]
    assert [e.status for e in finished] == ["ok", "ok"]
    assert all(e.input_tokens > 0 and e.output_tokens > 0 for e in finished)
    assert [record.status for record in sim.requests] == [200, 200]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_cached_and_reasoning_tokens_are_told_alike_of_every_provider(form: str, *, streams: bool) -> None:
    counted = {"input_tokens": 100, "output_tokens": 30}
    parts = {"cache_write_tokens": 20, "reasoning_tokens": 25}
    script = [{"say": "Hello there, how are you?", "usage": {**counted, **parts, "cached_tokens": 60}}]
    async with served(form, script) as (agent, _):
        turn, events = turn_for("hello", streams=streams)
        await agent.answer(turn)
    [finished] = [e for e in events if isinstance(e, ModelFinished)]
    told = {name: getattr(finished, name) for name in (*counted, *parts)}
    assert told == {**counted, **parts}
    assert finished.cache_read_tokens == 60


REJECTED, UNAVAILABLE, MALFORMED = ModelRejected, ModelUnavailable, ModelMalformed


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "rate_limited", "retry_after_s": 3}, UNAVAILABLE),
        ({"kind": "rate_limited", "retry_after_s": 1.5, "retry_after_as": "milliseconds"}, UNAVAILABLE),
        ("overloaded", UNAVAILABLE),
        ("server_error", UNAVAILABLE),
        ("bad_gateway", UNAVAILABLE),
        ("reset", UNAVAILABLE),
        ("stream_error", UNAVAILABLE),
        ("unauthorized", REJECTED),
        ("not_found", REJECTED),
        ("context_too_long", REJECTED),
        ("truncated", HoldfastError),
    ],
)
async def test_each_failure_is_one_attempt_and_one_of_our_errors(
    form: str, fault: Any, expected: type[HoldfastError], *, streams: bool
) -> None:
    async with served(form) as (agent, sim):
        sim.add_fault(fault)
        turn, events = turn_for("hello", streams=streams)
        had_begun = streams and fault in ("stream_error", "truncated")
        with pytest.raises(StreamBroken if had_begun else expected) as caught:
            await agent.answer(turn)
    assert had_begun or caught.value.code in {"model_unavailable", "model_rejected", "model_malformed"}
    assert len(sim.requests) == 1, "an SDK retried on its own"
    [finished] = [e for e in events if isinstance(e, ModelFinished)]
    assert (finished.status, finished.error) == ("error", caught.value.code)
    if isinstance(fault, dict):
        assert caught.value.retry_after_s == fault["retry_after_s"]


async def test_a_stream_that_the_client_reads_on_its_own_is_not_taken_for_an_answer_when_it_is_cut() -> None:
    """Without a bound on its answer, Pydantic AI streams an Anthropic request that nobody wants streamed."""
    async with served(FORMS[0], sends_max_tokens=False) as (agent, sim):
        sim.add_fault("truncated")
        turn, _ = turn_for("hello", streams=False)
        with pytest.raises(ModelUnavailable):
            await agent.answer(turn)
        request = sim.requests[0].request
        assert request
        assert request.stream


@pytest.mark.parametrize("form", FORMS)
async def test_a_stream_that_stops_for_ever_is_stopped_at_its_limit(form: str) -> None:
    async with served(form) as (agent, sim):
        sim.add_fault("stall")
        turn, events = turn_for("hello", streams=True, spec=GuardSpec(model_s=0.3))
        with pytest.raises(AttemptTimedOut):
            await agent.answer(turn)
        await sim.wait_idle()
    [finished] = [e for e in events if isinstance(e, ModelFinished)]
    assert (finished.status, sim.requests[0].client_left) == ("timeout", True)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_provider_that_never_answers_is_left_at_the_limit(*, streams: bool) -> None:
    async with served(FORMS[0]) as (agent, sim):
        sim.add_fault("hang")
        turn, events = turn_for("hello", streams=streams, spec=GuardSpec(model_s=0.3, first_token_s=0.2))
        with pytest.raises(AttemptTimedOut):
            await agent.answer(turn)
        await sim.wait_idle()
    [finished] = [e for e in events if isinstance(e, ModelFinished)]
    assert finished.status == "timeout"


async def test_a_client_of_ones_own_does_not_retry_either() -> None:
    """Left to itself the SDK would try three times."""
    async with Simulator([{"say": "hi"}]) as sim, AsyncAnthropic(base_url=sim.url, api_key="k") as client:
        assert client.max_retries == 2
        model = AnthropicModel("claude-sonnet-5-5", provider=AnthropicProvider(anthropic_client=client))
        sim.add_fault("overloaded")
        turn, _ = turn_for("hello", streams=False)
        async with PydanticAgent(Agent(model), "a") as agent:
            with pytest.raises(ModelUnavailable):
                await agent.answer(turn)
        assert len(sim.requests) == 1


async def test_deltas_arrive_while_the_model_is_still_talking() -> None:
    stalls = [{"say": "one two three", "fault": {"kind": "stall", "after_deltas": 1}}]
    async with served(FORMS[0], stalls) as (agent, sim):
        turn, _ = turn_for("go", streams=True)
        heard = asyncio.Event()
        turn.emit = lambda event: heard.set() if isinstance(event, TextDelta) else None
        answering = asyncio.create_task(agent.answer(turn))  # noqa: TID251 - it is cancelled below
        await heard.wait()
        assert sim.in_flight == 1
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
