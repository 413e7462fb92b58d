"""Notes, in SQLite."""

import sqlite3
from collections.abc import Sequence

from holdfast.store.notes import KEPT_NOTES, Note, NoteKind
from holdfast.store.sqlite_file import named_statements
from holdfast.store.worker import Worker

_SQL = named_statements("sqlite_notes")


class SQLiteNotes:
    """The part of ``SQLiteStore`` that keeps notes. The store sets ``_worker``."""

    _worker: Worker

    async def note(self, notes: Sequence[Note]) -> None:
        """See ``Store.note``."""

        def job(db: sqlite3.Connection) -> None:
            db.executemany(_SQL["note"], notes)
            for kind, about in {(note.kind, note.about) for note in notes}:
                db.execute(_SQL["trim_notes"], (kind, about, KEPT_NOTES))

        await self._worker.run(job)

    async def notes(self, kind: NoteKind, about: str) -> list[Note]:
        """See ``Store.notes``."""
        return await self._worker.run(
            lambda db: [Note(*row) for row in db.execute(_SQL["notes"], (kind, about))], writes=False
        )

    async def forget_notes(self, kind: NoteKind, about: str) -> bool:
        """See ``Store.forget_notes``."""
        return await self._worker.run(lambda db: db.execute(_SQL["forget_notes"], (kind, about)).rowcount > 0)
