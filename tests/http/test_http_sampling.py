"""Ten thousand requests: every trace that fails is kept whole, a tenth of the others, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from holdfast import FunctionTurn, Holdfast
from holdfast.config import load
from holdfast.errors import ModelUnavailable
from holdfast.guard import Attempt
from holdfast.server.app import build_app
from holdfast.telemetry.own_span import OwnSpan
from holdfast.telemetry.turn_spans import TurnSpans

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message
    from tests.http.collector import Collector
    from tests.http.conftest import Log
else:
    from collector import Collector  # pytest puts a test's folder on the path, and mypy the project's

TURNS = 10_000
AT_ONCE = 40
SPANS = 5
"""Of each trace: the request, the turn, two tool calls at the same time and a model call."""

BLOCKS_A_TURN = 1
"""More than the test itself remembers of one; a single span that is left behind is a dozen."""


class Asked(NamedTuple):
    """A request that was answered, or that its caller left."""

    status: int
    trace_id: str


async def _works(turn: FunctionTurn) -> str:
    """Two tools at the same time, then a model. What goes wrong is what the message says."""

    async def look_up(at: int) -> int:
        await asyncio.sleep(0)
        if turn.message == "tool" and at == 1:
            raise LookupError("nothing there")
        return at

    async def tries(at: int) -> None:
        with suppress(LookupError):
            await turn.tool(look_up, at=at)

    async def answer(attempt: Attempt) -> str:
        await asyncio.sleep(0)
        if turn.message == "model":
            raise ModelUnavailable("on fire")
        attempt.used(7, 3)
        return "said"

    turn.say("one ")
    async with asyncio.TaskGroup() as group:
        for at in range(2):
            group.create_task(tries(at))
    said = await turn.call_model("sim", "small", answer)
    if turn.message == "turn":
        raise LookupError("lost the thread")
    return said


async def _ask(app: ASGIApp, message: str, *, leaves: bool) -> Asked:
    """One request; its caller stays, or leaves after the first piece of the stream."""
    body, gone, heard = json.dumps({"message": message}).encode(), asyncio.Event(), Counter[str]()
    accept = b"text/event-stream" if leaves else b"application/json"
    headers = [(b"content-type", b"application/json"), (b"accept", accept), (b"host", b"localhost")]
    status, trace_id = 0, ""

    async def receive() -> Message:
        heard["received"] += 1
        if heard["received"] == 1:
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(sent: Message) -> None:
        nonlocal status, trace_id
        if sent["type"] == "http.response.start":
            status, trace_id = sent["status"], dict(sent["headers"])[b"traceparent"].decode().split("-")[1]
        elif leaves:
            gone.set()

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    await app(scope, receive, send)
    return Asked(status, trace_id)


async def _until(done: Callable[[], bool]) -> None:
    """Wait for what happens in a thread, where nothing can tell us."""
    for _ in range(2_000):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def _settings(folder: Path) -> dict[str, object]:
    """A tenth of what goes well is kept; nothing is refused, whatever fails."""
    return {
        "store.url": f"sqlite:{folder / 'store.db'}",
        "telemetry.jsonl_path": str(folder / "events.jsonl"),
        "telemetry.traces_ratio": 0.1,
        "telemetry.traces_failed_per_s": 1_000_000,
        "resilience.mode": "observe",
        "resilience.attempts": 1,
    }


class Load:
    """
    Requests to one server, and what became of their traces.

    Attributes:
        failed: Traces in which something was made to fail.
        left: How many callers left in the middle of their stream.
    """

    def __init__(self, hold: Holdfast, app: ASGIApp, collector: Collector, log: Log) -> None:
        self.hold = hold
        self.collector = collector
        self.log = log
        self.failed: set[str] = set()
        self.spans: Counter[str] = Counter()
        self.left = 0
        self._app = app
        self._dice = random.Random(3)

    async def run(self, turns: int) -> None:
        """So many requests, ``AT_ONCE`` at a time; returns when all their turns have ended too."""

        async def ask_again(count: int) -> None:
            for _ in range(count):
                await self._one()

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(ask_again(turns // AT_ONCE))
        await _until(lambda: not self.hold.drain.in_progress)

    async def _one(self) -> None:
        fails = self._dice.choice(["turn", "tool", "model"]) if self._dice.random() < 0.02 else ""
        leaves = self._dice.random() < 0.05
        asked = await _ask(self._app, fails or "well", leaves=leaves)
        self.left += leaves
        assert asked.status == (200 if leaves or fails in ("", "tool") else 500 if fails == "turn" else 503)
        if fails:
            self.failed.add(asked.trace_id)

    async def settled(self) -> tuple[int, int]:
        """Spans and blocks of memory there are, once what was kept is sent, and what was received is only counted."""
        outbox = self.hold.traces._recorder._outbox  # type: ignore[union-attr]  # there is one
        await _until(lambda: not outbox._waiting)
        # The sender still holds the batch it sent last, however large: let that be a single trace.
        last = await _ask(self._app, "turn", leaves=False)
        self.failed.add(last.trace_id)
        await _until(lambda: not outbox._waiting)
        self.spans.update(span.trace_id for span in self.collector.spans)
        self.collector.spans.clear()
        self.log.lines.clear()
        gc.collect()
        alive = sum(isinstance(one, OwnSpan | TurnSpans) for one in gc.get_objects())
        return alive, sys.getallocatedblocks()

    def count(self, decision: str) -> int:
        return int(self.hold.metrics.traces.labels(decision)._value.get())

    def lost(self) -> int:
        return sum(
            int(self.hold.metrics.dropped.labels("spans", why)._value.get()) for why in ("queue_full", "export_failed")
        )


@pytest.mark.slow
def test_of_ten_thousand_requests_every_failing_trace_is_kept_whole_and_a_tenth_of_the_others(
    tmp_path: Path, log: Log
) -> None:
    """Through the real server, but for its sockets, and out by OTLP. Callers leave in the middle; nothing is left."""

    async def main(collector: Collector) -> None:
        hold = Holdfast(load(environ={}, flags=_settings(tmp_path)).settings, environ=collector.environ)
        hold.serve(_works, "works")
        async with hold:
            load_ = Load(hold, build_app(hold), collector, log)
            tail = hold.traces._recorder._tail  # type: ignore[union-attr]  # there is one
            memory = []
            for _ in range(2):
                await load_.run(TURNS // 2)
                assert tail.held == (0, 0)
                memory.append(await load_.settled())
        load_.spans.update(span.trace_id for span in collector.spans)
        assert load_.failed <= set(load_.spans)
        assert set(load_.spans.values()) == {SPANS}
        well = TURNS + len(memory) - len(load_.failed)
        drawn = len(set(load_.spans) - load_.failed)
        assert 0.09 * well <= drawn <= 0.11 * well
        assert 0.015 * TURNS < len(load_.failed) < 0.025 * TURNS
        assert load_.left > 0.04 * TURNS
        assert (load_.count("head") + load_.count("error"), load_.count("limited")) == (len(load_.spans), 0)
        assert load_.count("dropped") == well - drawn
        assert load_.lost() == 0
        (spans, blocks), (spans_later, blocks_later) = memory
        assert spans_later <= spans + AT_ONCE, memory
        assert blocks_later - blocks < BLOCKS_A_TURN * TURNS // 2, memory

    with Collector().listening() as collector, asyncio.Runner() as runner:
        runner.run(main(collector))
