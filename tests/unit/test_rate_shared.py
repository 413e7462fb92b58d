"""Limits that several processes keep together: pipelines that are given the same share are so many processes."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from holdfast.errors import QueueFull, RateLimited
from holdfast.resilience import Bulkhead, Call, Deadline, Limit, Notice, Pipeline, Rate, per
from holdfast.resilience.rate_shared import SharedRateGuard
from holdfast.testing import loop_clock
from holdfast.testing.shares import BucketShare

ALL = Limit("calls", per.second(10, burst=4))
USER = Limit("calls", per.second(1, burst=2), key=per.user)


class Process:
    """One of the processes: a pipeline, who was served and when, and what it told."""

    def __init__(self, share: BucketShare, *limits: Limit, bulkhead: Bulkhead | None = None, **options: Any) -> None:
        self.notices: list[Notice] = []
        self.served: list[tuple[Any, str]] = []
        rate = Rate(*limits, share=share, **options)
        policies = (rate,) if bulkhead is None else (rate, bulkhead)
        self.pipeline = Pipeline("tools", *policies, clock=loop_clock(), sink=self.notices.append)
        assert isinstance(self.pipeline.rate, SharedRateGuard)
        self.guard: SharedRateGuard = self.pipeline.rate

    async def call(self, who: str = "", lasts_s: float = 0, **costs: int) -> None:
        """A call of ``who``: ``anna 1`` and ``anna 2`` are of the same user."""

        async def work() -> None:
            self.served.append((round(now(), 6), who))
            await asyncio.sleep(lasts_s)

        await self.pipeline.on(Call(user=who.partition(" ")[0], costs=costs))(work)

    async def find_out(self) -> None:
        for _ in range(3):
            await self.call(calls=0)
        self.served.clear()

    async def try_to_call(self, who: str = "", **costs: int) -> None:
        with suppress(RateLimited):
            await self.call(who, **costs)

    async def refused(self, who: str = "", **costs: int) -> tuple[str, Any]:
        """Why a call was refused, and when to come again."""
        with pytest.raises(RateLimited) as refused:
            await self.call(who, **costs)
        return refused.value.reason, refused.value.retry_after_s

    def told(self, name: str) -> list[dict[str, object]]:
        return [dict(notice.facts) for notice in self.notices if notice.name == name]

    @property
    def idle(self) -> bool:
        """Whether nobody stands anywhere, and the circuit around the share has its permits back."""
        guard = self.guard
        return not (guard._lines or guard._queue.lines or guard._circuit.inflight)


def now() -> float:
    return asyncio.get_running_loop().time()


async def let_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# Taking and waiting


async def test_processes_together_get_no_more_than_one_would() -> None:
    share = BucketShare(loop_clock(), 2)
    one, two = Process(share, ALL, max_wait_s=0), Process(share, ALL, max_wait_s=0)
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(one.try_to_call())
            group.create_task(two.try_to_call())
    assert len(one.served) + len(two.served) == 4
    await asyncio.sleep(0.1)
    await two.call()
    assert await one.refused() == ("wait", pytest.approx(0.1))


async def test_who_comes_first_is_served_first_at_the_rate_that_was_agreed() -> None:
    process = Process(BucketShare(loop_clock()), ALL)
    async with asyncio.TaskGroup() as group:
        for who in "abcdefgh":
            group.create_task(process.call(who))
    assert [who for _, who in process.served] == list("abcdefgh")
    assert [at for at, _ in process.served] == pytest.approx([0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4], abs=1e-5)
    assert process.idle


async def test_a_newcomer_does_not_overtake_who_waits_for_more_than_it_wants_itself() -> None:
    process = Process(BucketShare(loop_clock()), ALL)
    async with asyncio.TaskGroup() as group:
        group.create_task(process.call("first", calls=4))
        group.create_task(process.call("large", calls=3))
        await asyncio.sleep(0.15)
        group.create_task(process.call("small"))
    assert process.served == [(0, "first"), (0.3, "large"), (0.4, "small")]


async def test_an_answer_that_takes_time_is_no_wait_and_a_wait_is_told() -> None:
    share = BucketShare(loop_clock())
    share.latency_s = 0.01
    process = Process(share, ALL)
    for _ in range(4):
        await process.call()
    assert now() == pytest.approx(0.04)
    assert process.told("rate.waited") == []
    await process.call(calls=2)
    assert process.told("rate.waited") == [{"waited_s": pytest.approx(0.17, abs=0.02)}]


async def test_the_time_for_answers_loses_nothing_of_the_rate() -> None:
    share = BucketShare(loop_clock())
    share.latency_s = 0.05
    process = Process(share, ALL)
    async with asyncio.TaskGroup() as group:
        for _ in range(44):
            group.create_task(process.call())
    assert now() == pytest.approx(4, abs=0.11)


async def test_a_limit_of_many_units_in_the_time_of_one_answer_is_used_up_all_the_same() -> None:
    """Else a line, once there, would stay: there are 10 answers a second and 100 units, and 75 callers."""
    share = BucketShare(loop_clock())
    share.latency_s = 0.1
    limits = Limit("calls", per.second(100, burst=20)), Limit("calls", per.second(100, burst=20), key=per.user)
    for which in ((limits[0],), (limits[1],), limits):
        process, begin = Process(share, *which), now()
        async with asyncio.TaskGroup() as group:
            for n in range(300):
                group.create_task(process.call(f"anna {n}"))
                if n >= 150:
                    await asyncio.sleep(1 / 75)
        assert process.served[-1][0] - begin < 5, "2.8 would be all that there is, and 28 one at a time"
        assert process.idle
        await asyncio.sleep(1)


async def test_a_share_that_is_short_is_asked_about_twice_for_each_unit_however_many_wait() -> None:
    """Also after it had enough for a while, and many asked at once."""
    share = BucketShare(loop_clock())
    share.latency_s = 0.01
    process = Process(share, Limit("calls", per.second(10, burst=40)))
    async with asyncio.TaskGroup() as group:
        for _ in range(180):
            group.create_task(process.call())
        await asyncio.sleep(1)
        next(iter(share.buckets.values())).refund(40)
        await asyncio.sleep(4)
        asked, served = share.asked, len(process.served)
        assert served >= 40 + 10 + 40 + 35
        await asyncio.sleep(3)
        assert len(process.served) - served == 30
        assert share.asked - asked <= 2 * 30 + 2


async def test_limits_are_taken_together_or_not_at_all() -> None:
    share = BucketShare(loop_clock())
    process = Process(share, ALL, USER, max_wait_s=0)
    await process.call("anna")
    await process.call("anna")
    assert await process.refused("anna") == ("wait", pytest.approx(1))
    assert (share.free("/all/"), share.free("/anna")) == (2, 0)
    await process.call("bert")
    assert process.told("rate.refused")[0]["limit"] == "calls"
    assert [notice.key_class for notice in process.notices] == ["user"]


async def test_a_refusal_says_why_and_when_to_come_again() -> None:
    process = Process(BucketShare(loop_clock()), ALL, max_wait_s=0.65, max_queue=3)
    assert await process.refused(calls=5) == ("never", None)
    async with asyncio.TaskGroup() as group:
        for who, units in (("a", 4), ("b", 3), ("c", 2)):
            group.create_task(process.call(who, calls=units))
        await let_run()
        assert await process.refused("d", calls=2) == ("wait", pytest.approx(0.7))
        assert process.guard._share.asked == 4, "there is no need to ask"  # type: ignore[attr-defined]  # it is a BucketShare
        await asyncio.sleep(0.1)
        waiting = group.create_task(process.call("e"))
        await let_run()
        assert await process.refused("f") == ("full", pytest.approx(0.6))
        waiting.cancel()
    assert [who for _, who in process.served] == ["a", "b", "c"]
    assert process.idle


async def test_nobody_waits_where_the_queue_has_no_place() -> None:
    process = Process(BucketShare(loop_clock()), ALL, max_queue=0)
    await process.call(calls=4)
    assert (await process.refused())[0] == "full"
    assert process.idle


async def test_those_who_left_the_line_are_not_waited_for() -> None:
    process = Process(BucketShare(loop_clock()), ALL, max_wait_s=0.35)
    async with asyncio.TaskGroup() as group:
        for who, units in (("a", 4), ("b", 1)):
            group.create_task(process.call(who, calls=units))
        await let_run()
        leaving = group.create_task(process.call("c", calls=2))
        await let_run()
        leaving.cancel()
        await let_run()
        await process.call("d")
    assert [who for _, who in process.served] == ["a", "b", "d"]


async def test_what_the_head_of_a_line_was_told_goes_with_it() -> None:
    units, turns = Limit("units", per.second(10, burst=4)), Limit("turns", per.second(1, burst=5), key=per.user)
    process = Process(BucketShare(loop_clock()), units, turns, max_wait_s=6)
    await process.call("dora", units=4)
    await process.call("anna", units=0, turns=5)
    async with asyncio.TaskGroup() as group:
        group.create_task(process.call("carl", units=4))
        large = group.create_task(process.call("anna large", units=0, turns=5))
        await let_run()
        group.create_task(process.call("anna 1", turns=0))
        await let_run()
        large.cancel()
        await let_run()
        await process.call("anna 2", turns=0)
    assert now() == pytest.approx(0.6, abs=1e-5)


async def test_who_hoped_in_vain_is_told_so_when_the_time_is_up() -> None:
    """Another process takes what both wait for."""
    share = BucketShare(loop_clock(), 2)
    one, two = Process(share, ALL, max_wait_s=1), Process(share, ALL, max_wait_s=1)
    await two.call(calls=4)
    async with asyncio.TaskGroup() as group:
        hopeful = group.create_task(one.refused("large", calls=4))
        behind = group.create_task(one.refused("behind"))
        for _ in range(9):
            await asyncio.sleep(0.1)
            await two.call()
    assert hopeful.result() == ("wait", pytest.approx(0.3, abs=0.11))
    assert behind.result()[0] in ("timeout", "wait")
    assert now() <= 1.1
    assert one.idle


async def test_a_deadline_bounds_the_wait() -> None:
    share = BucketShare(loop_clock())
    pipeline = Pipeline("tools", Deadline(0.3), Rate(ALL, share=share), clock=loop_clock())

    async def work() -> None: ...

    await pipeline.on(Call(costs={"calls": 4}))(work)
    with pytest.raises(RateLimited):
        await pipeline.on(Call(costs={"calls": 4}))(work)
    assert now() == 0


# Lines


async def test_a_user_who_is_short_holds_up_nobody_else() -> None:
    process = Process(BucketShare(loop_clock()), ALL, USER)
    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(process.call(f"anna {n}"))
        await let_run()
        for n in range(4):
            group.create_task(process.call(f"bert {n}"))
        await asyncio.sleep(0.05)
        assert process.served == [(0, "anna 0"), (0, "anna 1"), (0, "bert 0"), (0, "bert 1")]
        group.create_task(process.call("carl"))
    assert [at for at, who in process.served if who == "carl"] == pytest.approx([0.1], abs=1e-5)
    assert [at for at, who in process.served if "anna" in who] == pytest.approx([0, 0, 1, 2, 3], abs=1e-5)
    assert process.idle


async def test_a_user_who_waits_for_a_lot_has_one_place_in_everybodys_line() -> None:
    """All are short of what they have in common: it goes round, and not to whoever asks for most."""
    generous = Limit("calls", per.second(10, burst=10), key=per.user)
    process = Process(BucketShare(loop_clock()), ALL, generous)
    async with asyncio.TaskGroup() as group:
        for who in ["anna"] * 24 + ["bert"] * 8:
            group.create_task(process.call(who))
    order = [who for _, who in process.served]
    assert Counter(order[4:20]) == {"anna": 8, "bert": 8}
    assert [at for at, _ in process.served][4:] == pytest.approx([0.1 * n for n in range(1, 29)], abs=1e-5)


async def test_whose_own_limit_is_free_again_does_not_overtake_those_who_wait_for_what_all_share() -> None:
    units, turns = Limit("units", per.second(10, burst=4)), Limit("turns", per.second(4, burst=1), key=per.user)
    process = Process(BucketShare(loop_clock()), units, turns)
    async with asyncio.TaskGroup() as group:
        group.create_task(process.call("dora", units=4))
        group.create_task(process.call("anna 1", units=0))
        group.create_task(process.call("anna 2"))
        group.create_task(process.call("carl", units=4))
    assert process.served[2:] == [(pytest.approx(0.4, abs=1e-5), "carl"), (pytest.approx(0.5, abs=1e-5), "anna 2")]


async def test_who_finds_their_own_limit_used_up_elsewhere_leaves_everybodys_line() -> None:
    share = BucketShare(loop_clock(), 2)
    process = Process(share, ALL, USER)
    async with asyncio.TaskGroup() as group:
        group.create_task(process.call("dora", calls=2))
        group.create_task(process.call("emil", calls=2))
        await let_run()
        group.create_task(process.call("anna"))
        await asyncio.sleep(0.05)
        [key] = [key for key in share.buckets if "anna" in key]
        share.buckets[key].charge(round(now() * 1e9), 2)
        await asyncio.sleep(0.1)
        await process.call("bert")
        assert now() == pytest.approx(0.15)
    assert process.served[-1] == (pytest.approx(1.05, abs=1e-3), "anna")


async def test_of_two_lines_one_stands_in_the_longer() -> None:
    user, tool = Limit("calls", per.second(1), key=per.user), Limit("calls", per.second(2, burst=1), key=per.tool)
    process = Process(BucketShare(loop_clock()), tool, user)
    async with asyncio.TaskGroup() as group:
        for who in ("anna", "anna", "bert", "anna"):
            group.create_task(process.pipeline.on(Call(user=who, tool="search"))(let_run))
            await let_run()
        assert [view.queued for view in process.guard.views(0)] == [1, 2]


async def test_who_stands_in_line_is_seen_by_operators() -> None:
    process = Process(BucketShare(loop_clock()), ALL, USER)
    async with asyncio.TaskGroup() as group:
        for who in ["anna"] * 5 + ["bert"] * 4 + ["carl"]:
            group.create_task(process.call(who))
        await let_run()
        common, user = process.guard.views(0)
        assert (common.queued, user.queued) == (1, 3 + 2 + 1), "carl waits at the head of his own line in everybody's"
        assert common.burst == 4
    assert [view.queued for view in process.guard.views(0)] == [0, 0]


# Giving back, and paying more


async def test_what_was_never_made_is_given_back() -> None:
    share = BucketShare(loop_clock())
    process = Process(share, ALL, bulkhead=Bulkhead(1, queue=0))
    async with asyncio.TaskGroup() as group:
        group.create_task(process.call(lasts_s=1))
        await let_run()
        with pytest.raises(QueueFull):
            await process.call()
        assert share.free("/all/") == 3


async def test_what_was_really_used_is_charged_or_given_back_by_the_names_of_the_limits() -> None:
    share = BucketShare(loop_clock())
    tokens = Limit("tokens by the thousand", per.minute(100))
    process = Process(share, ALL, tokens)
    async with process.pipeline.guard(Call(costs={"tokens by the thousand": 10})) as passage:
        passage.adjust(**{"tokens by the thousand": 20})
        passage.adjust(**{"tokens by the thousand": 30})
        assert (share.free("tools/calls"), share.free("thousand")) == (3, 70)
        with pytest.raises(ValueError, match="no limit is called token"):
            passage.adjust(token=1)
    async with process.pipeline.guard(Call(costs={"tokens by the thousand": 10})) as passage:
        passage.adjust(**{"tokens by the thousand": 4})
    assert (share.free("tools/calls"), share.free("thousand")) == (2, 66)


async def test_the_gate_is_this_processes_own_and_what_it_gave_comes_back() -> None:
    share = BucketShare(loop_clock())
    process = Process(share, ALL, max_wait_s=5)
    process.guard._gates.shut("", 3)
    await process.call(calls=4)
    assert process.served == [(3, "")]
    gate = process.guard._gates.bucket("")
    assert gate is not None
    await asyncio.sleep(0.1)
    free = gate.free(round(now() * 1e9))
    with pytest.raises(RateLimited):
        await process.call(calls=5)
    assert gate.free(round(now() * 1e9)) == free


async def test_a_gate_that_is_shut_holds_back_who_waits_in_line() -> None:
    share = BucketShare(loop_clock())
    process = Process(share, ALL)
    async with asyncio.TaskGroup() as group:
        for who in "abc":
            group.create_task(process.call(who, calls=2))
        await asyncio.sleep(0.1)
        process.guard._gates.shut("", 3)
    assert [at for at, _ in process.served] == [0, 0, pytest.approx(3.1, abs=1e-5)]


async def test_an_observed_limit_lets_everybody_through_and_tells_whom_it_would_not_have() -> None:
    process = Process(BucketShare(loop_clock()), ALL, mode="observe")
    for _ in range(6):
        await process.call()
    assert now() == 0
    assert [facts["observed"] for facts in process.told("rate.refused")] == [True, True]
    assert process.idle


def test_shared_limits_have_names_of_their_own() -> None:
    for_user, for_agent = (lambda call: call.user), (lambda call: call.agent)
    limits = Limit("calls", per.second(1), key=for_user), Limit("calls", per.second(2), key=for_agent)
    Rate(*limits)
    with pytest.raises(ValueError, match=r"rate\.limits"):
        Rate(*limits, share=BucketShare(None))  # type: ignore[arg-type]  # nobody reads its clock


# A share that does not answer


async def gone(share: BucketShare, *processes: Process) -> None:
    """The share goes away, and each process has found out: for the next 0.8 s at least it is not asked."""
    share.away = True
    async with asyncio.TaskGroup() as group:
        for process in processes:
            group.create_task(process.find_out())


async def test_while_the_share_is_away_each_process_has_its_part_and_no_call_fails_for_it() -> None:
    share = BucketShare(loop_clock(), 2)
    one, two = Process(share, ALL), Process(share, ALL)
    await gone(share, one, two)
    begin = now()
    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(one.call())
            group.create_task(two.call())
    for process in (one, two):
        assert [at for at, _ in process.served] == pytest.approx(
            [begin, begin, begin + 0.2, begin + 0.4, begin + 0.6, begin + 0.8], abs=1e-5
        )
        assert await process.refused(calls=5) == ("never", None)
        assert process.idle


async def test_the_first_calls_that_get_no_answer_are_served_from_the_part_too() -> None:
    share = BucketShare(loop_clock(), 2)
    share.away = True
    process = Process(share, ALL)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(process.call())
    assert process.served == [(share.timeout_s, "")] * 2


async def test_an_absence_is_told_once_and_so_is_its_end() -> None:
    share = BucketShare(loop_clock())
    process = Process(share, ALL)
    share.away = True
    while now() < 60:
        await process.call()
        await asyncio.sleep(0.1)
    assert process.told("share.moved") == [{"was": "closed", "state": "open", "reason": "consecutive"}]
    assert len(process.served) > 400
    assert share.asked <= 3 + 60 / 1.6, "it is left alone for a while after each vain attempt"
    share.away = False
    for _ in range(4):
        await asyncio.sleep(1)
        await process.call()
    assert process.told("share.moved")[1:] == [{"was": "half_open", "state": "closed", "reason": "probes_ok"}]
    asked = share.asked
    await process.call()
    assert share.asked == asked + 1


async def test_one_answer_that_did_not_come_is_no_absence() -> None:
    share = BucketShare(loop_clock())
    process = Process(share, ALL)
    share.away = True
    await process.call()
    share.away = False
    await process.call()
    assert process.told("share.moved") == []
    assert share.free("/all/") == 2, "and the share hears of what was taken without it"


async def test_a_share_that_is_back_is_charged_for_what_it_could_not_be_asked_for() -> None:
    share = BucketShare(loop_clock(), 2)
    process = Process(share, ALL, USER, max_wait_s=0)
    await process.call("anna")
    share.away = True
    await process.call("bert")
    await process.call("carl")
    share.away = False
    await process.try_to_call("anna")
    assert share.free("/bert") == share.free("/carl") == 1
    part = [bucket.free(round(now() * 1e9)) for _, bucket in process.guard._kept[0].table.entries()]
    assert part == [2], "the next absence finds the part as it was"


async def test_what_the_part_had_got_back_by_then_is_its_own_and_not_charged() -> None:
    """After a minute of five calls a second, the share is charged for the part's two, and those of the last break."""
    share = BucketShare(loop_clock(), 2)
    process = Process(share, ALL)
    await gone(share, process)
    while now() < 60:
        await process.call()
    vain = share.asked
    while share.asked == vain:
        await process.call()
    known_away = len(process.served)
    share.away = False
    while share.asked == vain + 1:
        await process.call()
    # The last call was served by the share; those before it, since it was asked in vain, by the part.
    charged = len(process.served) - 1 - known_away
    assert charged >= 5
    assert 4 - 1 - charged - 2 - 1 <= share.free("/all/") <= 4 - 1 - charged


async def test_a_call_that_costs_more_than_the_part_holds_is_served_when_that_is_full_and_owes_the_rest() -> None:
    share = BucketShare(loop_clock(), 2)
    process = Process(share, ALL)
    await gone(share, process)
    begin = now()
    await process.call("large", calls=4)
    await process.call("small")
    assert process.served[0] == (begin, "large")
    assert process.served[1][0] == pytest.approx(begin + 0.6, abs=1e-5), "5 a second: 2 that were owed, and 1"


async def test_the_part_follows_the_number_of_processes() -> None:
    share = BucketShare(loop_clock(), 2)
    process = Process(share, ALL, max_wait_s=0)
    await gone(share, process)
    await process.call(calls=2)
    share.replicas = 4
    assert await process.refused() == ("wait", pytest.approx(0.4))


async def test_what_came_from_the_part_goes_back_to_it() -> None:
    share = BucketShare(loop_clock(), 2)
    process = Process(share, ALL, bulkhead=Bulkhead(1, queue=0))
    await gone(share, process)

    def left() -> int:
        return next(bucket.free(round(now() * 1e9)) for _, bucket in process.guard._kept[0].table.entries())

    async with process.pipeline.guard() as passage:
        assert left() == 1
        with pytest.raises(QueueFull):
            await process.call()
        assert left() == 1
        passage.adjust(calls=3)
        assert left() == -1
        passage.adjust(calls=2)
        assert left() == 0
    share.away = False
    await asyncio.sleep(2)
    await process.call()
    assert share.free("/all/") == 4 - 2 - 1, "and of what was really used the share hears"


async def test_what_is_used_when_the_share_is_back_is_settled_there() -> None:
    share = BucketShare(loop_clock(), 2)
    process = Process(share, ALL)
    await gone(share, process)
    async with process.pipeline.guard(Call(costs={"calls": 2})) as passage:
        share.away = False
        await asyncio.sleep(1.2)
        await process.call()
        assert share.free("/all/") == 4 - 2 - 1
        passage.adjust(calls=3)
        assert share.free("/all/") == 4 - 3 - 1
        passage.adjust(calls=1)
        assert share.free("/all/") == 4 - 1 - 1


async def test_however_many_users_there_were_each_is_charged_for() -> None:
    share = BucketShare(loop_clock())
    process = Process(share, Limit("calls", per.minute(10), key=per.user))
    await gone(share, process)
    for n in range(250):
        await process.call(f"user-{n:03}")
    share.away = False
    await asyncio.sleep(1.2)
    await process.call()
    assert [share.free(f"user-{n:03}") for n in (0, 1, 248, 249)] == [9] * 4
    assert len(share.buckets) == 251


# Cancellation


async def test_a_caller_who_is_cancelled_while_a_share_hangs_leaves_at_once_and_the_units_come_back() -> None:
    share = BucketShare(loop_clock())
    share.latency_s = 0.2
    process = Process(share, ALL)
    for early_s in (0.05, 0.15):  # Before the units are taken, and after.
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(process.call())
            await asyncio.sleep(early_s)
            left = now()
            caller.cancel()
            await asyncio.wait([caller])
            assert now() == left
            assert process.idle
        await asyncio.sleep(0.2)
        assert share.free("/all/") == 4
    assert process.served == []


async def test_a_share_is_not_away_because_callers_do_not_wait_for_its_answer() -> None:
    share = BucketShare(loop_clock())
    share.latency_s = 0.2
    process = Process(share, ALL)
    for _ in range(12):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await process.call()
    await process.call()
    assert share.asked == 13
    assert process.told("share.moved") == []


async def test_a_caller_who_is_cancelled_in_line_leaves_no_gap() -> None:
    process = Process(BucketShare(loop_clock()), ALL)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(process.call(who)) for who in "abcdefgh"]
        await asyncio.sleep(0.15)
        callers[5].cancel()
        callers[6].cancel()
    assert process.served[4:] == [(pytest.approx(0.1, abs=1e-5), "e"), (pytest.approx(0.2, abs=1e-5), "h")]
    assert process.idle
