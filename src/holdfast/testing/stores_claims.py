"""What every store does with turns whose owner is gone, with effects in doubt, with webhooks, and with who listens."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from holdfast.clock import NS
from holdfast.store import Heard, Store, TurnRecord, TurnState
from holdfast.testing.store_words import (
    AGENTS,
    ALL,
    LONG_S,
    SHORT_S,
    STATES,
    as_past,
    ask,
    claim_of,
    end,
    expect,
    expect_soon,
    make_ending,
    make_turn,
    make_unit,
    read,
    talk,
)

WEBHOOK = "https://example.com/told"


async def a_released_turn_goes_on_elsewhere(store: Store) -> None:
    """It is queued for whoever claims it first, with the next generation; what its owner did is kept."""
    await talk(store)
    turn = (await ask(store)).turn
    await store.put_unit(claim_of(turn), make_unit())
    await store.suspend(claim_of(turn))
    released = msgspec.structs.replace(turn, state="queued", owner=None)
    expect("the released turn", await read(store, turn), released)
    expect("its units", await store.units(turn.turn_id), [make_unit()])
    claimed = await store.claim("b", AGENTS, LONG_S, 10)
    expect("what was claimed", claimed, [msgspec.structs.replace(released, owner="b", generation=2)])
    expect("the turn as it is stored", await read(store, turn), claimed[0])
    told = (as_past(make_turn(), make_ending()),)
    expect("past of a claimed turn", await store.start(claim_of(claimed[0]), ALL), told)
    expect("its state", (await read(store, turn)).state, "running")
    await store.suspend(claim_of(claimed[0]))
    (again,) = await store.claim("b", AGENTS, LONG_S, 10)
    expect("the same owner once more", (again.owner, again.generation), ("b", 3))


async def who_beats_keeps_its_turns(store: Store) -> None:
    """Who does not loses them, running or queued, the oldest first."""
    turns = [
        (await ask(store, session, accepted_ns=ns)).turn for session, ns in (("x", 3), ("y", 1), ("z", 2), ("z", 4))
    ]
    expect("what its owner claims before its first beat", await store.claim("a", AGENTS, LONG_S, 10), [])
    await store.beat("a")
    await store.beat("a")
    expect("turns of one that beats", await store.claim("b", AGENTS, LONG_S, 10), [])

    async def beats_no_more() -> bool:
        claimed.extend(await store.claim("b", AGENTS, SHORT_S, 2))
        return bool(claimed)

    claimed: list[TurnRecord] = []
    await expect_soon("turns of one that beats no more", beats_no_more)
    expect("the two oldest", [turn.turn_id for turn in claimed], [turns[1].turn_id, turns[2].turn_id])
    await store.beat("b")
    rest = await store.claim("c", AGENTS, LONG_S, 10)
    wanted = [(turn.turn_id, "queued", "c", 2) for turn in (turns[0], turns[3])]
    expect("the rest, as the dead one's beat is forgotten", _owned(rest), wanted)
    await store.beat("c")
    expect("turns of those who beat", await store.claim("d", AGENTS, LONG_S, 10), [])
    ended = await end(store, claimed[0])
    expect("who owns one that ended", ended.owner, None)
    await store.leave("b")
    expect(
        "turns of one that left, without the one that ended",
        _owned(await store.claim("c", AGENTS, LONG_S, 10)),
        [
            (turns[2].turn_id, "queued", "c", 3),
        ],
    )


def _owned(turns: list[TurnRecord]) -> list[tuple[str, str, str | None, int]]:
    return [(turn.turn_id, turn.state, turn.owner, turn.generation) for turn in turns]


async def who_never_said_that_it_lives_does_not(store: Store) -> None:
    """A turn is nobody's whose owner has no beat."""
    turn = (await ask(store)).turn
    expect("turns claimed", [t.turn_id for t in await store.claim("b", AGENTS, LONG_S, 10)], [turn.turn_id])


async def who_leaves_gives_back_its_turns(store: Store) -> None:
    """All of its own, and nobody else's."""
    for replica in "ab":
        await store.beat(replica)
    running, queued = (await ask(store)).turn, (await ask(store)).turn
    doubt = (await ask(store, "doubt")).turn
    await store.suspend(claim_of(doubt), make_unit())
    theirs = (await ask(store, "theirs", owner="b")).turn
    ended = await talk(store, "ended")
    for _ in range(2):
        await store.leave("a")
    for turn in (running, queued):
        wanted = msgspec.structs.replace(turn, state="queued", owner=None)
        expect("a turn of one that left", await read(store, turn), wanted)
    got = [(turn.state, turn.owner) for turn in (await read(store, doubt), await read(store, theirs))]
    expect("a turn in doubt, and another's", got, [("in_doubt", None), ("running", "b")])
    expect("one that ended", await read(store, ended), ended)
    claimed = await store.claim("c", AGENTS, LONG_S, 10)
    expect("what can be claimed", {turn.turn_id for turn in claimed}, {running.turn_id, queued.turn_id})
    await store.leave("nobody")


async def a_turn_is_claimed_by_one_replica_only(store: Store) -> None:
    """Though several claim at once."""
    turns = [(await ask(store, f"s{n}", accepted_ns=n)).turn for n in range(40)]
    for turn in turns:
        await store.suspend(claim_of(turn))
    expect("no more than the limit", [t.started_ns for t in await store.claim("first", AGENTS, LONG_S, 3)], [0, 1, 2])
    expect("a limit of 0", await store.claim("first", AGENTS, LONG_S, 0), [])
    for replica in ("first", "b", "c"):
        await store.beat(replica)

    async def claim(replica: str) -> list[TurnRecord]:
        return [turn for _ in range(10) for turn in await store.claim(replica, AGENTS, LONG_S, 3)]

    async with asyncio.TaskGroup() as group:
        both = [group.create_task(claim(replica)) for replica in "bc"]
    claimed = [turn.turn_id for task in both for turn in task.result()]
    expect("how many were claimed", len(claimed), 37)
    expect("each once", sorted(claimed), sorted(turn.turn_id for turn in turns[3:]))
    for replica, task in zip("bc", both, strict=True):
        got = {(turn.owner, turn.generation) for turn in task.result()} | {(replica, 2)}
        expect(f"owner and generation of what {replica} claimed", got, {(replica, 2)})


async def an_effect_in_doubt_waits_for_a_word(store: Store) -> None:
    """Nobody claims the turn until somebody has said what became of the last one."""
    turn = (await ask(store)).turn
    other, pending = make_unit("other", state="in_doubt"), make_unit("a", begun_ns=1_001)
    await store.put_unit(claim_of(turn), other)
    await store.put_unit(claim_of(turn), pending)
    second = make_unit("a", attempt=2, state="in_doubt", begun_ns=1_002)
    await store.suspend(claim_of(turn), msgspec.structs.replace(second, state="begun"))
    expect("the turn", await read(store, turn), msgspec.structs.replace(turn, state="in_doubt", owner=None))
    expect("its units", await store.units(turn.turn_id), [other, pending, second])
    expect("turns to claim", await store.claim("b", AGENTS, LONG_S, 10), [])
    for kind, key in (("model", "a"), ("tool", "b"), ("tool", "")):
        done = await store.resolve(turn.turn_id, "model" if kind == "model" else "tool", key, b"1", 2_000)
        expect(f"resolving {kind} {key!r}, which is not in doubt", done, wanted=False)
    expect("units then", await store.units(turn.turn_id), [other, pending, second])
    expect("resolving one of two", await store.resolve(turn.turn_id, "tool", "other", None, 2_000), wanted=True)
    expect("the turn, with another in doubt", (await read(store, turn)).state, "in_doubt")
    expect("resolving the last", await store.resolve(turn.turn_id, "tool", "a", b"", 3_000), wanted=True)
    expect("resolving it twice", await store.resolve(turn.turn_id, "tool", "a", None, 4_000), wanted=False)
    other = msgspec.structs.replace(other, state="failed", ended_ns=2_000)
    second = msgspec.structs.replace(second, state="done", result=b"", ended_ns=3_000)
    expect(
        "units that were resolved, and one that was not in doubt",
        await store.units(turn.turn_id),
        [other, pending, second],
    )
    queued = msgspec.structs.replace(turn, state="queued", owner=None)
    expect("the turn with nothing in doubt", await read(store, turn), queued)
    expect("it can be claimed", _owned(await store.claim("b", AGENTS, LONG_S, 10)), [(turn.turn_id, "queued", "b", 2)])


async def an_effect_can_be_resolved_after_its_turn_ended(store: Store) -> None:
    """The turn stays as it is."""
    turn = (await ask(store)).turn
    await store.put_unit(claim_of(turn), make_unit())
    ended = await end(store, turn, outcome="cancelled")
    expect("resolving", await store.resolve(turn.turn_id, "tool", "call", None, 2_000), wanted=True)
    expect("the unit", await store.units(turn.turn_id), [make_unit(state="failed", ended_ns=2_000)])
    expect("the turn", await read(store, turn), ended)
    running = (await ask(store)).turn
    await store.put_unit(claim_of(running), make_unit(state="in_doubt"))
    expect(
        "resolving in a running turn", await store.resolve(running.turn_id, "tool", "call", b"1", 2_000), wanted=True
    )
    expect("the running turn", await read(store, running), running)


async def a_turn_in_doubt_can_be_cancelled(store: Store) -> None:
    """Before or after it came to be in doubt. Somebody has to end it: it can be claimed. Its units stay in doubt."""
    await store.beat("b")
    for when in ("before", "after"):
        turn = (await ask(store, when)).turn
        if when == "before":
            await store.cancel(turn.turn_id)
        await store.suspend(claim_of(turn), make_unit())
        if when == "after":
            expect("turns to claim before it is cancelled", await store.claim("b", AGENTS, LONG_S, 10), [])
            expect("cancelling", await store.cancel(turn.turn_id), wanted=True)
        (claimed,) = await store.claim("b", AGENTS, LONG_S, 10)
        wanted = msgspec.structs.replace(turn, state="queued", owner="b", generation=2, cancelled=True)
        expect(f"the claimed turn, cancelled {when}", claimed, wanted)
        expect("the turn as it is stored", await read(store, turn), claimed)
        await end(store, claimed, outcome="cancelled")
        expect("its unit", await store.units(turn.turn_id), [make_unit(state="in_doubt")])


async def a_turn_is_claimed_for_its_agent(store: Store) -> None:
    """By a replica that can run it."""
    turns = {name: (await ask(store, name, agent=name)).turn for name in ("one", "two", "three")}
    for turn in turns.values():
        await store.suspend(claim_of(turn))
    for strange in ([], ["four"], ["on", "one,two", "", "%"]):
        expect(f"turns of {strange}", await store.claim("b", strange, LONG_S, 10), [])
    for agents, wanted in ((["two", "four"], {"two"}), (["one", "two", "three"], {"one", "three"})):
        claimed = await store.claim("b", agents, LONG_S, 10)
        expect(f"turns of {agents}", {turn.turn_id for turn in claimed}, {turns[name].turn_id for name in wanted})
        await store.beat("b")


async def a_webhook_is_due_until_it_was_told(store: Store) -> None:
    """From the end of its turn on, again after each lease, and no more once it was told."""
    turn = (await ask(store, webhook=WEBHOOK)).turn
    await talk(store, "quiet")
    expect("before the turn has ended", await store.take_webhooks(10, SHORT_S), [])
    ended = await end(store, turn)
    expect("once it has ended", await store.take_webhooks(10, SHORT_S), [(ended, 0)])

    async def due(tries: int) -> None:
        async def taken() -> bool:
            got.extend(await store.take_webhooks(10, LONG_S))
            return bool(got)

        got: list[tuple[TurnRecord, int]] = []
        await expect_soon(f"a webhook that was tried {tries} times", taken)
        expect("the webhook", got, [(ended, tries)])
        expect("the webhook while it is leased", await store.take_webhooks(10, LONG_S), [])

    await due(0)
    await store.webhook_told(turn.turn_id, LONG_S)
    expect("one that is due later", await store.take_webhooks(10, LONG_S), [])
    await store.webhook_told(turn.turn_id, SHORT_S)
    await due(2)
    await store.webhook_told(turn.turn_id, 0.0)
    await due(3)
    await store.webhook_told(turn.turn_id, SHORT_S)
    await store.webhook_told(turn.turn_id, None)
    for _ in range(3):
        await asyncio.sleep(SHORT_S)
        expect("one that was told", await store.take_webhooks(10, SHORT_S), [])
    await store.forget("anna", "talk")
    await store.webhook_told(turn.turn_id, 0.0)
    expect("one whose turn was deleted", await store.take_webhooks(10, SHORT_S), [])


async def a_webhook_is_taken_by_one_only(store: Store) -> None:
    """Though several take at once."""
    turns = [await talk(store, f"s{n}", webhook=WEBHOOK) for n in range(20)]
    expect("no more than the limit", len(await store.take_webhooks(2, LONG_S)), 2)

    async def take() -> list[str]:
        return [turn.turn_id for _ in range(5) for turn, _ in await store.take_webhooks(3, LONG_S)]

    async with asyncio.TaskGroup() as group:
        both = [group.create_task(take()) for _ in range(2)]
    taken = [turn_id for task in both for turn_id in task.result()]
    expect("how many were taken, each once", (len(taken), len(set(taken))), (18, 18))
    expect("all of them", set(taken) <= {turn.turn_id for turn in turns}, wanted=True)


async def who_listens_is_told(store: Store) -> None:
    """Of turns that ended, were released, or are to be cancelled, until it listens no more."""
    heard: list[tuple[Heard, str]] = []
    store.listen(lambda what, turn_id: heard.append((what, turn_id)))

    async def told(claim: str, *wanted: tuple[Heard, str]) -> None:
        async def all_told() -> bool:
            return set(wanted) <= set(heard)

        await expect_soon(f"{claim}: {wanted}", all_told)
        expect(f"heard, {claim}", set(heard), set(wanted))
        heard.clear()

    await store.beat("a")
    turn, second = (await ask(store)).turn, (await ask(store)).turn
    await store.put_unit(claim_of(turn), make_unit(state="in_doubt"))
    await store.start(claim_of(second), ALL)
    await store.cancel(turn.turn_id)
    await told("cancelled", ("cancelled", turn.turn_id))
    await store.suspend(claim_of(turn))
    await told("suspended", ("released", turn.turn_id))
    (turn,) = await store.claim("b", AGENTS, LONG_S, 10)
    await store.suspend(claim_of(turn), make_unit())
    await told("suspended in doubt, though it is to be cancelled", ("released", turn.turn_id))
    await store.resolve(turn.turn_id, "tool", "call", b"", 1)
    await told("resolved, once nothing is in doubt", ("released", turn.turn_id))
    doubted = (await ask(store, "doubt")).turn
    await store.suspend(claim_of(doubted), make_unit())
    await asyncio.sleep(SHORT_S)
    expect("heard of a turn that came to be in doubt", heard, [])
    await store.cancel(doubted.turn_id)
    await told("cancelled in doubt", ("cancelled", doubted.turn_id), ("released", doubted.turn_id))
    claimed = {one.session_id: one for one in await store.claim("b", AGENTS, LONG_S, 10)}
    await store.end_turn(claim_of(claimed["talk"]), make_ending())
    await told("ended", ("ended", turn.turn_id))
    third = (await ask(store)).turn
    await store.leave("a")
    await told("left", ("released", second.turn_id), ("released", third.turn_id))
    store.listen(None)
    await store.cancel(third.turn_id)
    await asyncio.sleep(SHORT_S)
    expect("heard once nobody listens", heard, [])


async def turns_are_found_by_their_state(store: Store) -> None:
    """Latest accepted first, in pages, also where many were accepted at the same time."""
    found: dict[TurnState, list[TurnRecord]] = {state: [] for state in STATES}
    for n in range(4):
        first = (await ask(store, f"s{n}", accepted_ns=n // 2)).turn
        found["queued"].append((await ask(store, f"s{n}", accepted_ns=n // 2)).turn)
        found["running"].append(first)
        doubt = (await ask(store, f"t{n}", principal="ben", accepted_ns=2 - n // 2)).turn
        await store.suspend(claim_of(doubt), make_unit())
        found["in_doubt"].append(await read(store, doubt))
        found["ended"].append(await talk(store, f"u{n}", principal="ben", accepted_ns=n // 2 * NS))

    async def check(principal: str | None, *states: TurnState) -> None:
        turns = [turn for state in states for turn in found[state] if principal in (None, turn.principal)]
        wanted = sorted(turns, key=lambda turn: (turn.started_ns, turn.turn_id), reverse=True)
        for limit in (1, 3, 100):
            got: list[TurnRecord] = []
            before: tuple[int, str] | None = None
            while page := await store.find_turns(principal, states, limit, before):
                expect("turns on a page are at most the limit", len(page) <= limit, wanted=True)
                got += page
                before = (page[-1].started_ns, page[-1].turn_id)
            expect(f"turns of {principal} in {states}, in pages of {limit}", got, wanted)

    for principal in (None, "anna", "ben", "carla"):
        await check(principal, "queued")
        await check(principal, "in_doubt", "running")
        await check(principal, "ended")
        await check(principal, *STATES)
        await check(principal)


CLAIM_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    a_released_turn_goes_on_elsewhere,
    who_beats_keeps_its_turns,
    who_never_said_that_it_lives_does_not,
    who_leaves_gives_back_its_turns,
    a_turn_is_claimed_by_one_replica_only,
    an_effect_in_doubt_waits_for_a_word,
    an_effect_can_be_resolved_after_its_turn_ended,
    a_turn_in_doubt_can_be_cancelled,
    a_turn_is_claimed_for_its_agent,
    a_webhook_is_due_until_it_was_told,
    a_webhook_is_taken_by_one_only,
    who_listens_is_told,
    turns_are_found_by_their_state,
)
"""Each takes an opened store that is empty at first."""
