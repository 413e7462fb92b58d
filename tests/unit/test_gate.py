"""Gates: nothing before the moment a target named, one call then, and ever more after it."""

import asyncio
from typing import Any

import pytest

from holdfast.clock import NS, Clock
from holdfast.resilience.bucket import Bucket
from holdfast.resilience.gate import LONGEST_S, Gates
from holdfast.testing import loop_clock


class Post:
    """Gates, and what can be learned about them."""

    def __init__(self, resume_per_s: int = 4) -> None:
        self.clock: Clock = loop_clock()
        self.changed: list[tuple[Any, Bucket | None]] = []
        self.gates = Gates("calls by target", self.clock, resume_per_s, self._look_again)

    def _look_again(self, bucket: Bucket) -> None:
        self.changed.append((now(), bucket))

    def passes(self, key: str = "model") -> bool:
        """Whether a call may go now; if so, it does."""
        bucket = self.gates.bucket(key)
        return bucket is None or bucket.take(self.clock.now()) == 0

    async def passed(self, seconds: float, key: str = "model") -> list[float]:
        """When calls go that are tried every hundredth of a second, up to forty at a time, from now on."""
        begin, times = now(), []
        for tick in range(round(seconds * 100)):
            await asyncio.sleep(begin + tick / 100 - now())
            times += [round(now() - begin, 2)] * next((n for n in range(40) if not self.passes(key)), 40)
        return times


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_gate_that_was_never_shut_is_open_and_takes_no_memory() -> None:
    post = Post()
    assert post.passes()
    assert post.gates.bucket("model") is None
    assert not post.gates.closed("model", 0)
    assert len(post.gates) == 0


async def test_nobody_goes_before_the_named_moment_then_one_and_then_at_the_pace() -> None:
    post = Post()
    post.gates.shut("model", 3)
    times = await post.passed(4)
    assert times == [3, 3.25, 3.5, 3.75]
    assert post.passes("another"), "another key's gate is open"


async def test_the_pace_doubles_every_second_until_it_is_forgotten() -> None:
    post = Post()
    post.gates.shut("model", 1)
    times = await post.passed(6)
    each = [sum(second <= at < second + 1 for at in times) for second in range(6)]
    assert each == [0, 4, 8, 16, 32, 64]
    assert len(post.gates) == 1
    await asyncio.sleep(3.01)
    assert len(post.gates) == 0
    assert post.gates.bucket("model") is None


async def test_who_waits_is_looked_at_whenever_it_widens_and_a_last_time_when_all_may_go() -> None:
    post = Post()
    post.gates.shut("model", 1)
    bucket = post.gates.bucket("model")
    await asyncio.sleep(10)
    assert post.changed == [(pytest.approx(second), bucket) for second in range(2, 10)]
    assert bucket is not None
    assert bucket.free(post.clock.now()) >= 10**6, "a thousand who still wait for it all go"


async def test_it_is_closed_until_the_moment_and_not_after_it() -> None:
    post = Post()
    post.gates.shut("model", 2)
    assert post.gates.closed("model", 0)
    assert post.gates.closed("model", 2 * NS - 1)
    assert not post.gates.closed("model", 2 * NS)
    assert not post.gates.closed("another", 0)


@pytest.mark.parametrize(("first", "second"), [(5, 2), (2, 5)])
async def test_of_two_moments_the_later_one_counts(first: float, second: float) -> None:
    post = Post()
    post.gates.shut("model", first)
    post.gates.shut("model", second)
    assert post.gates.closed("model", 5 * NS - 1)
    assert not post.gates.closed("model", 5 * NS)
    assert (await post.passed(6))[:2] == [5, 5.25]


async def test_shut_again_while_it_opens_it_begins_anew() -> None:
    post = Post()
    post.gates.shut("model", 1)
    await asyncio.sleep(4.5)
    assert post.passes(), "it let through 32 a second by then"
    post.gates.shut("model", 2)
    times = await post.passed(5)
    each = [sum(second <= at < second + 1 for at in times) for second in range(5)]
    assert each == [0, 0, 4, 8, 16]


async def test_shut_again_while_it_is_shut_leaves_one_timer() -> None:
    post = Post()
    for _ in range(100):
        post.gates.shut("model", 3)
        await asyncio.sleep(0.001)
    times = await post.passed(6)
    assert [sum(second <= at < second + 1 for at in times) for second in range(6)] == [0, 0, 0, 4, 8, 16]
    await asyncio.sleep(10)
    assert len(post.changed) == 8


async def test_a_target_is_believed_for_ten_minutes_at_most() -> None:
    post = Post()
    post.gates.shut("model", 10**9)
    assert post.gates.closed("model", round(LONGEST_S * NS) - 1)
    await asyncio.sleep(LONGEST_S)
    assert not post.gates.closed("model", post.clock.now())
    assert post.passes()


async def test_a_target_that_asks_for_no_time_at_all_is_gone_back_to_slowly() -> None:
    post = Post()
    post.gates.shut("model", 0)
    assert await post.passed(1) == [0, 0.25, 0.5, 0.75]


async def test_another_pace_counts_for_gates_that_are_shut_from_then_on() -> None:
    post = Post()
    post.gates.resume_per_s = 10
    post.gates.shut("model", 1)
    assert len(await post.passed(2)) == 10


async def test_when_it_is_forgotten_no_timer_is_left() -> None:
    post = Post()
    loop = asyncio.get_running_loop()
    post.gates.shut("model", 1)
    post.gates.shut("another", 2)
    await asyncio.sleep(20)
    assert len(post.gates) == 0
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]  # the loop's own
