"""A client that follows what the server accepts."""

import pytest

from holdfast.clock import NS, Clock
from holdfast.resilience.throttle import Throttle


def told(accepted: int, refused: int, now: int = 0) -> Throttle:
    throttle = Throttle()
    for _ in range(accepted):
        throttle.record(now, accepted=True)
    for _ in range(refused):
        throttle.record(now, accepted=False)
    return throttle


@pytest.mark.parametrize(
    ("accepted", "refused", "probability"),
    [
        (0, 0, 0),
        (10, 0, 0),
        (5, 5, 0),
        (50, 49, 0),
        (4, 5, 1 / 10),
        (0, 1, 1 / 2),
        (10, 89, 79 / 100),
        (0, 999, 999 / 1000),
    ],
)
def test_the_chance_is_the_one_of_the_book(accepted: int, refused: int, probability: float) -> None:
    assert not told(accepted, refused).refuse(0, lambda: probability)
    if probability:
        assert told(accepted, refused).refuse(0, lambda: probability - 1e-9)


def test_a_request_that_is_refused_here_counts_as_one() -> None:
    throttle = told(4, 5)
    assert throttle.refuse(0, lambda: 0.0)
    assert throttle.refuse(0, lambda: 2 / 11 - 1e-9)
    assert not throttle.refuse(0, lambda: 3 / 12)


def test_a_request_that_is_let_through_counts_when_its_answer_is_known() -> None:
    throttle = told(4, 5)
    for _ in range(3):
        assert not throttle.refuse(0, lambda: 1 / 10)
    throttle.record(0, accepted=True)
    assert not throttle.refuse(0, lambda: 0.0)


@pytest.mark.parametrize(("seconds", "remembered"), [(0, True), (109, True), (120, False), (10_000, False)])
def test_what_is_two_minutes_old_is_forgotten(seconds: int, remembered: bool) -> None:  # noqa: FBT001 - a column
    throttle = told(0, 100)
    assert throttle.refuse(seconds * NS, lambda: 0.0) == remembered


def test_acceptances_are_forgotten_too() -> None:
    throttle = told(100, 0)
    throttle.record(115 * NS, accepted=False)
    assert not throttle.refuse(115 * NS, lambda: 0.0)
    assert throttle.refuse(120 * NS, lambda: 0.0)


def simulate(throttle: Throttle, seconds: range, asked: int, capacity: int, clock: Clock) -> tuple[int, int]:
    """``asked`` requests a second to a server that accepts ``capacity`` of them: how many were sent, and accepted."""
    sent = accepted = 0
    for second in seconds:
        room = capacity
        for n in range(asked):
            now = second * NS + n * NS // asked
            if throttle.refuse(now, clock.random.random):
                continue
            sent += 1
            throttle.record(now, room > 0)
            accepted += room > 0
            room -= 1
    return sent, accepted


def test_an_overloaded_server_is_asked_about_twice_for_each_that_it_accepts() -> None:
    throttle, clock = Throttle(), Clock(seed=1)
    simulate(throttle, range(120), 100, 10, clock)
    sent, accepted = simulate(throttle, range(120, 180), 100, 10, clock)
    assert accepted == 60 * 10
    assert 1.8 * accepted < sent < 2.2 * accepted


def test_a_server_that_is_back_is_found_and_used_again() -> None:
    """After an outage longer than the window it takes minutes, as so little gets through that could show it."""
    throttle, clock = Throttle(), Clock(seed=1)
    sent, _ = simulate(throttle, range(300), 10, 0, clock)
    assert 0 < sent < 40  # of 3,000
    sent, _ = simulate(throttle, range(300, 420), 10, 1_000, clock)
    assert sent < 0.05 * 120 * 10
    simulate(throttle, range(420, 1020), 10, 1_000, clock)
    assert simulate(throttle, range(1020, 1030), 10, 1_000, clock) == (100, 100)


def test_a_short_outage_is_over_after_as_long_again() -> None:
    throttle, clock = Throttle(), Clock(seed=1)
    simulate(throttle, range(60), 10, 1_000, clock)
    simulate(throttle, range(60, 120), 10, 0, clock)
    simulate(throttle, range(120, 190), 10, 1_000, clock)
    assert simulate(throttle, range(190, 200), 10, 1_000, clock) == (100, 100)
