"""State by key: bounded, and never forgotten while it matters."""

from collections.abc import Hashable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import NS
from holdfast.errors import CircuitOpen, RateLimited
from holdfast.resilience import (
    Adaptive,
    Breaker,
    Bulkhead,
    Call,
    FailureClass,
    Limit,
    Pipeline,
    Quota,
    Rate,
    Retry,
    per,
)
from holdfast.resilience.table import OVERFLOW, KeyTable
from holdfast.testing import loop_clock


class Debt:
    """A state that is quiescent from a time on."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.until = 0


def table(max_keys: int) -> KeyTable[Debt]:
    return KeyTable(Debt, lambda debt, now: debt.until <= now, max_keys)


def test_a_key_has_the_same_state_each_time() -> None:
    kept = table(3)
    first = kept.get("a", 0)
    first.until = 10
    assert kept.get("b", 0) is not first
    assert kept.get("a", 5) is kept.find("a") is first
    assert kept.find("c") is None
    assert len(kept) == 2


def test_a_live_state_is_never_evicted_however_many_keys_are_made_up() -> None:
    """Where the least recently used is evicted, who makes up keys gets rid of their own limit."""
    kept = table(4)
    mine = kept.get("me", 0)
    mine.until = 1_000
    for number in range(10_000):
        kept.get(f"made up {number}", number % 1_000).until = number % 1_000 + number % 7
        assert kept.get("me", number % 1_000) is mine
        assert len(kept) <= 4


def test_newcomers_share_one_state_while_all_others_live_and_no_longer() -> None:
    kept = table(2)
    for key in "ab":
        kept.get(key, 0).until = 10
    shared = kept.get("c", 9)
    assert shared.key == OVERFLOW
    assert kept.get("d", 9) is shared
    assert kept.find("c") is None
    assert len(kept) == 2
    assert [key for key, _ in kept.entries()] == ["a", "b", OVERFLOW]
    own = kept.get("c", 10)
    assert own.key == "c"
    assert kept.get("c", 10) is own


def test_what_is_quiescent_is_dropped_as_newcomers_come() -> None:
    kept = table(1_000)
    for number in range(500):
        kept.get(number, number)
    assert len(kept) == 1, "each had gone quiet before the next came"
    kept = table(1_000)
    for number in range(500):
        kept.get(number, 0).until = 1
    assert len(kept) == 500
    for number in range(500, 1_000):
        kept.get(number, 2).until = 3
    assert len(kept) == 500, "two old ones are looked at for each new one"


def test_those_that_live_do_not_hide_those_that_are_quiet() -> None:
    kept = table(100)
    for number in range(20):
        kept.get(number, 0).until = 100 if number < 10 else 1
    for number in range(20, 30):
        kept.get(number, 2).until = 100
    assert {key for key, _ in kept.entries()} == {*range(10), *range(20, 30)}


def test_entries_may_be_looked_through_while_others_come() -> None:
    kept = table(10)
    for key in "abc":
        kept.get(key, 0).until = 9
    for known, _ in kept.entries():
        kept.get(f"{known}{known}", 0).until = 9
    assert len(kept) == 6


def test_a_table_holds_at_least_one() -> None:
    with pytest.raises(ValueError, match="max_keys must be >= 1, got 0"):
        table(0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 5)), max_size=80))
def test_it_is_bounded_and_forgets_nothing_that_lives(max_keys: int, told: list[tuple[int, int, int]]) -> None:
    """Each key that had a state of its own still has it for as long as that lives."""
    kept, now = table(max_keys), 0
    owed: dict[Hashable, Debt] = {}
    for key, later, lives in told:
        now += later
        debt = kept.get(key, now)
        assert debt.key in (key, OVERFLOW)
        debt.until = max(debt.until, now + lives)
        if debt.key == key:
            owed[key] = debt
        else:
            assert len(kept) == max_keys
        assert len(kept) <= max_keys
        for other, state in owed.items():
            assert state.until <= now or kept.find(other) is state


# The states there are


async def answer() -> str:
    return "answer"


class Failed(Exception):
    failure_class = FailureClass.OVERLOADED


async def fail() -> None:
    raise Failed


def strangers(pipeline: Pipeline) -> list[Call]:
    numbers = count()
    return [Call(user=f"stranger {next(numbers)}", target=f"stranger {next(numbers)}") for _ in range(50)]


async def test_nobody_escapes_a_limit_by_making_up_keys() -> None:
    pipeline = Pipeline(
        "tools", Rate(Limit("calls", per.minute(1), key=per.user), max_wait_s=0), clock=loop_clock(), max_keys=5
    )
    mallory = Call(user="mallory")
    await pipeline.on(mallory)(answer)
    refused = 0
    for stranger in strangers(pipeline):
        try:
            await pipeline.on(stranger)(answer)
        except RateLimited:
            refused += 1
    assert refused == 45, "strangers beyond the fourth share one limit"
    with pytest.raises(RateLimited):
        await pipeline.on(mallory)(answer)


async def test_nobody_closes_an_open_circuit_by_making_up_keys() -> None:
    pipeline = Pipeline("tools", Breaker(consecutive=1), Bulkhead(9, key=per.target), clock=loop_clock(), max_keys=5)
    broken = pipeline.on(Call(target="broken"))
    with pytest.raises(Failed):
        await broken(fail)
    for stranger in strangers(pipeline):
        await pipeline.on(stranger)(answer)
    with pytest.raises(CircuitOpen):
        await broken(answer)


async def test_a_bulkhead_with_somebody_inside_or_a_limit_it_has_found_is_kept() -> None:
    pipeline = Pipeline("tools", Bulkhead(Adaptive(start=8), key=per.target), clock=loop_clock(), max_keys=3)
    assert pipeline.bulkhead is not None
    with pytest.raises(Failed):
        await pipeline.on(Call(target="learned"))(fail)
    async with pipeline.guard(Call(target="inside")):
        for stranger in strangers(pipeline):
            await pipeline.on(stranger)(answer)
        seen = {view.name: view.stats for view in pipeline.bulkhead.views()}
    assert (seen["tools:learned"].limit, seen["tools:inside"].in_use) == (5, 1)
    assert len(seen) <= 4


async def test_a_limit_that_somebody_waits_for_is_kept_when_it_is_full_again() -> None:
    """Else who waits there and who comes next would each have a limit of their own."""
    pipeline = Pipeline("tools", Rate(Limit("calls", Quota(1, NS, 1), key=per.user)), clock=loop_clock(), max_keys=10)
    assert pipeline.rate is not None
    [kept] = pipeline.rate._kept
    bucket = kept.table.get("ann", 0)
    bucket.take(0)
    waiting = pipeline.rate._queue.take([(bucket, 1)], None)
    waiting.send(None)
    for stranger in range(5):
        kept.table.get(stranger, 60 * NS)
    assert kept.table.find("ann") is bucket
    waiting.close()
    kept.table.get("another", 60 * NS)
    assert kept.table.find("ann") is None


async def test_budgets_of_targets_are_bounded_too() -> None:
    pipeline = Pipeline("tools", Retry(), clock=loop_clock(), max_keys=5)
    for stranger in strangers(pipeline):
        await pipeline.on(stranger)(answer)
    assert pipeline._retrier is not None
    assert len(pipeline._retrier._budgets) <= 5
