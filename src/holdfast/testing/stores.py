"""
What every store does: the suite a store passes before it is used.

    async def test_my_store_is_a_store() -> None:
        await check_store(make)          # `async with make() as store` gives an opened store, empty at first

Each check in ``STORE_CHECKS`` can also be run alone, on a store of its own. Where the time is real, a few of them take
a tenth of a second or so.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from holdfast.errors import HoldfastError, SessionBusy, Unprocessable
from holdfast.store import Claim, Said, Store, TurnRecord
from holdfast.testing.store_words import (
    AGENTS,
    ALL,
    HALF_A_PAIR,
    LONG_S,
    ODD_BYTES,
    ODD_TEXTS,
    STATES,
    as_past,
    ask,
    claim_of,
    claim_soon,
    end,
    expect,
    expect_refusal,
    make_ending,
    make_key,
    make_turn,
    make_unit,
    numbers,
    read,
    talk,
    written,
)
from holdfast.testing.stores_accounts import ACCOUNT_CHECKS
from holdfast.testing.stores_claims import CLAIM_CHECKS
from holdfast.testing.stores_notes import NOTE_CHECKS
from holdfast.testing.stores_turns import TURN_CHECKS

MakeStore = Callable[[], AbstractAsyncContextManager[Store]]
"""Gives an opened store that is empty at first, and closes it."""


async def check_store(make: MakeStore) -> None:
    """
    Run every check, each on a store of its own.

    Raises:
        AssertionError: the store does something else than the others do; the text says what.
    """
    for check in STORE_CHECKS:
        async with make() as store:
            try:
                await check(store)
            except HoldfastError as error:
                raise AssertionError(f"{check.__name__}: wanted an answer, got {error!r}") from error


async def the_past_is_what_went_well(store: Store) -> None:
    """Oldest first; a turn that failed is counted, but not remembered."""
    expect("past of a new session", (await ask(store, "new")).past, ())
    endings = [make_ending(reply=f"answer {n}", messages=b"\0%d" % n) for n in range(3)]
    endings[1] = make_ending(reply="short", messages=None, format="")
    for n, ending in enumerate(endings):
        turn = (await ask(store, message=f"question {n}")).turn
        await store.end_turn(claim_of(turn), ending)
        await end(store, (await ask(store)).turn, outcome="timeout", messages=None)
    wanted = tuple(as_past(make_turn(message=f"question {n}"), ending) for n, ending in enumerate(endings))
    expect("past, oldest first", (await ask(store)).past, wanted)


async def the_window_takes_whole_turns_newest_first(store: Store) -> None:
    """One too large keeps its plain exchange; the first that does not fit either ends the window."""
    for chars, tokens in ((4, 5), (8, 50), (4, 10)):
        await end(store, (await ask(store, message="q" * chars)).turn, reply="a" * chars, tokens=tokens)
    turn = (await ask(store)).turn

    async def kept(window_tokens: int) -> list[tuple[int, bool]]:
        past = await store.start(claim_of(turn), window_tokens) or ()
        return [(len(one.message), one.messages is not None) for one in past]

    expect("everything fits", await kept(65), [(4, True), (8, True), (4, True)])
    expect("the oldest only as its exchange", await kept(64), [(4, False), (8, True), (4, True)])
    expect("the oldest not at all", await kept(61), [(8, True), (4, True)])
    expect("one too large keeps its exchange", await kept(19), [(4, True), (8, False), (4, True)])
    expect("what does not fit ends the window, though an older one would fit", await kept(13), [(4, True)])
    expect("the latest only as its exchange", await kept(2), [(4, False)])
    expect("a window too small for anything", await kept(1), [])
    expect("a window of 0", await kept(0), [])
    await end(store, turn, outcome="error")
    accepted = await store.accept(make_turn(), 13)
    expect("a window at acceptance", [len(one.message) for one in accepted.past or ()], [4])
    await end(store, accepted.turn, reply="", tokens=0)
    expect("a window of 0 at acceptance", (await store.accept(make_turn(message=""), 0)).past, ())


async def a_session_belongs_to_its_principal(store: Store) -> None:
    """The same name with another principal is another conversation."""
    mine = await talk(store)
    theirs = await talk(store, principal="ben")
    expect("one conversation for two principals", mine.conversation_id == theirs.conversation_id, wanted=False)
    again = await talk(store)
    expect("conversation of a second turn", again.conversation_id, mine.conversation_id)
    expect("turns of ben", await store.turns("ben", "talk", 10, None), [theirs])
    expect("turns of somebody else", await store.turns("carla", "talk", 10, None), None)
    expect("sessions of somebody else", await store.sessions("carla", 10, None), [])
    expect("forgetting somebody else's session", await store.forget("carla", "talk"), wanted=False)
    expect("forgetting mine", await store.forget("anna", "talk"), wanted=True)
    expect("turns of ben after mine are forgotten", await store.turns("ben", "talk", 10, None), [theirs])


async def sessions_are_paged_latest_first(store: Store) -> None:
    """By the acceptance of their latest turn, also where many were accepted at the same time."""
    for n in range(7):
        await talk(store, f"s{n}", accepted_ns=5_000 if n < 5 else 6_000 + n)
    await ask(store, "s0", accepted_ns=9_000)
    wanted = ["s0", "s6", "s5", "s4", "s3", "s2", "s1"]
    for limit in (1, 2, 3, 7, 50):
        found: list[str] = []
        before: tuple[int, str] | None = None
        while page := await store.sessions("anna", limit, before):
            expect("sessions on a page are at most the limit", len(page) <= limit, wanted=True)
            found += [session.session_id for session in page]
            before = (page[-1].updated_ns, page[-1].session_id)
        expect(f"all sessions in pages of {limit}", found, wanted)
    latest = (await store.sessions("anna", 1, None))[0]
    expect("turns, creation and update", (latest.turns, latest.created_ns, latest.updated_ns), (2, 5_000, 9_000))
    await ask(store, "s6", accepted_ns=4_000)
    last = (await store.sessions("anna", 7, None))[-1]
    expect("one whose clock went back", (last.session_id, last.created_ns, last.updated_ns), ("s6", 6_006, 4_000))


async def turns_are_paged_latest_first(store: Store) -> None:
    """By number, whatever the clock said, and however they are."""
    for n in range(3):
        await talk(store, accepted_ns=5_000 - n % 2)
    turns = [(await ask(store, accepted_ns=1)).turn for _ in range(2)]
    for limit in (1, 2, 5, 50):
        found: list[TurnRecord] = []
        before: int | None = None
        while page := await store.turns("anna", "talk", limit, before):
            expect("turns on a page are at most the limit", len(page) <= limit, wanted=True)
            found += page
            before = page[-1].number
        expect(f"all turns in pages of {limit}", [turn.number for turn in found], [5, 4, 3, 2, 1])
        expect("those that have not ended", found[:2], turns[::-1])
    expect("a page before the first turn", await store.turns("anna", "talk", 10, 1), [])


async def what_is_forgotten_is_gone(store: Store) -> None:
    """And the next turn begins anew."""
    old = (await ask(store, webhook="https://example.com/")).turn
    await store.put_unit(claim_of(old), make_unit(state="in_doubt"), Said(1, b"[]"))
    await end(store, old)
    await talk(store, "other")
    expect("forgetting", await store.forget("anna", "talk"), wanted=True)
    expect("forgetting twice", await store.forget("anna", "talk"), wanted=False)
    expect("turns of a forgotten session", await store.turns("anna", "talk", 10, None), None)
    expect("everything of its turn", await written(store, old), (None, [], []))
    expect("its webhook", await store.take_webhooks(10, LONG_S), [])
    expect("resolving its unit", await store.resolve(old.turn_id, "tool", "call", b"", 1), wanted=False)
    expect("sessions left", [s.session_id for s in await store.sessions("anna", 10, None)], ["other"])
    new = await ask(store)
    expect("number and past after forgetting", (new.turn.number, new.past), (1, ()))
    expect("the forgotten conversation's id is used again", new.turn.turn_id == old.turn_id, wanted=False)


async def a_session_with_a_turn_that_has_not_ended_stays(store: Store) -> None:
    """Running, queued, released or in doubt."""
    first = await talk(store)
    turn = (await ask(store)).turn

    async def busy(claim: str) -> None:
        await expect_refusal(f"forgetting a session with a turn {claim}", SessionBusy, store.forget("anna", "talk"))
        expect(f"turns, {claim}", await numbers(store), [1, 2])

    await busy("that runs")
    await store.suspend(claim_of(turn))
    await busy("that was released")
    (turn,) = await claim_soon(store, "b", LONG_S, 1)
    await store.suspend(claim_of(turn), make_unit())
    await busy("in doubt")
    await store.cancel(turn.turn_id)
    (turn,) = await claim_soon(store, "b", LONG_S, 1)
    await end(store, turn)
    expect("the first turn then", await read(store, first), first)
    expect("forgetting once it has ended", await store.forget("anna", "talk"), wanted=True)


async def any_text_comes_back_as_it_was(store: Store) -> None:
    """NUL, the right-to-left mark and quotes are text like any other, and bytes are bytes."""
    for n, text in enumerate(ODD_TEXTS):
        principal, blob = f"p{text}", ODD_BYTES[n % len(ODD_BYTES)]
        asked = make_turn(
            principal=principal,
            session_id=text,
            message=text,
            request_id=text,
            agent=text,
            trace_id=text,
            source_ip=text,
            owner=f"o{text}",
            key=f"k{n}{text[:500]}",
            digest=blob,
            webhook=text,
        )
        turn = (await store.accept(asked, ALL)).turn
        got = (
            turn.principal,
            turn.session_id,
            turn.message,
            turn.request_id,
            turn.agent,
            turn.trace_id,
            turn.source_ip,
        )
        expect("texts of a turn", got, (principal, *(text,) * 6))
        expect("the turn as it is stored", await read(store, turn), turn)
        expect("the turn by its key", (await store.accept(asked, ALL)).turn, turn)
        unit = make_unit(text[:500], name=text, args=blob, result=blob, failure=blob, digest=blob)
        await store.put_unit(claim_of(turn), unit, Said(1, blob))
        got_units = (await store.units(turn.turn_id), await store.said(turn.turn_id, 0))
        expect("a unit and an event", got_units, ([unit], [Said(1, blob)]))
        ending = make_ending(
            reply=text, detail=text, error=text, model=text, via=text, because=text, format=text, messages=blob
        )
        await store.end_turn(claim_of(turn), ending)
        expect("the ending", (await read(store, turn)).ending, msgspec.structs.replace(ending, messages=None))
        expect(
            "the past",
            (await store.accept(make_turn(principal=principal, session_id=text), ALL)).past,
            (as_past(asked, ending),),
        )
        expect("sessions", [s.session_id for s in await store.sessions(principal, 10, None)], [text])
        expect("found turns", len(await store.find_turns(principal, STATES, 10, None)), 2)


async def text_that_is_not_unicode_is_refused(store: Store) -> None:
    """Half a surrogate pair has no UTF-8: nothing is kept of what holds one."""
    half = HALF_A_PAIR
    turn = (await ask(store)).turn
    claim = claim_of(turn)
    fields = (
        "principal",
        "session_id",
        "agent",
        "trace_id",
        "request_id",
        "source_ip",
        "message",
        "owner",
        "key",
        "webhook",
    )
    refused: dict[str, Callable[[], Awaitable[object]]] = {
        "put_unit": lambda: store.put_unit(claim, make_unit(half), Said(1, b"")),
        "put_unit with such a name": lambda: store.put_unit(claim, make_unit(name=half), Said(1, b"")),
        "suspend": lambda: store.suspend(claim, make_unit(half), Said(1, b"")),
        "end_turn": lambda: store.end_turn(claim, make_ending(reply=half), Said(1, b"")),
        "end_turn with such a detail": lambda: store.end_turn(claim, make_ending(detail=half)),
        "start": lambda: store.start(Claim(half, "a", 1), ALL),
        "start by such an owner": lambda: store.start(Claim(turn.turn_id, half, 1), ALL),
        "turn": lambda: store.turn(half),
        "find_turns": lambda: store.find_turns(half, STATES, 10, None),
        "find_turns before such a one": lambda: store.find_turns(None, STATES, 10, (1, half)),
        "units": lambda: store.units(half),
        "said": lambda: store.said(half, 0),
        "cancel": lambda: store.cancel(half),
        "resolve": lambda: store.resolve(turn.turn_id, "tool", half, None, 1),
        "beat": lambda: store.beat(half),
        "claim": lambda: store.claim(half, AGENTS, LONG_S, 10),
        "claim for such an agent": lambda: store.claim("b", (half,), LONG_S, 10),
        "leave": lambda: store.leave(half),
        "webhook_told": lambda: store.webhook_told(half, None),
        "sessions": lambda: store.sessions(half, 10, None),
        "sessions before such a one": lambda: store.sessions("anna", 10, (1, half)),
        "turns": lambda: store.turns("anna", half, 10, None),
        "forget": lambda: store.forget("anna", half),
        "add_key": lambda: store.add_key(make_key("k", principal=half)),
        "add_key with such a scope": lambda: store.add_key(make_key("k", scopes=(half,))),
        "revoke_key": lambda: store.revoke_key(half, 1),
    }
    for name, call in refused.items():
        await expect_refusal(name, Unprocessable, call())
    for field in fields:
        await expect_refusal(
            f"accept with such a {field}", Unprocessable, store.accept(make_turn(**{field: half}), ALL)
        )
    expect("the turn afterwards", await written(store, turn), (turn, [], []))
    expect("turns afterwards", await store.find_turns(None, STATES, 10, None), [turn])
    expect("sessions afterwards", [s.turns for s in await store.sessions("anna", 10, None)], [1])
    expect("keys afterwards", await store.keys(), [])


async def many_sessions_talk_at_once(store: Store) -> None:
    """Each keeps its own turns, in order; of many that are accepted at once in one session, one runs."""

    async def one(n: int) -> list[TurnRecord]:
        turns = []
        for m in range(3):
            turn = (await ask(store, f"s{n}", message=f"{n} asks {m}")).turn
            await store.put_unit(claim_of(turn), make_unit(f"{n} does {m}"), Said(1, b"%d" % n))
            turns.append(await end(store, turn, reply=f"{n} hears {m}"))
        return turns

    async with asyncio.TaskGroup() as group:
        talks = [group.create_task(one(n)) for n in range(40)]
    for n, done in enumerate(talks):
        expect(f"turns of session {n}", await store.turns("anna", f"s{n}", 10, None), done.result()[::-1])
        for m, turn in enumerate(done.result()):
            expect("units of a turn", [unit.key for unit in await store.units(turn.turn_id)], [f"{n} does {m}"])
            expect("reply of a turn", turn.ending and turn.ending.reply, f"{n} hears {m}")
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(store, "busy")) for _ in range(10)]
    accepted = sorted((task.result() for task in asked), key=lambda accepted: accepted.turn.number)
    expect("numbers of turns accepted at once", [a.turn.number for a in accepted], list(range(1, 11)))
    expect("their conversations", len({a.turn.conversation_id for a in accepted}), 1)
    expect("which of them run", [a.turn.state for a in accepted], ["running"] + ["queued"] * 9)
    expect("which of them have a past", [a.past for a in accepted], [(), *(None,) * 9])


async def a_caller_that_is_cancelled_harms_nobody(store: Store) -> None:
    """The others are answered, and the store goes on."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(store, f"s{n}")) for n in range(6)]
        await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
    for n in (1, 3, 5):
        expect("turns of a caller that waited", await store.turns("anna", f"s{n}", 10, None), [asked[n].result().turn])
    for n in (0, 2, 4):
        expect("turns of one that did not: all or nothing", await numbers(store, f"s{n}") in ([], [1]), wanted=True)
        expect("the next one", (await ask(store, f"s{n}")).turn.number in (1, 2), wanted=True)


async def keys_are_kept_and_revoked(store: Store) -> None:
    """Adding a key twice, or revoking it twice, changes nothing."""
    expect("keys at first", await store.keys(), [])
    late = make_key("late", created_ns=2_000, scopes=("delegate", "admin"), expires_ns=9_000)
    b, a = make_key("b"), make_key("a")
    for key in (late, b, a, late):
        await store.add_key(key)
    expect("keys, oldest first", await store.keys(), [a, b, late])
    expect("revoking a key there is not", await store.revoke_key("c", 5), wanted=False)
    expect("revoking", await store.revoke_key("a", 3_000), wanted=True)
    expect("revoking twice", await store.revoke_key("a", 4_000), wanted=True)
    revoked = msgspec.structs.replace(a, revoked_ns=3_000)
    await store.add_key(a)
    expect("a revoked key that is added again", await store.keys(), [revoked, b, late])


STORE_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    *TURN_CHECKS,
    *CLAIM_CHECKS,
    *NOTE_CHECKS,
    *ACCOUNT_CHECKS,
    the_past_is_what_went_well,
    the_window_takes_whole_turns_newest_first,
    a_session_belongs_to_its_principal,
    sessions_are_paged_latest_first,
    turns_are_paged_latest_first,
    what_is_forgotten_is_gone,
    a_session_with_a_turn_that_has_not_ended_stays,
    any_text_comes_back_as_it_was,
    text_that_is_not_unicode_is_refused,
    many_sessions_talk_at_once,
    a_caller_that_is_cancelled_harms_nobody,
    keys_are_kept_and_revoked,
)
"""Every check, each of which takes an opened store that is empty at first."""
