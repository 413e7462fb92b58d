"""What every store does with notes."""

from holdfast.store import KEPT_NOTES, Note, Store
from holdfast.testing.store_words import ask, claim_of, expect, make_ending


def _success(number: int, data: bytes = b"{}") -> Note:
    return Note("success", "agent", f"run {number}", number, data)


async def notes_are_kept_by_what_they_are_about(store: Store) -> None:
    """Newest first; one that is known is replaced, and what is about something else stays as it is."""
    expect("notes about nothing", await store.notes("success", "agent"), [])
    await store.note([])
    await store.note([_success(1), _success(2), Note("latch", "agent", "x", 5, b"1")])
    await store.note([_success(1, b"[1]")])
    expect("notes", await store.notes("success", "agent"), [_success(2), _success(1, b"[1]")])
    expect("notes about another", await store.notes("success", "other"), [])
    forgotten = [await store.forget_notes("success", "agent") for _ in range(2)]
    expect("whether there were any, and any more", forgotten, [True, False])
    expect("notes of another kind", await store.notes("latch", "agent"), [Note("latch", "agent", "x", 5, b"1")])


async def only_the_newest_notes_are_kept(store: Store) -> None:
    """Of each kind about each thing; the oldest go."""
    await store.note([_success(number) for number in range(1, KEPT_NOTES + 3)])
    kept = await store.notes("success", "agent")
    expect("how many", len(kept), KEPT_NOTES)
    expect("the oldest of them", kept[-1], _success(3))


async def notes_about_a_conversation_go_with_it(store: Store) -> None:
    """Those about others stay."""
    turn = (await ask(store)).turn
    await store.end_turn(claim_of(turn), make_ending())
    await store.note([Note("latch", turn.conversation_id, "t", 1, b"1"), Note("latch", "another", "t", 1, b"1")])
    await store.forget(turn.principal, turn.session_id)
    expect("notes about what is deleted", await store.notes("latch", turn.conversation_id), [])
    expect("notes about another", len(await store.notes("latch", "another")), 1)


NOTE_CHECKS = (
    notes_are_kept_by_what_they_are_about,
    only_the_newest_notes_are_kept,
    notes_about_a_conversation_go_with_it,
)
