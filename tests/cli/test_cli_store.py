"""`holdfast store`: brought up to date, looked over, copied and put back, whichever store it is."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Holdfast
else:
    from conftest import Holdfast

DB = Path("data/holdfast.db")
COPY = "copy.bak"


def users(holdfast: Holdfast, *words: str) -> list[str]:
    """Whose keys there are: what the tests keep in a store, to find it again."""
    said = holdfast("keys", "list", *words)
    return [line.split()[3] for line in said.out.splitlines() if "  good " in line]


def test_a_new_store_is_made_and_then_up_to_date(holdfast: Holdfast) -> None:
    said = holdfast("store", "migrate")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("schema 0 is now schema ")
    again = holdfast("store", "migrate")
    assert (again.code, again.out) == (0, f"schema {said.out.split()[-1]}: it was up to date\n")
    looked = holdfast("store", "check")
    assert (looked.code, looked.out) == (0, "nothing is wrong\n")


def test_a_look_over_says_what_is_wrong_and_exits_with_1(holdfast: Holdfast) -> None:
    holdfast("store", "migrate")
    with closing(sqlite3.connect(DB)) as db:
        db.execute("INSERT INTO sessions VALUES ('c', 'anna', 'talk', 7, 1, 1)")
        db.commit()
    said = holdfast("store", "check")
    assert said.code == 1
    assert "conversations whose turns are not numbered from 1 to their count: c" in said.out


@pytest.mark.parametrize("words", [("migrate",), ("check",), ("backup", COPY), ("restore", COPY)])
def test_a_store_in_memory_has_nothing_to_look_after(
    holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOLDFAST_STORE__URL", "memory:")
    said = holdfast("store", *words)
    assert said.code == 2
    assert said.err == (
        "holdfast: store.url is memory:, which keeps nothing; set it to sqlite:PATH or postgresql://…\n"
    )


@pytest.mark.parametrize("words", [("check",), ("backup", COPY)])
def test_a_store_that_is_not_there_is_not_made(holdfast: Holdfast, words: tuple[str, ...]) -> None:
    said = holdfast("store", *words)
    assert (said.code, DB.exists(), Path(COPY).exists()) == (2, False, False)
    assert said.err.startswith("holdfast: there is no store at data/holdfast.db")


def test_a_copy_is_put_in_place_of_nothing_and_with_force_of_something(holdfast: Holdfast) -> None:
    holdfast("keys", "create", "--user", "anna")
    assert holdfast("store", "backup", COPY) == (0, f"copied to {COPY}\n", "")
    holdfast("keys", "create", "--user", "ben")
    refused = holdfast("store", "restore", COPY)
    assert refused.code == 2
    assert "holds turns or keys; --force keeps it aside" in refused.err
    assert users(holdfast) == ["anna", "ben"]
    said = holdfast("store", "restore", COPY, "--force")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("nothing is wrong\n")
    assert users(holdfast) == ["anna"]
    (aside,) = DB.parent.glob("holdfast.db.before-*")
    assert str(aside) in said.out
    assert (DB.stat().st_mode & 0o777, aside.stat().st_mode & 0o777) == (0o600, 0o600)
    aside.replace(DB)
    for left in DB.parent.glob("holdfast.db-*"):
        left.unlink()
    assert users(holdfast) == ["anna", "ben"]
    DB.unlink()
    for left in DB.parent.glob("holdfast.db-*"):
        left.unlink()
    assert holdfast("store", "restore", COPY).out == f"restored from {COPY}\nnothing is wrong\n"
    assert users(holdfast) == ["anna"]
    assert not list(DB.parent.glob("*.part"))


def test_a_copy_takes_no_files_place(holdfast: Holdfast) -> None:
    holdfast("store", "migrate")
    Path(COPY).write_text("mine")
    said = holdfast("store", "backup", COPY)
    assert (said.code, Path(COPY).read_text()) == (2, "mine")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("made", [None, b"", b"no database" * 1_000])
def test_what_is_no_copy_is_put_nowhere(holdfast: Holdfast, made: bytes | None) -> None:
    holdfast("keys", "create", "--user", "anna")
    if made is not None:
        Path(COPY).write_bytes(made)
    said = holdfast("store", "restore", COPY, "--force")
    assert said.code == 2
    assert COPY in said.err
    assert users(holdfast) == ["anna"]


def test_a_damaged_store_can_be_replaced(holdfast: Holdfast) -> None:
    holdfast("keys", "create", "--user", "anna")
    holdfast("store", "backup", COPY)
    DB.write_bytes(b"no database" * 1_000)
    assert holdfast("store", "restore", COPY).code == 2
    assert holdfast("store", "restore", COPY, "--force").code == 0
    assert users(holdfast) == ["anna"]
    aside = min(DB.parent.glob("holdfast.db.before-*"))
    assert aside.read_bytes().startswith(b"no database")


def test_a_store_that_is_in_use_is_not_replaced(holdfast: Holdfast) -> None:
    holdfast("keys", "create", "--user", "anna")
    holdfast("store", "backup", COPY)
    with closing(sqlite3.connect(DB)) as server:
        server.execute("SELECT count(*) FROM api_keys").fetchone()
        said = holdfast("store", "restore", COPY, "--force")
    assert said.code == 2
    assert "somebody uses it; stop the server first" in said.err
    assert users(holdfast) == ["anna"]
