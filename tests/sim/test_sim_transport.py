"""HTTP as it is on the wire: keep-alive, routes that are not there, too much, clients that leave, and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.cli.sim import serve
from holdfast.errors import Misconfigured
from holdfast.sim import Simulator, running_simulator
from holdfast.sim.dialogue import BadRequest
from holdfast.sim.formats import FORMATS, Format

if TYPE_CHECKING:
    from tests.sim.conftest import Http, Session, Until

HI = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}

STATUS_ERROR: Any = (anthropic.APIStatusError, openai.APIStatusError)


def port_of(sim: Simulator) -> int:
    return int(sim.url.rpartition(":")[2])


@pytest.mark.sockets
async def test_one_connection_carries_many_requests(chat: Session, http: Http) -> None:
    """Whole answers, streams and errors all leave the connection usable."""
    async with chat() as (sim, _), http(sim):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
        for body in (HI, {**HI, "stream": True}, {"model": "m"}, HI):
            data = json.dumps(body).encode()
            writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                assert (await reader.readuntil(b"0\r\n\r\n")).count(b"message_stop") == 2
            else:
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.close()
        await writer.wait_closed()
    assert [record.status for record in sim.requests] == [200, 200, 400, 200]


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("method", "path"),
    [("HEAD", "/v1/messages"), ("HEAD", "/nowhere"), ("GET", "/nowhere"), ("GET", "/v1/messages"), ("POST", "/")],
)
async def test_what_is_not_there_is_a_404_and_the_connection_lives_on(
    chat: Session, http: Http, method: str, path: str
) -> None:
    async with chat() as (sim, _), http(sim) as raw:
        answer = await raw.request(method, path)
        assert answer.status_code == 404
        assert bool(answer.content) is (method != "HEAD")
        assert (await raw.get("/sim/health")).json()["total"] == 0


@pytest.mark.sockets
async def test_a_body_that_is_too_large_is_read_and_refused(session: Session) -> None:
    async with session(max_body_bytes=1000) as (sim, client):
        with pytest.raises(STATUS_ERROR) as raised:
            await client.ask("x" * 300_000)
        assert raised.value.status_code == 413
        assert (await client.ask("short")).text
    assert sim.requests[0].error == "the body is larger than 1000 bytes"


@pytest.mark.sockets
async def test_a_client_that_waits_for_100_continue_gets_it(chat: Session) -> None:
    async with chat() as (sim, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
        data = json.dumps(HI).encode()
        writer.write(
            b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(data)
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        writer.write(data)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.sockets
@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nh: " + b"x" * 70_000]
)
async def test_what_is_no_http_is_refused_and_the_connection_closed(chat: Session, sent: bytes) -> None:
    async with chat() as (sim, client):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
        writer.write(sent)
        assert (await reader.readline()).split()[1] in {b"400", b"431"}
        writer.close()
        assert (await client.ask()).text


@pytest.mark.sockets
async def test_a_client_that_leaves_in_mid_stream_stops_the_answer(streamed: Session, until: Until) -> None:
    async with streamed([{"say": "x" * 4000}], per_token=60) as (sim, client), asyncio.TaskGroup() as group:
        asking = group.create_task(client.ask())
        await until(lambda: client.partial.text == "xxxx")
        asking.cancel()
        await sim.wait_idle()
    record = sim.requests[0]
    assert record.client_left
    assert record.finished_at is not None
    assert (record.status, record.deltas) == (200, 1)


@pytest.mark.sockets
async def test_a_client_that_leaves_before_its_body_is_sent_harms_nobody(chat: Session) -> None:
    async with chat() as (sim, client):
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
        writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        writer.close()
        await writer.wait_closed()
        assert (await client.ask()).text
    assert len(sim.requests) == 1


@pytest.mark.sockets
@pytest.mark.parametrize("fault", [{"kind": "hang"}, {"kind": "stall"}, {"kind": "slow_first_token", "seconds": 600}])
async def test_stopping_waits_for_no_request_and_leaves_no_task(fault: dict[str, Any], until: Until) -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(10):
        async with Simulator([{"say": "hello", "fault": fault}]) as sim:
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sim))
            data = json.dumps({**HI, "stream": True}).encode()
            writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
            await until(lambda: sim.in_flight == 1)
        assert b"message_stop" not in await reader.read()
        assert await idle_reader.read() == b""
    for end in (writer, idle_writer):
        end.close()
        await end.wait_closed()
    assert asyncio.all_tasks() == before
    assert sim.in_flight == 0
    assert sim.requests[0].finished_at is not None


@pytest.mark.sockets
async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Simulator():
            _ = 1 / 0


@pytest.mark.sockets
async def test_a_port_in_use_is_told_in_one_line() -> None:
    async with Simulator() as sim:
        with pytest.raises(Misconfigured, match=rf"^sim cannot listen on 127.0.0.1:{port_of(sim)}: .*in use"):
            async with Simulator(port=port_of(sim)):
                pass


def test_a_sync_test_can_use_a_simulator_on_a_thread() -> None:
    with (
        running_simulator([{"say": "from a thread"}]) as sim,
        openai.OpenAI(base_url=f"{sim.url}/v1", api_key="x", max_retries=0) as client,
    ):
        assert client.responses.create(model="m", input="x").output_text == "from a thread"
        sim.add_fault("overloaded", times=1)
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model="m", input="x")
    assert [record.status for record in sim.requests] == [200, 503]


def test_a_simulator_on_a_thread_that_cannot_start_says_why() -> None:
    with (
        running_simulator() as sim,
        pytest.raises(Misconfigured, match="in use"),
        running_simulator(port=port_of(sim)),
    ):
        pytest.fail("it must not start")


def test_an_error_in_the_block_of_a_simulator_on_a_thread_comes_out_and_stops_it() -> None:
    with pytest.raises(ZeroDivisionError), running_simulator() as sim:
        _ = 1 / 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(sim.url)


@pytest.mark.sockets
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_says_where_it_listens_and_ends_cleanly_on_a_signal(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], until: Until
) -> None:
    printed: list[str] = []

    def listening() -> bool:
        printed.append(capsys.readouterr().out)
        return "Ctrl-C" in "".join(printed)

    async with asyncio.TaskGroup() as group:
        sim = Simulator()
        serving = group.create_task(serve(sim, None))
        await until(listening)
        os.kill(os.getpid(), number)
        await serving
    said = "".join(printed) + capsys.readouterr().out
    assert f"the demo model on {sim.url}\n" in said
    assert f"OPENAI_BASE_URL={sim.url}/v1\n" in said
    assert said.endswith("stopped\n")


WORDS = (
    "role content text type messages input tools model max_tokens tool_calls function arguments name id call_id output "
    "tool_call_id tool_use_id system instructions stream_options max_output_tokens"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS.split()), inner, max_size=4),
    max_leaves=12,
)
ROLES = st.sampled_from(["user", "assistant", "tool", "system", "developer"])
KINDS = st.sampled_from(["text", "message", "tool_use", "tool_result", "function_call", "function_call_output"])
ITEM = {"role": ROLES, "type": KINDS, "content": JSON}
ITEMS = st.lists(st.fixed_dictionaries(ITEM, optional={"tool_calls": JSON, "output": JSON})) | JSON
BODY = {"model": st.just("m"), "max_tokens": st.just(9), "messages": ITEMS, "input": ITEMS, "tools": JSON}


@pytest.mark.parametrize("wire_format", FORMATS, ids=[wire_format.name for wire_format in FORMATS])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.fixed_dictionaries(BODY))
def test_whatever_is_sent_is_read_or_refused(wire_format: Format, body: dict[str, Any]) -> None:
    with contextlib.suppress(BadRequest):
        assert wire_format.parse(body, {}, "").input_tokens >= 1
