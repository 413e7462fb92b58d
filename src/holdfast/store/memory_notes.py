"""Notes, for the store that forgets at exit."""

from collections.abc import Sequence

from holdfast.store.memory_accounts import MemoryAccounts
from holdfast.store.notes import KEPT_NOTES, Note, NoteKind


class MemoryNotes(MemoryAccounts):
    """The part of ``MemoryStore`` that keeps notes, beside accounts."""

    def __init__(self) -> None:
        super().__init__()
        self._notes: dict[tuple[NoteKind, str], dict[str, Note]] = {}

    async def note(self, notes: Sequence[Note]) -> None:
        """See ``Store.note``."""
        for note in notes:
            place = (note.kind, note.about)
            kept = {**self._notes.get(place, {}), note.id: note}
            newest = sorted(kept.values(), key=lambda one: (one.at_ns, one.id))[-KEPT_NOTES:]
            self._notes[place] = {one.id: one for one in newest}

    async def notes(self, kind: NoteKind, about: str) -> list[Note]:
        """See ``Store.notes``."""
        return list(self._notes.get((kind, about), {}).values())[::-1]

    async def forget_notes(self, kind: NoteKind, about: str) -> bool:
        """See ``Store.forget_notes``."""
        return self._notes.pop((kind, about), None) is not None

    def forget_session_account(self, conversation_id: str) -> None:
        """Forget the notes of a conversation that is deleted too."""
        super().forget_session_account(conversation_id)
        self._notes.pop(("latch", conversation_id), None)
