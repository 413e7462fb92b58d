from datetime import datetime

import pytest

from holdfast.clock import NS, Clock
from holdfast.tools import current_time
from holdfast.tools.error import ToolError

UNIX = 1_769_860_800  # 2026-01-31 12:00 in UTC, a Saturday
tell = current_time.bind(Clock(wall_ns=lambda: UNIX * NS + 999_999_999))


async def test_it_tells_one_moment_in_utc_here_and_in_the_zone_asked_for() -> None:
    told = await tell("Asia/Tokyo")
    local = datetime.fromisoformat(told.pop("local"))
    assert local.timestamp() == UNIX
    assert told == {
        "timezone": "Asia/Tokyo",
        "rfc3339": "2026-01-31T21:00:00+09:00",
        "weekday": "Saturday",
        "utc": "2026-01-31T12:00:00Z",
        "unix": UNIX,
    }


async def test_the_weekday_is_the_one_in_that_zone() -> None:
    assert (await tell("Pacific/Kiritimati"))["weekday"] == "Sunday"


async def test_utc_is_the_default_and_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(current_time, "ZoneInfo")
    assert (await tell())["rfc3339"] == "2026-01-31T12:00:00+00:00"
    assert (await tell("utc"))["rfc3339"] == "2026-01-31T12:00:00+00:00"


@pytest.mark.parametrize(
    "name", ["Mars/Phobos", "Europe", "", "../../etc/passwd", "/etc/localtime", "a\0b", "\ud800", "x" * 10_000]
)
async def test_a_name_that_is_no_zone_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ToolError, match="use an IANA name such as Europe/Rome"):
        await tell(name)
