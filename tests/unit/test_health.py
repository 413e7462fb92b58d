"""How the process is: the latest results of its checks, and the worst of its components."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from holdfast.clock import NS
from holdfast.lifecycle import Check, Component, Finding, Health, HealthSpec
from holdfast.lifecycle.health import Record, State
from holdfast.testing import loop_clock
from holdfast.testing.virtual_loop import START_WALL_NS

Ask = Callable[[], Awaitable[str | Finding]]
STATES: dict[str, State] = {"h": "healthy", "d": "degraded", "u": "unhealthy"}


async def fine() -> str:
    await asyncio.sleep(0.5)
    return "all well"


async def broken() -> str:
    raise ConnectionError("no route")


async def slow() -> str:
    await asyncio.sleep(60)
    return "at last"


async def full() -> Finding:
    return Finding("degraded", "nearly full")


def health(*checks: Check) -> Health:
    return Health(HealthSpec(every_s=5, timeout_s=2), loop_clock(), checks)


def now() -> float:
    return asyncio.get_running_loop().time()


async def only(check: Check, at: float = 0) -> Component:
    """What is told of a component, so many seconds after its first result."""
    asked = health(check)
    async with asked.watched():
        await asyncio.sleep(at)
        (component,) = asked.report().components
        return component


async def test_a_check_that_returns_is_healthy_with_its_note() -> None:
    assert await only(Check("store", fine, needed=True), at=2) == Component(
        name="store",
        state="healthy",
        note="all well",
        latency_s=0.5,
        age_s=2,
        since_ns=START_WALL_NS + NS // 2,
        needed=True,
    )


@pytest.mark.parametrize(
    ("ask", "state", "note", "latency_s"),
    [
        (broken, "unhealthy", "ConnectionError: no route", 0),
        (slow, "unhealthy", "did not answer within 2 s", 2),
        (full, "degraded", "nearly full", 0),
    ],
)
async def test_what_a_check_finds_is_told_with_its_note(ask: Ask, state: State, note: str, latency_s: float) -> None:
    component = await only(Check("store", ask))
    assert (component.state, component.note, component.latency_s) == (state, note, latency_s)


async def test_each_check_has_its_own_timeout_and_its_own_interval() -> None:
    asked: list[tuple[str, float]] = []

    def counted(name: str) -> Ask:
        async def ask() -> str:
            asked.append((name, now()))
            return await slow() if name == "slow" else name

        return ask

    checks = health(
        Check("usual", counted("usual")),
        Check("often", counted("often"), every_s=2),
        Check("slow", counted("slow"), timeout_s=4, every_s=1),
    )
    async with checks.watched():
        assert now() == 4  # The first results are all there.
        await asyncio.sleep(7)
    assert [at for name, at in asked if name == "usual"] == [0, 5, 10]
    assert [at for name, at in asked if name == "often"] == [0, 2, 4, 6, 8, 10]
    assert [at for name, at in asked if name == "slow"] == [0, 5, 10]
    await asyncio.sleep(60)
    assert max(at for _, at in asked) == 10  # Nothing is asked after the block.


async def test_whoever_asks_for_a_report_sets_off_no_check() -> None:
    asked: list[float] = []

    async def ask() -> str:
        asked.append(now())
        return ""

    checks = health(Check("store", ask))
    for _ in range(3):
        (before,) = checks.report().components
        assert (before.state, before.note, before.age_s) == ("unhealthy", "not asked yet", None)
    async with checks.watched():
        for _ in range(100):
            checks.report()
        assert asked == [0]


async def test_a_check_that_hangs_and_will_not_be_cancelled_is_failed_and_not_asked_again() -> None:
    begun: list[float] = []
    let_go = asyncio.Event()

    async def stubborn() -> str:
        begun.append(now())
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "back"

    checks = health(Check("store", stubborn))
    async with checks.watched():
        await asyncio.sleep(30)
        (component,) = checks.report().components
        assert (component.state, component.note) == ("unhealthy", "did not answer within 2 s")
        assert len(begun) == 1
        assert component.age_s is not None
        assert component.age_s <= 7
        let_go.set()
        await asyncio.sleep(20)
        assert checks.report().state == "healthy"


async def test_a_check_that_is_added_later_is_asked_from_then_on() -> None:
    checks = health(Check("store", fine))
    async with checks.watched():
        checks.add(Check("own", broken, on_failure="degraded"))
        with pytest.raises(ValueError, match="there is a check own already"):
            checks.add(Check("own", fine))
        await asyncio.sleep(0.1)
        report = checks.report()
        assert [(one.name, one.state) for one in report.components] == [("store", "healthy"), ("own", "degraded")]
    checks.add(Check("late", fine))
    assert checks.report().components[2].note == "not asked yet"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3), TimeoutError("the socket")])
async def test_whatever_a_check_raises_is_its_finding_and_spares_the_others(error: BaseException) -> None:
    async def raises() -> str:
        raise error

    checks = health(Check("odd", raises), Check("store", fine))
    async with checks.watched():
        await asyncio.sleep(30)
        odd, store = checks.report().components
        assert (odd.state, odd.note) == ("unhealthy", f"{type(error).__name__}: {error}")
        assert store.state == "healthy"


@pytest.mark.parametrize(
    ("checks", "worst", "serves"),
    [
        ([], "healthy", True),
        ([(fine, "unhealthy", True)], "healthy", True),
        ([(fine, "unhealthy", True), (broken, "degraded", True)], "degraded", True),
        ([(broken, "degraded", False), (slow, "unhealthy", True), (fine, "unhealthy", True)], "unhealthy", False),
        ([(broken, "unhealthy", False), (broken, "degraded", True)], "unhealthy", True),
    ],
)
async def test_the_worst_component_decides(checks: list[tuple[Ask, State, bool]], worst: State, serves: bool) -> None:  # noqa: FBT001 - a column of the table above
    asked = health(*(Check(str(n), ask, state, needed) for n, (ask, state, needed) in enumerate(checks)))
    async with asked.watched():
        report = asked.report()
    assert (report.state, report.serves) == (worst, serves)


async def test_checks_run_all_at_once_and_are_told_in_order() -> None:
    asked = health(*(Check(str(n), ask) for n, ask in enumerate([slow, fine, slow, broken])))
    async with asked.watched():
        assert now() == 2
        assert [component.name for component in asked.report().components] == ["0", "1", "2", "3"]


async def test_whoever_waits_for_the_first_results_can_be_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), health(Check("store", slow)).watched():
            pass
    assert now() == 1


# What is made of the results


def played(results: str, on_failure: State = "unhealthy") -> list[str]:
    """The states after each result, one a second; a dot is a second without one."""
    record = Record(Check("store", fine, on_failure), 2.5, 0)
    states = []
    for second, result in enumerate(results):
        if result != ".":
            record.take(Finding(STATES[result], ""), 0, second * NS, second * NS)
        states.append(record.component(second * NS).state[0])
    return states


@pytest.mark.parametrize(
    ("results", "states"),
    [
        ("hhuh", "hhhh"),  # one bad result is an accident
        ("huu", "hhu"),  # two are not
        ("huhu", "hhhu"),  # nor are two of three
        ("uhh", "uuh"),  # the first one decides at once, and going back takes two as well
        ("uuuhuhh", "uuuuuhh"),
        ("hdu", "hhd"),  # two of three are not healthy, and one of them is worse
        ("udh", "uud"),
        ("ddu", "ddd"),
    ],
)
def test_a_component_changes_its_state_when_two_of_three_results_say_so(results: str, states: str) -> None:
    assert "".join(played(results)) == states


@pytest.mark.parametrize(
    ("on_failure", "results", "states"),
    [
        ("unhealthy", "h..", "hhh"),
        ("unhealthy", "h...h", "hhhuh"),  # the first result after a silence decides at once
        ("degraded", "h...u", "hhhdu"),
        ("degraded", "u...", "uuuu"),  # a silence is no recovery
        ("unhealthy", "hhu...h", "hhhhhuh"),
    ],
)
def test_a_result_that_is_too_old_counts_as_a_failure(on_failure: State, results: str, states: str) -> None:
    assert "".join(played(results, on_failure)) == states


def test_since_when_a_component_is_in_its_state() -> None:
    record = Record(Check("store", fine), 2.5, 0)
    since = []
    for second, result in enumerate("huuuh..."):
        if result != ".":
            record.take(Finding(STATES[result], f"note {second}"), 0.25, second * NS, second * NS)
        component = record.component(second * NS)
        since.append(component.since_ns // NS)
    assert since == [0, 0, 2, 2, 2, 2, 2, 2]
    assert (component.note, component.age_s, component.latency_s) == ("no result for 3 s", 3, 0.25)


def test_a_silence_is_told_from_when_it_began() -> None:
    record = Record(Check("store", fine), 2.5, 0)
    record.take(Finding("healthy", ""), 0, 7 * NS, 107 * NS)
    silent = record.component(10 * NS)
    assert (silent.state, silent.note, silent.since_ns) == ("unhealthy", "no result for 3 s", 107 * NS)
