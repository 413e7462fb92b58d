"""
What every store does: the suite a store passes before it is used.

    async def test_my_store_is_a_store() -> None:
        await check_store(make)          # `async with make() as store` gives an opened store, empty at first

Each check in ``STORE_CHECKS`` can also be run alone, on a store of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from holdfast.errors import HoldfastError, StoreUnavailable, Unprocessable
from holdfast.events import Outcome, Usage
from holdfast.store import Conversation, Past, Store, StoredKey, TurnRecord

MakeStore = Callable[[], AbstractAsyncContextManager[Store]]
"""Gives an opened store that is empty at first, and closes it."""

ALL = 1_000_000
"""A window that holds whatever the checks put into it."""

HALF_A_PAIR = "half a pair: \ud83d"
ODD_TEXTS = ("", "\0", "a\0b", "naïve 日本語 🜁", "\u202e\ufeff\uffff", "'; DROP TABLE turns; --", "%_\\", "x" * 100_000)


async def check_store(make: MakeStore) -> None:
    """
    Run every check, each on a store of its own.

    Raises:
        AssertionError: the store does something else than the others do; the text says what.
    """
    for check in STORE_CHECKS:
        async with make() as store:
            await check(store)


def make_turn(conversation: Conversation, **changes: object) -> TurnRecord:
    """The next turn of ``conversation``, as it would be stored: a success of anna's in ``talk``, with ``changes``."""
    number = conversation.turns + 1
    turn = TurnRecord(
        turn_id=f"{conversation.id}-{number}",
        conversation_id=conversation.id,
        number=number,
        principal="anna",
        session_id="talk",
        agent="assistant",
        trace_id="0" * 31 + "1",
        request_id="request",
        source_ip="192.0.2.1",
        message=f"question {number}",
        reply=f"answer {number}",
        outcome="success",
        error=None,
        usage=Usage(model_calls=2, tool_calls=1, input_tokens=30, output_tokens=4),
        format="plain",
        messages=b"messages %d" % number,
        tokens=10,
        started_ns=1_000 + number,
        duration_ns=50,
    )
    return msgspec.structs.replace(turn, **changes)


async def _say(store: Store, session_id: str = "talk", principal: str = "anna", **changes: object) -> TurnRecord:
    conversation = await store.recall(principal, session_id, 0)
    turn = make_turn(conversation, principal=principal, session_id=session_id, **changes)
    await store.record(turn)
    return turn


async def _turns(store: Store, session_id: str = "talk", principal: str = "anna") -> list[TurnRecord]:
    return await store.turns(principal, session_id, 1_000, None) or []


def _expect(claim: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{claim}: wanted {wanted!r}, got {got!r}")


async def _expect_refusal(claim: str, error: type[HoldfastError], refused: Awaitable[object]) -> None:
    try:
        got = await refused
    except HoldfastError as raised:
        _expect(claim, type(raised), error)
    else:
        raise AssertionError(f"{claim}: wanted {error.__name__}, got {got!r}")


async def a_session_is_new_until_its_first_turn_is_recorded(store: Store) -> None:
    """Asking for a conversation keeps nothing."""
    await store.ping()
    first = await store.recall("anna", "talk", ALL)
    _expect("turns and past of a new session", (first.turns, first.past), (0, ()))
    _expect("a new session's id is not empty", bool(first.id), wanted=True)
    second = await store.recall("anna", "talk", ALL)
    _expect("two new conversations share an id", first.id == second.id, wanted=False)
    _expect("sessions after recall alone", await store.sessions("anna", 10, None), [])
    _expect("turns of no session", await store.turns("anna", "talk", 10, None), None)


async def what_is_recorded_is_given_back(store: Store) -> None:
    """Every field, in order, and the past oldest first."""
    said = [await _say(store) for _ in range(3)]
    failed: Outcome = "timeout"
    said.append(
        await _say(store, outcome=failed, error="deadline_exceeded", reply="", messages=None, usage=Usage(), format="")
    )
    _expect("turns, latest first", await _turns(store), said[::-1])
    recalled = await store.recall("anna", "talk", ALL)
    past = tuple(Past(message=t.message, reply=t.reply, format="plain", messages=t.messages) for t in said[:3])
    wanted = Conversation(id=said[0].conversation_id, turns=4, past=past)
    _expect("the conversation, oldest first, failed turns counted but not remembered", recalled, wanted)


async def the_window_takes_whole_turns_newest_first(store: Store) -> None:
    """One too large keeps its plain exchange; the first that does not fit either ends the window."""
    await _say(store, message="q" * 4, reply="a" * 4, tokens=5)
    await _say(store, message="q" * 8, reply="a" * 8, tokens=50)
    await _say(store, message="q" * 4, reply="a" * 4, tokens=10)

    async def kept(window_tokens: int) -> list[tuple[int, bool]]:
        past = (await store.recall("anna", "talk", window_tokens)).past
        return [(len(turn.message), turn.messages is not None) for turn in past]

    _expect("everything fits", await kept(65), [(4, True), (8, True), (4, True)])
    _expect("the oldest only as its exchange", await kept(64), [(4, False), (8, True), (4, True)])
    _expect("the oldest not at all", await kept(61), [(8, True), (4, True)])
    _expect("one too large keeps its exchange", await kept(19), [(4, True), (8, False), (4, True)])
    _expect("what does not fit ends the window, though an older one would fit", await kept(13), [(4, True)])
    _expect("the latest only as its exchange", await kept(2), [(4, False)])
    _expect("a window too small for anything", await kept(1), [])
    _expect("a window of 0", await kept(0), [])
    await _say(store, message="", reply="", tokens=0)
    _expect("a window of 0 holds not even an empty turn", await kept(0), [])


async def a_session_belongs_to_its_principal(store: Store) -> None:
    """The same name with another principal is another conversation."""
    mine = await _say(store)
    theirs = await _say(store, principal="ben")
    _expect("one conversation for two principals", mine.conversation_id == theirs.conversation_id, wanted=False)
    again = await _say(store)
    _expect("conversation of a second turn", again.conversation_id, mine.conversation_id)
    _expect("turns of ben", await _turns(store, principal="ben"), [theirs])
    _expect("turns of somebody else", await store.turns("carla", "talk", 10, None), None)
    _expect("sessions of somebody else", await store.sessions("carla", 10, None), [])
    _expect("forgetting somebody else's session", await store.forget("carla", "talk"), wanted=False)
    _expect("forgetting mine", await store.forget("anna", "talk"), wanted=True)
    _expect("turns of ben after mine are forgotten", await _turns(store, principal="ben"), [theirs])


async def sessions_are_paged_latest_first(store: Store) -> None:
    """Also where many were updated at the same time."""
    for n in range(7):
        await _say(store, f"s{n}", started_ns=5_000 if n < 5 else 6_000 + n)
    await _say(store, "s0", started_ns=9_000)
    wanted = ["s0", "s6", "s5", "s4", "s3", "s2", "s1"]
    for limit in (1, 2, 3, 7, 50):
        found: list[str] = []
        before: tuple[int, str] | None = None
        while page := await store.sessions("anna", limit, before):
            _expect("sessions on a page are at most the limit", len(page) <= limit, wanted=True)
            found += [session.session_id for session in page]
            before = (page[-1].updated_ns, page[-1].session_id)
        _expect(f"all sessions in pages of {limit}", found, wanted)
    latest = (await store.sessions("anna", 1, None))[0]
    _expect("turns, creation and update", (latest.turns, latest.created_ns, latest.updated_ns), (2, 5_000, 9_000))


async def turns_are_paged_latest_first(store: Store) -> None:
    """By number, whatever the clock said."""
    for n in range(5):
        await _say(store, started_ns=5_000 - n % 2)
    for limit in (1, 2, 5, 50):
        found: list[int] = []
        before: int | None = None
        while page := await store.turns("anna", "talk", limit, before):
            found += [turn.number for turn in page]
            before = page[-1].number
        _expect(f"all turns in pages of {limit}", found, [5, 4, 3, 2, 1])
    _expect("a page before the first turn", await store.turns("anna", "talk", 10, 1), [])


async def what_is_forgotten_is_gone(store: Store) -> None:
    """And the next turn begins anew."""
    old = await _say(store)
    await _say(store, "other")
    _expect("forgetting", await store.forget("anna", "talk"), wanted=True)
    _expect("forgetting twice", await store.forget("anna", "talk"), wanted=False)
    _expect("turns of a forgotten session", await store.turns("anna", "talk", 10, None), None)
    _expect("sessions left", [s.session_id for s in await store.sessions("anna", 10, None)], ["other"])
    new = await store.recall("anna", "talk", ALL)
    _expect("turns and past after forgetting", (new.turns, new.past), (0, ()))
    _expect("the forgotten conversation's id is used again", new.id == old.conversation_id, wanted=False)


async def a_turn_that_does_not_follow_is_refused(store: Store) -> None:
    """Somebody else recorded it, or deleted the session while it ran."""
    fresh = await store.recall("anna", "talk", ALL)
    first = make_turn(fresh)
    await _expect_refusal("a second turn with no first", StoreUnavailable, store.record(_numbered(first, 2)))
    _expect("turns after a refused first", await store.turns("anna", "talk", 10, None), None)
    await store.record(first)
    strange = {
        "the same turn twice": first,
        "a gap": _numbered(first, 3),
        "number 0": _numbered(first, 0),
        "a first turn of another conversation": make_turn(await store.recall("anna", "elsewhere", ALL)),
        "the next turn of another conversation": msgspec.structs.replace(_numbered(first, 2), conversation_id="x"),
        "the next turn in another's session": msgspec.structs.replace(_numbered(first, 2), principal="ben"),
        "the next turn under another name": msgspec.structs.replace(_numbered(first, 2), session_id="elsewhere"),
    }
    for claim, turn in strange.items():
        await _expect_refusal(claim, StoreUnavailable, store.record(turn))
        _expect(f"turns after {claim}", await _turns(store), [first])
    _expect("another's sessions", await store.sessions("ben", 10, None), [])
    await store.record(_numbered(first, 2))
    await store.forget("anna", "talk")
    await _expect_refusal("a turn whose session was forgotten", StoreUnavailable, store.record(_numbered(first, 3)))
    _expect("turns of a session forgotten while a turn ran", await store.turns("anna", "talk", 10, None), None)


def _numbered(turn: TurnRecord, number: int) -> TurnRecord:
    return msgspec.structs.replace(turn, number=number, turn_id=f"{turn.conversation_id}-{number}")


async def any_text_comes_back_as_it_was(store: Store) -> None:
    """NUL, the right-to-left mark and quotes are text like any other."""
    for text in ODD_TEXTS:
        said = await _say(store, text, f"p{text}", message=text, reply=text, request_id=text, messages=text.encode())
        _expect("turns with odd text", await _turns(store, text, f"p{text}"), [said])
        past = (await store.recall(f"p{text}", text, ALL)).past
        _expect("past with odd text", past[0].message, text)
        _expect("sessions", [s.session_id for s in await store.sessions(f"p{text}", 10, None)], [text])


async def text_that_is_not_unicode_is_refused(store: Store) -> None:
    """Half a surrogate pair has no UTF-8: nothing is kept of what holds one."""
    said = await _say(store)
    key = _key("k")
    refused: dict[str, Callable[[], Awaitable[object]]] = {
        "recall": lambda: store.recall(HALF_A_PAIR, "talk", ALL),
        "record with such a message": lambda: _say(store, message=HALF_A_PAIR),
        "record with such a reply": lambda: _say(store, reply=HALF_A_PAIR),
        "record in such a session": lambda: store.record(msgspec.structs.replace(said, session_id=HALF_A_PAIR)),
        "sessions": lambda: store.sessions(HALF_A_PAIR, 10, None),
        "sessions before such a one": lambda: store.sessions("anna", 10, (1, HALF_A_PAIR)),
        "turns": lambda: store.turns("anna", HALF_A_PAIR, 10, None),
        "forget": lambda: store.forget("anna", HALF_A_PAIR),
        "add_key": lambda: store.add_key(msgspec.structs.replace(key, principal=HALF_A_PAIR)),
        "revoke_key": lambda: store.revoke_key(HALF_A_PAIR, 1),
    }
    for claim, call in refused.items():
        await _expect_refusal(claim, Unprocessable, call())
    _expect("turns afterwards", await _turns(store), [said])
    _expect("keys afterwards", await store.keys(), [])


async def many_sessions_are_recorded_at_once(store: Store) -> None:
    """Each keeps its own turns, in order; of two that record the same turn, one is told that it came too late."""

    async def talk(n: int) -> list[TurnRecord]:
        return [await _say(store, f"s{n}", message=f"{n} asks {m}") for m in range(4)]

    async with asyncio.TaskGroup() as group:
        talks = [group.create_task(talk(n)) for n in range(40)]
    for n, done in enumerate(talks):
        _expect(f"turns of session {n}", await _turns(store, f"s{n}"), done.result()[::-1])

    first = make_turn(await store.recall("anna", "talk", ALL))
    second = make_turn(await store.recall("anna", "talk", ALL))

    async def fits(turn: TurnRecord) -> bool:
        try:
            await store.record(turn)
        except StoreUnavailable:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        both = [group.create_task(fits(turn)) for turn in (first, second)]
    _expect("one of two first turns is kept", [task.result() for task in both], [True, False])
    _expect("turns after two at once", await _turns(store), [first])


def _key(key_id: str, **changes: object) -> StoredKey:
    key = StoredKey(id=key_id, principal="anna", scopes=(), digest=b"\0\xff" * 16, created_ns=1_000)
    return msgspec.structs.replace(key, **changes)


async def keys_are_kept_and_revoked(store: Store) -> None:
    """Adding a key twice, or revoking it twice, changes nothing."""
    _expect("keys at first", await store.keys(), [])
    late = _key("late", created_ns=2_000, scopes=("delegate", "admin"), expires_ns=9_000)
    b, a = _key("b"), _key("a")
    for key in (late, b, a, late):
        await store.add_key(key)
    _expect("keys, oldest first", await store.keys(), [a, b, late])
    _expect("revoking a key there is not", await store.revoke_key("c", 5), wanted=False)
    _expect("revoking", await store.revoke_key("a", 3_000), wanted=True)
    _expect("revoking twice", await store.revoke_key("a", 4_000), wanted=True)
    revoked = msgspec.structs.replace(a, revoked_ns=3_000)
    await store.add_key(a)
    _expect("a revoked key that is added again", await store.keys(), [revoked, b, late])


async def a_caller_that_is_cancelled_harms_nobody(store: Store) -> None:
    """The others are answered, and the store goes on."""
    turns = [make_turn(await store.recall("anna", f"s{n}", ALL), session_id=f"s{n}") for n in range(6)]
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(store.record(turn)) for turn in turns]
        await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
    for n in (1, 3, 5):
        _expect("turns of a caller that waited", await _turns(store, f"s{n}"), [turns[n]])
    for n in (0, 2, 4):
        _expect(
            "turns of one that did not: all or nothing", await _turns(store, f"s{n}") in ([], [turns[n]]), wanted=True
        )


STORE_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    a_session_is_new_until_its_first_turn_is_recorded,
    what_is_recorded_is_given_back,
    the_window_takes_whole_turns_newest_first,
    a_session_belongs_to_its_principal,
    sessions_are_paged_latest_first,
    turns_are_paged_latest_first,
    what_is_forgotten_is_gone,
    a_turn_that_does_not_follow_is_refused,
    any_text_comes_back_as_it_was,
    text_that_is_not_unicode_is_refused,
    many_sessions_are_recorded_at_once,
    keys_are_kept_and_revoked,
    a_caller_that_is_cancelled_harms_nobody,
)
"""Every check, each of which takes an opened store that is empty at first."""
