"""Tools of MCP servers: MCP's own client says in each call which trace it is part of."""

from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry.context import attach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from holdfast import Holdfast
from holdfast.config import load
from holdfast.telemetry.own_span import OwnSpans
from holdfast.testing import loop_clock

server_of = pytest.importorskip("mcp.server.mcpserver", reason="the package mcp is not installed")
client_of = pytest.importorskip("pydantic_ai.mcp", reason="pydantic-ai-slim is installed without its extra mcp")


@pytest.mark.sockets
async def test_a_call_to_an_mcp_server_carries_the_span_of_its_tool_call() -> None:
    told: list[Any] = []
    server = server_of.MCPServer("warehouse")

    async def add(a: int, b: int, ctx: Any) -> int:
        told.append(dict(ctx.request_context.meta))
        return a + b

    add.__annotations__["ctx"] = server_of.Context
    server.tool()(add)
    hold = Holdfast(load(environ={}, flags={"store.url": "memory:", "telemetry.jsonl_path": ""}).settings, environ={})
    ended: list[ReadableSpan] = []
    spans = OwnSpans(
        loop_clock(), 1, Resource({}), "0", begun=lambda _: None, ended=lambda span: ended.append(span.readable(None))
    )
    hold.traces.tracing.start = spans.start
    agent = Agent(TestModel(), name="mine", toolsets=[client_of.MCPToolset(server)], capabilities=[hold.capability()])
    attach(baggage.set_baggage("tier", "gold"))
    async with agent:
        await agent.run("hello")
    [call] = [span for span in ended if span.name == "execute_tool add"]
    [meta] = told
    assert call.context is not None
    assert meta["traceparent"].split("-")[1:3] == [f"{call.context.trace_id:032x}", f"{call.context.span_id:016x}"]
    assert meta["baggage"] == "tier=gold"
