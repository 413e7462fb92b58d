"""
What every coord does: the suite a coord passes before it is used.

    async def test_my_coord_is_a_coord() -> None:
        await check_coord(make)   # `async with make() as (one, other)` gives two opened coords, as of two processes

Both share one state, in which there is nothing at first, and nobody else is there. Each check in ``COORD_CHECKS`` can
also be run alone, on two coords of its own. Where the time is real, one check takes a tenth of a second or so.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from holdfast.clock import NS
from holdfast.coord import NEVER, Coord, CoordUnavailable, Need, Refusal, Transition

Pair = tuple[Coord, Coord]
MakeCoords = Callable[[], AbstractAsyncContextManager[Pair]]
"""Gives two opened coords that share a state with nothing in it, and closes them."""

HOUR_NS = 3_600 * NS
MS_NS = NS // 1_000

PATIENCE_S = 10.0
"""Seconds to wait for what must come; more than any coord needs."""

TOLD_S = 0.2
"""Seconds in which what should not come would have come."""

HALF_A_PAIR = "half a pair: \ud83d"
ODD_TEXTS = (
    "",
    "\0",
    "a\0b",
    "naïve 日本語 🜁",
    "{tag}",
    "a b:c/d",
    "'; DROP TABLE limits; --",
    HALF_A_PAIR,
    "x" * 9_000,
)


async def check_coord(make: MakeCoords) -> None:
    """
    Run every check, each on two coords of its own.

    Raises:
        AssertionError: the coord does something else than the others do; the text says what.
    """
    for check in COORD_CHECKS:
        async with make() as (one, other):
            await check(one, other)


def _slow(key: str, burst: int, cost: int = 1) -> Need:
    """Units that come once an hour, so that none comes while a check runs."""
    return Need(key, 1, HOUR_NS, burst, cost)


def _expect(claim: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{claim}: wanted {wanted!r}, got {got!r}")


async def _free(coord: Coord, need: Need) -> int:
    """Units that can be taken one by one; none of them is left."""
    for units in range(need.burst + 1):
        if await coord.take([need._replace(cost=1)]) is not None:
            return units
    raise AssertionError(f"{need.key}: more than the burst of {need.burst} could be taken")


async def _refused(coord: Coord, needs: Sequence[Need]) -> Refusal:
    refusal = await coord.take(needs)
    if refusal is None:
        raise AssertionError(f"wanted a refusal of {needs}, but all was taken")
    return refusal


def _expect_wait(claim: str, wait_ns: int, low_ns: int, high_ns: int) -> None:
    if not low_ns < wait_ns <= high_ns:
        raise AssertionError(f"{claim}: wanted a wait above {low_ns} ns and up to {high_ns} ns, got {wait_ns}")


async def _until(claim: str, done: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(round(PATIENCE_S / 0.01)):
        if await done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{claim}: not within {PATIENCE_S:g} s")


async def a_burst_is_shared_and_then_waited_for(one: Coord, other: Coord) -> None:
    """What one takes, the other has no longer."""
    _expect("taking nothing", await one.take([]), None)
    _expect("taking 3 of 5", await one.take([_slow("a", 5, 3)]), None)
    refusal = await _refused(other, [_slow("a", 5, 4)])
    _expect("the one need refused", refusal.at, 0)
    _expect_wait("2 units are missing", refusal.wait_ns, 2 * HOUR_NS - 60 * NS, 2 * HOUR_NS)
    _expect("a refusal takes nothing", await _free(other, _slow("a", 5)), 2)
    _expect("a cost of 0 fits into an empty limit", await one.take([_slow("a", 5, 0)]), None)
    _expect("another key is another limit", await _free(one, _slow("b", 5)), 5)


async def a_wait_is_exact(one: Coord, other: Coord) -> None:
    """When it is over, what was asked for is there."""
    need = Need("a", 40, NS, 3, 3)
    for coord in (one, other, one):
        refusal = await coord.take([need])
        while refusal is None:
            refusal = await other.take([need])
        _expect_wait("the wait for three units", refusal.wait_ns, 0, 75 * MS_NS)
        await asyncio.sleep(refusal.wait_ns / NS + 1e-6)
        _expect("three units after the wait", await coord.take([need]), None)


async def several_limits_are_taken_together_or_not_at_all(one: Coord, other: Coord) -> None:
    """And the refusal tells the one that takes longest."""
    _expect("three that fit", await one.take([_slow("a", 3, 1), _slow("b", 5, 2), _slow("c", 9, 3)]), None)
    refusal = await _refused(other, [_slow("a", 3, 3), _slow("b", 5, 2), _slow("c", 9, 9)])
    _expect("the need that takes longest", refusal.at, 2)
    _expect_wait("its wait", refusal.wait_ns, 3 * HOUR_NS - 60 * NS, 3 * HOUR_NS)
    _expect("the same in another order", (await _refused(one, [_slow("c", 9, 9), _slow("a", 3, 3)])).at, 0)
    for need, left in ((_slow("a", 3), 2), (_slow("b", 5), 3), (_slow("c", 9), 6)):
        _expect(f"units of {need.key} after refusals", await _free(one, need), left)


async def more_than_the_burst_never_fits(one: Coord, other: Coord) -> None:
    """And nothing is taken of what would fit."""
    refusal = await one.take([_slow("a", 5), _slow("b", 5, 6)])
    _expect("a cost above the burst", refusal, Refusal(1, NEVER))
    _expect("units of the other limit", await _free(other, _slow("a", 5)), 5)


async def two_needs_of_one_limit_are_one(one: Coord, other: Coord) -> None:
    """Each would fit where both do not."""
    _expect("2 and 2 of 5", await one.take([_slow("a", 5, 2), _slow("b", 5), _slow("a", 5, 2)]), None)
    _expect("1 and 1 of the last", (await _refused(other, [_slow("b", 5), _slow("a", 5), _slow("a", 5)])).at, 1)
    _expect("3 and 3 of 5", await one.take([_slow("b", 5), _slow("a", 5, 3), _slow("a", 5, 3)]), Refusal(1, NEVER))
    _expect("units left", (await _free(one, _slow("a", 5)), await _free(one, _slow("b", 5))), (1, 4))


async def numbers_out_of_range_are_refused(one: Coord, other: Coord) -> None:
    """A mistake of the program's, of which nothing is done."""
    fine = _slow("a", 5)
    wrong = [fine._replace(cost=-1), fine._replace(num=0), fine._replace(den_ns=0), fine._replace(burst=0)]
    wrong.append(fine._replace(num=2**42 + 1))
    for needs in (*([need] for need in wrong), [fine, fine._replace(burst=6)]):
        for call in (one.take, one.refund, one.charge):
            try:
                await call(needs)
            except ValueError:
                continue
            raise AssertionError(f"wanted a ValueError for {needs}")
    _expect("units left", await _free(other, fine), 5)


async def a_refund_gives_back_up_to_the_burst(one: Coord, other: Coord) -> None:
    """Never more, and nothing where nothing was taken."""
    await one.refund([])
    await one.refund([_slow("a", 5, 3)])
    _expect("taking all after a refund of nothing", await one.take([_slow("a", 5, 5), _slow("b", 5, 4)]), None)
    await other.refund([_slow("a", 5, 2), _slow("b", 5, 1), _slow("b", 5, 1)])
    _expect("units after a refund", await _free(one, _slow("a", 5)), 2)
    _expect("units of the other", await _free(one, _slow("b", 5)), 3)
    await other.refund([_slow("a", 5, 100)])
    _expect("units after a refund of more than was taken", await _free(one, _slow("a", 5)), 5)


async def a_charge_may_go_into_debt(one: Coord, other: Coord) -> None:
    """What is missing is waited for, and a refund pays it back."""
    await one.charge([])
    await one.charge([_slow("a", 5, 7), _slow("b", 5, 1)])
    refusal = await _refused(other, [_slow("a", 5)])
    _expect_wait("2 units of debt and 1 to take", refusal.wait_ns, 3 * HOUR_NS - 60 * NS, 3 * HOUR_NS)
    await other.refund([_slow("a", 5, 3)])
    _expect("units after a refund", await _free(one, _slow("a", 5)), 1)
    _expect("units of the other", await _free(other, _slow("b", 5)), 4)


async def a_gate_lets_one_in_when_it_opens_and_the_rest_at_the_rate(one: Coord, other: Coord) -> None:
    """However much the limit held, and whatever is refunded meanwhile."""
    need = _slow("a", 8)
    await one.gate(need, 250 * MS_NS)
    await other.gate(need, 20 * MS_NS)
    await other.refund([need._replace(cost=8)])
    refusal = await _refused(other, [need])
    _expect_wait("the wait for the gate", refusal.wait_ns, 0, 250 * MS_NS)
    low_ns = 2 * HOUR_NS
    _expect_wait("the wait for 3", (await _refused(one, [need._replace(cost=3)])).wait_ns, low_ns, low_ns + 250 * MS_NS)
    await asyncio.sleep(refusal.wait_ns / NS + 1e-6)
    _expect("the first when it opens", await one.take([need]), None)
    _expect_wait("the wait for the second", (await _refused(other, [need])).wait_ns, HOUR_NS - 60 * NS, HOUR_NS)
    await one.refund([need])
    _expect("units after the first was not used", await _free(other, need), 1)
    await one.gate(_slow("b", 5), 0)
    _expect("a gate that opens at once leaves one", await _free(other, _slow("b", 5)), 1)
    await one.gate(_slow("c", 5), HOUR_NS)
    await other.gate(_slow("c", 5), 1)
    await other.refund([_slow("c", 5, 5)])
    _expect_wait("a gate of an hour", (await _refused(other, [_slow("c", 5)])).wait_ns, HOUR_NS - 60 * NS, HOUR_NS)


async def a_limit_with_another_rate_is_full_when_it_would_have_been(one: Coord, other: Coord) -> None:
    """So two versions of the settings can be in force for a while."""
    _expect("taking all", await one.take([Need("a", 1, HOUR_NS, 2, 2)]), None)
    refusal = await _refused(other, [Need("a", 3, HOUR_NS, 6, 1)])
    _expect_wait("the wait at three times the rate", refusal.wait_ns, HOUR_NS // 3 - 60 * NS, HOUR_NS // 3)
    await other.charge([Need("a", 7, HOUR_NS, 14, 1)])
    refusal = await _refused(one, [Need("a", 1, HOUR_NS, 2, 1)])
    high_ns = HOUR_NS + HOUR_NS // 7 + MS_NS
    _expect_wait("the wait at the first rate again", refusal.wait_ns, high_ns - 60 * NS, high_ns)


async def any_text_names_a_limit_of_its_own(one: Coord, other: Coord) -> None:
    """NUL, braces and half a surrogate pair are text like any other."""
    for text in ODD_TEXTS:
        _expect(f"a unit of {text[:20]!r}", await one.take([_slow(text, 2)]), None)
        probe = await one.probe(text, 1, HOUR_NS)
        _expect(f"a place at {text[:20]!r}", probe is not None, wanted=True)
        _expect(f"a second place at {text[:20]!r}", await other.probe(text, 1, HOUR_NS), None)
    for text in ODD_TEXTS:
        _expect(f"units left of {text[:20]!r}", await _free(other, _slow(text, 2)), 1)


async def many_at_once_are_admitted_as_often_as_units_there_are(one: Coord, other: Coord) -> None:
    """Also where they ask for the same limits in another order."""
    admitted = 0

    async def ask(coord: Coord, keys: str) -> None:
        nonlocal admitted
        for _ in range(5):
            refusal = await coord.take([_slow(key, 30) for key in keys])
            admitted += refusal is None

    async with asyncio.TaskGroup() as group:
        for coord in (one, other):
            for keys in ("abc", "cba", "bac"):
                group.create_task(ask(coord, keys))
                group.create_task(ask(coord, keys))
    _expect("admitted of 60", admitted, 30)
    _expect("units left", [await _free(one, _slow(key, 30)) for key in "abc"], [0, 0, 0])


async def a_caller_that_is_cancelled_harms_nobody(one: Coord, other: Coord) -> None:
    """Those beside it and after it are answered, each its own question."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one.take([_slow(str(number), 5, 2)])) for number in range(12)]
        await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
    for number in range(12):
        units = await _free(one if number % 3 else other, _slow(str(number), 5))
        _expect(f"units left of {number}: all or nothing", units in ((3,) if number % 2 else (3, 5)), wanted=True)


async def places_to_probe_are_counted_among_all(one: Coord, other: Coord) -> None:
    """Until they are released."""
    first = await one.probe("a", 2, HOUR_NS)
    second = await other.probe("a", 2, HOUR_NS)
    if first is None or second is None or first == second:
        raise AssertionError(f"wanted two places, got {first!r} and {second!r}")
    _expect("a third place of two", [await coord.probe("a", 2, HOUR_NS) for coord in (one, other)], [None, None])
    _expect("a place at another target", await one.probe("b", 1, HOUR_NS) is None, wanted=False)
    await one.release("b", first)
    await one.release("a", "nobody's")
    _expect("a place after releases that concern others", await one.probe("a", 2, HOUR_NS), None)
    await other.release("a", first)
    await other.release("a", first)
    _expect("the place that was released", await one.probe("a", 2, HOUR_NS) is None, wanted=False)
    _expect("and no other", await one.probe("a", 2, HOUR_NS), None)


async def as_many_places_are_taken_at_once_as_there_are(one: Coord, other: Coord) -> None:
    """Whoever asks."""
    for name in "abcdefgh":
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(coord.probe(name, 3, HOUR_NS)) for coord in (one, other) * 8]
        _expect("places of 3 that 16 got", len({task.result() for task in asked} - {None}), 3)


async def a_place_to_probe_comes_free_when_its_lease_ends(one: Coord, other: Coord) -> None:
    """Whoever had it may release it late, and takes it from nobody."""
    kept = await other.probe("a", 2, HOUR_NS)
    lost = await one.probe("a", 2, 30 * MS_NS)
    if kept is None or lost is None:
        raise AssertionError("wanted two places")
    found: list[str] = []

    async def again() -> bool:
        if probe := await other.probe("a", 2, HOUR_NS):
            found.append(probe)
        return bool(found)

    await _until("a place whose lease has ended", again)
    await one.release("a", lost)
    _expect("a place after a late release", await one.probe("a", 2, HOUR_NS), None)
    await other.release("a", found[0])
    _expect("a place after its release", await one.probe("a", 2, HOUR_NS) is None, wanted=False)


async def the_others_hear_of_moves_in_order(one: Coord, other: Coord) -> None:
    """All who subscribed do, and who told it does not."""
    heard: dict[str, list[Transition]] = {"one": [], "other": [], "late": []}
    done = asyncio.Event()

    def hear(moved: Transition) -> None:
        heard["other"].append(moved)
        if moved.name == "last":
            done.set()

    one.subscribe(heard["one"].append)
    other.subscribe(hear)
    other.subscribe(heard["late"].append)
    told = [Transition(text, "forced_open", None, text, "first") for text in ODD_TEXTS]
    told += [Transition(str(number), "closed", None, "probes", "first") for number in range(20)]
    told += [Transition("last", "open", HOUR_NS, "failures", "first")]
    for moved in told:
        await one.publish(moved)
    async with asyncio.timeout(PATIENCE_S):
        await done.wait()
    left = heard["other"][-1].left_ns
    if left is None or not HOUR_NS - 60 * NS < left <= HOUR_NS:
        raise AssertionError(f"what is left of a break: wanted about an hour, got {left}")
    untimed = [moved._replace(left_ns=None) for moved in heard["other"]]
    _expect("what the other heard", untimed, [moved._replace(left_ns=None) for moved in told])
    _expect("what a second listener heard", heard["late"], heard["other"])
    await other.publish(Transition("back", "open", 1, "failures", "second"))

    async def is_back() -> bool:
        return bool(heard["one"])

    await _until("hearing of the other's move", is_back)
    _expect("what is left is never less than nothing", (heard["one"][0].left_ns or 0) >= 0, wanted=True)
    await asyncio.sleep(TOLD_S)
    _expect("all that the first one heard", [moved.name for moved in heard["one"]], ["back"])


async def processes_are_counted_while_they_are_there(one: Coord, other: Coord) -> None:
    """One that has closed no longer is."""
    _expect("processes", (await one.replicas(), await other.replicas()), (2, 2))
    await other.close()
    _expect("processes after one has closed", await one.replicas(), 1)


async def what_is_closed_says_so(one: Coord, other: Coord) -> None:
    """To close twice is fine, and what was taken stays taken."""
    _expect("taking all", await one.take([_slow("a", 2, 2)]), None)
    await one.open()
    await one.close()
    await one.close()
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: one.take([_slow("a", 2)]),
        lambda: one.refund([_slow("a", 2)]),
        lambda: one.charge([_slow("a", 2)]),
        lambda: one.gate(_slow("a", 2), 1),
        lambda: one.probe("a", 1, 1),
        lambda: one.release("a", "probe"),
        lambda: one.publish(Transition("a", "open", 1, "why", "one")),
        one.replicas,
    )
    for number, call in enumerate(calls):
        try:
            await call()
        except CoordUnavailable:
            continue
        raise AssertionError(f"wanted CoordUnavailable from call {number} of a closed coord")
    _expect_wait("the wait for a unit", (await _refused(other, [_slow("a", 2)])).wait_ns, HOUR_NS - 60 * NS, HOUR_NS)


Check = Callable[[Coord, Coord], Awaitable[None]]

COORD_CHECKS: tuple[Check, ...] = (
    a_burst_is_shared_and_then_waited_for,
    a_wait_is_exact,
    several_limits_are_taken_together_or_not_at_all,
    more_than_the_burst_never_fits,
    two_needs_of_one_limit_are_one,
    numbers_out_of_range_are_refused,
    a_refund_gives_back_up_to_the_burst,
    a_charge_may_go_into_debt,
    a_gate_lets_one_in_when_it_opens_and_the_rest_at_the_rate,
    a_limit_with_another_rate_is_full_when_it_would_have_been,
    any_text_names_a_limit_of_its_own,
    many_at_once_are_admitted_as_often_as_units_there_are,
    a_caller_that_is_cancelled_harms_nobody,
    places_to_probe_are_counted_among_all,
    as_many_places_are_taken_at_once_as_there_are,
    a_place_to_probe_comes_free_when_its_lease_ends,
    the_others_hear_of_moves_in_order,
    processes_are_counted_while_they_are_there,
    what_is_closed_says_so,
)
"""Every check, each of which takes two opened coords that share a state with nothing in it."""
