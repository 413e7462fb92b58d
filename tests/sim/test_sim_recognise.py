"""Every fault, as the SDKs and Pydantic AI raise it, and what it is judged to be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2
import pydantic_ai.models
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from holdfast.clock import NS, Clock
from holdfast.resilience.classify import Failure, FailureClass
from holdfast.resilience.recognise import facts_of, recognise
from holdfast.sim import Simulator
from holdfast.testing.virtual_loop import START_WALL_NS

if TYPE_CHECKING:
    from tests.sim.conftest import Client, Session, Until

pytestmark = pytest.mark.sockets

CLOCK = Clock(wall_ns=lambda: START_WALL_NS)
SOON = 0.02
"""Seconds a client waits for what never comes."""

TEXT = "abcdefghijkl"  # three deltas


def fault(**fields: Any) -> list[dict[str, Any]]:
    return [{"say": TEXT, "fault": fields}]


class Case(NamedTuple):
    """A fault, and the failure it is judged to be."""

    fault: dict[str, Any]
    kind: str
    retry_after_s: float | None = None


CASES = [
    Case({"kind": "rate_limited"}, "rate_limited"),
    Case({"kind": "rate_limited", "retry_after_s": 7}, "rate_limited", 7.0),
    Case({"kind": "rate_limited", "retry_after_s": 1.5, "retry_after_as": "milliseconds"}, "rate_limited", 1.5),
    Case({"kind": "rate_limited", "retry_after_s": 30, "retry_after_as": "date"}, "rate_limited", 30.0),
    Case({"kind": "quota"}, "quota"),
    Case({"kind": "overloaded", "retry_after_s": 2}, "overloaded", 2.0),
    Case({"kind": "server_error"}, "server"),
    Case({"kind": "bad_gateway"}, "server"),
    Case({"kind": "unauthorized"}, "auth"),
    Case({"kind": "not_found"}, "invalid"),
    Case({"kind": "context_too_long"}, "context"),
    Case({"kind": "hang"}, "timeout"),
    Case({"kind": "reset"}, "network"),
    Case({"kind": "reset", "after_deltas": 1}, "network"),
]
each_fault = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(v) for v in case.fault.values()))


def judged(error: BaseException) -> Failure:
    return recognise(error, START_WALL_NS / NS)


async def error_of(call: Awaitable[object]) -> BaseException:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - which one it is, is for the code under test to find out
        return error
    pytest.fail("nothing was raised")


async def error_for(client: Client) -> BaseException:
    return await error_of(client.ask(patience_s=SOON))


@each_fault
async def test_what_the_sdks_raise_is_judged(session: Session, case: Case) -> None:
    async with session(fault(**case.fault), clock=CLOCK) as (_, client):
        failure = judged(await error_for(client))
    assert (failure.kind.value, failure.retry_after_s, failure.harmless) == (case.kind, case.retry_after_s, False)


@pytest.mark.parametrize("streamed", ["anthropic", "openai-chat"], indirect=True)
async def test_an_error_event_is_judged_as_the_same_error_before_the_stream(streamed: Session) -> None:
    async with streamed(fault(kind="stream_error", after_deltas=1)) as (_, client):
        failure = judged(await error_for(client))
    assert failure.kind.value == {"anthropic": "overloaded", "openai-chat": "server"}[client.format]
    assert not failure.harmless


async def test_a_body_that_is_cut_is_an_answer_that_cannot_be_used(whole: Session) -> None:
    async with whole(fault(kind="truncated")) as (_, client):
        assert judged(await error_for(client)).kind is FailureClass.MALFORMED


@pytest.mark.parametrize("streamed", ["anthropic"], indirect=True)
async def test_tool_arguments_that_are_not_json_are_an_answer_that_cannot_be_used(streamed: Session) -> None:
    rules = [{"call": [{"tool": "weather", "args": {"city": "Paris"}}], "fault": "malformed_tool_args"}]
    async with streamed(rules) as (_, client):
        assert judged(await error_for(client)).kind is FailureClass.MALFORMED


# Nothing was sent


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def test_a_refused_connection_has_done_nothing(session: Session) -> None:
    async with session() as (_, client):
        nowhere = f"http://127.0.0.1:{closed_port()}"
        client.anthropic = client.anthropic.copy(base_url=nowhere)
        client.openai = client.openai.copy(base_url=f"{nowhere}/v1")
        failure = judged(await error_for(client))
    assert failure == (FailureClass.NETWORK, None, True, True)


async def test_a_target_that_speaks_no_tls_has_been_told_nothing(chat: Session) -> None:
    async with chat() as (sim, client):
        client.openai = client.openai.copy(base_url=f"{sim.url.replace('http:', 'https:')}/v1")
        failure = judged(await error_for(client))
    assert failure == (FailureClass.NETWORK, None, True, True)


HELLO: Any = [{"role": "user", "content": "hello"}]


async def test_a_connection_that_was_never_made_in_time_has_done_nothing() -> None:
    limits = httpx2.Timeout(30, connect=0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        async with httpx2.AsyncClient(verify=False, timeout=limits) as http:
            client = AsyncOpenAI(base_url=url, api_key="x", max_retries=0, http_client=http)
            error = await error_of(client.chat.completions.create(model="m", messages=HELLO))
    assert judged(error) == (FailureClass.TIMEOUT, None, True, True)
    assert facts_of(error).timed_out == "connect"


async def test_a_connection_that_never_came_free_has_done_nothing(until: Until) -> None:
    limits = httpx2.Limits(max_connections=1)
    async with (
        Simulator(fault(kind="hang")) as sim,
        httpx2.AsyncClient(verify=False, limits=limits, timeout=httpx2.Timeout(30, pool=SOON)) as http,
        asyncio.TaskGroup() as group,
    ):
        client = AsyncOpenAI(base_url=f"{sim.url}/v1", api_key="x", max_retries=0, http_client=http)
        first = group.create_task(client.chat.completions.create(model="m", messages=HELLO))
        await until(lambda: sim.in_flight == 1)
        error = await error_of(client.chat.completions.create(model="m", messages=HELLO))
        first.cancel()
    assert judged(error) == (FailureClass.TIMEOUT, None, True, True)


# Pydantic AI


@pytest.fixture(params=["anthropic", "openai-chat", "openai-responses"])
def format_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(pydantic_ai.models, "ALLOW_MODEL_REQUESTS", True)
    return str(request.param)


@asynccontextmanager
async def agent(url: str, format_name: str) -> AsyncIterator[Agent[None, str]]:
    http = httpx2.AsyncClient(verify=False)
    anthropic = AsyncAnthropic(base_url=url, api_key="x", max_retries=0, http_client=http)
    openai = AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0, http_client=http)
    models: dict[str, Model[Any]] = {
        "anthropic": AnthropicModel("claude-sim", provider=AnthropicProvider(anthropic_client=anthropic)),
        "openai-chat": OpenAIChatModel("gpt-sim", provider=OpenAIProvider(openai_client=openai)),
        "openai-responses": OpenAIResponsesModel("gpt-sim", provider=OpenAIProvider(openai_client=openai)),
    }
    patience = ModelSettings(timeout=httpx2.Timeout(30, read=SOON))
    async with http:
        yield Agent(models[format_name], model_settings=patience)


async def run(made: Agent[None, str], *, stream: bool) -> None:
    if not stream:
        await made.run("hello")
        return
    async with made.run_stream("hello") as result:
        await result.get_output()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@each_fault
async def test_what_pydantic_ai_raises_is_judged_the_same(format_name: str, case: Case, *, stream: bool) -> None:
    async with Simulator(fault(**case.fault), clock=CLOCK) as sim, agent(sim.url, format_name) as made:
        failure = judged(await error_of(run(made, stream=stream)))
    assert (failure.kind.value, failure.retry_after_s, failure.harmless) == (case.kind, case.retry_after_s, False)


async def test_pydantic_ai_s_error_event_is_judged_the_same(format_name: str) -> None:
    async with Simulator(fault(kind="stream_error")) as sim, agent(sim.url, format_name) as made:
        failure = judged(await error_of(run(made, stream=True)))
    assert failure.kind.value == ("overloaded" if format_name == "anthropic" else "server")


async def test_pydantic_ai_s_body_that_is_cut_is_judged_the_same(format_name: str) -> None:
    async with Simulator(fault(kind="truncated")) as sim, agent(sim.url, format_name) as made:
        assert judged(await error_of(run(made, stream=False))).kind is FailureClass.MALFORMED


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_pydantic_ai_s_refused_connection_has_done_nothing(format_name: str, *, stream: bool) -> None:
    async with agent(f"http://127.0.0.1:{closed_port()}", format_name) as made:
        failure = judged(await error_of(run(made, stream=stream)))
    assert failure == (FailureClass.NETWORK, None, True, True)
