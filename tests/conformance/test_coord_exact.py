"""The limits of every coord are the exact token bucket, told the time by the test."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.clock import NS, Clock
from holdfast.coord import NEVER, Coord, Local, Need, open_coord
from holdfast.coord import redis as on_redis

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer, RedisServer
else:
    from servers import PostgresServer, RedisServer  # pytest puts a test's folder on the path, and mypy the project's

START = 1_767_225_600_000_000
KINDS = ("local", "redis", "postgres")


class Driven(NamedTuple):
    """A coord whose clock says what it is told, in ticks."""

    coord: Coord
    tick_ns: int
    runner: asyncio.Runner
    tell: Callable[[int], Awaitable[object]]


@contextmanager
def local() -> Iterator[Driven]:
    told = [START]

    async def tell(now: int) -> None:
        told[0] = now

    with asyncio.Runner() as runner:
        yield Driven(Local(Clock(lambda: told[0])), 1, runner, tell)


@contextmanager
def through_redis(server: RedisServer) -> Iterator[Driven]:
    script = on_redis._SCRIPTS["spend"].text
    # The server forgets a key by its own clock, which is not the one that is told: so it is given more time.
    for ours, theirs in (
        ("redis.call('TIME')", "{ 0, redis.call('GET', 'told') }"),
        ("'PX', math", "'PX', 3600000 + math"),
    ):
        assert script.count(ours) == 1
        script = script.replace(ours, theirs)
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setitem(on_redis._SCRIPTS, "spend", on_redis._Script(script))
        coord = open_coord(server.url, Clock(), namespace="exact", timeout_s=5)
        assert isinstance(coord, on_redis.Redis)
        client = coord._client
        yield Driven(coord, 1_000, runner, lambda now: client.set("told", now))


@contextmanager
def through_postgres(server: PostgresServer) -> Iterator[Driven]:
    import asyncpg  # type: ignore[import-untyped]  # it has no annotations

    url = server.url.replace("/postgres", "/exact")
    with asyncio.Runner() as runner:

        async def prepare() -> Any:
            admin = await asyncpg.connect(server.url)
            await admin.execute("CREATE DATABASE exact")
            await admin.close()
            coord = open_coord(url, Clock())
            await coord.open()
            await coord.close()
            teller = await asyncpg.connect(url)
            await teller.execute(
                f"CREATE TABLE told AS SELECT {START}::bigint AS now;"
                "CREATE OR REPLACE FUNCTION holdfast_coord_1.now() RETURNS bigint LANGUAGE sql VOLATILE AS"
                " 'SELECT now FROM public.told'"
            )
            return teller

        teller = runner.run(prepare())
        yield Driven(
            open_coord(url, Clock(), timeout_s=5),
            1_000,
            runner,
            lambda now: teller.execute("UPDATE told SET now = $1", now),
        )
        runner.run(teller.close())


@pytest.fixture(scope="module", params=KINDS)
def driven(request: pytest.FixtureRequest) -> Iterator[Driven]:
    makes: dict[str, Callable[[], Any]] = {
        "local": local,
        "redis": lambda: through_redis(request.getfixturevalue("redis_server")),
        "postgres": lambda: through_postgres(request.getfixturevalue("postgres_server")),
    }
    with makes[request.param]() as made:
        made.runner.run(made.coord.open())
        yield made
        made.runner.run(made.coord.close())


class Bucket:
    """The token bucket in exact fractions, with the lowest line that a gate has drawn above it."""

    def __init__(self, need: Need, tick_ns: int) -> None:
        self.rate = Fraction(need.num * tick_ns, need.den_ns)
        self.burst = Fraction(need.burst)
        self.level = self.cap = self.burst

    def pass_by(self, ticks: int) -> None:
        self.level = min(self.burst, self.level + ticks * self.rate)
        self.cap = min(self.burst, self.cap + ticks * self.rate)

    def wait(self, cost: int) -> int:
        if cost > self.burst:
            return NEVER
        return max(0, -(-(cost - self.level) // self.rate))

    def refund(self, cost: int) -> None:
        self.level = min(self.level + cost, self.cap)

    def gate(self, ticks: int) -> None:
        self.cap = min(self.cap, 1 - ticks * self.rate)
        self.level = min(self.level, self.cap)


YEAR_NS = 365 * 86_400 * NS


def within_a_year(quota: tuple[int, int, int]) -> tuple[int, int, int]:
    """The same with no more units than come in about a year: what comes in more than 35 is not told apart."""
    num, den_ns, burst = quota
    return num, den_ns, min(burst, 1 + num * YEAR_NS // den_ns)


quotas = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 12)),
    st.tuples(st.integers(1, 9), st.integers(1, 40).map(lambda ms: ms * NS // 1_000), st.integers(1, 12)),
    st.tuples(st.integers(1, 2**42), st.sampled_from([NS, 60 * NS, 86_400 * NS]), st.integers(1, 10**9)).map(
        within_a_year
    ),
)
steps = st.tuples(
    st.sampled_from([*["take"] * 6, "charge", "refund", "gate"]),
    st.lists(st.integers(0, 13), min_size=3, max_size=3),
    st.sampled_from([0, 0, 0, 1, 2, 7, 30, 1_000]),
)
numbers = count()


async def play(driven: Driven, kinds: list[tuple[int, int, int]], told: list[Any]) -> None:
    coord, now, example = driven.coord, START, next(numbers)
    limits = [Need(f"{example}-{n}", *kind, cost=0) for n, kind in enumerate(kinds)]
    buckets = [Bucket(limit, driven.tick_ns) for limit in limits]
    await driven.tell(now)
    for name, costs, sevenths in told:
        # Sevenths of the time of the first limit's unit, so that a step often ends just before or just after one.
        ticks = sevenths * limits[0].den_ns // (7 * limits[0].num * driven.tick_ns)
        for bucket in buckets:
            bucket.pass_by(ticks)
        now += ticks
        await driven.tell(now)
        scale = [max(1, limit.burst // 12) for limit in limits]
        needs = [limit._replace(cost=cost * by) for limit, cost, by in zip(limits, costs, scale, strict=False)]
        match name:
            case "take":
                waits = [bucket.wait(need.cost) for bucket, need in zip(buckets, needs, strict=True)]
                refusal = await coord.take(needs)
                if not any(waits):
                    assert refusal is None
                    for bucket, need in zip(buckets, needs, strict=True):
                        bucket.level -= need.cost
                    continue
                assert refusal is not None
                wanted = NEVER if NEVER in waits else max(waits) * driven.tick_ns
                assert refusal.wait_ns == wanted
                assert waits[refusal.at] == (NEVER if NEVER in waits else max(waits))
            case "charge":
                await coord.charge(needs)
                for bucket, need in zip(buckets, needs, strict=True):
                    bucket.level -= need.cost
            case "refund":
                await coord.refund(needs)
                for bucket, need in zip(buckets, needs, strict=True):
                    bucket.refund(need.cost)
            case _:
                await coord.gate(needs[0], costs[1] * driven.tick_ns)
                buckets[0].gate(costs[1])


@settings(max_examples=100, deadline=None)
@given(kinds=st.lists(quotas, min_size=1, max_size=3), told=st.lists(steps, min_size=5, max_size=40))
def test_a_limit_is_the_exact_token_bucket(driven: Driven, kinds: list[tuple[int, int, int]], told: list[Any]) -> None:
    """Every verdict and every wait, to the tick, whatever was charged, refunded and gated before."""
    driven.runner.run(play(driven, kinds, told))
