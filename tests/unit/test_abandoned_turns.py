"""Runs that nobody brings to their end: their spans end all the same, and nothing of them is held."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from holdfast import Holdfast
from holdfast.config import load
from holdfast.telemetry.own_span import OwnSpans
from holdfast.telemetry.tail import Tail
from holdfast.testing import loop_clock

RUNS = 50
Run = Callable[[Agent], Coroutine[Any, Any, None]]


async def _leaves_between_two_steps(agent: Agent) -> None:
    running = agent.iter("hello")
    await anext(await running.__aenter__())


async def _leaves_in_the_middle_of_a_stream(agent: Agent) -> None:
    running = agent.run_stream("hello")
    result = await running.__aenter__()
    assert await anext(result.stream_text(delta=True, debounce_by=None)) == "one "


async def _is_cancelled_in_a_tool(agent: Agent) -> None:
    async def look_up() -> str:
        await asyncio.sleep(99)
        return "never"

    agent.tool_plain(look_up)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await agent.run("hello")


@pytest.mark.filterwarnings("ignore")  # Pydantic AI complains of being closed by the loop.
@pytest.mark.parametrize("run", [_leaves_between_two_steps, _leaves_in_the_middle_of_a_stream, _is_cancelled_in_a_tool])
async def test_the_trace_of_a_run_that_nobody_ends_is_decided_all_the_same(run: Run) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    flags = {"store.url": "memory:", "telemetry.jsonl_path": ""}
    hold = Holdfast(load(environ={}, flags=flags).settings, environ={}, clock=loop_clock())
    decided: Counter[str] = Counter()
    tail = Tail(lambda _: None, loop_clock(), lambda why: decided.update([why]))
    spans = OwnSpans(loop_clock(), 0, Resource({}), "0", begun=tail.begun, ended=tail.ended)
    hold.traces.tracing.start = spans.start
    for _ in range(RUNS):
        agent = Agent(TestModel(custom_output_text="one two three"), name="mine", capabilities=[hold.capability()])
        await asyncio.get_running_loop().create_task(run(agent))
    for _ in range(3):  # What was left is found by the collector of garbage, and closed by the loop.
        gc.collect()
        await asyncio.sleep(1)
    assert tail.held == (0, 0)
    assert decided.total() == RUNS
