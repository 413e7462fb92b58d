"""Whatever replicas do, in whatever order: no turn is lost, no stale owner writes, and a session keeps its order."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from holdfast.clock import NS, Clock
from holdfast.errors import HoldfastError
from holdfast.store import Accepted, Claim, MemoryStore, SQLiteStore, Store, TurnRecord
from holdfast.testing.store_words import ALL, STATES, make_ending, make_turn, make_unit

if TYPE_CHECKING:
    from tests.properties.store_model import LEASE_S, REPLICAS, Model, ModelTurn
else:
    from store_model import LEASE_S, REPLICAS, Model, ModelTurn  # pytest puts a test's folder on the path

SESSIONS = 2

replicas = st.sampled_from(REPLICAS)
picks = st.integers(0, 1_000)
unit_keys = st.sampled_from(("x", "y"))

steps = st.one_of(
    st.tuples(
        st.just("accept"),
        st.integers(0, SESSIONS - 1),
        replicas,
        st.booleans(),
        st.sampled_from((None, "k", "l")),
    ),
    st.tuples(st.just("start"), picks),
    st.tuples(st.just("put"), picks, unit_keys, st.sampled_from(("begun", "done", "failed", "in_doubt"))),
    st.tuples(st.just("suspend"), picks, st.one_of(st.none(), unit_keys)),
    st.tuples(st.just("end"), picks, st.booleans()),
    st.tuples(st.just("claim"), replicas, st.integers(0, 4)),
    st.tuples(st.just("beat"), replicas),
    st.tuples(st.just("leave"), replicas),
    st.tuples(st.just("cancel"), picks),
    st.tuples(st.just("resolve"), picks, unit_keys, st.booleans()),
    st.tuples(st.just("wait"), st.integers(1, LEASE_S)),
)
schedules = st.lists(steps, min_size=30, max_size=80)


class Play:
    """A store and the model side by side. A claim is kept for ever: who holds an old one goes on trying."""

    def __init__(self, make: Callable[[Clock], Store]) -> None:
        self.model = Model()
        self.clock = Clock(lambda: self.model.now * NS, lambda: self.model.now * NS)
        self.store = make(self.clock)
        self.ids: list[str] = []
        self.claims: list[tuple[ModelTurn, Claim]] = []
        self.seen: Counter[str] = Counter()

    def id_of(self, turn: ModelTurn) -> str:
        return self.ids[turn.accepted]

    async def answer(self, call: Any) -> Any:
        try:
            return await call
        except HoldfastError as error:
            return type(error)

    async def step(self, step: tuple[Any, ...]) -> None:
        name, *words = step
        if name in ("start", "put", "suspend", "end"):
            if not self.claims:
                return
            turn, claim = self.claims[words[0] % len(self.claims)]
            wanted, got = await getattr(self, name)(turn, claim, *words[1:])
        elif name in ("cancel", "resolve"):
            if not self.model.turns:
                return
            turn = self.model.turns[words[0] % len(self.model.turns)]
            wanted, got = await getattr(self, name)(turn, *words[1:])
        else:
            wanted, got = await getattr(self, name)(*words)
        self.seen[name if not isinstance(wanted, type) else wanted.__name__] += 1
        assert got == wanted, step

    async def accept(self, session: int, replica: str, waits: bool, key: str | None) -> tuple[Any, Any]:  # noqa: FBT001 - drawn
        message, digest, known = f"m{len(self.ids)}", b"%d" % session, len(self.model.turns)
        wanted = self.model.accept(session, replica, message, key, digest, waits=waits)
        asked = make_turn(
            session_id=f"s{session}", owner=replica, message=message, key=key, digest=digest, waits=waits,
            accepted_ns=len(self.ids),
        )  # fmt: skip
        got = await self.answer(self.store.accept(asked, ALL))
        if isinstance(wanted, type) or not isinstance(got, Accepted):
            return wanted, got
        again = len(self.model.turns) == known
        past = None if again or self.model.waits(wanted) else self.model.past(wanted)
        if not again:
            self.ids.append(got.turn.turn_id)
            self.claims.append((wanted, Claim(got.turn.turn_id, replica, 1)))
        told = None if got.past is None else [one.message for one in got.past]
        return (wanted.seen, again, past), (seen(got.turn), got.again, told)

    async def start(self, turn: ModelTurn, claim: Claim) -> tuple[Any, Any]:
        got = await self.answer(self.store.start(claim, ALL))
        return self.model.start(turn, claim), [one.message for one in got] if isinstance(got, tuple) else got

    async def put(self, turn: ModelTurn, claim: Claim, key: str, state: Any) -> tuple[Any, Any]:
        got = await self.answer(self.store.put_unit(claim, make_unit(key, state=state)))
        return self.model.put(turn, claim, key, state), got

    async def suspend(self, turn: ModelTurn, claim: Claim, doubt: str | None) -> tuple[Any, Any]:
        unit = None if doubt is None else make_unit(doubt)
        return self.model.suspend(turn, claim, doubt), await self.answer(self.store.suspend(claim, unit))

    async def end(self, turn: ModelTurn, claim: Claim, success: bool) -> tuple[Any, Any]:  # noqa: FBT001 - drawn
        ending = make_ending(outcome="success" if success else "error")
        return self.model.end(turn, claim, success=success), await self.answer(self.store.end_turn(claim, ending))

    async def claim(self, replica: str, limit: int) -> tuple[Any, Any]:
        wanted = self.model.claim(replica, limit)
        got = await self.store.claim(replica, ["assistant"], LEASE_S, limit)
        self.claims += [(turn, Claim(self.id_of(turn), replica, turn.generation)) for turn in wanted]
        return [turn.seen for turn in wanted], [seen(turn) for turn in got]

    async def beat(self, replica: str) -> tuple[Any, Any]:
        self.model.beats[replica] = self.model.now
        to_stop = [self.id_of(turn) for turn in self.model.turns if turn.owner == replica and turn.cancelled]
        return sorted(to_stop), sorted(await self.answer(self.store.beat(replica)))

    async def leave(self, replica: str) -> tuple[Any, Any]:
        self.model.leave(replica)
        return None, await self.answer(self.store.leave(replica))

    async def cancel(self, turn: ModelTurn) -> tuple[Any, Any]:
        return self.model.cancel(turn), await self.store.cancel(self.id_of(turn))

    async def resolve(self, turn: ModelTurn, key: str, happened: bool) -> tuple[Any, Any]:  # noqa: FBT001 - drawn
        got = await self.store.resolve(self.id_of(turn), "tool", key, b"1" if happened else None, 1)
        return self.model.resolve(turn, key, happened=happened), got

    async def wait(self, seconds: int) -> tuple[Any, Any]:
        self.model.now += seconds
        return None, None

    async def agree(self) -> None:
        """What is stored is what the model says, of every turn ever accepted."""
        stored = await self.store.find_turns(None, STATES, 1_000, None)
        assert [seen(turn) for turn in stored] == [turn.seen for turn in reversed(self.model.turns)]
        running = Counter(turn.session_id for turn in stored if turn.state == "running")
        assert all(count == 1 for count in running.values())
        for turn in self.model.turns:
            units = await self.store.units(self.id_of(turn))
            assert {unit.key: unit.state for unit in units} == turn.units

    async def finish(self) -> None:
        """Somebody who comes last can end every turn there is, each session's in order."""
        for turn in self.model.turns:
            for key in turn.units:
                await self.step(("resolve", turn.accepted, key, True))
        self.model.now += LEASE_S + 1
        await self.step(("beat", "last"))
        await self.step(("claim", "last", 1_000))
        waiting = {self.id_of(turn) for turn in self.model.turns if turn.state != "ended"}
        for turn, claim in self.claims:
            if claim.owner == "last":
                assert await self.store.start(claim, ALL) is not None
                await self.store.end_turn(claim, make_ending())
                waiting.remove(self.id_of(turn))
        assert waiting == set()
        assert {turn.state for turn in await self.store.find_turns(None, STATES, 1_000, None)} <= {"ended"}


def seen(turn: TurnRecord) -> tuple[object, ...]:
    return turn.number, turn.message, turn.state, turn.owner, turn.generation, turn.cancelled


async def play(make: Callable[[Clock], Store], schedule: list[tuple[Any, ...]]) -> Counter[str]:
    played = Play(make)
    await played.store.open()
    try:
        for step in schedule:
            await played.step(step)
        await played.agree()
        await played.finish()
        if isinstance(played.store, SQLiteStore):
            assert await played.store.check() == []
    finally:
        await played.store.close()
    return played.seen


@settings(max_examples=150, deadline=None)
@given(schedules)
def test_the_store_in_memory_does_what_the_model_does(schedule: list[tuple[Any, ...]]) -> None:
    asyncio.run(play(MemoryStore, schedule))


@settings(max_examples=40, deadline=None)
@given(schedules)
def test_the_store_in_sqlite_does_what_the_model_does(schedule: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(lambda clock: SQLiteStore(Path(folder) / "store.db", clock), schedule))


@settings(max_examples=20, deadline=None)
@given(st.lists(schedules, min_size=2, max_size=4))
def test_the_store_in_sqlite_is_as_good_by_many_connections(schedules: list[list[tuple[Any, ...]]]) -> None:
    """As by several processes, each of which opens the file anew."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(take_turns(Path(folder) / "store.db", schedules))


async def take_turns(path: Path, schedules: list[list[tuple[Any, ...]]]) -> None:
    played = Play(lambda clock: SQLiteStore(path, clock))
    stores = [SQLiteStore(path, played.clock) for _ in schedules]
    try:
        for store in stores:
            await store.open()
        played.store = stores[0]
        for n in range(max(map(len, schedules))):
            for played.store, schedule in zip(stores, schedules, strict=True):
                if n < len(schedule):
                    await played.step(schedule[n])
        await played.agree()
        await played.finish()
    finally:
        for store in stores:
            await store.close()


class Stale(MemoryStore):
    """Lets an owner write after another has claimed the turn."""

    def _owned(self, claim: Claim) -> Any:
        turn = self._turns[claim.turn_id]
        return turn if turn.record.owner is not None else super()._owned(claim)


class Losing(MemoryStore):
    """Takes no turn back that was running when its owner died."""

    async def claim(self, replica: str, agents: Any, lease_s: float, limit: int) -> list[TurnRecord]:
        running = [turn for turn in self._turns.values() if turn.record.state == "running"]
        for turn in running:
            del self._turns[turn.record.turn_id]
        claimed = await super().claim(replica, agents, lease_s, limit)
        for turn in running:
            self._turns[turn.record.turn_id] = turn
        return claimed


class Overtaking(MemoryStore):
    """Starts a turn while an earlier one waits to be claimed."""

    async def start(self, claim: Claim, window_tokens: int) -> Any:
        turn = self._owned(claim)
        session = self._sessions[turn.record.principal, turn.record.session_id]
        if any(other.record.state == "running" for other in session.turns[: turn.record.number - 1]):
            return None
        turn.change(state="running")
        return session.past(turn.record.number, window_tokens)


@pytest.mark.parametrize("broken", [Stale, Losing, Overtaking])
def test_a_broken_store_is_found_out_by_some_schedule(broken: type[MemoryStore]) -> None:
    @settings(max_examples=300, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @given(schedules)
    def look(schedule: list[tuple[Any, ...]]) -> None:
        asyncio.run(play(broken, schedule))

    with pytest.raises(AssertionError):
        look()


def test_the_schedules_reach_what_they_are_to_try() -> None:
    """A schedule that never meets a stale owner shows nothing of it."""
    met: Counter[str] = Counter()

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(schedules)
    def look(schedule: list[tuple[Any, ...]]) -> None:
        met.update(asyncio.run(play(MemoryStore, schedule)))

    look()
    every = ("KeyReused", "NotOwner", "SessionBusy", "start", "put", "suspend", "end", "claim", "cancel", "resolve")
    assert {name: count for name in every if (count := met[name]) < 20} == {}
