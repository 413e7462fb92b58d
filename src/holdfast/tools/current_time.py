"""The tool ``current_time``: what time it is, here and elsewhere."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from holdfast.clock import NS, Clock
from holdfast.journal.effects import effect
from holdfast.tools.error import ToolError


def bind(clock: Clock) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The tool, reading the time from ``clock``."""

    @effect("pure")
    async def current_time(timezone: str = "UTC") -> dict[str, Any]:
        """
        Tell the current date and time.

        Gives `timezone` as asked; `rfc3339`, the time there; `weekday` there; `utc` and `local`, the same moment in UTC
        and in the machine's own zone; and `unix`, whole seconds since 1970.

        Args:
            timezone: IANA name of a time zone, such as `Europe/Rome`, `America/New_York` or `UTC`.
        """
        zone = _zone(timezone)
        utc = datetime.fromtimestamp(clock.wall_ns() // NS, UTC)
        there = utc.astimezone(zone)
        return {
            "timezone": timezone,
            "rfc3339": there.isoformat(),
            "weekday": f"{there:%A}",
            "utc": utc.isoformat().replace("+00:00", "Z"),
            "local": utc.astimezone().isoformat(),
            "unix": int(utc.timestamp()),
        }

    return current_time


def _zone(name: str) -> tzinfo:
    # UTC works on a machine without a time zone database too.
    if name.upper() in {"UTC", "Z"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # no such key, a folder of keys, or a name that is no key at all
        raise ToolError(
            f"There is no time zone {name[:50]!r}: use an IANA name such as Europe/Rome, America/New_York or UTC."
        ) from None
