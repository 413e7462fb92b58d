"""
Webhooks: who asked to be told that a turn has ended is told, again and again if need be.

::

    ended ─▶ due ─▶ POST ─┬─▶ 2xx              told
              ▲           ├─▶ 410, or too often  given up
              └─ later ◀──┴─▶ anything else

Each carries the turn as the API shows it, and is signed as https://www.standardwebhooks.com describes. At least once:
where an answer was lost, or the server died, it comes again, with the same ``webhook-id``. Only hosts that the operator
has named are told, and no redirect is followed.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import httpx2

from holdfast._version import __version__
from holdfast.clock import NS, Clock
from holdfast.errors import Refused, StoreUnavailable, Unprocessable
from holdfast.journal import encode
from holdfast.replica.answer import view_of
from holdfast.replica.turns import Turns
from holdfast.resilience import Breaker, Bulkhead, Call, Pipeline, Sink, Timeout, per
from holdfast.resilience.recognise import recognise
from holdfast.serving import ServerSpec, webhook_key
from holdfast.store import TurnRecord
from holdfast.telemetry import log_failure, logger

WAITS_S = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 28_800)
"""Seconds between two tries, a tenth more or less: eleven tries in a day."""

MOST_S = 2 * 86_400
"""Seconds after a turn's end when it is given up, though it was not tried as often."""

AT_ONCE = 32
"""Webhooks that are under way at a time."""

TRY_S, CONNECT_S = 10.0, 5.0
"""Seconds one try may take, and of these, to connect."""

_LEASE_S = 60.0
"""Seconds after which one that was taken is due again, as whoever took it may have died: longer than any try."""

_POLL_S = 5.0
_GONE = 410


class Webhooks:
    """
    Tells those who asked that turns have ended.

    Args:
        spec: Who may be told, and what is signed with.
        turns: The replica's turns.
        sink: Takes in what its policies tell.

    Attributes:
        pipeline: What every try passes.
    """

    def __init__(self, spec: ServerSpec, turns: Turns, sink: Sink | None = None) -> None:
        self._spec = spec
        self._hosts = frozenset(host.lower() for host in spec.webhook_hosts)
        self._turns = turns
        self._store = turns.store
        self._clock: Clock = turns.clock
        self._under_way: set[asyncio.Task[None]] = set()
        self.pipeline = Pipeline(
            "webhook",
            Breaker(key=per.target, account=None, open_s=30, max_open_s=600),
            Bulkhead(AT_ONCE // 4, queue=AT_ONCE, max_wait_s=TRY_S, key=per.target),
            Timeout(total=TRY_S),
            clock=self._clock,
            sink=sink,
        )

    def check(self, url: str) -> None:
        """
        Make sure that ``url`` may be told.

        Raises:
            Unprocessable: it is no address, or its host is not among ``server.webhook_hosts``.
        """
        if self._host(url) is None:
            named = ", ".join(sorted(self._hosts)) or "none, as server.webhook_hosts is empty"
            raise Unprocessable(f"webhook must be http:// or https:// and a host that may be told: {named}")

    def _host(self, url: str) -> str | None:
        """The host of a webhook, with its port where that is not the usual one; None where it may not be told."""
        try:
            where = httpx2.URL(url)
        except httpx2.InvalidURL:
            return None
        name = f"[{where.host}]" if ":" in where.host else where.host
        host = name if where.port is None else f"{name}:{where.port}"
        return host if where.scheme in ("http", "https") and not where.userinfo and host in self._hosts else None

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """For the length of the block: tell. What is under way at its end is told again by whoever comes next."""
        if not self._hosts:
            yield
            return
        timeout = httpx2.Timeout(TRY_S, connect=CONNECT_S)
        async with httpx2.AsyncClient(timeout=timeout, follow_redirects=False) as client, asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell_all(client))
            try:
                yield
            finally:
                telling.cancel()

    async def _tell_all(self, client: httpx2.AsyncClient) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self._turns.told.clear()
                with _whatever():  # They are due still.
                    for record, tries in await self._store.take_webhooks(AT_ONCE - len(self._under_way), _LEASE_S):
                        task = group.create_task(self._tell(client, record, tries))
                        self._under_way.add(task)
                        task.add_done_callback(self._one_less)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await self._turns.told.wait()
                while len(self._under_way) == AT_ONCE:
                    await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    def _one_less(self, task: asyncio.Task[None]) -> None:
        if len(self._under_way) == AT_ONCE:
            self._turns.told.set()  # There may be more than there was room for.
        self._under_way.discard(task)

    async def _tell(self, client: httpx2.AsyncClient, record: TurnRecord, tries: int) -> None:
        url = record.webhook or ""
        host = self._host(url)
        again_in_s: float | None = None
        if host is None:
            self._given_up(record, "not_allowed", tries)
        else:
            try:
                await self.pipeline.run(Call(target=host, repeatable=True), lambda: self._post(client, url, record))
            except Refused:
                return  # It was not sent: it comes again when its lease is over, and that was no try.
            except Exception as error:  # noqa: BLE001 - whatever went wrong, it is tried again
                again_in_s = self._again_in_s(error, record, tries)
                self._failed(error, record, tries + 1, again_in_s)
        with _whatever():
            await self._store.webhook_told(record.turn_id, again_in_s)

    async def _post(self, client: httpx2.AsyncClient, url: str, record: TurnRecord) -> None:
        body = encode(view_of(record))
        headers = signed(record.turn_id, self._clock.wall_ns() // NS, body, webhook_key(self._spec))
        # What it answers is not read: only how.
        async with client.stream("POST", url, content=body, headers=headers) as answer:
            answer.raise_for_status()

    def _again_in_s(self, error: Exception, record: TurnRecord, tries: int) -> float | None:
        """Seconds until the next try; None for no more."""
        ended_ns = record.started_ns + (record.ending.duration_ns if record.ending else 0)
        old = self._clock.wall_ns() - ended_ns > MOST_S * NS
        if old or tries >= len(WAITS_S) or _status(error) == _GONE:
            return None
        asked_s = recognise(error, self._clock.wall_ns() / NS).retry_after_s or 0.0
        wait_s = max(WAITS_S[tries], min(asked_s, WAITS_S[-1]))
        return wait_s * (0.9 + 0.2 * self._clock.random.random())

    def _failed(self, error: Exception, record: TurnRecord, tries: int, again_in_s: float | None) -> None:
        status = _status(error)
        why = type(error).__name__ if status is None else f"status_{status}"
        if again_in_s is None:
            self._given_up(record, why, tries)
        else:
            wait_s = round(again_in_s, 1)
            logger.warning("webhook_failed", turn_id=record.turn_id, error=why, tries=tries, again_in_s=wait_s)

    def _given_up(self, record: TurnRecord, why: str, tries: int) -> None:
        logger.error("webhook_given_up", turn_id=record.turn_id, error=why, tries=tries)


def signed(turn_id: str, now_s: int, body: bytes, key: bytes) -> dict[str, str]:
    """The headers that prove who sends ``body``, and when."""
    signature = hmac.digest(key, b"%s.%d.%s" % (turn_id.encode(), now_s, body), hashlib.sha256)
    return {
        "content-type": "application/json",
        "user-agent": f"holdfast/{__version__}",
        "webhook-id": turn_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


@contextmanager
def _whatever() -> Iterator[None]:
    """For the length of the block: whatever goes wrong with the store, telling goes on."""
    try:
        yield
    except StoreUnavailable:  # Health tells.
        return
    except Exception as error:  # noqa: BLE001 - what is raised here would end the server
        log_failure(error)


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None
