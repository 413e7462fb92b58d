"""What every store does with a turn: it is accepted, written by its owner alone, and ended."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from holdfast.errors import KeyReused, NotOwner, SessionBusy
from holdfast.events import Usage
from holdfast.store import Claim, Ending, Said, Store, TurnRecord, Unit
from holdfast.testing.store_words import (
    ALL,
    LONG_S,
    as_kept,
    as_past,
    ask,
    claim_of,
    claim_soon,
    end,
    expect,
    expect_refusal,
    make_ending,
    make_turn,
    make_unit,
    numbers,
    read,
    talk,
    written,
)

CHUNK = Said(3, b'[[1,"a",{}],[2,"b",{}],[3,"c",{}]]')


async def an_accepted_turn_is_kept_before_it_runs(store: Store) -> None:
    """Every field, numbered after the last one, whatever became of that."""
    await store.ping()
    asked = make_turn(streams=True, key="key", digest=b"\0\xff", webhook="https://example.com/told")
    first, again, past = await store.accept(asked, ALL)
    expect("the first turn", first, as_kept(asked, first.conversation_id, 1))
    expect("whether it was accepted before, and its past", (again, past), (False, ()))
    expect("the turn as it is stored", await store.turn(first.turn_id), first)
    expect(
        "units and events of a new turn",
        (await store.units(first.turn_id), await store.said(first.turn_id, 0)),
        ([], []),
    )
    await end(store, first, outcome="timeout", messages=None)
    second = (await ask(store)).turn
    expect("the number after a turn that failed", second, as_kept(make_turn(), first.conversation_id, 2))
    other = (await ask(store, "other")).turn
    expect("one conversation for two sessions", other.conversation_id == first.conversation_id, wanted=False)


async def an_earlier_turn_comes_first(store: Store) -> None:
    """One that has to wait is queued, and starts once those before it have ended, whatever the order of asking."""
    first = await ask(store)
    second = await ask(store, message="2", accepted_ns=900)
    third = await ask(store, message="3")
    for number, waiting in ((2, second), (3, third)):
        got = (waiting.turn.number, waiting.turn.state, waiting.turn.owner, waiting.past)
        expect(f"turn {number} behind another", got, (number, "queued", "a", None))
    expect("starting behind a running turn", await store.start(claim_of(second.turn), ALL), None)
    expect("its state then", (await read(store, second.turn)).state, "queued")
    expect("starting a running turn", await store.start(claim_of(first.turn), ALL), ())
    await end(store, first.turn)
    expect("starting behind a queued turn", await store.start(claim_of(third.turn), ALL), None)
    told = (as_past(make_turn(), make_ending()),)
    expect("past of the second turn", await store.start(claim_of(second.turn), ALL), told)
    expect("past in a window of 0", await store.start(claim_of(second.turn), 0), ())
    expect(
        "the second turn once it started",
        await read(store, second.turn),
        msgspec.structs.replace(second.turn, state="running"),
    )
    expect("starting behind a started turn", await store.start(claim_of(third.turn), ALL), None)
    await end(store, second.turn, outcome="error", error="agent_failed", messages=None)
    expect("past of the third, without the one that failed", await store.start(claim_of(third.turn), ALL), told)
    expect("its state", (await read(store, third.turn)).state, "running")


async def a_queued_turn_can_end_before_it_starts(store: Store) -> None:
    """As where its caller has waited long enough."""
    await ask(store)
    second, third = (await ask(store)).turn, (await ask(store)).turn
    expect("a queued turn that ended", (await end(store, second, outcome="cancelled")).state, "ended")
    expect("starting behind the first", await store.start(claim_of(third), ALL), None)


async def one_that_does_not_wait_is_refused(store: Store) -> None:
    """Where an earlier turn is running, queued, released or in doubt."""
    for replica in "ab":
        await store.beat(replica)
    first = (await ask(store, waits=False)).turn
    expect("the first one", first.state, "running")

    async def busy(claim: str) -> None:
        await expect_refusal(claim, SessionBusy, ask(store, waits=False, accepted_ns=9_000))
        expect(f"turns, {claim}", await numbers(store), [1])
        expect(f"update, {claim}", (await store.sessions("anna", 1, None))[0].updated_ns, 1_000)

    await busy("behind a running turn")
    await store.suspend(claim_of(first))
    await busy("behind a released turn")
    (first,) = await claim_soon(store, "b", LONG_S, 1)
    await busy("behind a claimed turn")
    await store.suspend(claim_of(first), make_unit())
    await busy("behind a turn in doubt")
    expect("another session", (await ask(store, "other", waits=False)).turn.state, "running")
    await store.cancel(first.turn_id)
    (first,) = await claim_soon(store, "b", LONG_S, 1)
    await end(store, first)
    expect("once it has ended", (await ask(store, waits=False)).turn.number, 2)


async def a_key_is_good_for_one_turn(store: Store) -> None:
    """Asked again it is the same turn, as it is by then; with something else the key is refused."""
    first = (await ask(store, key="k", digest=b"1")).turn
    for other in ("talk", "other"):
        same = await ask(store, other, key="k", digest=b"1", accepted_ns=2_000, owner="b", waits=False, message="x")
        expect(f"the same key again in {other}", same, (first, True, None))
    await expect_refusal("the key with another digest", KeyReused, ask(store, key="k", digest=b"2"))
    await expect_refusal("the key in another session", KeyReused, ask(store, "other", key="k", digest=b"2"))
    expect("turns then", await numbers(store), [1])
    expect("sessions then", [s.session_id for s in await store.sessions("anna", 9, None)], ["talk"])
    ended = await end(store, first)
    expect("the same key once it has ended", await ask(store, key="k", digest=b"1"), (ended, True, None))
    expect("messages, which are large, in a turn that is given again", ended.ending and ended.ending.messages, None)
    expect("another principal's key", (await ask(store, principal="ben", key="k", digest=b"2")).again, wanted=False)
    expect("another key", (await ask(store, key="l", digest=b"1")).again, wanted=False)
    none = [(await ask(store, digest=b"1")).again for _ in range(2)]
    expect("two turns without a key", none, [False, False])
    await end(store, (await ask(store, "brief", key="m", digest=b"1")).turn)
    await store.forget("anna", "brief")
    expect("the key of a turn that was deleted", (await ask(store, key="m", digest=b"2")).again, wanted=False)


async def of_many_with_one_key_one_is_kept(store: Store) -> None:
    """Though all ask at once."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(store, f"s{n % 2}", key="k", digest=b"1")) for n in range(8)]
    accepted = [task.result() for task in asked]
    expect("how many were new", [one.again for one in accepted].count(False), 1)
    expect("how many turns", len({one.turn.turn_id for one in accepted}), 1)
    expect("how many sessions", len(await store.sessions("anna", 9, None)), 1)


async def a_unit_is_kept_as_it_is_now(store: Store) -> None:
    """Whether or not the attempt is known; in the order in which they began."""
    turn = (await ask(store)).turn
    claim = claim_of(turn)
    tool, model = make_unit("b"), make_unit("b", kind="model", name="small", effect="pure", args=None, begun_ns=1_001)
    second = msgspec.structs.replace(tool, attempt=2, begun_ns=1_002)
    last = make_unit("a", state="done", result=b"\0\xff", effect="reconcile", begun_ns=1_003, ended_ns=1_004)
    for unit in (tool, model, second, last):
        expect("whether it is to stop", await store.put_unit(claim, unit), wanted=False)
    expect("units, as they began", await store.units(turn.turn_id), [tool, model, second, last])
    usage = Usage(model_calls=1, tool_calls=2, input_tokens=3, output_tokens=4, cost_nanos=2**50)
    model = msgspec.structs.replace(model, state="done", result=b"said", usage=usage, ended_ns=1_010)
    second = msgspec.structs.replace(second, state="failed", failure=b"oh", ended_ns=1_009)
    for unit in (second, model, model):
        await store.put_unit(claim, unit)
    expect("units, as they are now", await store.units(turn.turn_id), [tool, model, second, last])
    odd = make_unit("a", name="", digest=b"", args=b"", result=b"", failure=b"", effect="idempotent", begun_ns=1_020)
    await store.put_unit(claim, odd)
    late = make_unit("c", state="in_doubt", effect="pure", begun_ns=2**62, ended_ns=2**62)
    await store.put_unit(claim, late)
    expect("units, of which one has begun anew", await store.units(turn.turn_id), [tool, model, second, odd, late])
    other = (await ask(store, "other")).turn
    await store.put_unit(claim_of(other), tool)
    expect("units of another turn", await store.units(other.turn_id), [tool])


async def events_are_kept_with_what_they_tell(store: Store) -> None:
    """In order, and given from the part that holds the first one that is wanted."""
    turn = (await ask(store)).turn
    claim = claim_of(turn)
    chunks = [CHUNK, Said(4, b"\0\xff"), Said(10, b""), Said(11, b"[]"), Said(12, b"[ ]")]
    await store.put_unit(claim, make_unit(), chunks[0])
    await store.put_unit(claim, make_unit(state="done", result=b"1"), chunks[1])
    await store.put_unit(claim, make_unit("more", begun_ns=1_001), chunks[2])
    await store.put_unit(claim, make_unit("more", begun_ns=1_001), chunks[2])
    await store.suspend(claim, None, chunks[3])
    (turn,) = await claim_soon(store, "b", LONG_S, 1)
    await store.end_turn(claim_of(turn), make_ending(), chunks[4])
    for after, first in ((0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (9, 2), (10, 3), (11, 4), (12, 5), (99, 5)):
        expect(f"events after {after}", await store.said(turn.turn_id, after), chunks[first:])
    other = await talk(store, "other")
    expect("events of another turn", await store.said(other.turn_id, 0), [])


async def only_its_owner_writes_a_turn(store: Store) -> None:
    """Of nobody else, of no earlier owner, and of no turn that ended, is anything kept."""
    for replica in "ab":
        await store.beat(replica)
    turn = (await ask(store, webhook="https://example.com/")).turn
    await store.put_unit(claim_of(turn), make_unit(state="done", result=b"1"), CHUNK)
    mine = claim_of(turn)

    async def refused(claim: str, *strangers: Claim) -> None:
        before = await written(store, turn)
        for stranger in strangers:
            for name, write in _writes(store, stranger).items():
                await expect_refusal(f"{name}, {claim}, by {stranger}", NotOwner, write())
        expect(f"what is stored, {claim}", await written(store, turn), before)

    other = (await ask(store, "other")).turn
    await refused("running", mine._replace(owner="b"), mine._replace(generation=2), mine._replace(generation=0))
    await refused("running", *(Claim(name, "a", 1) for name in ("", "x", "x-1", f"{turn.conversation_id}-2")))
    await store.suspend(mine)
    await refused("released", mine, mine._replace(generation=2))
    (turn,) = await claim_soon(store, "b", LONG_S, 1)
    await refused("claimed by another", mine, mine._replace(generation=2), Claim(turn.turn_id, "b", 1))
    await store.suspend(claim_of(turn), make_unit("doubt", begun_ns=1_001))
    await refused("in doubt", mine, claim_of(turn))
    await store.resolve(turn.turn_id, "tool", "doubt", None, 2_000)
    (turn,) = await claim_soon(store, "a", LONG_S, 1)
    expect("generation of its third owner", turn.generation, 3)
    await refused("claimed again", mine, Claim(turn.turn_id, "b", 2))
    await end(store, turn)
    await refused("ended", mine, claim_of(turn))
    expect("another turn, which nobody else wrote either", await written(store, other), (other, [], []))
    expect(
        "webhooks of turns that did not end",
        [t.turn_id for t, _ in await store.take_webhooks(9, LONG_S)],
        [turn.turn_id],
    )


def _writes(store: Store, claim: Claim) -> dict[str, Callable[[], Awaitable[object]]]:
    late = Said(99, b"late")
    return {
        "start": lambda: store.start(claim, ALL),
        "put_unit": lambda: store.put_unit(claim, make_unit("late"), late),
        "put_unit of one there is": lambda: store.put_unit(claim, make_unit()),
        "suspend": lambda: store.suspend(claim, None, late),
        "suspend with a unit": lambda: store.suspend(claim, make_unit(), late),
        "end_turn": lambda: store.end_turn(claim, make_ending(reply="late"), late),
    }


async def how_a_turn_ended_is_kept(store: Store) -> None:
    """Every field but its messages, which only the next turn is given."""
    ending = make_ending(
        error="model_unavailable", detail="all of them are down", via="large", because="overloaded", duration_ns=2**62
    )
    turn = (await ask(store)).turn
    await store.end_turn(claim_of(turn), ending)
    short = msgspec.structs.replace(ending, messages=None)
    wanted = msgspec.structs.replace(turn, state="ended", owner=None, ending=short)
    expect("the turn that ended", await read(store, turn), wanted)
    expect("the turns of its session", await store.turns("anna", "talk", 9, None), [wanted])
    plain = make_ending(outcome="cancelled", model=None, usage=Usage(), messages=None, format="", reply="", tokens=0)
    expect("another ending", (await _ended(store, plain)).ending, plain)
    expect("past", (await ask(store)).past, (as_past(make_turn(), ending),))


async def _ended(store: Store, ending: Ending) -> TurnRecord:
    turn = (await ask(store)).turn
    return await end(store, turn, **msgspec.structs.asdict(ending))


async def no_unit_outlives_its_turn_as_begun(store: Store) -> None:
    """It failed where it is pure or a model's, and is in doubt where it may have had an effect."""
    turn = (await ask(store)).turn
    units: list[tuple[Unit, str]] = []
    for effect, became in (
        ("pure", "failed"),
        ("idempotent", "in_doubt"),
        ("once", "in_doubt"),
        ("reconcile", "in_doubt"),
    ):
        units.append((make_unit(f"tool {effect}", effect=effect), became))
        units.append((make_unit(f"model {effect}", effect=effect, kind="model"), "failed"))
        units.extend(
            (make_unit(f"{state} {effect}", effect=effect, state=state), state)
            for state in ("done", "failed", "in_doubt")
        )
    for n, (unit, _) in enumerate(units):
        await store.put_unit(claim_of(turn), msgspec.structs.replace(unit, begun_ns=n))
    other = (await ask(store, "other")).turn
    await store.put_unit(claim_of(other), make_unit())
    await end(store, turn, outcome="cancelled")
    wanted = [msgspec.structs.replace(unit, begun_ns=n, state=became) for n, (unit, became) in enumerate(units)]
    expect("units of a turn that ended", await store.units(turn.turn_id), wanted)
    expect("units of one that did not", await store.units(other.turn_id), [make_unit()])


async def a_turn_can_be_cancelled(store: Store) -> None:
    """Its owner, and the next one, is told with every unit; it ends when its owner ends it."""
    turn = (await ask(store)).turn
    expect("before", await store.put_unit(claim_of(turn), make_unit()), wanted=False)
    expect("cancelling twice", [await store.cancel(turn.turn_id) for _ in range(2)], [True, True])
    expect("the turn then", await read(store, turn), msgspec.structs.replace(turn, cancelled=True))
    expect("what its owner is told", await store.put_unit(claim_of(turn), make_unit()), wanted=True)
    await store.suspend(claim_of(turn))
    (turn,) = await claim_soon(store, "b", LONG_S, 1)
    expect("whether it is cancelled, once claimed", turn.cancelled, wanted=True)
    expect("what its next owner is told", await store.put_unit(claim_of(turn), make_unit()), wanted=True)
    await end(store, turn, outcome="cancelled")
    expect("cancelling one that ended", await store.cancel(turn.turn_id), wanted=False)
    queued = [(await ask(store)).turn for _ in range(2)][1]
    expect("cancelling one that waits", await store.cancel(queued.turn_id), wanted=True)
    expect("it waits still", (await read(store, queued)).state, "queued")


async def a_turn_there_is_not_is_not_found(store: Store) -> None:
    """An id is what it is, and nothing else that looks like it."""
    turn = (await ask(store)).turn
    await store.suspend(claim_of(turn), make_unit(), CHUNK)
    conversation = turn.conversation_id
    wrong = ["", "-", "x", "x-1", "-1", conversation, f"{conversation}-", f"{conversation}-0", f"{conversation}-2"]
    wrong += [
        f"{conversation}-01",
        f"{conversation}-+1",
        f"{conversation}- 1",
        f"{conversation}-1 ",
        f"{conversation}-1.0",
    ]
    wrong += [f"{conversation}-{2**64 + 1}", f"{conversation}-{'1' * 10_000}", f"{conversation}-\u0661", "\0-1", "%-1"]
    for turn_id in wrong:
        got = (await store.turn(turn_id), await store.units(turn_id), await store.said(turn_id, 0))
        expect(f"what is stored of {turn_id!r}", got, (None, [], []))
        expect(f"cancelling {turn_id!r}", await store.cancel(turn_id), wanted=False)
        expect(f"resolving {turn_id!r}", await store.resolve(turn_id, "tool", "call", b"", 1), wanted=False)
        await store.webhook_told(turn_id, None)
    expect("the turn there is", (await read(store, turn)).state, "in_doubt")


async def what_was_purged_is_forgotten_but_for_the_turns(store: Store) -> None:
    """Units, events and keys of those that ended before; a key is good for another turn then."""
    turns = []
    for n in range(4):
        turn = (await ask(store, f"s{n}", key=f"k{n}", digest=b"1", accepted_ns=1_000 * n)).turn
        await store.put_unit(claim_of(turn), make_unit(), CHUNK)
        turns.append(await end(store, turn, duration_ns=500))
    running = (await ask(store, "running", key="k", accepted_ns=0)).turn
    await store.put_unit(claim_of(running), make_unit(), CHUNK)
    expect("purging before the first ended", await store.purge(500, 10), 0)
    expect("purging two at most", await store.purge(2_501, 2), 2)
    expect("purging the rest", await store.purge(2_501, 2), 1)
    expect("purging again", await store.purge(2_501, 2), 0)
    for turn in turns[:3]:
        got = await written(store, turn)
        expect(
            "what is left of a turn",
            (got[0] and got[0].ending, got[0] and got[0].key, got[1:]),
            (turn.ending, None, ([], [])),
        )
        expect("its messages", (await ask(store, turn.session_id)).past, (as_past(make_turn(), make_ending()),))
    expect(
        "one that ended later", await written(store, turns[3]), (turns[3], await store.units(turns[3].turn_id), [CHUNK])
    )
    expect("its key", (await ask(store, key="k3", digest=b"1")).turn, turns[3])
    expect("one that has not ended", await written(store, running), (running, [make_unit()], [CHUNK]))
    expect("a key that was forgotten", (await ask(store, key="k0", digest=b"2")).again, wanted=False)
    await end(store, running, duration_ns=10)
    expect("purging it once it has ended", await store.purge(2_501, 10), 1)


TURN_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    an_accepted_turn_is_kept_before_it_runs,
    an_earlier_turn_comes_first,
    a_queued_turn_can_end_before_it_starts,
    one_that_does_not_wait_is_refused,
    a_key_is_good_for_one_turn,
    of_many_with_one_key_one_is_kept,
    a_unit_is_kept_as_it_is_now,
    events_are_kept_with_what_they_tell,
    only_its_owner_writes_a_turn,
    how_a_turn_ended_is_kept,
    no_unit_outlives_its_turn_as_begun,
    a_turn_can_be_cancelled,
    a_turn_there_is_not_is_not_found,
    what_was_purged_is_forgotten_but_for_the_turns,
)
"""Each takes an opened store that is empty at first."""
