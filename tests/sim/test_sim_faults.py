"""Every fault, as the client's SDK reports it."""

from __future__ import annotations

import asyncio
import email.utils
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest

from holdfast.clock import Clock
from holdfast.sim import (
    EVERY_FAULT,
    Hang,
    MalformedToolArgs,
    RateLimited,
    Reset,
    SlowFirstToken,
    Stall,
    StreamError,
    Truncated,
)
from holdfast.testing.virtual_loop import START_WALL_NS

if TYPE_CHECKING:
    from tests.sim.conftest import Http, Session, Until

pytestmark = pytest.mark.sockets

RATE_LIMITED: Any = (anthropic.RateLimitError, openai.RateLimitError)
SOON = 0.02
"""Seconds a client waits for what never comes."""

TEXT = "abcdefghijkl"  # three deltas


def fault(**fields: Any) -> list[dict[str, Any]]:
    return [{"say": TEXT, "fault": fields}]


@pytest.mark.parametrize(
    ("kind", "of_anthropic", "of_openai"),
    [
        ("rate_limited", (anthropic.RateLimitError, 429, "rate_limit_error"), (openai.RateLimitError, 429, "requests")),
        (
            "quota",
            (anthropic.BadRequestError, 400, "invalid_request_error"),
            (openai.RateLimitError, 429, "insufficient_quota"),
        ),
        (
            "overloaded",
            (anthropic.InternalServerError, 529, "overloaded_error"),
            (openai.InternalServerError, 503, "server_error"),
        ),
        (
            "server_error",
            (anthropic.InternalServerError, 500, "api_error"),
            (openai.InternalServerError, 500, "server_error"),
        ),
        ("bad_gateway", (anthropic.InternalServerError, 502, None), (openai.InternalServerError, 502, None)),
        (
            "unauthorized",
            (anthropic.AuthenticationError, 401, "authentication_error"),
            (openai.AuthenticationError, 401, "invalid_request_error"),
        ),
        (
            "not_found",
            (anthropic.NotFoundError, 404, "not_found_error"),
            (openai.NotFoundError, 404, "invalid_request_error"),
        ),
        (
            "context_too_long",
            (anthropic.BadRequestError, 400, "invalid_request_error"),
            (openai.BadRequestError, 400, "invalid_request_error"),
        ),
    ],
)
async def test_an_error_has_the_status_and_shape_of_its_provider(
    session: Session, kind: str, of_anthropic: tuple[Any, int, str], of_openai: tuple[Any, int, str]
) -> None:
    async with session(fault(kind=kind)) as (sim, client):
        expected, status, error_type = of_anthropic if client.format == "anthropic" else of_openai
        with pytest.raises(expected) as raised:
            await client.ask()
    assert raised.value.status_code == status
    assert raised.value.request_id == "req_sim_000001"
    assert getattr(raised.value, "type", None) == error_type
    assert (sim.requests[0].fault, sim.requests[0].status) == (kind, status)


async def test_openai_errors_carry_the_codes_clients_look_for(whole: Session) -> None:
    codes = {
        "rate_limited": "rate_limit_exceeded",
        "quota": "insufficient_quota",
        "unauthorized": "invalid_api_key",
        "not_found": "model_not_found",
        "context_too_long": "context_length_exceeded",
    }
    async with whole() as (sim, client):
        if client.format == "anthropic":
            return
        for kind, code in codes.items():
            sim.add_fault(kind, times=1)
            with pytest.raises(openai.APIStatusError) as raised:
                await client.ask()
            assert raised.value.code == code


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, {}),
        ({"retry_after_s": 1.2}, {"retry-after": "2"}),
        ({"retry_after_s": 1.2, "retry_after_as": "milliseconds"}, {"retry-after-ms": "1200"}),
        ({"retry_after_s": 60, "retry_after_as": "date"}, {"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}),
    ],
)
async def test_retry_after_comes_in_each_of_its_forms(
    whole: Session, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    clock = Clock(wall_ns=lambda: START_WALL_NS)
    async with whole(fault(kind="rate_limited", **fields), clock=clock) as (_, client):
        with pytest.raises(RATE_LIMITED) as raised:
            await client.ask()
    sent = {name: value for name, value in raised.value.response.headers.items() if name.startswith("retry-after")}
    assert sent == headers
    if "GMT" in str(headers):
        assert email.utils.parsedate_to_datetime(sent["retry-after"]).year == 2026


async def test_a_reset_before_the_first_byte_reaches_the_sdk_as_a_connection_error(session: Session) -> None:
    async with session(fault(kind="reset")) as (sim, client):
        with pytest.raises((anthropic.APIConnectionError, openai.APIConnectionError)) as raised:
            await client.ask()
        await sim.wait_idle()
    assert isinstance(raised.value.__cause__, httpx2.ReadError)
    assert (sim.requests[0].status, sim.requests[0].client_left) == (None, False)


async def test_a_reset_in_mid_stream_comes_after_the_deltas_before_it(streamed: Session) -> None:
    async with streamed(fault(kind="reset", after_deltas=2)) as (sim, client):
        with pytest.raises((httpx2.ReadError, anthropic.APIConnectionError, openai.APIConnectionError)):
            await client.ask()
        assert client.partial.text == "abcdefgh"
        await sim.wait_idle()
    assert (sim.requests[0].status, sim.requests[0].deltas) == (200, 2)


async def test_a_reset_in_the_middle_of_a_body_breaks_the_read(whole: Session) -> None:
    async with whole(fault(kind="reset", after_deltas=1)) as (sim, client):
        with pytest.raises((httpx2.ReadError, anthropic.APIConnectionError, openai.APIConnectionError)):
            await client.ask()
        await sim.wait_idle()
    assert sim.requests[0].status == 200


async def test_after_a_reset_the_next_request_finds_the_simulator_well(session: Session) -> None:
    async with session() as (sim, client):
        sim.add_fault(Reset(), times=1)
        with pytest.raises((anthropic.APIConnectionError, openai.APIConnectionError)):
            await client.ask()
        assert (await client.ask()).text


async def test_a_hang_ends_with_the_clients_own_timeout(session: Session, until: Until) -> None:
    async with session([{"fault": "hang"}]) as (sim, client):
        with pytest.raises((anthropic.APITimeoutError, openai.APITimeoutError)):
            await client.ask(patience_s=SOON)
        await until(lambda: bool(sim.requests) and not sim.in_flight)
    assert (sim.requests[0].status, sim.requests[0].client_left) == (None, True)


async def test_a_slow_first_token_is_late_and_whole(session: Session) -> None:
    async with session([{"say": TEXT, "fault": {"kind": "slow_first_token", "seconds": 0.02}}]) as (sim, client):
        assert (await client.ask()).text == TEXT
    assert (sim.requests[0].duration_s or 0) >= 0.02


async def test_a_stall_for_some_seconds_goes_on_afterwards(session: Session) -> None:
    async with session(fault(kind="stall", after_deltas=2, seconds=0.02)) as (sim, client):
        assert (await client.ask()).text == TEXT
    assert (sim.requests[0].duration_s or 0) >= 0.02


async def test_a_stall_for_ever_keeps_the_connection_and_sends_nothing_more(streamed: Session, until: Until) -> None:
    async with streamed(fault(kind="stall", after_deltas=2)) as (sim, client), asyncio.TaskGroup() as group:
        asking = group.create_task(client.ask())
        await until(lambda: client.partial.text == "abcdefgh")
        await asyncio.sleep(0.005)
        assert (client.partial.text, asking.done(), sim.in_flight) == ("abcdefgh", False, 1)
        asking.cancel()
        await sim.wait_idle()
        assert sim.requests[0].client_left


async def test_a_stall_for_ever_in_a_body_ends_with_the_clients_own_timeout(whole: Session, until: Until) -> None:
    async with whole(fault(kind="stall")) as (sim, client):
        with pytest.raises((httpx2.ReadTimeout, anthropic.APITimeoutError, openai.APITimeoutError)):
            await client.ask(patience_s=SOON)
        await until(lambda: bool(sim.requests) and not sim.in_flight)
    assert (sim.requests[0].status, sim.requests[0].client_left) == (200, True)


async def test_an_error_event_comes_inside_the_200_stream(streamed: Session) -> None:
    async with streamed(fault(kind="stream_error", after_deltas=1)) as (sim, client):
        if client.format == "anthropic":
            with pytest.raises(anthropic.APIStatusError) as of_anthropic:
                await client.ask()
            assert (of_anthropic.value.status_code, of_anthropic.value.type) == (200, "overloaded_error")
        elif client.format == "openai-chat":
            with pytest.raises(openai.APIError) as of_openai:
                await client.ask()
            assert (of_openai.value.type, of_openai.value.message[:20]) == ("server_error", "The server had an er")
        else:
            assert (await client.ask()).finish == "error: server_error"
    assert client.partial.text == "abcd"
    assert sim.requests[0].status == 200


async def test_an_error_event_without_a_stream_is_a_500(whole: Session) -> None:
    async with whole(fault(kind="stream_error")) as (_, client):
        with pytest.raises((anthropic.InternalServerError, openai.InternalServerError)):
            await client.ask()


async def test_a_truncated_body_is_complete_http_and_broken_json(whole: Session) -> None:
    async with whole(fault(kind="truncated")) as (_, client):
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            await client.ask()


async def test_a_truncated_stream_ends_within_an_event(streamed: Session, http: Http) -> None:
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "anthropic": ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}),
        "openai-chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        "openai-responses": ("/v1/responses", {"input": "x"}),
    }
    async with streamed(fault(kind="truncated", after_deltas=2)) as (sim, client), http(sim) as raw:
        path, body = asked[client.format]
        answer = await raw.post(path, json={"model": "m", "stream": True, **body})
    assert not answer.text.endswith("\n\n")
    assert answer.text.count("efgh") == 1
    assert "ijkl" not in answer.text


async def test_the_sdks_take_a_truncated_stream_for_a_whole_one(streamed: Session) -> None:
    """Nothing is raised: only the missing reason for the end tells that the answer was cut."""
    async with streamed(fault(kind="truncated", after_deltas=2)) as (_, client):
        heard = await client.ask()
    assert (heard.text, heard.finish) == ("abcdefgh", None)


async def test_malformed_tool_arguments_are_not_json(session: Session) -> None:
    rules = [{"call": [{"tool": "weather", "args": {"city": "Paris"}}], "fault": "malformed_tool_args"}]
    async with session(rules) as (_, client):
        if client.format == "anthropic" and client.stream:
            with pytest.raises(ValueError, match="JSON"):
                await client.ask()
        else:
            assert (await client.ask()).calls == [("weather", '{"city" "Paris"}')]


async def test_a_fault_hits_an_answer_that_is_shorter_than_it_says_before_its_end(streamed: Session) -> None:
    async with streamed(fault(kind="reset", after_deltas=99)) as (sim, client):
        with pytest.raises((httpx2.ReadError, anthropic.APIConnectionError, openai.APIConnectionError)):
            await client.ask()
        assert client.partial.text == TEXT
        await sim.wait_idle()
    assert sim.requests[0].deltas == 3


async def test_a_rule_with_only_a_stall_lends_it_to_the_rule_that_answers(chat: Session) -> None:
    rules = [{"name": "slow", "fault": {"kind": "slow_first_token", "seconds": 0}}, {"name": "text", "say": TEXT}]
    async with chat(rules) as (sim, client):
        assert (await client.ask()).text == TEXT
    record = sim.requests[0]
    assert (record.answered_by, record.fault, record.fault_by) == ("text", "slow_first_token", "slow")


def test_every_fault_can_be_named_and_says_whether_it_needs_an_answer() -> None:
    needing = {type(f) for f in (SlowFirstToken(seconds=1), Stall(), StreamError(), Truncated(), MalformedToolArgs())}
    made = [f(seconds=1) if f is SlowFirstToken else f() for f in EVERY_FAULT]
    assert {type(f) for f in made if f.needs_answer} == needing
    assert Reset(after_deltas=0).needs_answer
    assert not Reset().needs_answer
    assert (RateLimited().kind, Hang().kind) == ("rate_limited", "hang")
