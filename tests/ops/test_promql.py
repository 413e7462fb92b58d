"""PromQL is read into a tree, and aimed without touching anything else."""

from __future__ import annotations

import pytest

from holdfast.ops.alerts import ALERTS
from holdfast.ops.dashboards import DASHBOARDS
from holdfast.ops.promql import Aggregate, Binary, Call, Matcher, Number, Selector, Text, aimed, parse, selectors
from holdfast.ops.recording import RECORDS, aliases
from holdfast.ops.slo import slo_records

EVERY = [
    *(alert.expr for alert in ALERTS),
    *(record.expr for record in (*slo_records(), *RECORDS, *aliases())),
    *(query.expr for board in DASHBOARDS for panel in board.panels() for query in panel.queries),
]


def test_a_selector_knows_its_matchers_its_window_and_its_place() -> None:
    text = 'rate(a_total{x="1", y=~"b|c"}[5m])'
    matchers = (Matcher("x", "=", "1"), Matcher("y", "=~", "b|c"))
    found = Selector("a_total", matchers, "5m", start=5, end=12, braced=True)
    assert parse(text) == Call("rate", (found,))
    assert text[found.start : found.end] == "a_total"


@pytest.mark.parametrize(
    ("text", "op", "left", "right"),
    [
        ("1 + 2 * 3", "+", "1", "2 * 3"),
        ("1 * 2 + 3", "+", "1 * 2", "3"),
        ("1 - 2 - 3", "-", "1 - 2", "3"),
        ("1 / 2 / 3", "/", "1 / 2", "3"),
        ("1 > 2 + 3", ">", "1", "2 + 3"),
        ("1 > 2 and 3 > 4", "and", "1 > 2", "3 > 4"),
        ("1 or 2 and 3", "or", "1", "2 and 3"),
        ("1 unless 2 or 3", "or", "1 unless 2", "3"),
        ("1 - (2 - 3)", "-", "1", "2 - 3"),
        ("-1 + 2", "+", "-1", "2"),
    ],
)
def test_what_binds_stronger_goes_deeper(text: str, op: str, left: str, right: str) -> None:
    assert parse(text) == Binary(op, parse(left), parse(right), None, None, ())


@pytest.mark.parametrize("text", ["sum by (x, y) (1)", "sum(1) by (x, y)"])
def test_an_aggregation_may_name_its_labels_before_or_behind(text: str) -> None:
    assert parse(text) == Aggregate("sum", keeps=True, labels=("x", "y"), args=(Number(1),))


def test_matching_is_read() -> None:
    assert parse("1 * on (x) group_left (y) 2") == Binary("*", Number(1), Number(2), ("x",), "group_left", ("y",))
    assert parse("1 > bool 2") == Binary(">", Number(1), Number(2), None, None, ())


def test_texts_comments_and_offsets_are_read() -> None:
    assert parse('f("a\\"b") # why') == Call("f", (Text('a"b'),))
    assert parse("sum(a offset 5m)") == Aggregate("sum", True, (), (Selector("a", (), None, 4, 5, False),))  # noqa: FBT003 - as it is made


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "sum by (x", "f(1", 'a{x="1"', "a{x=1}", "a{x}", "1 2", "a[5m] b", "and 1", "a ^ 2", "a{x=~'b'}", "by"],
)
def test_what_is_not_promql_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|cannot read"):
        parse(text)


@pytest.mark.parametrize("text", EVERY)
def test_aiming_at_nothing_changes_nothing(text: str) -> None:
    assert aimed(text, lambda name: name, lambda _: "") == text


@pytest.mark.parametrize("text", EVERY)
def test_aiming_reaches_every_name_and_adds_nothing_else(text: str) -> None:
    there = aimed(text, lambda name: f"other_{name}", lambda _: 'job="x"')
    names = [selector.name for selector in selectors(text)]
    assert [selector.name for selector in selectors(there)] == [f"other_{name}" for name in names]
    assert all(selector.matchers[0] == Matcher("job", "=", "x") for selector in selectors(there))
    back = there.replace('job="x", ', "").replace('{job="x"}', "").replace("other_", "")
    assert back == text.replace("{}", "")


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("a", 'a{job="x"}'),
        ("a{}", 'a{job="x"}'),
        ('a{y="1"}', 'a{job="x", y="1"}'),
        ("rate(a[5m])", 'rate(a{job="x"}[5m])'),
        ("a / a", 'a{job="x"} / a{job="x"}'),
    ],
)
def test_matchers_come_first(text: str, there: str) -> None:
    assert aimed(text, lambda name: name, lambda _: 'job="x"') == there
