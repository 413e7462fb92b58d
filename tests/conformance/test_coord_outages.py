"""A coord whose server is gone, hangs or starts anew says so in time, and comes back by itself."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it has no annotations
import pytest

from holdfast.clock import NS, Clock, token_hex
from holdfast.coord import Coord, CoordUnavailable, Need, Transition, open_coord, postgres, redis, remote
from holdfast.errors import Misconfigured

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer, RedisServer, Relay, Server
else:
    from servers import PostgresServer, RedisServer, Relay, Server  # pytest puts a test's folder on the path

HOUR_NS = 3_600 * NS
NEED = Need("a", 1, HOUR_NS, 5, 1)
MOVED = Transition("weather", "open", HOUR_NS, "failures", "one")
TIMEOUT_S = 0.25
LATE_S = 1.0
"""Most seconds after which the answer is late, on a machine that does much else."""

PATIENCE_S = 20.0

pytestmark = pytest.mark.sockets


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Any:
    """The one that all tests share: a test that ends it starts it again."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life are frequent, and nothing is swept but at the first of them."""
    monkeypatch.setattr(remote, "BEAT_S", 0.05)
    monkeypatch.setattr(remote, "LEASE_S", 0.3)
    monkeypatch.setattr(postgres, "SWEEP_BEATS", 1_000_000)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found by looking for it now and then, and no attempt to connect may take long."""
    monkeypatch.setattr(remote, "BEAT_S", 2 * PATIENCE_S)
    monkeypatch.setattr(remote, "OPEN_S", 0.2)


@asynccontextmanager
async def opened(url: str, number: int = 2, timeout_s: float = TIMEOUT_S) -> AsyncIterator[list[Coord]]:
    namespace = token_hex(8)
    coords = [open_coord(url, Clock(), namespace=namespace, timeout_s=timeout_s) for _ in range(number)]
    async with AsyncExitStack() as stack:
        for coord in coords:
            stack.push_async_callback(coord.close)
            await coord.open()
        yield coords


def calls(coord: Coord) -> list[Callable[[], Awaitable[object]]]:
    return [
        lambda: coord.take([NEED]),
        lambda: coord.refund([NEED]),
        lambda: coord.charge([NEED]),
        lambda: coord.gate(NEED, 0),
        lambda: coord.probe("a", 1, HOUR_NS),
        lambda: coord.release("a", "b"),
        lambda: coord.publish(MOVED),
        coord.replicas,
    ]


async def assert_every_call_says_so_in_time(coord: Coord) -> None:
    loop = asyncio.get_running_loop()
    for call in calls(coord):
        begun = loop.time()
        with pytest.raises(CoordUnavailable, match="did not answer"):
            await call()
        assert loop.time() - begun < LATE_S


async def until(done: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                if await done():
                    return
            except CoordUnavailable:
                pass
            await asyncio.sleep(0.02)


async def works(coord: Coord) -> bool:
    await coord.take([NEED])
    return True


async def assert_hears(one: Coord, other: Coord) -> None:
    heard: list[Transition] = []
    other.subscribe(heard.append)

    async def told() -> bool:
        await one.publish(MOVED)
        return bool(heard)

    await until(told)


async def is_one(coord: Coord) -> bool:
    return await coord.replicas() == 1


async def is_two(coord: Coord) -> bool:
    return await coord.replicas() == 2


async def test_a_server_that_is_killed_and_starts_anew(server: Server) -> None:
    async with opened(server.url) as (one, other):
        assert await one.take([NEED._replace(cost=5)]) is None
        server.end(signal.SIGKILL if isinstance(server, RedisServer) else signal.SIGQUIT)
        try:
            await assert_every_call_says_so_in_time(one)
        finally:
            server.start()
        await until(lambda: works(one))
        await until(lambda: works(other))
        assert (await one.take([NEED._replace(cost=5)])) is not None
        await assert_hears(one, other)
        await until(lambda: is_two(other))


async def test_a_network_that_hangs(server: Server) -> None:
    async with Relay(server.port).listening() as relay:
        url = server.url.replace(str(server.port), str(relay.port))
        async with opened(url, timeout_s=0.1) as (one, other):
            await until(lambda: works(one))
            relay.hang()
            await assert_every_call_says_so_in_time(one)
            begun = asyncio.get_running_loop().time()
            await other.close()
            assert asyncio.get_running_loop().time() - begun < LATE_S
            relay.heal()
            await until(lambda: works(one))


async def test_connections_that_are_cut(server: Server) -> None:
    async with Relay(server.port).listening() as relay:
        url = server.url.replace(str(server.port), str(relay.port))
        async with opened(url) as (one, other):
            for _ in range(3):
                relay.cut()
                await until(lambda: works(one))
                await assert_hears(other, one)


@pytest.mark.usefixtures("quick")
async def test_connections_that_nothing_comes_through_any_more(server: Server) -> None:
    async with Relay(server.port).listening() as relay:
        url = server.url.replace(str(server.port), str(relay.port))
        async with opened(url) as (one, other):
            await works(one)
            relay.lose()
            await until(lambda: works(one))
            await assert_hears(other, one)


@pytest.mark.usefixtures("seldom")
async def test_what_is_published_while_one_is_cut_off_is_heard_afterwards(server: Server) -> None:
    """In order, once, with the time that is left by then."""
    async with Relay(server.port).listening() as relay, opened(server.url, 1) as (one,):
        url = server.url.replace(str(server.port), str(relay.port))
        other = open_coord(url, Clock(), namespace=one._namespace)  # type: ignore[attr-defined]  # Remote has one
        heard: list[Transition] = []
        other.subscribe(heard.append)
        await other.open()
        relay.hang()
        relay.cut()
        for number in range(3):
            await one.publish(MOVED._replace(name=str(number), left_ns=NS // 2))
        await one.publish(MOVED._replace(name="3", left_ns=None))
        await asyncio.sleep(0.6)
        assert heard == []
        relay.heal()

        async def all_there() -> bool:
            return len(heard) >= 4

        await until(all_there)
        assert [(moved.name, moved.left_ns) for moved in heard] == [("0", 0), ("1", 0), ("2", 0), ("3", None)]
        await other.close()


async def test_one_that_is_closed_while_it_is_opened_says_so(server: Server) -> None:
    async with Relay(server.port).listening() as relay:
        relay.hang()
        coord = open_coord(server.url.replace(str(server.port), str(relay.port)), Clock())
        opening = asyncio.get_running_loop().create_task(coord.open())
        for _ in range(3):
            await asyncio.sleep(0)
            with pytest.raises(CoordUnavailable, match="did not answer"):
                await coord.take([NEED])
        await coord.close()
        with pytest.raises(CoordUnavailable, match="closed"):
            await opening


async def test_one_that_is_opened_while_the_server_is_away_works_once_it_is_there(server: Server) -> None:
    server.end(signal.SIGKILL if isinstance(server, RedisServer) else signal.SIGQUIT)
    try:
        coord = open_coord(server.url, Clock(), namespace=token_hex(8))
        with pytest.raises(CoordUnavailable):
            await coord.open()
        await assert_every_call_says_so_in_time(coord)
    finally:
        server.start()
    await until(lambda: works(coord))
    await until(coord.replicas)
    await coord.close()


@pytest.mark.usefixtures("quick")
async def test_a_process_that_died_is_soon_no_longer_counted(server: Server) -> None:
    async with opened(server.url, 3) as (one, other, third):
        assert isinstance(other, remote.Remote)
        assert other._touch is not None
        other._touch.cancel()
        await until(lambda: is_two(one))
        for _ in range(10):
            await asyncio.sleep(0.05)
            assert await third.replicas() == 2


async def test_there_are_no_more_connections_than_allowed(server: Server) -> None:
    async with opened(server.url, 1, timeout_s=PATIENCE_S) as (coord,):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(coord.take([NEED]))
        if isinstance(coord, redis.Redis):
            assert len(await coord._client.client_list()) == redis.CONNECTIONS + 1
        else:
            assert isinstance(coord, postgres.Postgres)
            text = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            assert await coord._listener.fetchval(text) == postgres.CONNECTIONS + 1


async def test_callers_that_are_cancelled_leave_every_connection_usable(server: Server) -> None:
    async with opened(server.url, 1, timeout_s=PATIENCE_S) as (coord,):
        loop = asyncio.get_running_loop()
        for round_ in range(20):
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    task = group.create_task(coord.take([NEED._replace(key=f"{round_}-{number}")]))
                    loop.call_later(number / 4_000, task.cancel)
        async with asyncio.TaskGroup() as group:
            taken = [group.create_task(coord.take([NEED._replace(key=str(n), cost=5)])) for n in range(40)]
        assert [task.result() for task in taken] == [None] * 40


async def test_a_listener_that_raises_keeps_nothing_from_the_others(server: Server) -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with opened(server.url) as (one, other):

        def raises(moved: Transition) -> None:
            raise ValueError(moved.name)

        other.subscribe(raises)
        await assert_hears(one, other)
        await assert_hears(one, other)
    assert [type(context["exception"]) for context in said[:2]] == [ValueError, ValueError]


# Redis


async def test_scripts_that_redis_has_forgotten_are_told_again(redis_server: RedisServer) -> None:
    async with opened(redis_server.url, 1) as (coord,):
        assert isinstance(coord, redis.Redis)
        for _ in range(3):
            await coord._client.script_flush()
            assert await coord.take([NEED]) is None
        assert (await coord.take([NEED._replace(cost=3)])) is not None


async def test_redis_forgets_a_limit_that_is_full_again(redis_server: RedisServer) -> None:
    async with opened(redis_server.url, 1) as (coord,):
        assert isinstance(coord, redis.Redis)
        quick, slow, gated = Need("quick", 100, NS, 5, 5), NEED, Need("gated", 1_000, NS, 1, 0)
        await coord.take([quick, slow])
        await coord.gate(gated, NS // 20)
        keys = {coord._key("limit", need.key) for need in (quick, slow, gated)}

        async def only_the_slow_one() -> bool:
            kept = {key.decode() async for key in coord._client.scan_iter(f"{{{coord._namespace}}}:limit:*")}
            assert kept <= keys
            return bool(kept == {coord._key("limit", slow.key)})

        await until(only_the_slow_one)
        await coord.refund([slow])
        assert not await coord._client.exists(*keys)


@pytest.fixture
def locked_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.clean_up()


async def test_redis_that_refuses_the_password_is_a_mistake_in_the_settings(
    redis_server: RedisServer, locked_redis: RedisServer
) -> None:
    del redis_server
    async with opened(locked_redis.url, 1) as (coord,):
        assert isinstance(coord, redis.Redis)
        await coord._client.config_set("requirepass", "correct")
    fine = locked_redis.url.replace("//", "//:correct@")
    for wrong in (locked_redis.url, locked_redis.url.replace("//", "//:hunter2@")):
        coord = open_coord(wrong, Clock())
        with pytest.raises(Misconfigured, match=r"coord\.url: redis refused us") as refused:
            await coord.open()
        assert "hunter2" not in f"{refused.value} {coord!r}"
        with pytest.raises(CoordUnavailable, match="not open"):
            await works(coord)
    async with opened(fine.replace("redis:", "valkey:"), 1) as (coord,):
        await works(coord)


@pytest.mark.usefixtures("quick")
async def test_redis_that_is_only_read_from_any_more_is_connected_to_anew(
    redis_server: RedisServer, locked_redis: RedisServer
) -> None:
    """After a failover the address leads to another server, and the connections there are do not."""
    relay = Relay(locked_redis.port)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(relay.listening())
        one, other = await stack.enter_async_context(opened(f"redis://127.0.0.1:{relay.port}"))
        (admin,) = await stack.enter_async_context(opened(locked_redis.url, 1))
        await works(one)
        assert isinstance(admin, redis.Redis)
        await admin._client.execute_command("REPLICAOF", "127.0.0.1", "1")
        relay.lead_to(redis_server.port)
        with pytest.raises(CoordUnavailable):
            await works(one)
        await works(one)
        await until(lambda: works(other))
        await assert_hears(one, other)


# PostgreSQL


@asynccontextmanager
async def new_database(server: PostgresServer) -> AsyncIterator[tuple[Any, str]]:
    """A database with nothing in it; and a connection of one who may do anything, to another."""
    name = f"db_{token_hex(4)}"
    admin = await asyncpg.connect(server.url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield admin, server.url.replace("/postgres", f"/{name}")
    finally:
        await admin.close()


async def test_many_processes_may_be_the_first_in_postgres(postgres_server: PostgresServer) -> None:
    async with new_database(postgres_server) as (_, url):
        coords = [open_coord(url, Clock(), timeout_s=PATIENCE_S) for _ in range(6)]
        async with asyncio.TaskGroup() as group:
            for coord in coords:
                group.create_task(coord.open())
        assert await coords[0].replicas() == 6
        for coord in coords:
            await coord.close()


async def test_postgres_that_is_locked_is_not_asked_more_than_once_at_a_time(postgres_server: PostgresServer) -> None:
    """The server gives up as well: nobody is left waiting there for a caller who has gone."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with opened(postgres_server.url, 1) as (coord,):
        await works(coord)
        admin = await asyncpg.connect(postgres_server.url)
        async with admin.transaction():
            await admin.execute("LOCK TABLE holdfast_coord_1.limits IN ACCESS EXCLUSIVE MODE")
            for _ in range(3):
                with pytest.raises(CoordUnavailable):
                    await coord.take([NEED])

            async def nobody_waits() -> bool:
                return bool(await admin.fetchval(waiting) == 0)

            await until(nobody_waits)
        await admin.close()
        await works(coord)


@pytest.mark.usefixtures("quick")
async def test_a_move_that_no_notification_told_of_is_found(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_CHANNEL", "where_nothing_is_told_")
    async with opened(postgres_server.url) as (one, other):
        await assert_hears(one, other)


async def test_a_notification_wakes_at_once(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BEAT_S", 2 * PATIENCE_S)
    async with opened(postgres_server.url) as (one, other):
        await assert_hears(one, other)
        await assert_hears(other, one)


@pytest.mark.usefixtures("quick")
async def test_postgres_forgets_what_nobody_needs(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "SWEEP_BEATS", 1)
    age = (
        "UPDATE holdfast_coord_1.moves SET at = at - 3600000000 WHERE at < (SELECT max(at) FROM holdfast_coord_1.moves)"
    )
    async with new_database(postgres_server) as (_, url), opened(url, 1) as (coord,):
        await coord.take([Need("quick", 100, NS, 5, 5), NEED])
        await coord.gate(Need("gated", 1_000, NS, 1, 0), NS // 20)
        await coord.gate(NEED._replace(key="shut"), HOUR_NS)
        await coord.refund([NEED._replace(key="shut", cost=100)])
        await coord.probe("short", 1, NS // 100)
        await coord.probe("long", 1, HOUR_NS)
        await coord.publish(MOVED)
        await coord.publish(MOVED)
        looks = await asyncpg.connect(url)
        await looks.execute(age)
        await looks.execute("INSERT INTO holdfast_coord_1.replicas VALUES ('gone', 'any', 0)")

        async def only_what_is_needed() -> bool:
            tables = ("limits", "probes", "moves", "replicas")
            left = [await looks.fetchval(f"SELECT count(*) FROM holdfast_coord_1.{table}") for table in tables]
            return left == [2, 1, 1, 1]

        await until(only_what_is_needed)
        await looks.close()
        assert (await coord.take([NEED._replace(cost=5)])) is not None
        assert await coord.probe("long", 1, HOUR_NS) is None


async def test_postgres_that_will_not_have_us_is_a_mistake_in_the_settings(postgres_server: PostgresServer) -> None:
    async with new_database(postgres_server) as (admin, url):
        await admin.execute("CREATE ROLE weak LOGIN")
        wrong = {
            url.replace("holdfast@", "nobody:hunter2@"): "role",
            postgres_server.url.replace("/postgres", "/nothing"): "database",
            url.replace("holdfast@", "weak:hunter2@"): "permission",
            "postgresql://holdfast:hunter2@127.0.0.1:port/postgres": "not an address",
            "postgresql://holdfast:hunter2/@127.0.0.1/postgres": "not an address",
        }
        for address, why in wrong.items():
            coord = open_coord(address, Clock())
            with pytest.raises(Misconfigured, match=rf"coord\.url: .*{why}") as refused:
                await coord.open()
            assert "hunter2" not in f"{refused.value} {refused.value.__cause__} {coord!r}"


async def test_once_postgres_has_the_schema_nobody_needs_the_right_to_make_it(postgres_server: PostgresServer) -> None:
    async with new_database(postgres_server) as (_, url), opened(url):
        admin = await asyncpg.connect(url)
        await admin.execute("CREATE ROLE guest LOGIN; GRANT USAGE ON SCHEMA holdfast_coord_1 TO guest")
        await admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA holdfast_coord_1 TO guest")
        async with opened(url.replace("holdfast@", "guest@")) as (one, other):
            await works(one)
            await assert_hears(one, other)
        await admin.close()


async def test_postgres_that_is_only_read_from_any_more_is_connected_to_anew(postgres_server: PostgresServer) -> None:
    """What a connection leads to after a failover cannot be written to, and says so for as long as it is kept."""
    admin = await asyncpg.connect(postgres_server.url)
    await admin.execute("SET default_transaction_read_only = off")
    await admin.execute("ALTER ROLE holdfast SET default_transaction_read_only = on")
    try:
        coord = open_coord(postgres_server.url, Clock(), namespace=token_hex(8))
        with pytest.raises(CoordUnavailable, match="read-only"):
            await coord.open()
        for _ in range(2 * postgres.CONNECTIONS):
            with pytest.raises(CoordUnavailable, match="read-only"):
                await coord.take([NEED])
    finally:
        await admin.execute("ALTER ROLE holdfast RESET default_transaction_read_only")
        await admin.close()
    async with asyncio.TaskGroup() as group:
        for _ in range(2 * postgres.CONNECTIONS):
            group.create_task(coord.take([NEED]))
    await until(lambda: is_one(coord))
    await coord.close()
