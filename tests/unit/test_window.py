"""Which earlier turns a turn is given."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.store import Past, fit_window, tokens_in


def past(chars: int, messages: bytes | None = b"all") -> Past:
    return Past(message="m" * chars, reply="", format="plain", messages=messages)


@pytest.mark.parametrize(("chars", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4_000, 1_000)])
def test_four_characters_are_a_token_and_a_started_one_counts(chars: int, tokens: int) -> None:
    assert tokens_in(chars) == tokens


def test_turns_come_out_oldest_first() -> None:
    newest, oldest = past(4), past(8)
    assert fit_window([(newest, 5), (oldest, 5)], 10) == (oldest, newest)


def test_a_turn_without_messages_takes_its_plain_exchange_alone() -> None:
    """Whatever it says its messages take."""
    assert fit_window([(past(8, None), 1_000)], 2) == (past(8, None),)
    assert fit_window([(past(8, None), 0)], 1) == ()


def test_no_turn_is_read_after_the_window_is_full() -> None:
    """A store reads them one by one: a long conversation is not read to its beginning."""
    read: list[int] = []

    def turns() -> Iterator[tuple[Past, int]]:
        for n in range(1_000):
            read.append(n)
            yield past(4), 5

    assert len(fit_window(turns(), 10)) == 2
    assert len(read) <= 3


sizes = st.tuples(st.integers(0, 60), st.integers(0, 30), st.booleans())


@given(st.lists(sizes, max_size=12), st.integers(-1, 100))
def test_what_is_kept_fits_is_whole_and_is_the_latest(turns: list[tuple[int, int, bool]], window: int) -> None:
    newest_first = [(past(chars, b"%d" % n if kept else None), tokens) for n, (chars, tokens, kept) in enumerate(turns)]
    kept = fit_window(iter(newest_first), window)[::-1]
    taken = 0
    for given_one, (turn, tokens) in zip(kept, newest_first, strict=False):
        assert given_one.message == turn.message
        assert given_one.messages in (None, turn.messages)
        taken += tokens_in(len(turn.message)) if given_one.messages is None else tokens
    assert taken <= max(window, 0)
    if window <= 0:
        assert kept == ()
    elif len(kept) < len(newest_first) and taken < window:
        turn, tokens = newest_first[len(kept)]
        assert tokens_in(len(turn.message)) > window - taken
        assert turn.messages is None or tokens > window - taken
