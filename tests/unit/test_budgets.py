"""What turns may spend: reserved before a call, settled after it, and refused where there is no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.budget import Budgets, BudgetSpec, Estimate, Left, Member, TurnBudget
from holdfast.budget.budgets import POLL_S
from holdfast.budget.periods import today
from holdfast.clock import NS, Clock
from holdfast.errors import BudgetExhausted, PriceUnknown, StoreUnavailable
from holdfast.events import Usage
from holdfast.resilience import within
from holdfast.store import Cap, Hold, MemoryStore, Settled, Standing
from holdfast.testing import loop_clock

ONE_USD = {"sim:small": {"input_usd": 1_000_000.0, "output_usd": 1_000_000.0}}
"""A dollar a token, so that dollars are easy to count."""

ANNA = Member("c0ffee-1", "anna", "agent")
DAY_NS = 86_400 * NS


def ns(*day: int) -> int:
    return round(datetime(*day, tzinfo=UTC).timestamp()) * NS  # type: ignore[misc, arg-type]  # year, month, day, ...


class Bank:
    """Budgets on a store in memory; the time of day can be set."""

    def __init__(self, **limits: Any) -> None:
        loop = loop_clock()
        self.skipped_ns = 0
        self.clock = Clock(loop.now, lambda: loop.wall_ns() + self.skipped_ns)
        self.store = MemoryStore(self.clock)
        self.spec = BudgetSpec.model_validate({"answer_tokens": 4, "prices": ONE_USD, **limits})
        self.budgets = self.process("a")

    def process(self, name: str) -> Budgets:
        return Budgets(self.spec, self.clock, self.store, name, 5.0)

    def turn(self, member: Member = ANNA, budgets: Budgets | None = None) -> TurnBudget:
        return TurnBudget(budgets or self.budgets, member, 100)

    def set(self, *day: int) -> None:
        self.skipped_ns += ns(*day) - self.clock.wall_ns()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Bank"]:
        async with self.budgets.kept():
            yield self

    async def spend(self, turn: TurnBudget, used: int, reserved: int | None = None, model: str = "small") -> None:
        """One call that uses ``used`` tokens."""
        booking = await turn.reserve("sim", model, Estimate(0, used if reserved is None else reserved))
        turn.settle(booking, Usage(model_calls=1, output_tokens=used, cost_nanos=used * NS), answered=True)

    async def left(self, member: Member = ANNA) -> dict[str, float]:
        await self.budgets.write()
        return {f"{one.scope} {one.unit} {one.every}".strip(): one.left for one in await self.budgets.standing(member)}


async def refusal_of(awaitable: Any) -> BudgetExhausted:
    with pytest.raises(BudgetExhausted) as refused:
        await awaitable
    return refused.value


async def test_a_turn_makes_as_many_steps_as_it_may_and_those_that_failed_do_not_count() -> None:
    turn = Bank(turn_steps=2).turn()
    for answered in (True, False, False, True):
        booking = await turn.reserve("sim", "small", None)
        turn.settle(booking, Usage(), answered=answered)
    refused = await refusal_of(turn.reserve("sim", "small", None))
    assert (refused.status, refused.guard, refused.key_class, refused.reason) == (
        402,
        "budget",
        "turn",
        "steps_per_turn",
    )
    assert refused.retry_after_s is None
    assert "2 steps" in refused.detail


async def test_steps_that_are_under_way_count() -> None:
    turn = Bank(turn_steps=1).turn()
    await turn.reserve("sim", "small", None)
    await refusal_of(turn.reserve("sim", "small", None))


@pytest.mark.parametrize("unit", ["tokens", "usd"])
async def test_a_turn_spends_no_more_than_it_may_and_what_it_did_not_use_is_there_again(unit: str) -> None:
    bank = Bank(**{f"turn_{unit}": 20})
    turn = bank.turn()
    await bank.spend(turn, used=5, reserved=20)
    await bank.spend(turn, used=5, reserved=15)
    refused = await refusal_of(turn.reserve("sim", "small", Estimate(1, 10)))
    assert refused.reason == f"{unit}_per_turn"
    await bank.spend(turn, used=10)
    assert (turn.tokens, turn.nanos) == (20, 20 * NS)


async def test_what_nobody_said_of_a_call_counts_as_all_that_it_reserved() -> None:
    turn = Bank(turn_tokens=20).turn()
    booking = await turn.reserve("sim", "small", Estimate(6, None))
    turn.settle(booking, None, answered=False)
    assert (turn.tokens, turn.steps) == (10, 0)


@pytest.mark.parametrize("limits", [{"turn_usd": 5}, {"user_usd_per_day": 5}, {"unknown_model": "refuse"}])
async def test_a_model_whose_price_is_unknown_is_refused_where_that_matters(limits: dict[str, Any]) -> None:
    async with Bank(**limits).open() as bank:
        with pytest.raises(PriceUnknown, match=r'budget\.prices\."sim:large"'):
            await bank.turn().reserve("sim", "large", Estimate(1, 1))
        await bank.spend(bank.turn(), used=1)


@pytest.mark.parametrize("limits", [{}, {"turn_tokens": 5}, {"user_tokens_per_day": 5}])
async def test_elsewhere_its_tokens_are_counted_and_no_money(limits: dict[str, Any]) -> None:
    async with Bank(**limits).open() as bank:
        turn = bank.turn()
        booking = await turn.reserve("sim", "large", Estimate(1, 1))
        assert booking.price is None
        turn.settle(booking, Usage(input_tokens=1, output_tokens=1), answered=True)
        assert (turn.tokens, turn.nanos) == (2, 0)


async def test_without_limits_that_turns_share_nothing_is_kept() -> None:
    async with Bank(turn_tokens=100, turn_usd=100).open() as bank:
        await bank.spend(bank.turn(), used=5)
        assert bank.budgets.limits == ()
        assert (bank.store._accounts, bank.store._holds) == ({}, {})


async def test_a_turn_that_nobody_keeps_has_only_its_own_limits() -> None:
    async with Bank(all_tokens_per_day=1, turn_tokens=9).open() as bank:
        await bank.spend(bank.turn(Member("", "", "agent")), used=9)
        assert bank.store._accounts == {}


@pytest.mark.parametrize(
    ("limit", "other", "refused_by"),
    [
        ("session_tokens", Member("decaf-1", "anna", "agent"), "session"),
        ("user_tokens_per_day", Member("c0ffee-1", "ben", "agent"), "user"),
        ("agent_usd_per_month", Member("c0ffee-1", "anna", "another"), "agent"),
        ("all_usd_per_day", None, "all"),
    ],
)
async def test_a_limit_is_that_of_its_session_user_or_agent(limit: str, other: Member | None, refused_by: str) -> None:
    async with Bank(**{limit: 10, "wait_s": 0}).open() as bank:
        await bank.spend(bank.turn(), used=8)
        await bank.budgets.write()
        refused = await refusal_of(bank.spend(bank.turn(ANNA._replace(turn_id="c0ffee-2")), used=3))
        assert (refused.key_class, refused.status) == (refused_by, 402)
        if other is not None:
            await bank.spend(bank.turn(other), used=10)


async def test_all_limits_have_room_or_none_is_touched() -> None:
    async with Bank(user_tokens_per_day=100, all_tokens_per_day=10, session_tokens=100, wait_s=0).open() as bank:
        await bank.spend(bank.turn(), used=8)
        before = await bank.left()
        await refusal_of(bank.spend(bank.turn(), used=3))
        assert await bank.left() == before == {"session tokens": 92, "user tokens day": 92, "all tokens day": 2}


async def test_a_refusal_says_which_limit_what_is_left_and_when_it_begins_anew() -> None:
    async with Bank(user_usd_per_day=10, wait_s=0).open() as bank:
        bank.set(2026, 2, 28, 22, 30)
        await bank.spend(bank.turn(), used=8)
        await bank.budgets.write()
        refused = await refusal_of(bank.spend(bank.turn(), used=3))
        assert refused.retry_after_s == 5_400
        assert (refused.guard, refused.reason) == ("budget", "usd_per_day")
        assert refused.detail == (
            "the user anna may use 10 USD a day: 8 USD are spent and 2 USD are left; this model call may take 3 USD; "
            "it begins anew at 2026-03-01T00:00:00.000Z"
        )


async def test_of_two_limits_the_one_that_begins_anew_last_is_told() -> None:
    async with Bank(user_tokens_per_day=10, user_tokens_per_month=10, wait_s=0).open() as bank:
        bank.set(2026, 12, 30)
        await bank.spend(bank.turn(), used=10)
        await bank.budgets.write()
        refused = await refusal_of(bank.spend(bank.turn(), used=1))
        assert (refused.reason, refused.retry_after_s) == ("tokens_per_month", 2 * 86_400)


@pytest.mark.parametrize("limit", ["session_tokens", "user_tokens_per_day"])
async def test_what_never_fits_is_not_to_be_tried_again(limit: str) -> None:
    async with Bank(**{limit: 10}).open() as bank:
        assert (await refusal_of(bank.spend(bank.turn(), used=11))).retry_after_s is None


async def test_a_day_begins_anew_at_midnight_in_utc_and_a_month_with_its_first() -> None:
    async with Bank(user_tokens_per_day=10, user_tokens_per_month=15, wait_s=0).open() as bank:
        bank.set(2026, 1, 30, 23, 59, 59)
        await bank.spend(bank.turn(), used=10)
        await refusal_of(bank.spend(bank.turn(), used=1))
        await asyncio.sleep(0.999)
        await refusal_of(bank.spend(bank.turn(), used=1))
        await asyncio.sleep(0.001)
        assert await bank.left() == {"user tokens day": 10, "user tokens month": 5}
        await bank.spend(bank.turn(), used=5)
        await refusal_of(bank.spend(bank.turn(), used=1))
        bank.set(2026, 2, 1)
        assert await bank.left() == {"user tokens day": 10, "user tokens month": 15}
        await bank.spend(bank.turn(), used=10)


async def test_a_call_over_midnight_counts_for_the_day_it_was_sent_on() -> None:
    async with Bank(user_tokens_per_day=10).open() as bank:
        bank.set(2026, 1, 30, 23, 59)
        turn = bank.turn()
        booking = await turn.reserve("sim", "small", Estimate(0, 10))
        bank.set(2026, 1, 31)
        assert await bank.left() == {"user tokens day": 10}
        turn.settle(booking, Usage(output_tokens=7), answered=True)
        assert await bank.left() == {"user tokens day": 10}
        bank.set(2026, 1, 30)
        assert await bank.left() == {"user tokens day": 3}


@pytest.mark.parametrize(
    ("day", "ends", "month_ends"),
    [
        ((2024, 2, 28), (2024, 2, 29), (2024, 3, 1)),
        ((2024, 2, 29), (2024, 3, 1), (2024, 3, 1)),
        ((2026, 2, 28), (2026, 3, 1), (2026, 3, 1)),
        ((2026, 12, 31), (2027, 1, 1), (2027, 1, 1)),
        ((2026, 1, 1), (2026, 1, 2), (2026, 2, 1)),
    ],
)
def test_days_and_months_end_where_the_calendar_says(
    day: tuple[int, ...], ends: tuple[int, ...], month_ends: tuple[int, ...]
) -> None:
    for moment in (ns(*day), ns(*day) + DAY_NS - 1):
        now = today(moment)
        assert now.day == "{:04}-{:02}-{:02}".format(*day)
        assert now.month == now.day[:7]
        assert (now.day_ends_ns, now.month_ends_ns) == (ns(*ends), ns(*month_ends))
        assert now.last_month < now.month


async def test_fifty_at_once_on_a_budget_that_fits_ten_spend_exactly_what_fits() -> None:
    """Each reserves more than it uses: the others wait until that is given back."""
    async with Bank(all_tokens_per_day=100, wait_s=60).open() as bank:
        outcomes: list[str] = []

        async def turn(n: int) -> None:
            mine = bank.turn(Member(f"s{n}-1", f"user {n}", "agent"))
            try:
                booking = await mine.reserve("sim", "small", Estimate(2, 18))
            except BudgetExhausted:
                outcomes.append("refused")
                return
            await asyncio.sleep(1 + n % 3)
            mine.settle(booking, Usage(input_tokens=2, output_tokens=8), answered=True)
            outcomes.append("answered")

        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(turn(n))
        assert outcomes.count("answered") == 9  # The tenth may use 20, and only 10 are left.
        assert await bank.left() == {"all tokens day": 10}


@pytest.mark.parametrize("unit", ["tokens", "usd"])
async def test_a_call_waits_for_others_no_longer_than_it_may(unit: str) -> None:
    async with Bank(**{f"all_{unit}_per_day": 10, "wait_s": 3}).open() as bank:
        await bank.turn().reserve("sim", "small", Estimate(0, 10))
        began = bank.clock.now()
        refused = await refusal_of(bank.spend(bank.turn(), used=1))
        assert bank.clock.now() - began == 3 * NS
        assert refused.retry_after_s == 1
        assert f"10 {unit} are reserved by calls under way and 0 {unit} are left" in refused.detail.replace(
            "USD", "usd"
        )
        async with within(bank.clock, 2, TimeoutError):  # type: ignore[arg-type]  # any error does
            refused = await refusal_of(bank.spend(bank.turn(), used=1))
        assert bank.clock.now() - began == 5 * NS


async def test_who_waits_for_one_budget_does_not_wait_for_another() -> None:
    async with Bank(user_tokens_per_day=10, wait_s=30).open() as bank:
        ben = Member("decaf-1", "ben", "agent")
        held = {name: await bank.turn(name).reserve("sim", "small", Estimate(0, 10)) for name in (ANNA, ben)}
        async with asyncio.TaskGroup() as group:
            anna = group.create_task(refusal_of(bank.spend(bank.turn(), used=10)))
            await asyncio.sleep(1)
            waiting = group.create_task(bank.spend(bank.turn(ben), used=10))
            await asyncio.sleep(1)
            bank.turn(ben).settle(held[ben], Usage(), answered=False)
            await asyncio.sleep(POLL_S / 10)
            assert waiting.done()
            assert not anna.done()


async def test_who_waits_for_what_is_spent_meanwhile_is_refused_at_once() -> None:
    async with Bank(all_tokens_per_day=10, wait_s=30).open() as bank:
        turn = bank.turn()
        booking = await turn.reserve("sim", "small", Estimate(0, 10))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(refusal_of(bank.spend(bank.turn(), used=4)))
            await asyncio.sleep(2)
            turn.settle(booking, Usage(output_tokens=7), answered=True)
            await asyncio.sleep(POLL_S / 10)
            assert waiting.done()


async def test_a_limit_of_a_session_is_none_of_who_is_in_none() -> None:
    async with Bank(session_tokens=10, user_tokens_per_day=20).open() as bank:
        assert await bank.left(Member("", "anna")) == {"user tokens day": 20}


async def test_a_call_of_another_process_that_gives_something_back_is_noticed() -> None:
    async with Bank(all_tokens_per_day=10, wait_s=30).open() as bank:
        other = bank.process("b")
        async with other.kept():
            turn = bank.turn(budgets=other)
            booking = await turn.reserve("sim", "small", Estimate(0, 10))
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(bank.spend(bank.turn(), used=4))
                await asyncio.sleep(2)
                turn.settle(booking, Usage(output_tokens=6), answered=True)
                await asyncio.sleep(1)
                assert waiting.done()
        assert await bank.left() == {"all tokens day": 0}


async def test_what_a_process_held_that_died_counts_as_spent_once_its_lease_is_over() -> None:
    async with Bank(all_tokens_per_day=10, wait_s=0).open() as bank:
        await bank.store.beat("a")
        await bank.turn(budgets=bank.process("b")).reserve("sim", "small", Estimate(0, 8))
        await asyncio.sleep(4)
        assert (await bank.budgets.standing(ANNA))[0].reserved == 8
        for _ in range(3):
            await bank.store.beat("a")
            await asyncio.sleep(4)
        (standing,) = await bank.budgets.standing(ANNA)
        assert (standing.spent, standing.reserved, standing.left) == (8, 0, 2)


class Flaky(MemoryStore):
    """Does what it is asked, and sometimes does not say so."""

    silent = 0
    slow_s = 0.0

    async def reserve(self, hold: Hold, caps: Any) -> tuple[bool, tuple[Standing, ...]]:
        done = await super().reserve(hold, [Cap(*cap) for cap in caps])
        await asyncio.sleep(self.slow_s)
        await self._answer()
        return done

    async def settle(self, settled: Any) -> None:
        if not self.silent:
            await super().settle([Settled(*one) for one in settled])
        await asyncio.sleep(self.slow_s)
        await self._answer()

    async def _answer(self) -> None:
        if self.silent:
            self.silent -= 1
            raise StoreUnavailable("the disk is on fire")


async def test_what_a_store_held_and_did_not_say_so_is_given_back() -> None:
    bank = Bank(all_tokens_per_day=10)
    bank.store = store = Flaky(bank.clock)
    bank.budgets = bank.process("a")
    async with bank.open():
        store.silent = 1
        turn = bank.turn()
        with pytest.raises(StoreUnavailable):
            await turn.reserve("sim", "small", Estimate(0, 10))
        assert (turn.steps, turn.left().tokens) == (0, 1)
        await asyncio.sleep(0.1)
        await bank.spend(bank.turn(), used=10)
        assert (await bank.left()) == {"all tokens day": 0}


async def test_a_caller_that_goes_away_while_it_asks_holds_nothing() -> None:
    bank = Bank(all_tokens_per_day=10)
    bank.store = store = Flaky(bank.clock)
    bank.budgets = bank.process("a")
    async with bank.open():
        store.slow_s = 5
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await bank.turn().reserve("sim", "small", Estimate(0, 10))
        store.slow_s = 0
        await asyncio.sleep(0.1)
        assert (await bank.left()) == {"all tokens day": 10}


async def test_what_the_store_did_not_write_is_written_when_it_is_back() -> None:
    bank = Bank(all_tokens_per_day=10)
    bank.store = store = Flaky(bank.clock)
    bank.budgets = bank.process("a")
    async with bank.open():
        turn = bank.turn()
        booking = await turn.reserve("sim", "small", Estimate(0, 10))
        store.silent = 3
        turn.settle(booking, Usage(output_tokens=4), answered=True)
        await asyncio.sleep(0.1)
        (standing,) = await bank.budgets.standing(ANNA)
        assert (standing.spent, standing.reserved) == (0, 10)
        await asyncio.sleep(60)
        (standing,) = await bank.budgets.standing(ANNA)
        assert (standing.spent, standing.reserved) == (4, 0)


async def test_what_is_given_back_while_other_is_written_is_written_next() -> None:
    bank = Bank(all_tokens_per_day=10)
    bank.store = store = Flaky(bank.clock)
    bank.budgets = bank.process("a")
    async with bank.open():
        turn = bank.turn()
        bookings = [await turn.reserve("sim", "small", Estimate(0, 5)) for _ in range(2)]
        store.slow_s = 1
        for booking in bookings:
            turn.settle(booking, Usage(output_tokens=2), answered=True)
            await asyncio.sleep(0.5)
        await asyncio.sleep(3)
        (standing,) = await bank.budgets.standing(ANNA)
        assert (standing.spent, standing.reserved) == (4, 0)


async def test_what_was_given_back_last_is_written_before_a_process_stops() -> None:
    bank = Bank(all_tokens_per_day=10)
    async with bank.open():
        turn = bank.turn()
        booking = await turn.reserve("sim", "small", Estimate(0, 10))
        turn.settle(booking, Usage(output_tokens=4), answered=True)
    (standing,) = await bank.budgets.standing(ANNA)
    assert (standing.spent, standing.reserved) == (4, 0)


async def test_at_first_everything_is_left_and_without_limits_it_stays() -> None:
    turn = Bank(turn_steps=None).turn()
    assert turn.left() == Left(1, 1, 1, 1)
    for _ in range(100):
        turn.settle(await turn.reserve("sim", "small", Estimate(9, 9)), Usage(output_tokens=9), answered=True)
    assert turn.left() == Left(1, 1, 1, 1)
    assert turn.left().least == 1


@pytest.mark.parametrize("unit", ["tokens", "usd"])
@pytest.mark.parametrize("limit", range(10, 120, 7))
async def test_at_least_one_call_fits_when_nothing_is_left_for_the_first_time(unit: str, limit: int) -> None:
    """So that whoever ends the turn then has a call to do so."""
    bank = Bank(turn_steps=None, **{f"turn_{unit}": limit})
    turn = bank.turn()
    shares: list[float] = []
    while True:
        left = turn.left()
        shares.append(left.tokens if unit == "tokens" else left.money)
        try:
            await bank.spend(turn, used=7, reserved=10)
        except BudgetExhausted:
            break
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 2 or 0 in shares[:-1], shares  # The last one is followed by a refusal.


async def test_steps_are_left_until_one_remains() -> None:
    bank = Bank(turn_steps=5)
    turn = bank.turn()
    shares = []
    for _ in range(5):
        shares.append(turn.left().steps)
        await bank.spend(turn, used=1)
    assert shares == [1, 0.75, 0.5, 0.25, 0]


async def test_of_a_budget_that_is_shared_a_turn_has_what_was_left_when_it_began() -> None:
    async with Bank(user_tokens_per_day=1_000).open() as bank:
        await bank.spend(bank.turn(), used=900)
        await bank.budgets.write()
        turn = bank.turn()
        assert turn.left().tokens == 1
        for _ in range(4):
            await bank.spend(turn, used=10)
            await bank.budgets.write()
        assert turn.left().tokens == pytest.approx((100 - 2 * 10 - 40) / (100 - 2 * 10))


async def test_time_is_left_until_the_turns_deadline() -> None:
    turn = Bank().turn()
    async with within(turn._budgets.clock, 50, TimeoutError):  # type: ignore[arg-type]  # any error does
        assert turn.left().seconds == 0.5


async def test_a_call_that_was_made_when_the_turn_was_run_before_counts_for_the_turn_alone() -> None:
    async with Bank(turn_tokens=10, all_tokens_per_day=1_000).open() as bank:
        turn = bank.turn()
        turn.replayed(Usage(model_calls=1, input_tokens=4, output_tokens=4, cost_nanos=8))
        assert (turn.steps, turn.tokens, turn.nanos) == (1, 8, 8)
        await refusal_of(bank.spend(turn, used=3))
        assert await bank.left() == {"all tokens day": 1_000}


async def test_everybodys_budgets_are_listed_in_pages() -> None:
    async with Bank(user_tokens_per_day=10, user_usd_per_day=5, agent_tokens_per_month=50).open() as bank:
        for name in ("anna", "ben", "carla"):
            await bank.spend(bank.turn(Member("c0ffee-1", name, "agent")), used=2)
        await bank.budgets.write()
        seen: list[tuple[str, str, str, float]] = []
        after = None
        while True:
            page, after = await bank.budgets.everybodys(1, after)
            seen += [(one.scope, one.name, one.unit, one.spent) for one in page]
            if after is None:
                break
        users = [("user", name, unit, 2) for name in ("anna", "ben", "carla") for unit in ("tokens", "usd")]
        assert seen == [("agent", "agent", "tokens", 6), *users]


async def test_old_days_are_forgotten() -> None:
    async with Bank(user_tokens_per_day=10).open() as bank:
        bank.set(2026, 1, 30)
        await bank.spend(bank.turn(), used=2)
        await bank.budgets.write()
        bank.set(2026, 2, 28)
        await asyncio.sleep(20)
        assert len(bank.store._accounts) == 1
        bank.set(2026, 3, 1)
        await asyncio.sleep(20)
        assert bank.store._accounts == {}
