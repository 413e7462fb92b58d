"""Latency: what can be written, what is drawn, and that a seed repeats it."""

from __future__ import annotations

import random
from statistics import median, quantiles
from typing import TYPE_CHECKING

import pytest

from holdfast.sim import Latency

if TYPE_CHECKING:
    from tests.sim.conftest import Session


def drawn(text: object, count: int = 4_000) -> list[float]:
    rng = random.Random(1)
    return [Latency.parse(text).draw(rng) for _ in range(count)]


@pytest.mark.parametrize("text", [0.3, "0.3", " .3 "])
def test_a_number_is_always_that_long(text: object) -> None:
    assert set(drawn(text, 5)) == {0.3}


def test_a_range_is_even_between_its_ends() -> None:
    times = drawn("0.1..0.5")
    assert 0.1 <= min(times) < 0.11
    assert 0.49 < max(times) <= 0.5
    assert median(times) == pytest.approx(0.3, rel=0.05)


def test_percentiles_are_met() -> None:
    times = drawn("p50=0.3 p95=1.2")
    assert median(times) == pytest.approx(0.3, rel=0.05)
    assert quantiles(times, n=20)[-1] == pytest.approx(1.2, rel=0.1)


@pytest.mark.parametrize(
    "text", ["", "soon", -1, "0.5..0.1", "p50=0 p95=1", "p50=2 p95=1", True, None, "nan", "1..2..3"]
)
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="a latency is seconds"):
        Latency.parse(text)


@pytest.mark.parametrize("text", ["0.3", "0.1..0.5", "p50=0.3 p95=1.2", "1e-05"])
def test_it_is_written_as_it_is_read(text: str) -> None:
    assert Latency.parse(str(Latency.parse(text))) == Latency.parse(text)


@pytest.mark.sockets
async def test_a_rule_beats_the_option_and_the_option_beats_the_script(chat: Session) -> None:
    script = {"first_token": 30, "rules": [{"say": "x", "times": 1, "first_token": 0.02}, {"say": "x"}]}
    async with chat(script, first_token=0.01) as (sim, client):
        await client.ask()
        await client.ask()
    slow, fast = (record.duration_s or 0 for record in sim.requests)
    assert slow >= 0.02
    assert 0.01 <= fast < 5


@pytest.mark.sockets
async def test_every_token_takes_its_time(session: Session) -> None:
    async with session([{"say": "x" * 44}], per_token=0.002) as (sim, client):
        await client.ask()
    assert (sim.requests[0].duration_s or 0) >= 0.02
