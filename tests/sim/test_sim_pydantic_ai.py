"""Pydantic AI's three model classes against the simulator: what most agents here run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pydantic_ai.models
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from holdfast.sim import Simulator

pytestmark = pytest.mark.sockets

RULES: list[dict[str, Any]] = [
    {"when": {"tool": "weather"}, "say": "Rain in both."},
    {
        "say": "Looking.",
        "call": [{"tool": "weather", "args": {"city": "Rome"}}, {"tool": "weather", "args": {"city": "Oslo"}}],
    },
]


@pytest.fixture(params=["anthropic", "openai-chat", "openai-responses"])
def format_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(pydantic_ai.models, "ALLOW_MODEL_REQUESTS", True)
    return str(request.param)


@asynccontextmanager
async def agent(sim: Simulator, format_name: str) -> AsyncIterator[tuple[Agent[None, str], list[str]]]:
    cities: list[str] = []
    http = httpx2.AsyncClient(verify=False)
    anthropic = AsyncAnthropic(base_url=sim.url, api_key="x", max_retries=0, http_client=http)
    openai = AsyncOpenAI(base_url=f"{sim.url}/v1", api_key="x", max_retries=0, http_client=http)
    models: dict[str, Model[Any]] = {
        "anthropic": AnthropicModel("claude-sim", provider=AnthropicProvider(anthropic_client=anthropic)),
        "openai-chat": OpenAIChatModel("gpt-sim", provider=OpenAIProvider(openai_client=openai)),
        "openai-responses": OpenAIResponsesModel("gpt-sim", provider=OpenAIProvider(openai_client=openai)),
    }
    made = Agent(models[format_name], instructions="Be brief.")

    @made.tool_plain
    def weather(city: str) -> str:
        cities.append(city)
        return f"rain in {city}"

    try:
        yield made, cities
    finally:
        await http.aclose()


async def test_an_agent_runs_its_tools_and_answers(format_name: str) -> None:
    async with Simulator(RULES) as sim, agent(sim, format_name) as (made, cities):
        result = await made.run("weather?")
    assert result.output == "Rain in both."
    assert sorted(cities) == ["Oslo", "Rome"]
    assert result.usage.requests == 2
    assert result.usage.input_tokens > 20
    second = sim.requests[1].request
    assert second is not None
    assert [(m.role, m.tool) for m in second.messages[-2:]] == [("tool", "weather")] * 2
    assert second.messages[0].text == "Be brief."


async def test_a_streamed_run_gives_the_same(format_name: str) -> None:
    rules = [RULES[0], {"call": RULES[1]["call"]}]
    async with (
        Simulator(rules) as sim,
        agent(sim, format_name) as (made, cities),
        made.run_stream("weather?") as result,
    ):
        text = await result.get_output()
    assert text == "Rain in both."
    assert sorted(cities) == ["Oslo", "Rome"]
    assert [record.request.stream for record in sim.requests if record.request] == [True, True]


async def test_a_second_turn_sends_the_first_one_back(format_name: str) -> None:
    async with Simulator(RULES) as sim, agent(sim, format_name) as (made, _):
        first = await made.run("weather?")
        sim.use_script([{"say": "Yes."}])
        second = await made.run("sure?", message_history=first.all_messages())
    assert second.output == "Yes."
    last = sim.requests[-1].request
    assert last is not None
    assert [m.role for m in last.messages] == ["system", "user", "assistant", "tool", "tool", "assistant", "user"]


async def test_the_demo_model_calls_an_agents_tools(format_name: str) -> None:
    async with Simulator() as sim, agent(sim, format_name) as (made, _):

        @made.tool_plain
        def calculate(expression: str) -> str:
            return f"{expression} = 42"

        result = await made.run("What is 6 * 7?")
    assert "42" in result.output
    assert [record.answered_by for record in sim.requests] == ["demo", "demo"]


async def test_an_http_error_keeps_its_status_and_body(format_name: str) -> None:
    async with Simulator([{"fault": "overloaded"}]) as sim, agent(sim, format_name) as (made, _):
        with pytest.raises(ModelHTTPError) as raised:
            await made.run("hello")
    assert raised.value.status_code == (529 if format_name == "anthropic" else 503)


async def test_malformed_tool_arguments_are_sent_back_to_the_model(format_name: str) -> None:
    rules = [{**RULES[1], "fault": "malformed_tool_args", "times": 1}, *RULES]
    async with Simulator(rules) as sim, agent(sim, format_name) as (made, cities):
        result = await made.run("weather?")
    assert result.output == "Rain in both."
    assert cities == []
    assert len(sim.requests) == 2


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ({"kind": "reset"}, ModelAPIError),
        ({"kind": "reset", "after_deltas": 1}, ModelAPIError),
        ({"kind": "truncated"}, ModelAPIError),
        ({"kind": "stream_error"}, ModelHTTPError),
    ],
)
async def test_a_broken_answer_is_an_error_of_the_model(
    format_name: str, fault: dict[str, Any], wrong: type[Exception]
) -> None:
    async with Simulator([{"say": "abcdefgh", "fault": fault}]) as sim, agent(sim, format_name) as (made, _):
        with pytest.raises(wrong):
            await made.run("hello")
