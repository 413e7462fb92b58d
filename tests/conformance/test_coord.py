"""Every coord behaves alike, and the suite that says so can tell one that does not."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from holdfast.clock import Clock, token_hex
from holdfast.coord import Coord, Local, Need, Refusal, Shared, Transition, open_coord
from holdfast.testing import COORD_CHECKS, check_coord, loop_clock

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer, RedisServer
else:
    from servers import PostgresServer, RedisServer  # pytest puts a test's folder on the path, and mypy the project's

Check = Callable[[Coord, Coord], Awaitable[None]]
checks = pytest.mark.parametrize("check", COORD_CHECKS, ids=lambda check: check.__name__)


@asynccontextmanager
async def opened(one: Coord, other: Coord) -> AsyncIterator[tuple[Coord, Coord]]:
    try:
        await one.open()
        await other.open()
        yield one, other
    finally:
        await one.close()
        await other.close()


def pair(url: str) -> tuple[Coord, Coord]:
    namespace = token_hex(8)
    clock = Clock()
    return (
        open_coord(url, clock, namespace=namespace, timeout_s=5),
        open_coord(url, clock, namespace=namespace, timeout_s=5),
    )


@checks
async def test_the_coord_in_one_process(check: Check) -> None:
    clock, shared = loop_clock(), Shared()
    async with opened(Local(clock, shared), Local(clock, shared)) as (one, other):
        await check(one, other)


@checks
@pytest.mark.sockets
async def test_the_coord_on_redis(check: Check, redis_server: RedisServer) -> None:
    async with opened(*pair(redis_server.url)) as (one, other):
        await check(one, other)


@checks
@pytest.mark.sockets
async def test_the_coord_on_postgres(check: Check, postgres_server: PostgresServer) -> None:
    async with opened(*pair(postgres_server.url)) as (one, other):
        await check(one, other)


async def test_the_whole_suite_runs_on_coords_of_its_own() -> None:
    made: list[Shared] = []

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Coord, Coord]]:
        made.append(Shared())
        async with opened(Local(loop_clock(), made[-1]), Local(loop_clock(), made[-1])) as both:
            yield both

    await check_coord(make)
    assert len(made) == len(COORD_CHECKS)


class Apart(Local):
    """Shares with nobody."""

    def __init__(self, clock: Clock, shared: Shared) -> None:
        del shared
        super().__init__(clock)


class OneByOne(Local):
    """Takes from each limit in turn, until one refuses."""

    async def take(self, needs: Sequence[Need]) -> Refusal | None:
        for at, need in enumerate(needs):
            if refusal := await super().take([need]):
                return refusal._replace(at=at)
        return None


class Keeping(Local):
    """Gives nothing back."""

    async def refund(self, needs: Sequence[Need]) -> None:
        """Nothing."""


class Forgiving(Local):
    """Charges only what fits."""

    async def charge(self, needs: Sequence[Need]) -> None:
        await self.take(needs)


class Unlocking(Local):
    """Opens a gate by a refund."""

    async def refund(self, needs: Sequence[Need]) -> None:
        for need in needs:
            if kept := self._shared.limits.get(need.key):
                self._shared.limits[need.key] = kept._replace(gate=None)
        await super().refund(needs)


class Hasty(Local):
    """Tells a wait that is a little too short."""

    async def take(self, needs: Sequence[Need]) -> Refusal | None:
        refusal = await super().take(needs)
        return refusal and refusal._replace(wait_ns=refusal.wait_ns * 99 // 100)


class Generous(Local):
    """Has places for everybody."""

    async def probe(self, name: str, slots: int, lease_ns: int) -> str | None:
        return await super().probe(name, slots + 1, lease_ns)


class Echoing(Local):
    """Hears itself."""

    async def publish(self, moved: Transition) -> None:
        self._tell(moved)
        await super().publish(moved)


class Staying(Local):
    """Is counted when it has gone."""

    async def close(self) -> None:
        """Nothing."""


BROKEN = [Apart, OneByOne, Keeping, Forgiving, Unlocking, Hasty, Generous, Echoing, Staying]


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_coord_is_found_out(broken: type[Local]) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Coord, Coord]]:
        clock, shared = loop_clock(), Shared()
        async with opened(broken(clock, shared), broken(clock, shared)) as both:
            yield both

    with pytest.raises(AssertionError, match="wanted"):
        await check_coord(make)
