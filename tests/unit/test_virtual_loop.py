import asyncio

import pytest

from holdfast.clock import NS
from holdfast.testing import VirtualLoop, loop_clock


async def test_hours_pass_at_once_and_the_clock_follows() -> None:
    clock = loop_clock()
    before = clock.now()
    await asyncio.sleep(7_200)
    assert clock.now() - before == 7_200 * NS


async def test_a_timeout_fires_at_its_virtual_time() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.sleep(1_000_000)
    assert loop.time() == pytest.approx(60)


def test_a_deadlock_is_reported_and_not_waited_for() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(RuntimeError, match="deadlock"):
        runner.run(asyncio.Event().wait())
