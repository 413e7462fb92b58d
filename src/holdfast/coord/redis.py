"""
State shared through Redis 5 or later, or Valkey.

Every decision is one script, so that it is one step for all, and times are the server's. All keys hold ``{namespace}``
and are thus in one hash slot: one ``take`` may ask for any limits together. Moves are a stream: each process waits at
its end, and after an outage reads on from where it was.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, ReadOnlyError, RedisError

from holdfast.clock import Clock, token_hex
from holdfast.coord import remote
from holdfast.coord.base import Need, Transition, digest
from holdfast.coord.micros import US_NS, amounts, micros
from holdfast.errors import Misconfigured

CONNECTIONS = 16
"""Connections to ask on; who comes when all are busy waits within its timeout."""

_MOVES = 1_000
"""About so many moves are kept for those who were cut off."""

_MS_NS = 1_000_000
_S_US = 1_000_000


class _Script:
    """A script, and what a server calls it that has seen it before."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_SCRIPTS = {name: _Script(text) for name, text in remote.statements("lua/redis.lua").items()}


class Redis(remote.Remote):
    """
    A ``Coord`` on the Redis or Valkey at ``url``. It does not follow a cluster's redirections.

    Raises:
        Misconfigured: ``url`` is none that a client understands.
    """

    name = "redis"
    _outages = (RedisError, OSError)
    _refusals = (AuthenticationError, NoPermissionError)

    def __init__(self, url: str, clock: Clock, *, namespace: str, timeout_s: float) -> None:
        super().__init__(clock, namespace, timeout_s)
        try:
            # Any: the client's annotations are those of all its versions, modes and protocols at once.
            self._client: Any = _client(url, CONNECTIONS)
            self._listener: Any = _client(url, 1)
        except ValueError:
            # The cause is left out: it may quote the password.
            raise Misconfigured("coord.url: not an address that Redis has, such as redis://host:6379/0") from None
        self._moves, self._replicas = f"{{{namespace}}}:moves", f"{{{namespace}}}:replicas"
        self._last: bytes | None = None

    async def _spend(self, needs: Sequence[Need], *, must_fit: bool, gate_ns: int | None) -> tuple[int, int]:
        keys = [self._key("limit", need.key) for need in needs]
        args: list[int] = [int(must_fit), -1 if gate_ns is None else micros(gate_ns)]
        for need in needs:
            args += amounts(need)
        at, wait_us = await self._ask(lambda: _run(self._client, _SCRIPTS["spend"], keys, args))
        return at - 1, wait_us * US_NS

    async def probe(self, name: str, slots: int, lease_ns: int) -> str | None:
        """See ``Coord.probe``."""
        probe = token_hex(8)
        args = [probe, slots, micros(lease_ns)]
        taken = await self._ask(lambda: _run(self._client, _SCRIPTS["probe"], [self._key("probe", name)], args))
        return probe if taken else None

    async def release(self, name: str, probe: str) -> None:
        """See ``Coord.release``."""
        await self._ask(lambda: self._client.zrem(self._key("probe", name), probe))

    async def publish(self, moved: Transition) -> None:
        """See ``Coord.publish``."""
        entry = {"sender": self._id, "move": remote.packed(moved)}
        await self._ask(lambda: self._client.xadd(self._moves, entry, maxlen=_MOVES, approximate=True))

    async def replicas(self) -> int:
        """See ``Coord.replicas``."""
        alive, _ = await self._ask(lambda: self._beat(self._client))
        return int(alive)

    async def _connect(self) -> None:
        await self._beat(self._listener)
        if self._last is None:
            latest = await self._listener.xrevrange(self._moves, count=1)
            self._last = latest[0][0] if latest else b"0-0"

    async def _attend(self) -> None:
        heard = await self._listener.xread({self._moves: self._last}, block=round(remote.BEAT_S * 1_000))
        _, now_ms = await self._beat(self._listener)
        for _, entries in heard:
            for entry, said in entries:
                self._last = entry
                age_ms = now_ms - int(entry.partition(b"-")[0])
                self._hear_of(said[b"sender"].decode(), said[b"move"], age_ms * _MS_NS)

    async def _leave(self) -> None:
        await self._client.zrem(self._replicas, self._id)

    async def _disconnect(self) -> None:
        for client in (self._client, self._listener):
            await client.connection_pool.disconnect()

    async def _beat(self, client: Any) -> tuple[int, int]:
        alive, now_ms = await _run(
            client, _SCRIPTS["beat"], [self._replicas], [self._id, round(remote.LEASE_S * _S_US)]
        )
        return alive, now_ms

    def _key(self, kind: str, name: str) -> str:
        return f"{{{self._namespace}}}:{kind}:{digest(name).hex()}"


def _client(url: str, connections: int) -> Client:
    """A client that tries once: each time that anybody is willing to wait is told elsewhere."""
    once = Retry(NoBackoff(), 0)
    times = {"timeout": None, "socket_timeout": None, "socket_connect_timeout": None}
    pool = BlockingConnectionPool.from_url(url, max_connections=connections, protocol=2, retry=once, **times)
    return Client.from_pool(pool)


async def _run(client: Any, script: _Script, keys: Sequence[str], args: Sequence[object]) -> Any:
    try:
        return await client.evalsha(script.sha, len(keys), *keys, *args)
    except NoScriptError:  # The server has started anew, or never saw it.
        return await client.eval(script.text, len(keys), *keys, *args)
    except ReadOnlyError:  # Another server is the one to write to now.
        await client.connection_pool.disconnect(inuse_connections=False)
        raise
