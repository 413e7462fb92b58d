"""`holdfast store` on PostgreSQL: brought up to date, looked over, copied and put back."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg  # type: ignore[import-untyped]  # it has no annotations
import pytest

from holdfast.cli import main
from holdfast.clock import token_hex
from holdfast.store.postgres_schema import steps
from holdfast.store.postgres_url import address

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer, find
else:
    from servers import PostgresServer, find  # pytest puts a test's folder on the path, and mypy the project's

SECRET = "hunter2"


class Said(NamedTuple):
    code: int
    out: str
    err: str


Holdfast = Callable[..., Said]


@pytest.fixture
def url(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a schema of its own, in the settings, with a password that nobody asks for."""
    url = f"{postgres_server.url}?search_path=s{token_hex(8)}".replace("holdfast@", f"holdfast:{SECRET}@")
    monkeypatch.setenv("HOLDFAST_STORE__URL", url)
    return url


@pytest.fixture
def holdfast(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Holdfast:
    """Run a command here: its words in, its exit code and words out."""
    monkeypatch.chdir(tmp_path)
    programs = str(Path(find("pg_dump") or "pg_dump").parent)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["holdfast", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert SECRET not in said.out + said.err
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run


def execute(url: str, statement: str) -> None:
    async def alone() -> None:
        where = address(url)
        connection = await asyncpg.connect(where.url, server_settings={"search_path": where.schema})
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(alone())


def users(holdfast: Holdfast) -> list[str]:
    return [line.split()[3] for line in holdfast("keys", "list").out.splitlines() if "  good " in line]


def test_a_new_schema_is_made_and_then_up_to_date(holdfast: Holdfast) -> None:
    latest = len(steps())
    assert holdfast("store", "migrate") == (0, f"schema 0 is now schema {latest}\n", "")
    assert holdfast("store", "migrate") == (0, f"schema {latest}: it was up to date\n", "")
    assert holdfast("store", "check") == (0, "nothing is wrong\n", "")


def test_a_look_over_says_what_is_wrong_and_exits_with_1(holdfast: Holdfast, url: str) -> None:
    holdfast("store", "migrate")
    execute(url, "INSERT INTO sessions VALUES ('c', 'anna', 'talk', 7, 1, 1)")
    said = holdfast("store", "check")
    assert (said.code, said.out) == (
        1,
        "conversations whose turns are not numbered from 1 to their count: c\n",
    )


def test_a_copy_is_put_in_place_of_nothing_and_with_force_of_something(holdfast: Holdfast, url: str) -> None:
    pytest.importorskip("asyncpg")
    holdfast("keys", "create", "--user", "anna")
    assert holdfast("store", "backup", "copy.dump") == (0, "copied to copy.dump\n", "")
    assert Path("copy.dump").stat().st_mode & 0o777 == 0o600
    assert holdfast("store", "backup", "copy.dump").code == 2
    holdfast("keys", "create", "--user", "ben")
    refused = holdfast("store", "restore", "copy.dump")
    assert refused.code == 2
    assert "holds turns or keys; --force keeps them aside" in refused.err
    said = holdfast("store", "restore", "copy.dump", "--force")
    assert (said.code, said.err) == (0, "")
    assert users(holdfast) == ["anna"]
    aside = said.out.split("the schema ")[1].split()[0]
    execute(url, f"SELECT FROM {aside}.turns; DROP SCHEMA {aside} CASCADE; DELETE FROM api_keys")
    assert holdfast("store", "restore", "copy.dump").out == "restored from copy.dump\nnothing is wrong\n"
    assert users(holdfast) == ["anna"]
    execute(url, f"DROP SCHEMA {address(url).schema} CASCADE")
    assert holdfast("store", "restore", "copy.dump").code == 0
    assert users(holdfast) == ["anna"]


def test_what_is_no_copy_leaves_everything_as_it_is(holdfast: Holdfast, url: str) -> None:
    holdfast("keys", "create", "--user", "anna")
    Path("bad.dump").write_text("no copy")
    assert holdfast("store", "restore", "nowhere.dump", "--force").code == 2
    said = holdfast("store", "restore", "bad.dump", "--force")
    assert said.code == 1
    assert "pg_restore failed" in said.err
    assert said.err.count("\n") == 1
    assert users(holdfast) == ["anna"]


def test_a_copy_of_another_schema_leaves_everything_as_it_is(
    holdfast: Holdfast, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holdfast("keys", "create", "--user", "anna")
    holdfast("store", "backup", "copy.dump")
    execute(url, f"DROP SCHEMA {address(url).schema} CASCADE")
    monkeypatch.setenv("HOLDFAST_STORE__URL", url.replace("search_path=s", "search_path=t"))
    holdfast("keys", "create", "--user", "ben")
    said = holdfast("store", "restore", "copy.dump", "--force")
    assert said.code == 2
    assert "is no copy of a schema" in said.err
    assert users(holdfast) == ["ben"]


def test_a_store_that_a_server_uses_is_not_replaced(holdfast: Holdfast, url: str) -> None:
    holdfast("keys", "create", "--user", "anna")
    holdfast("store", "backup", "copy.dump")
    execute(url, "INSERT INTO replicas VALUES ('a', now_ns())")
    said = holdfast("store", "restore", "copy.dump", "--force")
    assert said.code == 2
    assert "1 servers use the store" in said.err


def test_without_the_programs_of_postgresql_there_is_no_copy(
    holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    holdfast("store", "migrate")
    monkeypatch.setenv("PATH", "/nowhere")
    said = holdfast("store", "backup", "copy.dump")
    assert (said.code, Path("copy.dump").exists()) == (2, False)
    assert said.err == "holdfast: pg_dump is not installed here: it comes with PostgreSQL's client programs\n"
