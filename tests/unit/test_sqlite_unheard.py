"""Turns that nobody runs though their owner seems to live: the embedded store lets others have them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.clock import NS, Clock
from holdfast.store import Claim, Said, SQLiteStore, Unit
from holdfast.testing.store_words import AGENTS, LONG_S, ask, claim_of

if TYPE_CHECKING:
    from tests.unit.sqlite_stores import opened
else:
    from sqlite_stores import opened  # pytest puts a test's folder on the path, mypy the project's

pytestmark = pytest.mark.sockets


async def test_who_is_stopped_between_the_commit_and_the_answer_never_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "store.db") as store:
        run = store._worker.run

        async def run_and_be_stopped(*args: Any, **kwargs: Any) -> None:
            await run(*args, **kwargs)
            raise asyncio.CancelledError

        with monkeypatch.context() as patched:
            patched.setattr(store._worker, "run", run_and_be_stopped)
            with pytest.raises(asyncio.CancelledError):
                await ask(store)
        await store.beat("a")
        assert [turn.generation for turn in await store.claim("b", AGENTS, LONG_S, 10)] == [2]


async def test_one_that_comes_while_another_is_released_is_released_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "store.db") as store:
        first, second = [claim_of((await ask(store, name)).turn) for name in "xy"]
        store._unheard.append(first)
        suspend = store.suspend

        async def meanwhile(claim: Claim, unit: Unit | None = None, said: Said | None = None) -> None:
            if claim == first:
                store._unheard.append(second)
            await suspend(claim, unit, said)

        monkeypatch.setattr(store, "suspend", meanwhile)
        await store.beat("a")
        assert {turn.session_id for turn in await store.claim("b", AGENTS, LONG_S, 10)} == {"x", "y"}


async def test_the_dead_live_no_longer_because_the_clock_was_set_back(tmp_path: Path) -> None:
    """Their last beat is in the future then, and would be for as long as the clock was set back."""
    now_s = 10_000
    store = SQLiteStore(tmp_path / "store.db", Clock(lambda: now_s * NS, lambda: now_s * NS))
    await store.open()
    try:
        turn = (await ask(store)).turn
        await store.beat("a")
        now_s -= 3_600
        assert await store.claim("b", AGENTS, LONG_S, 10) == []
        now_s += round(LONG_S) + 1
        assert [claimed.turn_id for claimed in await store.claim("b", AGENTS, LONG_S, 10)] == [turn.turn_id]
    finally:
        await store.close()
