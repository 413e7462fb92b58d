"""However policies are joined, and whatever becomes of calls: nothing is lost, and each guard is told the truth."""

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.resilience import Call, FailureClass

if TYPE_CHECKING:
    from tests.properties.pipeline_play import (
        ALL,
        COMPOSITIONS,
        UNHEDGED,
        WAYS,
        Does,
        Kinds,
        Part,
        Play,
        Strike,
        named,
        written,
    )
else:  # pytest puts a test's folder on the path, and mypy the project's
    from pipeline_play import ALL, COMPOSITIONS, UNHEDGED, WAYS, Does, Kinds, Part, Play, Strike, named, written


pytestmark = pytest.mark.filterwarnings("ignore:the pipeline play is better in the order")


def perform(
    kinds: Kinds, parts: list[Part], seed: int, strike: Strike | None = None, *, observed: bool = False
) -> Play:
    """Play it; a failure tells all that it takes to see it again."""
    play = Play(kinds, parts, strike, observed=observed)
    try:
        play.perform(seed)
    except BaseException as error:
        error.add_note(f"{named(kinds)}{' observed' * observed}, in order {seed}, struck {strike}:")
        for part in parts:
            error.add_note(f"    {part}")
        raise
    return play


def test_every_pair_is_there_in_both_orders_where_that_is_allowed() -> None:
    assert len(COMPOSITIONS) == 42 - 15 + 2


@pytest.mark.parametrize("kinds", COMPOSITIONS, ids=named)
def test_a_play_by_chance_leaves_everything_at_rest(kinds: Kinds) -> None:
    for seed in range(40):
        perform(kinds, written(Random(seed)), seed)


@pytest.mark.parametrize("kinds", COMPOSITIONS, ids=named)
def test_guards_that_only_observe_leave_everything_at_rest_too(kinds: Kinds) -> None:
    for seed in range(20):
        perform(kinds, written(Random(seed)), seed, observed=True)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from([UNHEDGED, ALL, *COMPOSITIONS]), st.randoms(use_true_random=False), st.integers(0, 1_000))
def test_no_play_in_any_order_leaves_anything_behind(kinds: Kinds, random: Random, seed: int) -> None:
    perform(kinds, written(random), seed)


# Cancelled everywhere


def part(starts_s: float, *does: Does, target: str = "a", user: str = "u", streams: bool = False) -> Part:
    call = Call(target=target, credential="x", user=user, repeatable=True)
    return Part(starts_s, call, does, streams, leaves=False, tidies_s=0.25, cancelled=None)


FINE = Does(None, 1, None, harmless=False)
FAILS = Does(FailureClass.SERVER, 0.5, None, harmless=True)
LIMITED = Does(FailureClass.RATE_LIMITED, 0.5, 0.5, harmless=True)
HANGS = Does(None, 9, None, harmless=False)

SCENARIO = [
    part(0, FAILS, FINE),
    part(0, FINE, user="v"),
    part(0, FINE, streams=True, user="v"),
    part(0, FAILS, FAILS, FINE, streams=True),
    part(0.25, FINE),
    part(0.5, LIMITED, FINE, target="b"),
    part(0.5, HANGS, FINE, target="b"),
    part(0.75, FINE, target="b", streams=True, user="v"),
    part(2, FINE, target="b", user="w"),
    part(3, FINE),
]
"""Waits for limits, in the queue of a bulkhead, for a gate, between attempts, for parts, and for a timeout."""


def strike_everywhere(kinds: Kinds, parts: list[Part], seed: int) -> int:
    """Cancel at each suspension there is, in each way there is; return how many there were."""
    strikes = 0
    for when, times in WAYS:
        nth = 1
        while nth <= perform(kinds, parts, seed, (nth, when, times)).suspensions:
            nth += 1
        strikes += nth - 1
    return strikes


@pytest.mark.parametrize("kinds", [UNHEDGED, ALL], ids=named)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_cancellation_anywhere_loses_nothing(kinds: Kinds, seed: int) -> None:
    assert strike_everywhere(kinds, SCENARIO, seed) > 250


@pytest.mark.slow
@pytest.mark.parametrize("kinds", COMPOSITIONS, ids=named)
def test_a_cancellation_anywhere_in_any_pair_loses_nothing(kinds: Kinds) -> None:
    for seed in range(5):
        strike_everywhere(kinds, SCENARIO, seed)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(st.sampled_from([UNHEDGED, ALL, *COMPOSITIONS]), st.randoms(use_true_random=False), st.integers(0, 100_000))
def test_no_play_in_any_order_leaves_anything_behind_however_long_it_is_looked_for(
    kinds: Kinds, random: Random, seed: int
) -> None:
    perform(kinds, written(random), seed)
