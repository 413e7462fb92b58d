"""How late the loop is, and where it is held up."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from holdfast.clock import Clock
from holdfast.telemetry import Heartbeat
from holdfast.testing import VirtualLoop, loop_clock


def heartbeat(observe: Callable[[float], object]) -> Heartbeat:
    return Heartbeat(loop_clock(), observe, 3_600)


async def test_a_loop_that_is_free_is_not_late() -> None:
    lags: list[float] = []
    heart = heartbeat(lags.append)
    with heart.beating():
        await asyncio.sleep(1.1)
        assert heart.late_s == pytest.approx(0)
    assert lags == pytest.approx([0, 0, 0, 0])


async def test_a_callback_that_takes_long_is_seen_and_nothing_after_it() -> None:
    """What is measured is how long everybody else had to wait."""
    lags: list[float] = []
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    heart = heartbeat(lags.append)
    with heart.beating():
        loop.call_later(0.2, loop.advance, 0.45)
        await asyncio.sleep(1.2)
        assert heart.late_s == pytest.approx(0)
        assert heart.worst_s() == pytest.approx(0.4)
        assert heart.worst_s() == pytest.approx(0)
    assert lags == pytest.approx([0.4, 0, 0])


async def test_a_beat_that_is_overdue_counts_before_it_comes() -> None:
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    heart = heartbeat(lambda _: None)
    with heart.beating():
        loop.advance(2.25)
        assert heart.late_s == pytest.approx(2)
        await asyncio.sleep(0.1)
        assert heart.late_s == pytest.approx(2)
        await asyncio.sleep(0.25)
        assert heart.late_s == pytest.approx(0)


async def test_nothing_is_left_after_the_block() -> None:
    lags: list[float] = []
    heart = heartbeat(lags.append)
    with suppress(LookupError), heart.beating():
        await asyncio.sleep(0.3)
        raise LookupError
    await asyncio.sleep(5)
    assert len(lags) == 1
    assert (heart.late_s, heart.worst_s()) == (0, 0)
    assert "holdfast-loop" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.sockets
async def test_a_loop_that_is_held_up_is_told_once_with_where_and_without_values() -> None:
    told = threading.Event()

    def hold_up(secret: str) -> None:
        assert secret
        told.wait(20)
        threading.Event().wait(0.4)  # Long enough for the thread to look again.

    def notice(_logger: object, _method: str, line: EventDict) -> EventDict:
        told.set()
        return line

    lags: list[float] = []
    heart = Heartbeat(Clock(), lags.append, 0.5)
    with capture_logs() as lines, heart.beating():
        structlog.configure(processors=[notice, *structlog.get_config()["processors"]])
        for _ in range(2):
            told.clear()
            hold_up("hunter2")
            assert told.is_set()
            await asyncio.sleep(0.3)
    assert [(line["event"], line["log_level"], line["blocked_s"]) for line in lines] == [
        ("loop_blocked", "warning", 0.5)
    ] * 2
    where = lines[0]["where"].split(" < ")
    assert len(where) == 8
    assert where[0].endswith(" wait")
    assert [call.rpartition("/")[2].partition(":")[0] for call in where[2:4]] == ["test_loop_lag.py"] * 2
    assert where[2].endswith(" hold_up")
    assert "hunter2" not in str(lines)
    assert len([lag for lag in lags if lag >= 0.25]) == 2
