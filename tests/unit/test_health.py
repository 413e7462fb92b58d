"""How the process is: the worst of its components."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from holdfast.lifecycle import Check, Component, Health
from holdfast.lifecycle.health import State
from holdfast.testing import loop_clock


async def fine() -> str:
    await asyncio.sleep(0.5)
    return "all well"


async def broken() -> str:
    raise ConnectionError("no route")


async def slow() -> str:
    await asyncio.sleep(60)
    return "at last"


async def test_a_check_that_returns_is_healthy_with_its_note() -> None:
    report = await Health(loop_clock(), (Check("store", fine),)).report()
    assert report.state == "healthy"
    assert report.components == (Component(name="store", state="healthy", note="all well", latency_s=0.5),)


async def test_a_check_that_raises_is_told_with_what_it_raised() -> None:
    report = await Health(loop_clock(), (Check("store", broken),)).report()
    assert report.components == (
        Component(name="store", state="unhealthy", note="ConnectionError: no route", latency_s=0),
    )


async def test_a_check_that_takes_too_long_is_given_up() -> None:
    report = await Health(loop_clock(), (Check("store", slow, timeout_s=3),)).report()
    assert report.components == (
        Component(name="store", state="unhealthy", note="did not answer within 3 s", latency_s=3),
    )


async def test_a_timeout_of_the_checks_own_is_its_own() -> None:
    async def refused() -> str:
        raise TimeoutError("the socket")

    report = await Health(loop_clock(), (Check("store", refused),)).report()
    assert report.components[0].note == "TimeoutError: the socket"


async def test_a_check_that_cancels_itself_is_a_finding_and_spares_the_others() -> None:
    async def cancelled() -> str:
        raise asyncio.CancelledError

    report = await Health(loop_clock(), (Check("odd", cancelled), Check("store", fine))).report()
    assert [component.state for component in report.components] == ["unhealthy", "healthy"]


Ask = Callable[[], Awaitable[str]]


@pytest.mark.parametrize(
    ("checks", "worst"),
    [
        ([], "healthy"),
        ([(fine, "unhealthy")], "healthy"),
        ([(fine, "unhealthy"), (broken, "degraded")], "degraded"),
        ([(broken, "degraded"), (slow, "unhealthy"), (fine, "unhealthy")], "unhealthy"),
        ([(broken, "unhealthy"), (broken, "degraded")], "unhealthy"),
    ],
)
async def test_the_worst_component_decides(checks: list[tuple[Ask, State]], worst: State) -> None:
    health = Health(loop_clock(), tuple(Check(str(n), ask, on_failure=state) for n, (ask, state) in enumerate(checks)))
    assert (await health.report()).state == worst


async def test_checks_run_all_at_once_and_are_told_in_order() -> None:
    health = Health(loop_clock(), tuple(Check(str(n), ask) for n, ask in enumerate([slow, fine, slow, broken])))
    report = await health.report()
    assert asyncio.get_running_loop().time() == 2
    assert [component.name for component in report.components] == ["0", "1", "2", "3"]


async def test_whoever_asks_can_be_cancelled() -> None:
    health = Health(loop_clock(), (Check("store", slow, timeout_s=60),))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await health.report()
    assert asyncio.get_running_loop().time() == 1
