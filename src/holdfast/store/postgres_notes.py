"""Notes, in PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from holdfast.store.notes import KEPT_NOTES, Note, NoteKind


class PostgresNotes:
    """The part of ``PostgresStore`` that keeps notes. Every statement may be asked twice."""

    async def _ask(self, name: str, *values: object) -> list[Any]:
        raise NotImplementedError

    async def note(self, notes: Sequence[Note]) -> None:
        """See ``Store.note``."""
        if notes:
            unique = {(one.kind, one.about, one.id): one for one in notes}
            await self._ask("note", *map(list, zip(*unique.values(), strict=True)))
        for kind, about in {(note.kind, note.about) for note in notes}:
            await self._ask("trim_notes", kind, about, KEPT_NOTES)

    async def notes(self, kind: NoteKind, about: str) -> list[Note]:
        """See ``Store.notes``."""
        return [Note(*row) for row in await self._ask("notes", kind, about)]

    async def forget_notes(self, kind: NoteKind, about: str) -> bool:
        """See ``Store.forget_notes``."""
        return bool(await self._ask("forget_notes", kind, about))
