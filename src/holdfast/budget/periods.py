"""Days and months of UTC: what they are called, and when they end."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

from holdfast.clock import NS

Every = Literal["day", "month", ""]


class Today(NamedTuple):
    """
    The day and the month of one moment.

    Attributes:
        day, month: As accounts are named by them.
        day_ends_ns, month_ends_ns: When the next ones begin, in wall-clock nanoseconds.
        last_month: The month before, the oldest that is still of interest.
    """

    day: str
    month: str
    day_ends_ns: int
    month_ends_ns: int
    last_month: str

    def named(self, every: Every) -> str:
        """The period of an account that is begun anew ``every`` so often."""
        return {"day": self.day, "month": self.month, "": ""}[every]

    def ends_ns(self, every: Every) -> int | None:
        """When it is begun anew; None for never."""
        return {"day": self.day_ends_ns, "month": self.month_ends_ns, "": None}[every]


def today(wall_ns: int) -> Today:
    """The day and the month that ``wall_ns`` is in."""
    return _of_day(wall_ns // (86_400 * NS))


@lru_cache(maxsize=8)
def _of_day(days: int) -> Today:
    midnight = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)
    first = midnight.replace(day=1)
    next_month = (first + timedelta(days=32)).replace(day=1)
    last_month = first - timedelta(days=1)
    return Today(
        day=midnight.strftime("%Y-%m-%d"),
        month=midnight.strftime("%Y-%m"),
        day_ends_ns=round((midnight + timedelta(days=1)).timestamp()) * NS,
        month_ends_ns=round(next_month.timestamp()) * NS,
        last_month=last_month.strftime("%Y-%m"),
    )
