"""Which traces are kept: a tenth of those that go well, every one that fails, and never more than there is room for."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from holdfast.clock import NS, Clock
from holdfast.telemetry import tail as tail_module
from holdfast.telemetry.own_span import MOST_BELOW, OwnSpans
from holdfast.telemetry.tail import MOST_AGE_S, MOST_SPANS, MOST_SPANS_OF_A_TRACE, MOST_TRACES, Tail, sampler

Begin = Callable[[str, Context | None], Span]


class Bench:
    """A tail with a way to begin spans before it, and a list behind it."""

    def __init__(self, kind: str = "own", ratio: float = 0.1, slow_s: float | None = None, per_s: float = 1e9) -> None:
        self.now = 0
        self.clock = Clock(lambda: self.now, lambda: self.now, seed=7)
        self.sent: list[ReadableSpan] = []
        self.decided: Counter[str] = Counter()
        self.tail = Tail(
            self.sent.append, self.clock, lambda why: self.decided.update([why]), slow_s=slow_s, most_per_s=per_s
        )
        self._start: Begin
        if kind == "own":
            own = OwnSpans(self.clock, ratio, Resource({}), "0", begun=self.tail.begun, ended=self.tail.ended)
            self._start = lambda name, within: own.start(name, SpanKind.INTERNAL, {}, self.now, within)
        else:
            provider = TracerProvider(sampler=sampler(ratio), shutdown_on_exit=False)
            provider.add_span_processor(self.tail)
            tracer = provider.get_tracer("test")
            self._start = lambda name, within: tracer.start_span(name, within, start_time=self.now)

    def begin(self, name: str, below: Span | None = None) -> Span:
        within = Context() if below is None else trace.set_span_in_context(below, Context())
        return self._start(name, within)

    def end(self, span: Span, *, fails: bool = False) -> None:
        if fails:
            span.set_status(StatusCode.ERROR)
        span.end(self.now)

    def names(self) -> list[str]:
        return [span.name for span in self.sent]


KINDS = pytest.mark.parametrize("kind", ["own", "sdk"])


def id_of(span: Span) -> int:
    return span.get_span_context().trace_id


def caller(*, sampled: bool) -> Span:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=flags))


class Turn(NamedTuple):
    spans: list[Span]
    failed: int | None


@KINDS
def test_of_ten_thousand_turns_every_failing_one_is_kept_whole_and_a_tenth_of_the_others(kind: str) -> None:
    """Two in a hundred fail at one of their spans; up to 40 run at the same time; nothing is left behind."""
    bench, dice = Bench(kind), random.Random(3)
    random.seed(5)  # the SDK's ids
    running: list[Turn] = []
    failed, spans_of, most_held = set(), {}, (0, 0)
    for number in range(10_000):
        root = bench.begin("turn")
        spans = [root]
        for _ in range(dice.randrange(1, 6)):
            spans.append(bench.begin("call", dice.choice(spans)))
        fails = dice.random() < 0.02
        running.append(Turn(spans, dice.randrange(len(spans)) if fails else None))
        spans_of[id_of(root)] = len(spans)
        if fails:
            failed.add(id_of(root))
        if len(running) == 40 or number == 9_999:
            while running:
                turn = running.pop(dice.randrange(len(running)))
                for at in reversed(range(len(turn.spans))):
                    bench.end(turn.spans[at], fails=at == turn.failed)
            most_held = max(most_held, bench.tail.held)
    kept = Counter(span.context.trace_id for span in bench.sent if span.context)
    assert failed <= set(kept)
    assert all(kept[trace_id] == spans_of[trace_id] for trace_id in kept)
    well = len(spans_of) - len(failed)
    drawn = len(set(kept) - failed)
    assert 0.09 * well < drawn < 0.11 * well
    assert most_held == bench.tail.held == (0, 0)
    assert bench.decided == {
        "head": drawn + len([one for one in failed if is_drawn(one)]),
        "error": len([one for one in failed if not is_drawn(one)]),
        "dropped": well - drawn,
    }


def is_drawn(trace_id: int) -> bool:
    return trace_id & ((1 << 64) - 1) < round(0.1 * (1 << 64))


@KINDS
def test_what_is_kept_for_its_failure_says_so_and_looks_drawn(kind: str) -> None:
    bench = Bench(kind, ratio=0)
    root = bench.begin("turn")
    child = bench.begin("call", root)
    assert not root.get_span_context().trace_flags.sampled  # The flag that goes on to others stays honest.
    bench.end(child, fails=True)
    bench.end(root)
    assert bench.names() == ["call", "turn"]
    for span in bench.sent:
        assert span.context is not None
        assert span.context.trace_flags.sampled
        assert span.attributes == {"sampling.reason": "error"}
    assert bench.sent[0].parent is not None
    assert bench.sent[0].parent.span_id == root.get_span_context().span_id


@KINDS
def test_what_is_drawn_is_sent_as_it_ends(kind: str) -> None:
    bench = Bench(kind, ratio=1)
    root = bench.begin("turn")
    bench.end(bench.begin("call", root))
    assert bench.names() == ["call"]
    assert root.get_span_context().trace_flags.sampled
    bench.end(root)
    assert (bench.names(), bench.decided) == (["call", "turn"], {"head": 1})
    assert bench.tail.held == (0, 0)


@KINDS
@pytest.mark.parametrize("sampled", [True, False])
def test_the_callers_decision_is_followed_unless_something_fails(kind: str, *, sampled: bool) -> None:
    bench = Bench(kind, ratio=0.5)
    for fails in (False, True):
        root = bench.begin("request", caller(sampled=sampled))
        assert id_of(root) == 0xABC
        bench.end(bench.begin("call", root), fails=fails)
        bench.end(root)
    assert bench.names() == ["call", "request"] * (2 if sampled else 1)
    assert bench.decided == ({"head": 2} if sampled else {"dropped": 1, "error": 1})


@KINDS
def test_a_turn_that_outlives_its_request_is_decided_when_it_has_ended_too(kind: str) -> None:
    bench = Bench(kind, ratio=0)
    request = bench.begin("request")
    turn = bench.begin("turn", request)
    bench.end(request)
    assert bench.sent == []
    bench.end(turn, fails=True)
    assert bench.names() == ["request", "turn"]


def test_what_comes_after_a_trace_was_kept_is_kept_too_and_after_it_was_dropped_is_decided_anew() -> None:
    for fails, expected in ((True, ["turn", "late"]), (False, [])):
        bench = Bench(ratio=0)
        turn = bench.begin("turn")
        bench.end(turn, fails=fails)
        assert bench.tail.keeps(id_of(turn)) == fails
        bench.end(bench.begin("late", turn))
        assert bench.names() == expected
        bench.end(bench.begin("later still", turn), fails=True)
        assert bench.names()[-1] == "later still"


def test_whether_a_trace_is_kept_is_known_from_its_first_failure_on() -> None:
    bench = Bench(ratio=0)
    turn = bench.begin("turn")
    call = bench.begin("call", turn)
    assert not bench.tail.keeps(id_of(turn))
    bench.end(call, fails=True)
    assert bench.tail.keeps(id_of(turn))


def test_traces_that_never_end_give_way_and_are_counted() -> None:
    bench = Bench("sdk", ratio=0)
    first = bench.begin("turn")
    call = bench.begin("call", first)
    for _ in range(MOST_TRACES + 99):
        bench.end(bench.begin("call", bench.begin("turn")))
    assert bench.tail.held == (MOST_TRACES, MOST_TRACES)
    assert bench.decided == {"limited": 100}
    bench.end(call, fails=True)  # Its trace gave way: there is nothing left to keep it with.
    assert bench.sent == []


def test_a_trace_that_is_too_old_gives_way() -> None:
    bench = Bench("sdk", ratio=0)
    bench.end(bench.begin("call", bench.begin("lost")))
    bench.now = round(MOST_AGE_S * NS)
    fresh = bench.begin("turn")
    assert bench.tail.held == (2, 1)
    bench.now += 1
    bench.begin("another")
    assert bench.tail.held == (2, 0)
    assert bench.decided == {"limited": 1}
    bench.end(fresh)
    assert bench.decided == {"limited": 1, "dropped": 1}


def test_one_trace_holds_so_many_spans_and_its_failure_all_the_same() -> None:
    bench = Bench(ratio=0)
    turn = bench.begin("turn")
    for _ in range(MOST_SPANS_OF_A_TRACE + 10):
        bench.end(bench.begin("call", turn))
    assert bench.tail.held == (1, MOST_SPANS_OF_A_TRACE)
    bench.end(bench.begin("failure", turn), fails=True)
    assert bench.names() == ["call"] * MOST_SPANS_OF_A_TRACE + ["failure"]
    assert bench.tail.held == (1, 0)
    bench.end(turn)
    assert bench.names()[-1] == "turn"


def test_our_spans_wait_with_the_one_they_began_in_and_go_with_it() -> None:
    bench = Bench(ratio=0, slow_s=1)
    request = bench.begin("request")
    turn = bench.begin("turn", request)
    bench.end(bench.begin("call", turn))
    late = bench.begin("late", turn)
    bench.end(turn)
    assert bench.tail.held == (1, 0)
    bench.now += NS
    bench.end(request)
    assert (bench.tail.held, bench.names()) == ((1, 3), []), "the late one is open"
    bench.end(late)
    assert bench.names() == ["call", "turn", "request", "late"]
    assert bench.decided == {"slow": 1}
    assert bench.tail.held == (0, 0)


def test_a_failure_takes_what_ended_beside_it_along_and_the_rest_follows() -> None:
    bench = Bench(ratio=0)
    request = bench.begin("request")
    turn = bench.begin("turn", request)
    bench.end(bench.begin("first", turn))
    other = bench.begin("other", turn)
    bench.end(bench.begin("second", turn), fails=True)
    assert bench.names() == ["first", "second"]
    bench.end(other)
    bench.end(turn)
    bench.end(request)
    assert bench.names() == ["first", "second", "other", "turn", "request"]
    assert bench.decided == {"error": 1}
    assert bench.tail.held == (0, 0)


def test_no_more_than_so_many_wait_with_one() -> None:
    bench = Bench(ratio=0)
    turn = bench.begin("turn")
    for _ in range(MOST_BELOW - 1):
        bench.end(bench.begin("call", turn))
    assert bench.tail.held == (1, 0)
    bench.end(bench.begin("call", turn))
    assert bench.tail.held == (1, MOST_BELOW)


def test_all_traces_together_hold_so_many_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_SPANS < MOST_TRACES * MOST_SPANS_OF_A_TRACE
    monkeypatch.setattr(tail_module, "MOST_SPANS", 10)
    bench = Bench("sdk", ratio=0)
    for _ in range(8):
        turn = bench.begin("turn")
        for _ in range(4):
            bench.end(bench.begin("call", turn))
    assert bench.tail.held == (2, 8)
    assert bench.decided == {"limited": 6}


def test_a_trace_that_alone_is_too_much_gives_way_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "MOST_SPANS", 3)
    bench = Bench("sdk", ratio=0)
    turn = bench.begin("turn")
    for _ in range(4):
        bench.end(bench.begin("call", turn))
    bench.end(turn)
    assert bench.tail.held[1] == 0
    assert bench.decided["limited"] == 1


def test_in_an_outage_so_many_a_second_are_kept_and_the_rest_is_counted() -> None:
    bench = Bench(ratio=0, per_s=10)
    for _ in range(50):
        bench.end(bench.begin("turn"), fails=True)
    assert bench.decided == {"error": 10, "limited": 40}
    bench.now += NS // 2
    for _ in range(50):
        bench.end(bench.begin("turn"), fails=True)
    assert bench.decided == {"error": 15, "limited": 85}
    assert bench.tail.held == (0, 0)


def test_less_than_one_a_second_is_one_in_so_many_seconds() -> None:
    bench = Bench(ratio=0, per_s=0.5)
    for _ in range(8):
        bench.end(bench.begin("turn"), fails=True)
        bench.now += NS
    assert bench.decided == {"error": 4, "limited": 4}


def test_a_trace_that_failed_again_when_there_was_room_is_kept_after_all() -> None:
    bench = Bench(ratio=0, per_s=1)
    bench.end(bench.begin("another"), fails=True)
    turn = bench.begin("turn")
    bench.end(bench.begin("call", turn), fails=True)
    bench.now += NS
    bench.end(turn, fails=True)
    assert bench.names() == ["another", "call", "turn"]
    assert bench.decided == {"error": 2}


@KINDS
def test_slow_ones_are_kept_where_that_is_asked_for(kind: str) -> None:
    bench = Bench(kind, ratio=0, slow_s=2)
    for lasts in (1.999, 2):
        turn = bench.begin("turn")
        call = bench.begin("call", turn)
        bench.now += round(lasts * NS)
        bench.end(call)
        bench.end(turn)
    assert bench.names() == ["call", "turn"]
    assert bench.decided == {"dropped": 1, "slow": 1}
    assert bench.sent[0].attributes == {"sampling.reason": "slow"}


def test_spans_may_end_in_other_threads() -> None:
    """A failure lets each span go exactly once, whoever ends it."""
    bench, sent = Bench(ratio=0), defaultdict(list)
    bench.tail._send = lambda span: sent[span.context and span.context.trace_id].append(span.name)

    def turn(number: int) -> None:
        root = bench.begin("turn")
        with ThreadPoolExecutor(2) as inner:
            for at in range(6):
                inner.submit(bench.end, bench.begin(f"call {at}", root), fails=at == number % 6)
        bench.end(root)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(turn, range(60)))
    assert bench.tail.held == (0, 0)
    assert bench.decided == {"error": 60}
    every = sorted(["turn", *(f"call {at}" for at in range(6))])
    assert [sorted(names) for names in sent.values()] == [every] * 60
