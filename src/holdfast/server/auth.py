"""
Who is asking: the credential decides, and what the body claims is a hint at most.

::

    no key was ever created ─▶ loopback only, anybody; the named user is taken
    a key exists            ─▶ every request needs one: `Authorization: Bearer hf_…` or `X-API-Key: hf_…`

A key is ``hf_<id>_<secret>``. The id finds it; of the secret only a SHA-256 is kept, which is enough for 256 random
bits. Once a key has existed the server stays closed, even when every key is revoked.

Orders to the running process need the scope ``operate``; where nobody needs a key, pages of other origins may not give
any, as a browser sends theirs without asking first.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from holdfast.clock import NS, Clock, token_hex
from holdfast.errors import Forbidden, Unauthenticated
from holdfast.store import Store, StoredKey

PREFIX = "hf"
DELEGATE = "delegate"
OPERATE = "operate"
SCOPES = (DELEGATE, OPERATE)
ANONYMOUS = "anonymous"
_HOST = re.compile(r"([^:@]+|\[[^\]]+\])(:\d*)?")
_ONLY_LOCALHOST = "without API keys this server answers to localhost only; create one: holdfast keys create"
FRESH_S = 2.0
"""Seconds for which the list of keys is believed: a revocation is in force after that."""


class Caller(NamedTuple):
    """
    Who is asking.

    Attributes:
        principal: Whose conversations these are.
        scopes: What the credential allows besides.
        open: Whether nobody needs a credential here.
    """

    principal: str
    scopes: tuple[str, ...] = ()
    open: bool = False

    @property
    def operates(self) -> bool:
        """Whether this caller may see what is everybody's, and give orders to the process."""
        return self.open or OPERATE in self.scopes

    def acting_for(self, user_id: str | None) -> str:
        """Whose turn it is: the named user where this caller may name one, else the caller."""
        may_name = self.open or DELEGATE in self.scopes
        return user_id if may_name and user_id else self.principal


class NewKey(NamedTuple):
    """A key that was just made. ``text`` is shown once and kept nowhere."""

    text: str
    stored: StoredKey


def make_key(principal: str, scopes: tuple[str, ...], clock: Clock, lasts_s: float | None = None) -> NewKey:
    """A new key for ``principal``, good for ``lasts_s`` seconds; None is for ever."""
    key_id, secret = token_hex(6), token_hex(32)
    now = clock.wall_ns()
    stored = StoredKey(
        id=key_id,
        principal=principal,
        scopes=scopes,
        digest=_digest(secret),
        created_ns=now,
        expires_ns=None if lasts_s is None else now + round(lasts_s * NS),
    )
    return NewKey(f"{PREFIX}_{key_id}_{secret}", stored)


class Gate:
    """
    Tells callers apart by their keys.

    The list of keys is read again when it is older than ``FRESH_S`` and somebody asks.

    Args:
        store: Where the keys are kept.
        clock: The clock they expire on.
        tell: Told why a request was not let in: ``missing``, ``unknown``, ``expired`` or ``revoked`` of a key;
            ``scope`` where the key does not cover this; ``origin`` where it was not sent to, or from, this machine.
    """

    def __init__(self, store: Store, clock: Clock, tell: Callable[[str], object] = lambda _: None) -> None:
        self._store = store
        self._clock = clock
        self._tell = tell
        self._keys: dict[str, StoredKey] = {}
        self._read_at: int | None = None
        self._reading = asyncio.Lock()

    async def identify(self, request: Request) -> Caller:
        """
        Who sent this request.

        Raises:
            Unauthenticated: a key is needed, and there is none or it is no good.
            Forbidden: nobody needs a key here, but the request was not addressed to this machine by a loopback name.
            StoreUnavailable: the keys could not be read.
        """
        await self._refresh()
        if not self._keys:
            if not _sent_here(request):
                self._tell("origin")
                raise Forbidden(_ONLY_LOCALHOST)
            return Caller(ANONYMOUS, open=True)
        key = self._find(_presented(request))
        if isinstance(key, str):
            self._tell(key)
            raise Unauthenticated
        return Caller(key.principal, key.scopes)

    async def identify_operator(self, request: Request) -> Caller:
        """
        Who gives an order to the process.

        Raises:
            Forbidden: the key lacks the scope, or the order comes from a page of another origin.
            HoldfastError: as for anybody who asks; see ``identify``.
        """
        caller = await self.identify(request)
        if not caller.operates:
            self._tell("scope")
            raise Forbidden(f"this needs a key with the scope {OPERATE}")
        return self._from_here(request, caller)

    async def identify_owner(self, request: Request) -> Caller:
        """
        Who gives an order about what is theirs.

        Raises:
            Forbidden: the order comes from a page of another origin.
            HoldfastError: as for anybody who asks; see ``identify``.
        """
        return self._from_here(request, await self.identify(request))

    def _from_here(self, request: Request, caller: Caller) -> Caller:
        """Where nobody needs a key, a browser would send an order for any page, without asking first."""
        origin = request.headers.get("origin")
        if caller.open and origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            self._tell("origin")
            raise Forbidden("without API keys a page of another origin may not give orders")
        return caller

    async def closed(self) -> bool:
        """Whether requests need a key."""
        await self._refresh()
        return bool(self._keys)

    async def _refresh(self) -> None:
        if self._is_fresh():
            return
        async with self._reading:
            if not self._is_fresh():
                self._keys = {key.id: key for key in await self._store.keys()}
                self._read_at = self._clock.now()

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock.now() - self._read_at < FRESH_S * NS

    def _find(self, presented: str) -> StoredKey | str:
        """The key that was presented, or why it is none."""
        if not presented:
            return "missing"
        prefix, _, rest = presented.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self._keys.get(key_id) if prefix == PREFIX else None
        if key is None or not hmac.compare_digest(key.digest, _digest(secret)):
            return "unknown"
        if key.revoked_ns is not None:
            return "revoked"
        expired = key.expires_ns is not None and self._clock.wall_ns() >= key.expires_ns
        return "expired" if expired else key


def _sent_here(request: Request) -> bool:
    # A web page that has its own name resolve to 127.0.0.1 still sends that name.
    host = _HOST.fullmatch(request.headers.get("host", ""))
    return host is not None and (host[1].lower() == "localhost" or _is_loopback(host[1]))


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _presented(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
