"""A limit that grows by one and shrinks by three tenths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.resilience.aimd import Aimd


def test_a_hundred_refusals_at_once_are_one_decrease() -> None:
    limit = Aimd(1, 64, start=40)
    for _ in range(100):
        limit.overloaded(now=10, sent_at=5)
    assert limit.limit == 28
    assert limit.overloaded(now=20, sent_at=10) == 28  # sent in the moment of the decrease, not after it
    assert limit.overloaded(now=20, sent_at=11) == 19


def test_it_grows_by_one_for_as_many_successes_as_it_lets_in() -> None:
    limit = Aimd(1, 64, start=10)
    for _ in range(11):
        limit.succeeded(in_use=10)
    assert limit.limit == 11


def test_it_does_not_grow_where_less_than_half_is_used() -> None:
    limit = Aimd(1, 64, start=10)
    for _ in range(1_000):
        limit.succeeded(in_use=4)
    assert limit.limit == 10
    for _ in range(30):
        limit.succeeded(in_use=5)
    assert limit.limit == 10  # past 10, half use is more than 5


def test_constant_timeouts_do_not_look_stable() -> None:
    limit = Aimd(2, 64, start=64)
    for second in range(20):
        limit.overloaded(now=2 * second + 1, sent_at=2 * second)
    assert limit.limit == 2


def test_it_begins_and_restarts_at_the_floor() -> None:
    limit = Aimd(3, 64)
    assert limit.limit == 3
    for _ in range(100):
        limit.succeeded(in_use=64)
    assert limit.limit > 3
    assert limit.restart(now=100) == 3
    limit.succeeded(in_use=3)
    for _ in range(9):
        limit.succeeded(in_use=3)
    assert limit.limit == 5
    assert limit.overloaded(now=110, sent_at=99) == 5


@given(
    st.integers(1, 5),
    st.integers(0, 20),
    st.lists(st.tuples(st.sampled_from(["ok", "over", "restart"]), st.integers(0, 30), st.integers(0, 9))),
)
def test_it_stays_between_its_bounds(floor: int, above: int, told: list[tuple[str, int, int]]) -> None:
    limit, now = Aimd(floor, floor + above), 0
    for name, number, later in told:
        now += later
        before = limit.limit
        if name == "ok":
            assert before <= limit.succeeded(number) <= before + 1
        elif name == "over":
            assert limit.overloaded(now, max(0, now - number)) <= before
        else:
            assert limit.restart(now) == floor
        assert floor <= limit.limit <= floor + above


def test_bounds_that_exclude_each_other_are_refused() -> None:
    for floor, ceiling, start in ((0, 5, None), (3, 2, None), (1, 5, 6), (2, 5, 1)):
        with pytest.raises(ValueError, match="adaptive"):
            Aimd(floor, ceiling, start)
