"""Webhooks in virtual time: who may be told, how often it is tried, and when it is given up."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from holdfast.clock import NS
from holdfast.errors import AgentFailed, StoreUnavailable, Unprocessable
from holdfast.replica import Webhooks, view_of
from holdfast.replica.webhooks import AT_ONCE, TRY_S, WAITS_S
from holdfast.serving import ServerSpec
from holdfast.turn import Turn

if TYPE_CHECKING:
    from tests.unit.house import House
else:
    from house import House  # pytest puts a test's folder on the path

KEY = bytes(range(32))
SECRET = SecretStr(f"whsec_{base64.b64encode(KEY).decode()}")
URL = "https://hooks.example/turns?token=abc"
DAY_S = 86_400


class Told:
    """What a receiver was sent, and when."""

    def __init__(self, *statuses: int | Exception, usual: int = 204, **headers: str) -> None:
        self._statuses = list(statuses)
        self._usual = usual
        self._headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.requests: list[httpx2.Request] = []
        self.at_s: list[float] = []
        self.hangs = False

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        self.at_s.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.sleep(1_000)
        came = self._statuses.pop(0) if self._statuses else self._usual
        if isinstance(came, Exception):
            raise came
        return httpx2.Response(came, headers=self._headers, stream=httpx2.ByteStream(b"x" * 1_000))

    @property
    def waits_s(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.at_s, self.at_s[1:], strict=False)]


Receive = Callable[[Told], None]


@pytest.fixture
def receive(monkeypatch: pytest.MonkeyPatch) -> Receive:
    def receive(told: Told) -> None:
        client = partial(httpx2.AsyncClient, transport=httpx2.MockTransport(told))
        monkeypatch.setattr("holdfast.replica.webhooks.httpx2.AsyncClient", client)

    return receive


def spec(*hosts: str) -> ServerSpec:
    return ServerSpec(webhook_hosts=hosts or ("hooks.example",), webhook_secret=SECRET)


async def answer(_turn: Turn) -> str:
    return "done"


async def fail(_turn: Turn) -> str:
    raise AgentFailed("because of a secret")


@asynccontextmanager
async def telling(house: House, hosts: Sequence[str] = ()) -> AsyncIterator[Webhooks]:
    webhooks = Webhooks(spec(*hosts), house.turns)
    async with webhooks.telling():
        yield webhooks


# What is sent


@pytest.mark.parametrize("behave", [answer, fail])
async def test_a_turn_that_ended_is_told_once_signed_and_as_it_is_shown(receive: Receive, behave: Any) -> None:
    told, house = Told(), House()
    receive(told)
    async with telling(house):
        async with asyncio.TaskGroup() as group:
            house.begin(group, behave, webhook=URL)
        await asyncio.sleep(DAY_S)
    (request,) = told.requests
    assert told.at_s[0] < 1
    assert (request.method, str(request.url)) == ("POST", URL)
    (record,) = await house.stored()
    assert msgspec.json.decode(request.content) == msgspec.to_builtins(view_of(record))
    assert b"secret" not in request.content
    headers = request.headers
    assert (headers["content-type"], headers["webhook-id"]) == ("application/json", record.turn_id)
    signed = f"{record.turn_id}.{headers['webhook-timestamp']}.".encode() + request.content
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - house.turns.clock.wall_ns() / NS + DAY_S) < 5


async def test_a_turn_without_a_webhook_asks_the_store_nothing(receive: Receive) -> None:
    house = House()
    receive(Told())
    async with telling(house):
        await asyncio.sleep(0.1)
        store: Any = house.store
        asked: list[int] = []
        take = store.take_webhooks

        async def counted(limit: int, lease_s: float) -> Any:
            asked.append(limit)
            return await take(limit, lease_s)

        store.take_webhooks = counted
        await house.ask(answer)
        assert asked == []


# Trying again


async def test_a_receiver_that_never_takes_it_is_told_for_a_day_and_then_no_more(receive: Receive) -> None:
    told, house = Told(usual=404), House()
    receive(told)
    with capture_logs() as lines:
        async with telling(house):
            await house.ask(answer, webhook=URL)
            await asyncio.sleep(3 * DAY_S)
    assert len(told.requests) == len(WAITS_S) + 1
    for wait_s, meant_s in zip(told.waits_s, WAITS_S, strict=True):
        assert 0.9 * meant_s <= wait_s <= 1.1 * meant_s + 6
    assert 0.8 * DAY_S < told.at_s[-1] - told.at_s[0] < 1.2 * DAY_S
    assert len({request.headers["webhook-id"] for request in told.requests}) == 1
    assert len({request.headers["webhook-signature"] for request in told.requests}) == len(told.requests)
    failed = [line for line in lines if line["event"] == "webhook_failed"]
    (given_up,) = (line for line in lines if line["event"] == "webhook_given_up")
    assert [line["tries"] for line in failed] == list(range(1, len(WAITS_S) + 1))
    assert (given_up["tries"], given_up["error"], given_up["log_level"]) == (11, "status_404", "error")
    assert "token" not in str(lines)


@pytest.mark.parametrize(
    "first", [500, 429, 302, 400, httpx2.ConnectError("no route"), httpx2.ReadTimeout("slow"), OSError("odd")]
)
async def test_whatever_goes_wrong_it_is_told_again(receive: Receive, first: int | Exception) -> None:
    told, house = Told(first, location="https://hooks.example/elsewhere"), House()
    receive(told)
    async with telling(house):
        await house.ask(answer, webhook=URL)
        await asyncio.sleep(DAY_S)
    assert [str(request.url) for request in told.requests] == [URL, URL]
    assert 4.5 <= told.waits_s[0] <= 11


async def test_a_receiver_that_says_gone_is_left_alone(receive: Receive) -> None:
    told, house = Told(410), House()
    receive(told)
    with capture_logs() as lines:
        async with telling(house):
            await house.ask(answer, webhook=URL)
            await asyncio.sleep(DAY_S)
    assert len(told.requests) == 1
    assert [line["error"] for line in lines if line["event"] == "webhook_given_up"] == ["status_410"]


async def test_a_receiver_that_names_a_time_is_not_told_before(receive: Receive) -> None:
    told, house = Told(503, retry_after="1000"), House()
    receive(told)
    async with telling(house):
        await house.ask(answer, webhook=URL)
        await asyncio.sleep(DAY_S)
    assert 900 <= told.waits_s[0] <= 1_110


async def test_a_receiver_that_hangs_is_cut_short(receive: Receive) -> None:
    told, house = Told(), House()
    told.hangs = True
    receive(told)
    with capture_logs() as lines:
        async with telling(house):
            await house.ask(answer, webhook=URL)
            await asyncio.sleep(TRY_S + 1)
            told.hangs = False
            await asyncio.sleep(60)
    assert [line["error"] for line in lines if line["event"] == "webhook_failed"] == ["AttemptTimedOut"]
    assert len(told.requests) == 2


async def test_a_host_that_keeps_failing_is_left_alone_and_costs_no_tries(receive: Receive) -> None:
    told, house = Told(usual=500), House()
    receive(told)
    with capture_logs() as lines:
        async with telling(house) as webhooks:
            for _ in range(30):
                await house.ask(answer, webhook=URL)
            await asyncio.sleep(30)
            at_first = len(told.requests)
            breaker = webhooks.pipeline.breaker
            assert breaker is not None
            assert [view.name for view in breaker.views(house.turns.clock.now())] == ["webhook:hooks.example"]
            told._usual = 200
            await asyncio.sleep(DAY_S)
    assert at_first < 30
    assert {request.headers["webhook-id"] for request in told.requests} == {
        turn.turn_id for turn in await house.stored()
    }
    assert [line for line in lines if line["event"] == "webhook_given_up"] == []


async def test_many_are_told_though_only_some_at_a_time(receive: Receive) -> None:
    told, house = Told(), House()
    receive(told)
    at_once = [0, 0]

    async def slow(request: httpx2.Request) -> httpx2.Response:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(0.5)
        at_once[0] -= 1
        return await Told.__call__(told, request)

    receive(slow)  # type: ignore[arg-type]  # it is called as one
    hosts = [f"h{number}.example" for number in range(AT_ONCE)]
    for number in range(3 * AT_ONCE):
        await house.ask(answer, webhook=f"https://{hosts[number % AT_ONCE]}/")
    async with telling(house, hosts):
        await asyncio.sleep(4)
    assert len(told.requests) == 3 * AT_ONCE
    assert at_once[1] == AT_ONCE


async def test_one_that_was_under_way_when_its_server_died_is_told_by_the_next(receive: Receive) -> None:
    told, house = Told(), House()
    told.hangs = True
    receive(told)
    async with telling(house):
        await house.ask(answer, webhook=URL)
        await asyncio.sleep(1)
        assert len(told.requests) == 1
    told.hangs = False
    async with telling(house):
        await asyncio.sleep(120)
    assert len(told.requests) == 2


async def test_a_store_that_is_away_for_a_while_costs_no_webhook(receive: Receive) -> None:
    told, house = Told(), House()
    receive(told)
    store: Any = house.store
    take = store.take_webhooks

    async def away(*_: object) -> None:
        raise StoreUnavailable

    async with telling(house):
        store.take_webhooks = away
        await house.ask(answer, webhook=URL)
        await asyncio.sleep(60)
        assert told.requests == []
        store.take_webhooks = take
        await asyncio.sleep(10)
    assert len(told.requests) == 1


# Who may be told


ALLOWED = ("hooks.example", "Other.Example:8443", "127.0.0.1:9", "[::1]:9")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example/a?b",
        "http://HOOKS.example",
        "https://hooks.example:443/",
        "https://other.example:8443/x",
        "http://127.0.0.1:9/",
        "http://[::1]:9/",
    ],
)
async def test_hosts_that_are_named_may_be_told(url: str) -> None:
    Webhooks(spec(*ALLOWED), House().turns).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "hooks.example",
        "//hooks.example/",
        "ftp://hooks.example/",
        "https://hooks.example:8443/",
        "https://other.example/",
        "https://sub.hooks.example/",
        "https://hooks.example.evil.example/",
        "https://evil.example/?hooks.example",
        "https://hooks.example@evil.example/",
        "https://user:pass@hooks.example/",
        "https://evil.example\\@hooks.example/",
        "https://hooks.example\\.evil.example/",
        "https://127.0.0.1/",
        "https://[::1/",
        "https://hooks.example:port/",
        "https://hooks.example/\n",
    ],
)
async def test_nobody_else_may_be_told(url: str) -> None:
    with pytest.raises(Unprocessable, match="webhook must be"):
        Webhooks(spec(*ALLOWED), House().turns).check(url)


async def test_a_host_that_may_no_longer_be_told_is_given_up(receive: Receive) -> None:
    told, house = Told(), House()
    receive(told)
    await house.ask(answer, webhook=URL)
    with capture_logs() as lines:
        async with telling(house, ["other.example"]):
            await asyncio.sleep(DAY_S)
    assert told.requests == []
    assert [line["error"] for line in lines if line["event"] == "webhook_given_up"] == ["not_allowed"]


@pytest.mark.parametrize("host", ["", "https://hooks.example", "hooks.example/", "a b", "hooks.example:0", "u@h", "*"])
def test_a_host_that_is_none_cannot_be_set(host: str) -> None:
    with pytest.raises(ValidationError, match="is no host"):
        spec(host)


def test_hosts_need_a_secret_that_can_sign() -> None:
    with pytest.raises(ValidationError, match="webhook_hosts need webhook_secret"):
        ServerSpec(webhook_hosts=("hooks.example",))
    too_long = base64.b64encode(bytes(65)).decode()
    for secret in ("", "short", "whsec_", "whsec_" + "A" * 28, "whsec_!" + "A" * 43, too_long):
        with pytest.raises(ValidationError, match="24 to 64 random bytes"):
            ServerSpec(webhook_hosts=("hooks.example",), webhook_secret=SecretStr(secret))
    for size in (24, 64):
        ServerSpec(webhook_secret=SecretStr(base64.b64encode(bytes(size)).decode()))


async def test_whatever_a_store_raises_telling_goes_on(receive: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would be told again, and the server would end with it."""
    told, house = Told(), House()
    receive(told)
    take, told_it, failures = house.store.take_webhooks, house.store.webhook_told, [OSError("odd")] * 2

    async def odd(call: Any, *args: Any) -> Any:
        if failures:
            raise failures.pop()
        return await call(*args)

    monkeypatch.setattr(house.store, "take_webhooks", partial(odd, take))
    monkeypatch.setattr(house.store, "webhook_told", partial(odd, told_it))
    async with telling(house):
        async with asyncio.TaskGroup() as group:
            house.begin(group, answer, webhook=URL)
        await asyncio.sleep(10)
        failures.append(OSError("odd"))
        async with asyncio.TaskGroup() as group:
            house.begin(group, answer, webhook=URL)
        await asyncio.sleep(DAY_S)
    assert len({request.headers["webhook-id"] for request in told.requests}) == 2
    assert failures == []
