"""State that several server processes share: one Protocol, in this process, on Redis or Valkey, or on PostgreSQL."""

from holdfast.clock import Clock
from holdfast.coord.base import (
    NAMESPACE,
    NEVER,
    SCHEMES,
    TIMEOUT_S,
    Coord,
    CoordUnavailable,
    Need,
    Refusal,
    Transition,
)
from holdfast.coord.local import Local, Shared
from holdfast.errors import Misconfigured


def open_coord(url: str, clock: Clock, *, timeout_s: float = TIMEOUT_S, namespace: str = NAMESPACE) -> Coord:
    """
    The coord that ``url`` names, not yet opened: ``local:``, ``redis://…``, ``rediss://…``, ``valkey://…`` or
    ``postgresql://…``.

    Args:
        url: Where the state is kept. It may hold a password, and is never shown.
        clock: Time for a local one; chance for the others.
        timeout_s: Seconds that an answer may take, connecting included, > 0.
        namespace: Who gives the same one shares state; 1 to 32 of ``a-z 0-9 _ -``.

    Raises:
        Misconfigured: there is no such kind, its address is none, or its client is not installed. Nothing was opened.
    """
    scheme, slashes, rest = url.partition("://")
    if url == SCHEMES[0]:
        return Local(clock)
    try:
        if slashes and scheme in {"redis", "rediss", "valkey"}:
            from holdfast.coord.redis import Redis  # noqa: PLC0415 - its client may not be installed

            address = f"{scheme.replace('valkey', 'redis')}://{rest}"
            return Redis(address, clock, namespace=namespace, timeout_s=timeout_s)
        if slashes and scheme == "postgresql":
            from holdfast.coord.postgres import Postgres  # noqa: PLC0415 - its client may not be installed

            return Postgres(url, clock, namespace=namespace, timeout_s=timeout_s)
    except ModuleNotFoundError as error:
        extra = "postgres" if scheme == "postgresql" else "redis"
        raise Misconfigured(f"coord.url: {scheme} needs its client; install holdfast[{extra}]") from error
    raise Misconfigured(f"coord.url must be {SCHEMES[0]} or begin with {', '.join(SCHEMES[1:])}")


__all__ = [
    "NAMESPACE",
    "NEVER",
    "TIMEOUT_S",
    "Coord",
    "CoordUnavailable",
    "Local",
    "Need",
    "Refusal",
    "Shared",
    "Transition",
    "open_coord",
]
