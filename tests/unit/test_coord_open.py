"""Which coord an address names, what its settings are, and what the one in this process forgets."""

import hashlib
import re
import sys

import pytest
from pydantic import ValidationError

from holdfast.clock import NS, Clock
from holdfast.coord import Coord, Local, Need, open_coord
from holdfast.coord.local import Shared
from holdfast.coord.micros import amounts, micros
from holdfast.coord.remote import statements
from holdfast.coord.spec import CoordSpec
from holdfast.errors import Misconfigured

CLOCK = Clock(lambda: 0)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("local:", "local"),
        ("redis://127.0.0.1:1/0", "redis"),
        ("rediss://user:secret@127.0.0.1:1/0", "redis"),
        ("valkey://127.0.0.1", "redis"),
        ("postgresql://user:secret@127.0.0.1:1/any", "postgres"),
    ],
)
async def test_an_address_names_its_coord(url: str, name: str) -> None:
    coord: Coord = open_coord(url, CLOCK)
    assert coord.name == name
    assert "secret" not in repr(coord)
    await coord.close()


@pytest.mark.parametrize(
    "url", ["", "local", "local:x", "memory:", "mysql://host", "REDIS://host", "redis", "redis:x", "postgresql:x"]
)
def test_an_address_of_another_kind_is_a_mistake_in_the_settings(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"^coord\.url must be local: or begin with redis://, .*postgresql://$"):
        open_coord(url, CLOCK)
    with pytest.raises(ValidationError, match="must be local: or begin with redis://"):
        CoordSpec.model_validate({"url": url})


@pytest.mark.parametrize("url", ["redis://:secret@host:port/0", "redis://:sec#ret@host:1/0"])
def test_an_address_that_makes_no_sense_is_not_quoted(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"^coord\.url: not an address") as wrong:
        open_coord(url, CLOCK)
    assert "sec" not in str(wrong.value)
    assert wrong.value.__cause__ is None
    assert wrong.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("redis://host", "redis", "redis"),
        ("valkey://host", "redis", "redis"),
        ("postgresql://h", "asyncpg", "postgres"),
    ],
)
def test_a_client_that_is_missing_is_named_with_what_to_install(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"holdfast.coord.{extra}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Misconfigured, match=rf"install holdfast\[{extra}\]"):
        open_coord(url, CLOCK)


def test_the_settings_have_defaults_and_never_show_the_address() -> None:
    spec = CoordSpec()
    assert (spec.url.get_secret_value(), spec.timeout_s, spec.namespace) == ("local:", 0.25, "holdfast")
    spec = CoordSpec.model_validate({"url": "redis://:secret@host"})
    assert "secret" not in f"{spec!r} {spec.model_dump_json()}"
    about = CoordSpec.model_json_schema()["properties"]["url"]
    assert (about["default"], about["format"]) == ("local:", "password")


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"namespace": ""}, {"namespace": "A b"}, {"namespace": "x" * 33}])
def test_a_setting_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CoordSpec.model_validate(wrong)


def test_time_is_told_to_a_server_exactly() -> None:
    assert [micros(ns) for ns in (0, 1, 1_000, 1_001)] == [0, 1, 1, 2]
    assert amounts(Need("a", 3, NS, 5, 2)) == (3, 666_666, 2, 1_666_666, 2, 1_333_333, 1)
    assert amounts(Need("a", 3, NS, 1, -1)) == (3, -333_334, 2, 333_333, 1, 0, 0)
    assert amounts(Need("a", 4, NS, 1, 0)) == (1, 0, 0, 250_000, 0, 0, 0)


def test_no_number_that_a_server_is_told_leaves_what_a_script_can_count() -> None:
    need = Need("a", 2**42, 2**80 + 1, 2**80, 2**90)
    for cost in (need.cost, -need.cost):
        parts, *times = amounts(need._replace(cost=cost))
        assert parts < 2**52
        assert all(abs(number) <= 2**52 for number in times)
    assert micros(2**100) <= 2**52


def test_a_change_of_the_schema_takes_the_next_number() -> None:
    """A schema that is there is never touched: with the old number, a change would not reach it."""
    schema = statements("sql/postgres.sql")["schema"]
    assert re.findall(r"CREATE SCHEMA (\w+);", schema) == ["holdfast_coord_1"]
    assert hashlib.sha256(schema.encode()).hexdigest()[:16] == "d2e42ff25ac6d48e"


async def test_the_one_in_this_process_forgets_limits_that_are_full_and_no_others() -> None:
    now, shared = 0, Shared()
    coord = Local(Clock(lambda: now), shared)
    await coord.open()
    slow = Need("slow", 1, 3_600 * NS, 5, 5)
    await coord.take([slow])
    await coord.gate(slow._replace(key="gated"), 3_600 * NS)
    for number in range(10_000):
        now += NS // 10
        assert await coord.take([Need(str(number), 1, NS, 5, 1)]) is None
        assert len(shared.limits) <= 1_001
    assert {"slow", "gated"} <= set(shared.limits)
    assert await coord.take([slow]) is not None
