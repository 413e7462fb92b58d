"""A store that forgets at exit. It behaves as the others do: the same conformance suite runs on each."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import msgspec

from holdfast.clock import NS, Clock
from holdfast.errors import KeyReused, NotOwner, SessionBusy
from holdfast.store.base import Hear, Heard
from holdfast.store.memory_keys import MemoryKeys
from holdfast.store.memory_notes import MemoryNotes
from holdfast.store.records import (
    Accepted,
    Claim,
    Ending,
    NewTurn,
    Past,
    Said,
    SessionSummary,
    TurnRecord,
    TurnState,
    Unit,
    UnitKind,
    check_unicode,
    fit_window,
    new_conversation_id,
)


@dataclass(slots=True)
class _Turn:
    record: TurnRecord
    messages: bytes | None = None
    units: dict[tuple[UnitKind, str, int], Unit] = field(default_factory=dict)
    said: dict[int, bytes] = field(default_factory=dict)
    due_ns: int | None = None
    tries: int = 0
    purged: bool = False

    @property
    def ended(self) -> bool:
        return self.record.ending is not None

    @property
    def order(self) -> tuple[int, str]:
        return self.record.started_ns, self.record.turn_id

    def claimable(self, agents: Collection[str]) -> bool:
        """Whether a replica may own it: one in doubt waits, unless it is to be cancelled, which anybody can."""
        able = self.record.state != "in_doubt" and self.record.agent in agents
        return not self.ended and (able or self.record.cancelled)

    def change(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)

    def keep(self, unit: Unit, said: Said | None) -> None:
        self.units[unit.kind, unit.key, unit.attempt] = unit
        self.hear(said)

    def hear(self, said: Said | None) -> None:
        if said is not None:
            self.said[said.last] = said.events


@dataclass(slots=True)
class _Session:
    id: str
    created_ns: int
    turns: list[_Turn] = field(default_factory=list)

    @property
    def updated_ns(self) -> int:
        return self.turns[-1].record.started_ns

    def busy(self, before: int) -> bool:
        return any(not turn.ended for turn in self.turns[: before - 1])

    def past(self, before: int, window_tokens: int) -> tuple[Past, ...]:
        return fit_window(self._newest_first(before), window_tokens)

    def _newest_first(self, before: int) -> Iterator[tuple[Past, int]]:
        for turn in reversed(self.turns[: before - 1]):
            ending = turn.record.ending
            if ending is not None and ending.outcome == "success":
                message = turn.record.message
                yield (
                    Past(message=message, reply=ending.reply, format=ending.format, messages=turn.messages),
                    ending.tokens,
                )


class MemoryStore(MemoryNotes, MemoryKeys):
    """Keeps everything in this process. ``clock`` says when a beat is too old; None takes the machine's."""

    lasts = False

    def __init__(self, clock: Clock | None = None) -> None:
        MemoryNotes.__init__(self)
        MemoryKeys.__init__(self)
        self._clock = clock or Clock()
        self._hear: Hear | None = None
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._turns: dict[str, _Turn] = {}
        self._by_key: dict[tuple[str, str], _Turn] = {}
        self._beats: dict[str, int] = {}

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def ping(self) -> None:
        """Nothing to do."""

    def listen(self, hear: Hear | None) -> None:
        """See ``Store.listen``."""
        self._hear = hear

    async def accept(self, turn: NewTurn, window_tokens: int) -> Accepted:
        """See ``Store.accept``."""
        check_unicode(*(value for value in msgspec.structs.astuple(turn) if isinstance(value, str)))
        if turn.key is not None and (known := self._by_key.get((turn.principal, turn.key))) is not None:
            if known.record.digest != turn.digest:
                raise KeyReused
            return Accepted(known.record, again=True, past=None)
        session = self._sessions.get((turn.principal, turn.session_id)) or _Session(
            new_conversation_id(turn.accepted_ns), turn.accepted_ns
        )
        number = len(session.turns) + 1
        busy = session.busy(number)
        if busy and not turn.waits:
            raise SessionBusy
        kept = _Turn(
            TurnRecord(
                turn_id=f"{session.id}-{number}",
                conversation_id=session.id,
                number=number,
                principal=turn.principal,
                session_id=turn.session_id,
                agent=turn.agent,
                trace_id=turn.trace_id,
                request_id=turn.request_id,
                source_ip=turn.source_ip,
                message=turn.message,
                started_ns=turn.accepted_ns,
                streams=turn.streams,
                key=turn.key,
                digest=turn.digest,
                webhook=turn.webhook,
                state="queued" if busy else "running",
                owner=turn.owner,
            )
        )
        self._sessions[turn.principal, turn.session_id] = session
        session.turns.append(kept)
        self._turns[kept.record.turn_id] = kept
        if turn.key is not None:
            self._by_key[turn.principal, turn.key] = kept
        return Accepted(kept.record, again=False, past=None if busy else session.past(number, window_tokens))

    async def start(self, claim: Claim, window_tokens: int) -> tuple[Past, ...] | None:
        """See ``Store.start``."""
        turn = self._owned(claim)
        session = self._sessions[turn.record.principal, turn.record.session_id]
        if session.busy(turn.record.number):
            return None
        turn.change(state="running")
        return session.past(turn.record.number, window_tokens)

    async def put_unit(self, claim: Claim, unit: Unit, said: Said | None = None) -> bool:
        """See ``Store.put_unit``."""
        check_unicode(unit.key, unit.name)
        turn = self._owned(claim)
        turn.keep(unit, said)
        return turn.record.cancelled

    async def end_turn(self, claim: Claim, ending: Ending, said: Said | None = None) -> None:
        """See ``Store.end_turn``."""
        check_unicode(*(value for value in msgspec.structs.astuple(ending) if isinstance(value, str)))
        turn = self._owned(claim)
        turn.hear(said)
        for unit in list(turn.units.values()):
            if unit.state == "begun":
                harmless = unit.effect == "pure" or unit.kind == "model"
                turn.keep(msgspec.structs.replace(unit, state="failed" if harmless else "in_doubt"), None)
        turn.change(state="ended", owner=None, ending=msgspec.structs.replace(ending, messages=None))
        turn.messages = ending.messages
        if turn.record.webhook is not None:
            turn.due_ns = self._clock.wall_ns()
        self._tell("ended", turn)

    async def suspend(self, claim: Claim, unit: Unit | None = None, said: Said | None = None) -> None:
        """See ``Store.suspend``."""
        if unit is not None:
            check_unicode(unit.key, unit.name)
        turn = self._owned(claim)
        turn.hear(said)
        if unit is None:
            self._release(turn)
        else:
            turn.keep(msgspec.structs.replace(unit, state="in_doubt"), None)
            turn.change(state="in_doubt", owner=None)
            if turn.record.cancelled:
                self._tell("released", turn)

    async def turn(self, turn_id: str) -> TurnRecord | None:
        """See ``Store.turn``."""
        turn = self._find(turn_id)
        return None if turn is None else turn.record

    async def find_turns(
        self,
        principal: str | None,
        states: Collection[TurnState],
        limit: int,
        before: tuple[int, str] | None,
    ) -> list[TurnRecord]:
        """See ``Store.find_turns``."""
        check_unicode(principal, before and before[1])
        found = [
            turn
            for turn in self._turns.values()
            if principal in (None, turn.record.principal)
            and turn.record.state in states
            and (before is None or turn.order < before)
        ]
        found.sort(key=lambda turn: turn.order, reverse=True)
        return [turn.record for turn in found[:limit]]

    async def units(self, turn_id: str) -> list[Unit]:
        """See ``Store.units``."""
        turn = self._find(turn_id)
        return [] if turn is None else list(turn.units.values())

    async def said(self, turn_id: str, after: int) -> list[Said]:
        """See ``Store.said``."""
        turn = self._find(turn_id)
        return [] if turn is None else [Said(n, events) for n, events in sorted(turn.said.items()) if n > after]

    async def cancel(self, turn_id: str) -> bool:
        """See ``Store.cancel``."""
        turn = self._find(turn_id)
        if turn is None or turn.ended:
            return False
        turn.change(cancelled=True)
        self._tell("cancelled", turn)
        if turn.record.state == "in_doubt":
            self._tell("released", turn)
        return True

    async def resolve(self, turn_id: str, kind: UnitKind, key: str, result: bytes | None, now_ns: int) -> bool:
        """See ``Store.resolve``."""
        check_unicode(key)
        turn = self._find(turn_id)
        units = [] if turn is None else list(turn.units.values())
        doubted = [unit for unit in units if unit.state == "in_doubt" and (unit.kind, unit.key) == (kind, key)]
        if turn is None or not doubted:
            return False
        state = "failed" if result is None else "done"
        for unit in doubted:
            turn.keep(msgspec.structs.replace(unit, state=state, result=result, ended_ns=now_ns), None)
        if turn.record.state == "in_doubt" and not any(unit.state == "in_doubt" for unit in turn.units.values()):
            self._release(turn)
        return True

    async def beat(self, replica: str) -> list[str]:
        """See ``Store.beat``."""
        check_unicode(replica)
        self._beats[replica] = self._clock.wall_ns()
        return [name for name, turn in self._turns.items() if turn.record.owner == replica and turn.record.cancelled]

    async def claim(self, replica: str, agents: Collection[str], lease_s: float, limit: int) -> list[TurnRecord]:
        """See ``Store.claim``."""
        check_unicode(replica, *agents)
        oldest_ns = self._clock.wall_ns() - round(lease_s * NS)
        self._beats = {name: beat_ns for name, beat_ns in self._beats.items() if beat_ns >= oldest_ns}
        alive = {*self._beats, replica}
        free = [turn for turn in self._turns.values() if turn.claimable(agents) and turn.record.owner not in alive]
        free.sort(key=lambda turn: turn.order)
        for turn in free[:limit]:
            turn.change(state="queued", owner=replica, generation=turn.record.generation + 1)
        return [turn.record for turn in free[:limit]]

    async def leave(self, replica: str) -> None:
        """See ``Store.leave``."""
        check_unicode(replica)
        self._beats.pop(replica, None)
        for turn in self._turns.values():
            if turn.record.owner == replica:
                self._release(turn)

    async def take_webhooks(self, limit: int, lease_s: float) -> list[tuple[TurnRecord, int]]:
        """See ``Store.take_webhooks``."""
        now_ns = self._clock.wall_ns()
        due = [turn for turn in self._turns.values() if turn.due_ns is not None and turn.due_ns <= now_ns][:limit]
        for turn in due:
            turn.due_ns = now_ns + round(lease_s * NS)
        return [(turn.record, turn.tries) for turn in due]

    async def webhook_told(self, turn_id: str, again_in_s: float | None) -> None:
        """See ``Store.webhook_told``."""
        turn = self._find(turn_id)
        if turn is not None and turn.due_ns is not None:
            turn.tries += 1
            turn.due_ns = None if again_in_s is None else self._clock.wall_ns() + round(again_in_s * NS)

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
        return [t.record for t in reversed(session.turns) if before is None or t.record.number < before][:limit]

    async def forget(self, principal: str, session_id: str) -> bool:
        """See ``Store.forget``."""
        check_unicode(principal, session_id)
        session = self._sessions.get((principal, session_id))
        if session is None:
            return False
        if session.busy(len(session.turns) + 1):
            raise SessionBusy
        del self._sessions[principal, session_id]
        self.forget_session_account(session.id)
        for turn in session.turns:
            del self._turns[turn.record.turn_id]
            self._forget_key(turn)
        return True

    async def purge(self, before_ns: int, limit: int) -> int:
        """See ``Store.purge``."""
        old = [turn for turn in self._turns.values() if not turn.purged and _ended_before(turn, before_ns)][:limit]
        for turn in old:
            self._forget_key(turn)
            turn.units.clear()
            turn.said.clear()
            turn.change(key=None)
            turn.purged = True
        return len(old)

    def _find(self, turn_id: str) -> _Turn | None:
        check_unicode(turn_id)
        return self._turns.get(turn_id)

    def _owned(self, claim: Claim) -> _Turn:
        check_unicode(claim.owner)
        turn = self._find(claim.turn_id)
        if turn is None or (turn.record.owner, turn.record.generation) != (claim.owner, claim.generation):
            raise NotOwner
        return turn

    def _release(self, turn: _Turn) -> None:
        turn.change(state="queued", owner=None)
        self._tell("released", turn)

    def _forget_key(self, turn: _Turn) -> None:
        if turn.record.key is not None:
            del self._by_key[turn.record.principal, turn.record.key]

    def _tell(self, what: Heard, turn: _Turn) -> None:
        if self._hear is not None:
            self._hear(what, turn.record.turn_id)


def _ended_before(turn: _Turn, before_ns: int) -> bool:
    ending = turn.record.ending
    return ending is not None and turn.record.started_ns + ending.duration_ns < before_ns
