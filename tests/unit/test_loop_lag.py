"""How late the loop is."""

import asyncio
from contextlib import suppress
from typing import cast

import pytest

from holdfast.telemetry import watch_loop
from holdfast.testing import VirtualLoop, loop_clock


async def test_a_loop_that_is_free_is_not_late() -> None:
    lags: list[float] = []
    with watch_loop(loop_clock(), lags.append):
        await asyncio.sleep(1.1)
    assert lags == pytest.approx([0, 0, 0, 0])


async def test_a_callback_that_takes_long_is_seen_and_nothing_after_it() -> None:
    """What is measured is how long everybody else had to wait."""
    lags: list[float] = []
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    with watch_loop(loop_clock(), lags.append):
        loop.call_later(0.2, loop.advance, 0.45)
        await asyncio.sleep(1.2)
    assert lags == pytest.approx([0.4, 0, 0])


async def test_nothing_is_left_after_the_block() -> None:
    lags: list[float] = []
    with suppress(LookupError), watch_loop(loop_clock(), lags.append):
        await asyncio.sleep(0.3)
        raise LookupError
    await asyncio.sleep(5)
    assert len(lags) == 1
