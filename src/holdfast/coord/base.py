"""
What several server processes share: units of limits, places to try a target that failed, and what breakers did.

::

    take ───────> all of it, or nothing and how long to wait ── not used ──> refund
    charge                                          used, whether it fits or not
    gate                                            the target said: nothing before then
    probe ──────> a place, until it is released or its lease ends
    publish ····> heard by every other process that subscribed

The evidence of a breaker stays in its own process: only its moves are told. Processes share no clock: whoever keeps the
state reads one, and every time that crosses this border is a duration.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

NEVER = -1
"""The wait for more units than a limit ever holds."""

TIMEOUT_S = 0.25
"""Seconds to wait for an answer, connecting included, unless told otherwise."""

NAMESPACE = "holdfast"
"""What state is kept under, unless told otherwise: processes of another namespace share nothing with these."""

SCHEMES = ("local:", "redis://", "rediss://", "valkey://", "postgresql://")
"""How an address of shared state begins; the first is one as it stands."""

MOST_NUM = 2**42
"""The fastest rate, in units per ``den_ns``: above it, a server's arithmetic would no longer be exact."""


class CoordUnavailable(Exception):
    """
    Whoever keeps the shared state did not answer in time, or could not.

    What was asked for may have been done, all of it or nothing.
    """


class Need(NamedTuple):
    """
    So many units of one limit, of which ``num`` come in each ``den_ns`` nanoseconds.

    A limit whose numbers change is full again when it would have been.

    Attributes:
        key: Names the limit among all; any text of any length.
        num: Units, in [1, 2**42].
        den_ns: The time they come in, at least 1.
        burst: Units held when nothing was taken for long, at least 1.
        cost: Units, at least 0.
    """

    key: str
    num: int
    den_ns: int
    burst: int
    cost: int


class Refusal(NamedTuple):
    """
    Nothing was taken.

    Attributes:
        at: Which of the needs makes one wait longest, counted from 0.
        wait_ns: That wait in nanoseconds, or ``NEVER`` where its cost is above its burst.
    """

    at: int
    wait_ns: int


class Transition(NamedTuple):
    """
    A breaker moved.

    Attributes:
        name: The breaker's.
        state: Where it is now: ``open``, ``closed``, ``forced_open``, ``disabled``.
        left_ns: How long it stays there, counted down until it is heard of and never negative; None where nobody knows.
        why: What moved it.
        origin: Which process said so, in words for people.
    """

    name: str
    state: str
    left_ns: int | None
    why: str
    origin: str


class Coord(Protocol):
    """
    State that processes share.

    All together are admitted exactly what a limit says: in any stretch of time no more than its burst and what comes in
    that time, by the one clock of whoever keeps the state, which tells microseconds or less. A server that starts anew
    has forgotten everything: its limits are full, and its places free.

    Every method raises ``CoordUnavailable`` where no answer comes within the timeout, and none takes longer. Once the
    answers are back, so is everything here, by itself. A caller that is cancelled harms nobody else; what it asked for
    may have been done. Needs with numbers out of range raise ``ValueError``; nothing was done then.
    """

    @property
    def name(self) -> str:
        """``local``, ``redis`` or ``postgres``."""

    async def open(self) -> None:
        """
        Join the others. One that is open stays as it is.

        Raises:
            CoordUnavailable: no answer within five seconds. It is open all the same, and works once there are answers.
            Misconfigured: the server refused us: wrong password, no such database, no permission. Nothing is open.
        """

    async def close(self) -> None:
        """Leave the others, and let go of every connection. Closing twice is fine. Never raises."""

    async def take(self, needs: Sequence[Need]) -> Refusal | None:
        """Take everything, and return None; or nothing, and say what to wait for."""

    async def refund(self, needs: Sequence[Need]) -> None:
        """Give back what was taken and never used. It fills no limit above its burst, and opens no gate."""

    async def charge(self, needs: Sequence[Need]) -> None:
        """Take what was used already, whether it fits or not. What is missing is waited for."""

    async def gate(self, need: Need, wait_ns: int) -> None:
        """
        Admit nothing for ``wait_ns`` nanoseconds, as the target asked. Then one unit is free, and the rest come at the
        rate. A gate that stays shut for longer stays as it is; ``need.cost`` means nothing here.
        """

    async def probe(self, name: str, slots: int, lease_ns: int) -> str | None:
        """A place to try ``name``, of ``slots`` among all processes, for ``lease_ns`` at most; None: all are taken."""

    async def release(self, name: str, probe: str) -> None:
        """Give a place back. One whose lease has ended, or that was never given, changes nothing."""

    async def publish(self, moved: Transition) -> None:
        """Tell every other process."""

    def subscribe(self, hear: Callable[[Transition], None]) -> None:
        """
        Call ``hear`` for every move that another process publishes from ``open`` on, in order.

        It is called soon, on the loop that opened this. What was published while there was no connection is told once
        there is one again.
        """

    async def replicas(self) -> int:
        """Processes that share this and are alive, at least 1. One that died is counted for a few seconds more."""


def merged(needs: Sequence[Need]) -> list[tuple[int, Need]]:
    """
    Each limit once, with all that is asked of it, and the place of its first need.

    Raises:
        ValueError: a number is out of its range, or two needs of one key tell different limits.
    """
    limits: dict[str, tuple[int, Need]] = {}
    for index, need in enumerate(needs):
        if not 1 <= need.num <= MOST_NUM or min(need.den_ns, need.burst) < 1 or need.cost < 0:
            raise ValueError(f"a number is out of range in {need}")
        first_index, first = limits.get(need.key, (index, need._replace(cost=0)))
        if first[:-1] != need[:-1]:
            raise ValueError(f"one limit cannot be both {first} and {need}")
        limits[need.key] = first_index, first._replace(cost=first.cost + need.cost)
    return list(limits.values())


def digest(text: str) -> bytes:
    """16 bytes in place of a text of any length, which a server need neither hold nor show."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
