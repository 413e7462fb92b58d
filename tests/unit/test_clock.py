"""Time and chance."""

from datetime import UTC, datetime

import pytest

from holdfast.clock import NS, Clock, iso, token_hex


def test_it_reads_what_it_was_given() -> None:
    clock = Clock(lambda: 5, lambda: 1_767_225_600 * NS)
    assert (clock.now(), clock.wall_ns()) == (5, 1_767_225_600 * NS)
    assert clock.wall() == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_machines_clock_goes_forward_and_is_of_this_century() -> None:
    clock = Clock()
    first = clock.now()
    assert clock.now() >= first
    assert clock.wall().year >= 2025


def test_chance_is_the_same_for_the_same_seed_alone() -> None:
    assert Clock(seed=1).random.random() == Clock(seed=1).random.random()
    assert Clock(seed=1).random.random() != Clock(seed=2).random.random()
    assert Clock().random.random() != Clock().random.random()


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_225_600 * NS, "2026-01-01T00:00:00.000Z"),
        (1_767_225_600 * NS + 1_000_000, "2026-01-01T00:00:00.001Z"),
        (1_767_225_600 * NS + 999_999_000, "2026-01-01T00:00:00.999Z"),
        (1_767_225_600 * NS + 123_456_789, "2026-01-01T00:00:00.123Z"),
    ],
)
def test_a_time_is_told_in_utc_to_the_millisecond(wall_ns: int, text: str) -> None:
    assert iso(wall_ns) == text


def test_every_millisecond_is_told_as_itself() -> None:
    start = 1_767_225_600 * NS
    told = [iso(start + ms * 1_000_000)[-5:-1] for ms in range(1_000)]
    assert told == [f".{ms:03d}"[-4:] for ms in range(1_000)]


def test_tokens_have_the_length_asked_for_and_differ() -> None:
    tokens = {token_hex(8) for _ in range(1_000)}
    assert len(tokens) == 1_000
    assert all(len(token) == 16 and int(token, 16) >= 0 for token in tokens)
