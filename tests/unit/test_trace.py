"""Which trace a request belongs to, by https://www.w3.org/TR/trace-context/."""

import re

import pytest

from holdfast.telemetry import TraceContext, read_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"

TAKEN = [
    (f"00-{TRACE}-{SPAN}-01", True),
    (f"00-{TRACE}-{SPAN}-00", False),
    (f"00-{TRACE}-{SPAN}-02", False),  # Only the last bit says that the caller records.
    (f"00-{TRACE}-{SPAN}-03", True),
    (f"00-{TRACE}-{SPAN}-ff", True),
    (f"  00-{TRACE}-{SPAN}-01\t", True),  # White space around a header's value is HTTP's.
    (f"01-{TRACE}-{SPAN}-01", True),  # A later version may add to the end, after a dash.
    (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    (f"cc-{TRACE}-{SPAN}-00-", False),
]

LEFT = [
    None,
    "",
    "nonsense",
    f"ff-{TRACE}-{SPAN}-01",  # A version there will never be.
    f"00-{TRACE}-{SPAN}-01-more",  # This version has no more.
    f"00-{TRACE}-{SPAN}-01-",
    f"cc-{TRACE}-{SPAN}-01.more",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE}-{SPAN.upper()}-01",
    f"0A-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-0A",
    f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{TRACE}0-{SPAN}-01",
    f"00-{TRACE}-{SPAN[:-1]}-01",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE}-{SPAN}",
    f"0-{TRACE}-{SPAN}-01",
    f"000-{TRACE}-{SPAN}-01",
    f"-{TRACE}-{SPAN}-01",
    f"00_{TRACE}_{SPAN}_01",
    f"00-{TRACE}-{SPAN}-0x",
    f"00-{TRACE[:-1]}.-{SPAN}-01",
    f"00-{TRACE[:-1]}g-{SPAN}-01",
    f"00-{TRACE[:-1]}٣-{SPAN}-01",  # A digit, but not one of ours.
    f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01",
    f"cc-{TRACE}-{SPAN}-01-more\nlines",
]


@pytest.mark.parametrize(("header", "sampled"), TAKEN)
def test_a_valid_header_is_gone_on_with_under_a_span_of_its_own(header: str, sampled: bool) -> None:  # noqa: FBT001 - a column of the table above
    context = read_traceparent(header)
    assert (context.trace_id, context.sampled) == (TRACE, sampled)
    assert re.fullmatch(r"[0-9a-f]{16}", context.span_id)
    assert context.span_id != SPAN


@pytest.mark.parametrize("header", LEFT)
def test_anything_else_begins_a_new_trace(header: str | None) -> None:
    context = read_traceparent(header)
    assert re.fullmatch(r"[0-9a-f]{32}", context.trace_id)
    assert context.trace_id != TRACE
    assert not context.sampled


def test_what_is_handed_on_can_be_read_again() -> None:
    for sampled in (True, False):
        context = TraceContext(TRACE, SPAN, sampled)
        assert context.traceparent() == f"00-{TRACE}-{SPAN}-0{int(sampled)}"
        again = read_traceparent(context.traceparent())
        assert (again.trace_id, again.sampled) == (TRACE, sampled)


def test_no_two_traces_or_spans_are_alike() -> None:
    contexts = [read_traceparent(None) for _ in range(100)]
    assert len({context.trace_id for context in contexts}) == 100
    assert len({context.span_id for context in contexts}) == 100
