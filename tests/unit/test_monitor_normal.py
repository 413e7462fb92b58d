"""Calls and results are the same where they differ by chance alone."""

import pytest

from holdfast.monitor.normal import (
    CAP,
    error_class,
    informative,
    normal,
    providers_fault,
    without_numbers,
    written,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello   World", "hello\tworld\n"),
        ("ls '/tmp'", 'ls "/tmp"'),
        ("at 2024-05-01T10:00:00.123Z", "at 2025-06-02T11:30:59Z"),
        ("logged 10:00:01", "logged 23:59:59,123"),
        ("job 8f14e45f-ceea-467f-a3b2-0123456789ab", "job 11111111-ceea-467f-a3b2-ffffffffffff"),
        ("commit 3f786850e387550fdab836ed7e6dc881de23001b", "commit 89e6c98d92887913cadf06b2adb97f26cde4849b"),
        ("<object at 0x7f3a>", "<object at 0xbeef01>"),
        ("1 passed in 0.53s", "1 passed in 12.1 seconds"),
        ("pid=123 ended", "pid=4567 ended"),
    ],
)
def test_what_differs_by_chance_is_the_same(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("page 1", "page 2"),
        ("order 1234567890123", "order 1234567890124"),
        ("2024-05-01", "2024-05-02"),
        ("cat a.txt", "cat b.txt"),
        ("2 passed in 1 s", "3 passed in 1 s"),
    ],
)
def test_what_means_something_stays(one: str, other: str) -> None:
    assert normal(one) != normal(other)


def test_numbers_are_masked_where_that_is_asked_for() -> None:
    assert without_numbers("page 1 of 2.5") == without_numbers("page 10 of 3")


def test_arguments_are_the_same_in_whichever_order_they_are_named() -> None:
    assert written({"a": 1, "b": [1, {"d": 2, "c": 3}]}) == written({"b": [1, {"c": 3, "d": 2}], "a": 1})
    assert written({"a": 1}) != written({"a": 2})


def test_of_a_long_text_the_beginning_and_the_end_are_looked_at() -> None:
    long = "x" * 50_000
    assert len(normal(long)) < CAP + 10
    assert normal(f"a {long}") != normal(f"b {long}")
    assert normal(f"{long} a") != normal(f"{long} b")


def test_long_arguments_that_differ_in_the_middle_are_told_apart_by_their_length() -> None:
    assert written({"text": "x" * 5_000}) != written({"text": "x" * 5_001})
    assert written("x" * 5_000) != written("x" * 5_001)
    two = {"path": "a", "old": "x" * 5_000, "new": "y" * 5_000}
    assert normal(written(two)) != normal(written({**two, "old": "x" * 5_001}))


def test_arguments_of_any_size_and_shape_become_a_short_text() -> None:
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    wide = {str(number): "x" * 10_000 for number in range(500)}
    assert len(written(wide)) < 40_000
    assert len(written([[[wide] * 100] * 100] * 100)) < 40_000
    assert len(written(deep)) < 100
    assert written(list(range(1_000))) != written(list(range(1_001)))
    assert written({"what": object, "when": b"bytes", "none": None})


@pytest.mark.parametrize(
    "empty",
    [
        "",
        "ok",
        "OK.",
        "Done!",
        "null",
        "[]",
        "{}",
        "0",
        "[(0,)]",
        '{"status": "success"}',
        "{'output': '', 'error': ''}",
        "<returncode>0</returncode>\n<output>\n</output>",
        "exit code: 0",
        "Your command ran successfully and did not produce any output.",
        "(no output)",
    ],
)
def test_an_acknowledgement_says_nothing(empty: str) -> None:
    assert not informative(normal(empty))


@pytest.mark.parametrize(
    "full",
    [
        "2",
        "[(50,)]",
        "Paris",
        '{"status": "cancelled"}',
        "exit code: 1",
        "<returncode>0</returncode><output>a</output>",
    ],
)
def test_anything_else_says_something(full: str) -> None:
    assert informative(normal(full))


def test_errors_of_one_kind_have_one_class() -> None:
    assert error_class("Table 'a.b' doesn't exist") == error_class("Table 'c.d' doesn't exist")
    assert error_class("Table 'a' doesn't exist") != error_class("Column 'a' is unknown")
    trace = "Traceback (most recent call last):\n  File 'x', line {}\n{}: {}"
    assert error_class(trace.format(1, "KeyError", "a")) == error_class(trace.format(2, "KeyError", "b")) == "keyerror"
    assert error_class(trace.format(1, "KeyError", "a")) != error_class(trace.format(1, "TypeError", "a"))


@pytest.mark.parametrize("text", ["429 Too Many Requests", "rate_limit_error: slow down", "503 Service Unavailable"])
def test_a_providers_refusal_is_known_by_its_words(text: str) -> None:
    assert providers_fault(text)
    assert not providers_fault("x" * 400 + text), "only at the beginning: a page may be about it"


@pytest.mark.parametrize("text", ["No such file: limits.txt", "bash: command not found", "Table 'rate' doesn't exist"])
def test_other_errors_are_the_agents(text: str) -> None:
    assert not providers_fault(text)
