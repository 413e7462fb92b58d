"""A store that forgets at exit. It behaves as the others do: the same conformance suite runs on each."""

from typing import NamedTuple

import msgspec

from holdfast.clock import token_hex
from holdfast.errors import StoreUnavailable
from holdfast.store.base import Conversation, Past, SessionSummary, StoredKey, TurnRecord, check_unicode, fit_window


class _Session(NamedTuple):
    id: str
    created_ns: int
    turns: list[TurnRecord]

    @property
    def updated_ns(self) -> int:
        return self.turns[-1].started_ns


class MemoryStore:
    """Keeps everything in this process."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._keys: dict[str, StoredKey] = {}

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def ping(self) -> None:
        """Nothing to do."""

    async def recall(self, principal: str, session_id: str, window_tokens: int) -> Conversation:
        """See ``Store.recall``."""
        check_unicode(principal, session_id)
        session = self._sessions.get((principal, session_id))
        if session is None:
            return Conversation(id=token_hex(8), turns=0, past=())
        remembered = (
            (Past(message=t.message, reply=t.reply, format=t.format, messages=t.messages), t.tokens)
            for t in reversed(session.turns)
            if t.outcome == "success"
        )
        return Conversation(id=session.id, turns=len(session.turns), past=fit_window(remembered, window_tokens))

    async def record(self, turn: TurnRecord) -> None:
        """See ``Store.record``."""
        check_unicode(*(value for value in msgspec.structs.astuple(turn) if isinstance(value, str)))
        key = (turn.principal, turn.session_id)
        session = self._sessions.get(key)
        stored = 0 if session is None else len(session.turns)
        if turn.number != stored + 1 or (session is not None and session.id != turn.conversation_id):
            raise StoreUnavailable(f"turn {turn.turn_id} does not follow the last one stored")
        self._sessions.setdefault(key, _Session(turn.conversation_id, turn.started_ns, [])).turns.append(turn)

    async def sessions(self, principal: str, limit: int, before: tuple[int, str] | None) -> list[SessionSummary]:
        """See ``Store.sessions``."""
        check_unicode(principal, before and before[1])
        mine = [
            SessionSummary(session_id=name, turns=len(s.turns), created_ns=s.created_ns, updated_ns=s.updated_ns)
            for (owner, name), s in self._sessions.items()
            if owner == principal
        ]
        mine.sort(key=lambda s: (s.updated_ns, s.session_id), reverse=True)
        return [s for s in mine if before is None or (s.updated_ns, s.session_id) < before][:limit]

    async def turns(self, principal: str, session_id: str, limit: int, before: int | None) -> list[TurnRecord] | None:
        """See ``Store.turns``."""
        check_unicode(principal, session_id)
        session = self._sessions.get((principal, session_id))
        if session is None:
            return None
        return [t for t in reversed(session.turns) if before is None or t.number < before][:limit]

    async def forget(self, principal: str, session_id: str) -> bool:
        """See ``Store.forget``."""
        check_unicode(principal, session_id)
        return self._sessions.pop((principal, session_id), None) is not None

    async def add_key(self, key: StoredKey) -> None:
        """See ``Store.add_key``."""
        check_unicode(key.id, key.principal, *key.scopes)
        self._keys.setdefault(key.id, key)

    async def keys(self) -> list[StoredKey]:
        """See ``Store.keys``."""
        return sorted(self._keys.values(), key=lambda key: (key.created_ns, key.id))

    async def revoke_key(self, key_id: str, now_ns: int) -> bool:
        """See ``Store.revoke_key``."""
        check_unicode(key_id)
        key = self._keys.get(key_id)
        if key is not None and key.revoked_ns is None:
            self._keys[key_id] = msgspec.structs.replace(key, revoked_ns=now_ns)
        return key is not None
