"""Spans of a turn and its calls: who is whose child, how long they took, and what they say."""

import asyncio
import contextvars
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, StatusCode

from holdfast.clock import Clock
from holdfast.errors import ModelUnavailable, SessionBusy
from holdfast.events import (
    Event,
    FallbackUsed,
    ModelFinished,
    ModelStarted,
    ToolFinished,
    ToolStarted,
    TurnEnded,
    TurnIds,
    TurnStarted,
    TurnSuspended,
    Usage,
)
from holdfast.guard import Attempt, Guard, GuardSpec, ModelKey, Policies
from holdfast.telemetry import Tracing, among_strangers, catalogue_spans, model_teller, outgoing, turn_spans
from holdfast.telemetry.own_span import OwnSpan, OwnSpans
from holdfast.telemetry.terms import Span as SpanEntry
from holdfast.telemetry.trace import TraceContext
from holdfast.testing import loop_clock

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"
SPEC = GuardSpec(turn_s=100, model_s=20, first_token_s=5, tool_s=10, attempts=1)
USAGE = Usage(model_calls=2, tool_calls=1, input_tokens=7, output_tokens=3)


class Shown(NamedTuple):
    """A span that has ended."""

    name: str
    parent: str
    kind: str
    failed: bool
    took_s: float
    facts: dict[str, Any]


class Traced:
    """A tracing whose every span is kept, in the order in which they ended."""

    def __init__(self, *, content: bool = False) -> None:
        self.clock = Clock(lambda: loop_clock().now(), lambda: loop_clock().wall_ns(), seed=1)
        self.spans: list[ReadableSpan] = []
        own = OwnSpans(self.clock, 1.0, Resource({}), "0", begun=lambda _: None, ended=self._take)
        self.tracing = Tracing(self.clock, content=str.upper if content else None)
        self.tracing.start = own.start

    def _take(self, span: OwnSpan) -> None:
        self.spans.append(span.readable(None))

    def shown(self) -> list[Shown]:
        names = {span.context.span_id: span.name for span in self.spans if span.context}
        return [
            Shown(
                span.name,
                names.get(span.parent.span_id, "elsewhere") if span.parent else "",
                span.kind.name.lower(),
                span.status.status_code is StatusCode.ERROR,
                ((span.end_time or 0) - (span.start_time or 0)) / 1e9,
                dict(span.attributes or {}),
            )
            for span in self.spans
        ]

    def one(self, name: str) -> Shown:
        [found] = [span for span in self.shown() if span.name == name]
        return found

    @asynccontextmanager
    async def turn(self, agent: str = "bob", trace_id: str = TRACE) -> Any:
        """A turn with a guard whose events are told; its events too."""
        with self.tracing.turn(agent, trace_id, "what was asked") as spans:
            ids = TurnIds("talk", "c-1", spans.trace_id, agent)
            told: list[Event] = []

            def emit(event: Event) -> None:
                told.append(event)
                for observe in spans.observers:
                    observe(ids, event)

            emit(TurnStarted(**ids._asdict()))
            began = self.clock.now()
            yield Guard(Policies(SPEC, self.clock), emit), told
            lasted = (self.clock.now() - began) / 1e9
            emit(TurnEnded(**ids._asdict(), outcome="success", reply="what was said", usage=USAGE, duration_s=lasted))


@pytest.fixture
def traced() -> Traced:
    return Traced()


def tool(guard: Guard, name: str, call: Callable[[], Awaitable[Any]], call_id: str = "id") -> Coroutine[Any, Any, Any]:
    return guard.tool(name, {"q": "x"}, call_id, call)


def model(guard: Guard, name: str, call: Callable[[Attempt], Awaitable[Any]]) -> Coroutine[Any, Any, Any]:
    return guard.model(ModelKey("sim", name), None, call)


async def nested(name: str, seconds: float = 1.0) -> str:
    """What a tool's own code does: begin a span below the current one."""
    await asyncio.sleep(seconds)
    trace.get_current_span().set_attribute("inside", name)
    return name


async def test_a_turn_is_one_tree_with_the_calls_below_it(traced: Traced) -> None:
    async with traced.turn() as (guard, _):
        await model(guard, "small", lambda _: nested("m1"))
        await tool(guard, "search", lambda: nested("t1"))
        await model(guard, "small", lambda _: nested("m2"))
    assert [(span.name, span.parent, span.kind, span.took_s) for span in traced.shown()] == [
        ("chat small", "invoke_agent bob", "client", 1),
        ("execute_tool search", "invoke_agent bob", "internal", 1),
        ("chat small", "invoke_agent bob", "client", 1),
        ("invoke_agent bob", "", "internal", 3),
    ]
    assert {trace.format_trace_id(span.context.trace_id) for span in traced.spans if span.context} == {TRACE}
    assert not any(span.failed for span in traced.shown())


async def test_calls_at_the_same_time_have_their_own_children(traced: Traced) -> None:
    """Each tool is the current span while it runs, and so is the parent of what it calls; ids may repeat."""

    async def agent(guard: Guard, name: str) -> None:
        """A tool that is an agent of its own, with calls of its own, whose ids another one has too."""

        async def inside() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(2):
                    group.create_task(work(number))

        async def work(number: int) -> None:
            await asyncio.sleep(number / 10)
            await tool(guard, f"{name}.{number}", lambda: nested(f"{name}.{number}"), "same")
            await model(guard, f"{name}.{number}", lambda _: nested(f"{name}.{number}"))

        await tool(guard, name, inside, "same")

    async with traced.turn() as (guard, _), asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(agent(guard, name))
    parents = {span.name: span.parent for span in traced.shown()}
    for name in "ab":
        assert parents[f"execute_tool {name}"] == "invoke_agent bob"
        for number in range(2):
            for child in (f"execute_tool {name}.{number}", f"chat {name}.{number}"):
                assert parents[child] == f"execute_tool {name}"
                assert traced.one(child).facts["inside"] == f"{name}.{number}"
    assert len(traced.spans) == 11


async def test_a_span_lasts_as_long_as_its_event_says(traced: Traced) -> None:
    async def answers(attempt: Attempt) -> None:
        await asyncio.sleep(1.5)
        attempt.first_token()
        await asyncio.sleep(0.5)
        attempt.used(5, 2)

    async with traced.turn() as (guard, told):
        await model(guard, "small", answers)
        await tool(guard, "search", lambda: nested("t", 0.25))
    ended: dict[str, Any] = {event.name: event for event in told}
    assert traced.one("chat small").took_s == ended["model.finished"].duration_s == 2
    assert traced.one("execute_tool search").took_s == ended["tool.finished"].duration_s == 0.25
    assert traced.one("invoke_agent bob").took_s == ended["turn.ended"].duration_s == 2.25


async def test_a_model_call_says_what_it_used_and_of_a_cache_only_where_there_was_one(traced: Traced) -> None:
    async def plain(attempt: Attempt) -> None:
        attempt.used(5, 2)

    async def cached(attempt: Attempt) -> None:
        attempt.used(50, 20, cache_read_tokens=30, cache_write_tokens=10, reasoning_tokens=15)

    async with traced.turn() as (guard, _):
        await model(guard, "plain", plain)
        await model(guard, "cached", cached)
    used = {
        name: {key: fact for key, fact in traced.one(f"chat {name}").facts.items() if "usage" in key}
        for name in ("plain", "cached")
    }
    assert used == {
        "plain": {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2},
        "cached": {
            "gen_ai.usage.input_tokens": 50,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 30,
            "gen_ai.usage.cache_write.input_tokens": 10,
            "gen_ai.usage.reasoning.output_tokens": 15,
        },
    }


async def test_a_model_call_begins_when_it_is_sent_and_not_when_it_waits_for_its_place(traced: Traced) -> None:
    policies = Policies(GuardSpec(attempts=1, model_concurrent=1), traced.clock)
    with traced.tracing.turn("bob", TRACE) as spans:
        guard = Guard(policies, partial(spans.observers[0], IDS))
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(model(guard, "small", lambda _: nested("m", 3)))
    one, other = traced.spans[:2]
    assert one.end_time == other.start_time
    assert [span.took_s for span in traced.shown()[:2]] == [3, 3]


IDS = TurnIds("talk", "c-1", TRACE, "bob")


async def test_a_call_that_is_refused_has_a_span_too(traced: Traced) -> None:
    async with traced.turn() as (guard, _):
        for name in ("search", "small"):
            with suppress(ModelUnavailable):
                await tool(guard, name, fails)
        for _ in range(20):
            with suppress(Exception):
                await model(guard, "broken", lambda _: fails())
    refused = [span for span in traced.shown() if span.facts.get("agent.status") == "rejected"]
    assert refused
    assert {span.name for span in refused} == {"chat broken"}
    assert {span.parent for span in refused} == {"invoke_agent bob"}
    assert {span.facts["error.type"] for span in refused} == {"circuit_open"}
    assert all(span.failed and span.kind == "client" for span in refused)


async def fails() -> None:
    raise ModelUnavailable("the provider is on fire")


async def test_what_failed_says_how_and_what_was_cancelled_did_not_fail(traced: Traced) -> None:
    async def too_slow() -> None:
        await asyncio.sleep(99)

    async with traced.turn() as (guard, _):
        for name, call in (("fails", fails), ("slow", too_slow)):
            with suppress(Exception):
                await tool(guard, name, call)
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(tool(guard, "cancelled", too_slow))
        await asyncio.sleep(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    told = {
        span.name: (span.failed, span.facts["agent.status"], span.facts["error.type"]) for span in traced.shown()[:3]
    }
    assert told == {
        "execute_tool fails": (True, "error", "model_unavailable"),
        "execute_tool slow": (True, "timeout", "attempt_timed_out"),
        "execute_tool cancelled": (False, "cancelled", "CancelledError"),
    }


def ended(outcome: Any, error: str | None = None) -> TurnEnded:
    return TurnEnded(**IDS._asdict(), outcome=outcome, reply="", usage=USAGE, duration_s=2, error=error)


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        ("success", False),
        ("cancelled", False),
        ("guardrail_blocked", False),
        ("error", True),
        ("timeout", True),
        ("rejected", True),
        ("budget_exhausted", True),
    ],
)
async def test_a_turn_says_how_it_ended(traced: Traced, outcome: str, failed: bool) -> None:  # noqa: FBT001 - a column of the table above
    with traced.tracing.turn("bob", TRACE) as spans:
        [observe] = spans.observers
        observe(IDS, TurnStarted(**IDS._asdict()))
        observe(IDS, FallbackUsed(via="other", because="overload"))
        await asyncio.sleep(2)
        observe(IDS, ended(outcome, "c"))
    [span] = traced.shown()
    assert (span.failed, span.took_s) == (failed, 2)
    assert span.facts == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "bob",
        "gen_ai.conversation.id": "talk",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "agent.turn.id": "c-1",
        "agent.turn.outcome": outcome,
        "agent.turn.model_calls": 2,
        "agent.turn.tool_calls": 1,
        "agent.fallback.via": "other",
        "agent.fallback.because": "overload",
        "error.type": "c",
    }


@pytest.mark.parametrize(
    ("error", "failed", "told"),
    [(SessionBusy(), True, "session_busy"), (KeyError("x"), True, "KeyError"), (asyncio.CancelledError(), False, None)],
)
async def test_a_turn_that_never_began_ends_its_span_too(
    traced: Traced,
    error: BaseException,
    failed: bool,  # noqa: FBT001 - a column of the table above
    told: str | None,
) -> None:
    with suppress(BaseException), traced.tracing.turn("bob", TRACE):
        await asyncio.sleep(1)
        raise error
    [span] = traced.shown()
    assert (span.failed, span.took_s, span.facts.get("error.type")) == (failed, 1, told)


@pytest.mark.parametrize(
    ("because", "failed"),
    [("in_doubt", True), ("store_unavailable", True), ("not_owner", True), ("handed_over", False)],
)
async def test_a_turn_that_is_given_up_ends_its_spans_and_says_why(
    traced: Traced,
    because: str,
    failed: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    with traced.tracing.turn("bob", TRACE) as spans:
        [observe] = spans.observers
        observe(IDS, TurnStarted(**IDS._asdict()))
        await asyncio.sleep(3)
        observe(IDS, TurnSuspended(**IDS._asdict(), because=because))
        await asyncio.sleep(1)
    [span] = traced.shown()
    assert (span.failed, span.took_s, span.facts["error.type"]) == (failed, 3, because)


async def test_a_turn_that_another_process_began_has_a_span_of_its_time_here(traced: Traced) -> None:
    await asyncio.sleep(10)
    with traced.tracing.turn("bob", TRACE) as spans:
        [observe] = spans.observers
        observe(IDS, TurnStarted(**IDS._asdict(), generation=2))
        await asyncio.sleep(1)
        observe(IDS, msgspec.structs.replace(ended("success", None), duration_s=11))
    [span] = traced.shown()
    assert span.took_s == 1


async def test_no_content_is_in_a_span_unless_it_is_asked_for() -> None:
    marked = "S3CR3T"

    async def answers(_: Attempt) -> None:
        model_teller()(lambda: f'["{marked}"]', lambda: f'["{marked}"]')

    async def finds() -> str:
        return marked

    for content in (False, True):
        traced = Traced(content=content)
        with traced.tracing.turn("bob", TRACE, marked) as spans:
            emit = partial(spans.observers[0], IDS)
            guard = Guard(Policies(SPEC, traced.clock), emit)
            await model(guard, "small", answers)
            await guard.tool("search", {"q": marked}, "id", finds)
            emit(TurnEnded(**IDS._asdict(), outcome="success", reply=marked, usage=USAGE, duration_s=1))
        facts = {span.name: {k: v for k, v in span.facts.items() if marked in str(v)} for span in traced.shown()}
        one = json.dumps([{"role": "user", "parts": [{"type": "text", "content": marked}]}], separators=(",", ":"))
        assert facts == {
            "chat small": {"gen_ai.input.messages": f'["{marked}"]', "gen_ai.output.messages": f'["{marked}"]'},
            "execute_tool search": {
                "gen_ai.tool.call.arguments": f'{{"Q":"{marked}"}}',
                "gen_ai.tool.call.result": marked,
            },
            "invoke_agent bob": {
                "gen_ai.input.messages": one.upper(),
                "gen_ai.output.messages": one.replace("user", "assistant").upper(),
            },
        } or (not content and facts == {name: {} for name in facts})


async def test_every_attribute_is_in_the_catalogue() -> None:
    traced = Traced(content=True)

    async def answers(attempt: Attempt) -> str:
        attempt.first_token()
        attempt.used(5, 2, cache_read_tokens=3, cache_write_tokens=1, reasoning_tokens=1)
        model_teller()(lambda: "[]", lambda: "[]")
        return "x"

    with traced.tracing.request("POST", "/chat", "http", {}) as request:
        async with traced.turn() as (guard, _):
            await model(guard, "small", answers)
            await tool(guard, "search", lambda: nested("t"))
            with suppress(ModelUnavailable):
                await model(guard, "small", lambda _: fails())
    request.answered("/chat", 500, 1)
    known: dict[str, SpanEntry] = {
        "POST": catalogue_spans.HTTP_REQUEST,
        "invoke_agent": catalogue_spans.TURN,
        "chat": catalogue_spans.MODEL_CALL,
        "execute_tool": catalogue_spans.TOOL_CALL,
    }
    seen: dict[str, set[str]] = {}
    for span in traced.shown():
        entry = known[span.name.split()[0]]
        assert span.kind == entry.kind
        span.facts.pop("inside", None)
        assert set(span.facts) <= {attribute.name for attribute in entry.attributes}
        seen.setdefault(entry.name, set()).update(span.facts)
    rare = {"agent.cost_usd", "sampling.reason", "agent.fallback.via", "agent.fallback.because", "error.type"}
    assert {entry.name: {one.name for one in entry.attributes} - rare for entry in known.values()} == {
        name: facts - rare for name, facts in seen.items()
    }


async def test_a_call_and_its_turn_say_what_they_cost() -> None:
    traced = Traced()
    ids = IDS
    first: dict[str, Any] = {"call": 1, "provider": "sim", "model": "small"}
    with traced.tracing.turn("bob", "") as spans:
        usage = Usage(model_calls=1, cost_nanos=2_500_000_000)
        for event in (
            TurnStarted(**ids._asdict()),
            ModelStarted(**first),
            ModelFinished(**first, status="ok", duration_s=0, cost_nanos=1_500_000_000),
            ModelFinished(**{**first, "call": 2}, status="rejected", duration_s=0),
            TurnEnded(**ids._asdict(), outcome="success", reply="", usage=usage, duration_s=0),
        ):
            for observe in spans.observers:
                observe(ids, event)
    cost = {(span.name, span.facts.get("agent.attempt")): span.facts.get("agent.cost_usd") for span in traced.shown()}
    assert cost == {("invoke_agent bob", None): 2.5, ("chat small", 1): 1.5, ("chat small", 2): None}


async def test_a_request_is_the_parent_of_its_turn_and_its_caller_is_its_own(traced: Traced) -> None:
    with traced.tracing.request("POST", "/chat", "https", {"traceparent": CALLER}) as request:
        async with traced.turn(trace_id=request.context.trace_id):
            pass
    request.answered("/chat", 200, 7)
    turn, asked = traced.shown()
    assert (turn.parent, asked.name, asked.parent) == ("POST /chat", "POST /chat", "elsewhere")
    assert (asked.kind, asked.took_s, asked.failed) == ("server", 7, False)
    assert asked.facts == {
        "http.request.method": "POST",
        "http.route": "/chat",
        "http.response.status_code": 200,
        "url.path": "/chat",
        "url.scheme": "https",
    }
    parent = traced.spans[1].parent
    assert parent is not None
    assert trace.format_span_id(parent.span_id) == "b7ad6b7169203331"
    assert traced.spans[1].context is not None
    assert request.context == TraceContext.of(trace.NonRecordingSpan(traced.spans[1].context))


@pytest.mark.parametrize(
    ("method", "route", "status", "name", "failed"),
    [
        ("GET", None, 404, "GET", False),
        ("GET", "/v1/sessions/{id}", 429, "GET /v1/sessions/{id}", False),
        ("POST", "/chat", 503, "POST /chat", True),
        ("BREW", None, 405, "_other", False),
        ("POST", "/chat", 0, "POST /chat", False),
    ],
)
def test_a_request_is_called_after_its_route(
    method: str,
    route: str | None,
    status: int,
    name: str,
    failed: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    spans: list[ReadableSpan] = []
    clock = Clock(lambda: 0, lambda: 5, seed=1)
    tracing = Tracing(clock)
    own = OwnSpans(
        clock, 1.0, Resource({}), "0", begun=lambda _: None, ended=lambda span: spans.append(span.readable(None))
    )
    tracing.start = own.start
    with tracing.request(method, "/x", "http", {}) as request:
        pass
    request.answered(route, status, 1)
    [span] = spans
    assert (span.name, span.status.status_code is StatusCode.ERROR) == (name, failed)
    assert ("http.response.status_code" in (span.attributes or {})) == bool(status)


async def test_a_trace_begins_with_the_id_its_caller_gave_unless_it_is_part_of_one(traced: Traced) -> None:
    for asked in (TRACE, "", "nonsense", TRACE.upper(), TRACE + "0"):
        with traced.tracing.turn("bob", asked) as outer:
            assert (outer.trace_id == asked) == (asked == TRACE)
            assert len(outer.trace_id) == 32
            with traced.tracing.turn("eve", "f" * 32) as inner:
                assert inner.trace_id == outer.trace_id
    assert {(span.name, span.parent) for span in traced.shown()} == {
        ("invoke_agent bob", ""),
        ("invoke_agent eve", "invoke_agent bob"),
    }


async def test_a_call_that_is_abandoned_ends_without_harm(traced: Traced) -> None:
    """A stream whose reader went away is closed by the loop, in another context."""
    async with traced.turn() as (guard, _):
        stream = guard.model.stream(ModelKey("sim", "small"), None)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        await loop.create_task(stream.__aenter__(), context=context)
        here = trace.get_current_span()
        await loop.create_task(stream.__aexit__(None, None, None))
        assert trace.get_current_span() is here
    assert traced.one("chat small").parent == "invoke_agent bob"


async def test_what_a_tool_leaves_current_does_not_stay_so(traced: Traced) -> None:
    async def careless() -> None:
        attach(trace.set_span_in_context(trace.INVALID_SPAN))

    async with traced.turn() as (guard, _):
        here = trace.get_current_span()
        await tool(guard, "search", careless)
        assert trace.get_current_span() is here


async def test_nothing_is_recorded_where_nobody_asks_for_it() -> None:
    tracing = Tracing(loop_clock())
    with tracing.turn("bob", TRACE, "hello") as spans:
        assert (spans.trace_id, spans.observers) == (TRACE, ())
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert outgoing() == {}
    assert tracing.kept_trace_id() is None


@pytest.mark.parametrize("recorded", [True, False])
async def test_the_callers_context_goes_on_to_whatever_is_called(traced: Traced, *, recorded: bool) -> None:
    tracing = traced.tracing if recorded else Tracing(loop_clock())
    headers = {"traceparent": CALLER, "tracestate": "vendor=1", "baggage": "user.tier=gold,x=%20y"}
    with tracing.request("POST", "/chat", "http", headers) as request:
        told = outgoing()
        assert told == {
            "traceparent": request.context.traceparent(),
            "tracestate": "vendor=1",
            "baggage": "user.tier=gold,x=y",
        }
        assert told["traceparent"].startswith(f"00-{TRACE}-")
        assert told["traceparent"] != CALLER
        assert baggage.get_all() == {"user.tier": "gold", "x": "y"}
        with among_strangers() as headers:
            assert headers == outgoing() == {name: told[name] for name in ("traceparent", "tracestate")}
            assert baggage.get_all() == {}
        assert outgoing() == told
    assert outgoing() == {}
    assert baggage.get_all() == {}


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_call_out_is_the_child_of_the_call_that_makes_it(traced: Traced, *, recorded: bool) -> None:
    """So that what the provider or the tool's server records is below our span for it."""
    if not recorded:
        traced.tracing.start = None
    told: list[str] = []

    async def calls_out() -> None:
        told.append(outgoing()["traceparent"].split("-")[2])

    with traced.tracing.request("POST", "/chat", "http", {}) as request:
        async with traced.turn(trace_id=request.context.trace_id) as (guard, _):
            await model(guard, "small", lambda _: calls_out())
            await tool(guard, "search", calls_out)
    if recorded:
        ids = {span.name: span.context and trace.format_span_id(span.context.span_id) for span in traced.spans}
        assert told == [ids["chat small"], ids["execute_tool search"]]
    else:
        assert told == [request.context.span_id] * 2


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "nonsense", "tracestate": "vendor=1"},
        {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"},
        {"baggage": "="},
        {"baggage": "x" * 9_000},
        {"tracestate": "x=1"},
    ],
)
async def test_headers_that_are_malformed_say_nothing(traced: Traced, headers: dict[str, str]) -> None:
    with traced.tracing.request("POST", "/chat", "http", headers) as request:
        assert list(outgoing()) == ["traceparent"]
        assert request.context.trace_id != TRACE
    request.answered("/chat", 200, 1)
    assert traced.spans[0].parent is None


async def test_where_telemetry_is_off_nothing_goes_on_and_every_request_has_its_ids_all_the_same() -> None:
    tracing = Tracing(loop_clock(), propagates=False)
    with tracing.request("POST", "/chat", "http", {"traceparent": CALLER, "baggage": "a=b"}) as request:
        assert request.context.trace_id == TRACE
        assert outgoing() == {}


async def test_probes_have_no_span_but_an_id(traced: Traced) -> None:
    with traced.tracing.request("GET", "/health", "http", {"traceparent": CALLER}, spans=False) as request:
        assert request.context.trace_id == TRACE
    request.answered("/health", 200, 1)
    assert traced.spans == []


async def test_exemplars_are_the_ids_of_traces_that_are_kept() -> None:
    traced = Traced()
    kept: set[int] = set()
    for ratio in (1.0, 0.0):
        own = OwnSpans(traced.clock, ratio, Resource({}), "0", begun=lambda _: None, ended=lambda _: None)
        traced.tracing.start, traced.tracing.keeps = own.start, kept.__contains__
        with traced.tracing.turn("bob", TRACE):
            assert traced.tracing.kept_trace_id() == (TRACE if ratio else None)
            if not ratio:
                kept.add(int(TRACE, 16))
                assert traced.tracing.kept_trace_id() == TRACE
    assert traced.tracing.kept_trace_id() is None


async def test_a_broken_recorder_breaks_no_call(traced: Traced) -> None:
    async with traced.turn() as (guard, told):

        def broken(*_: object, **__: object) -> Span:
            raise RuntimeError("no more spans")

        turn_spans._turn.get()._start = broken  # type: ignore[union-attr]  # it is in one
        guard.model._emit = told.append
        assert await model(guard, "small", lambda _: nested("m")) == "m"


async def test_our_spans_take_what_other_code_tells_them(traced: Traced) -> None:
    """They are the current span of whatever runs in them, and that knows only OpenTelemetry's interface."""
    other = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True))
    with traced.tracing.turn("bob", TRACE):
        span = trace.get_current_span()
        assert span.is_recording()
        span.set_attribute("tool.rows", 3)
        span.set_attributes({"tool.names": ["a", "b"], "tool.odd": object()})  # type: ignore[dict-item]  # it is odd
        span.add_event("cache.miss", {"key": "x"})
        span.add_link(other.get_span_context(), {"why": "retry"})
        span.record_exception(LookupError("not there"), {"more": 1})
        span.set_status(StatusCode.ERROR, "it went wrong")
        span.update_name("a better name")
    span.set_attribute("too", "late")
    span.end()
    [ended] = traced.spans
    assert not span.is_recording()
    assert (ended.name, ended.status.description) == ("a better name", "it went wrong")
    facts = dict(ended.attributes or {})
    assert (facts["tool.rows"], facts["tool.names"]) == (3, ("a", "b"))
    assert facts["tool.odd"] is None  # As the SDK has it.
    assert "too" not in facts
    miss, raised = ended.events
    assert (miss.name, dict(miss.attributes or {})) == ("cache.miss", {"key": "x"})
    assert raised.name == "exception"
    about = dict(raised.attributes or {})
    assert (about["exception.type"], about["exception.message"]) == ("builtins.LookupError", "not there")
    assert (about["more"], about["exception.escaped"]) == (1, "False")
    [link] = ended.links
    assert (link.context.trace_id, dict(link.attributes or {})) == (1, {"why": "retry"})


async def test_an_event_without_its_beginning_is_let_be(traced: Traced) -> None:
    with traced.tracing.turn("bob", TRACE) as spans:
        spans.observers[0](IDS, ToolFinished(call_id="never began", tool="search", status="ok", duration_s=1))
        late = ModelFinished(call=9, provider="sim", model="small", status="error", duration_s=2, error="refused")
        spans.observers[0](IDS, late)
        spans.observers[0](IDS, ToolStarted(call_id="id", tool="search", args=msgspec.Raw(b"{}")))
    assert [(span.name, span.took_s) for span in traced.shown()] == [("chat small", 2), ("invoke_agent bob", 0)]
    detach(attach(Context()))
