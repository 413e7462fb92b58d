"""
Time and chance: the only module that reads a clock or draws a random number.

Everything else is handed a ``Clock``. In production it is the machine's; in tests it is the virtual loop's,
so that hours pass in milliseconds and every run is the same.
"""

import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

NS = 1_000_000_000


class Clock:
    """
    What time it is, and what the dice say.

    Attributes:
        now: Nanoseconds on a clock that never goes back. For durations and deadlines; means nothing elsewhere.
        wall_ns: Nanoseconds since 1970 in UTC. For records that people read; may jump when the machine's clock is set.
        random: Source of chance for jitter and sampling. Never used for secrets.
    """

    __slots__ = ("now", "random", "wall_ns")

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,  # noqa: TID251 - this module is where time is read
        wall_ns: Callable[[], int] = time.time_ns,  # noqa: TID251 - this module is where time is read
        seed: int | None = None,
    ) -> None:
        self.now = monotonic_ns
        self.wall_ns = wall_ns
        self.random = random.Random(seed)  # noqa: S311 - jitter and sampling, never secrets

    def wall(self) -> datetime:
        """The time of day in UTC."""
        return datetime.fromtimestamp(self.wall_ns() / NS, UTC)


def token_hex(nbytes: int) -> str:
    """``2 * nbytes`` hexadecimal digits that nobody can guess. For ids and secrets."""
    return secrets.token_hex(nbytes)


def iso(wall_ns: int, *, micros: bool = False) -> str:
    """A wall-clock reading as RFC 3339 text in UTC with milliseconds, or ``micros``: ``2026-01-31T12:00:00.000Z``."""
    seconds, ns = divmod(wall_ns, NS)
    return f"{_second(seconds)}.{ns // 1_000:06}Z" if micros else f"{_second(seconds)}.{ns // 1_000_000:03}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
