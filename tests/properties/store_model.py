"""Turns as they should be: a plain model of what replicas may do to them, without a database."""

from dataclasses import dataclass, field

from holdfast.errors import HoldfastError, KeyReused, NotOwner, SessionBusy
from holdfast.store import Claim, TurnState, UnitState

LEASE_S = 10
REPLICAS = ("a", "b", "c")


@dataclass
class ModelTurn:
    """A turn, with how its units are by key."""

    session: int
    number: int
    message: str
    accepted: int
    owner: str | None
    state: TurnState
    key: str | None = None
    digest: bytes = b""
    generation: int = 1
    cancelled: bool = False
    success: bool = False
    units: dict[str, UnitState] = field(default_factory=dict)

    @property
    def seen(self) -> tuple[object, ...]:
        """What a store says of it."""
        return self.number, self.message, self.state, self.owner, self.generation, self.cancelled


@dataclass
class Model:
    """
    Every turn there ever was, in the order of acceptance.

    Each operation gives what a store gives, or the class of what a store raises.
    """

    now: int = 0
    turns: list[ModelTurn] = field(default_factory=list)
    beats: dict[str, int] = field(default_factory=dict)

    def session(self, session: int) -> list[ModelTurn]:
        return [turn for turn in self.turns if turn.session == session]

    def waits(self, turn: ModelTurn) -> bool:
        return any(other.state != "ended" for other in self.session(turn.session)[: turn.number - 1])

    def past(self, turn: ModelTurn) -> list[str]:
        return [other.message for other in self.session(turn.session)[: turn.number - 1] if other.success]

    def accept(
        self, session: int, replica: str, message: str, key: str | None, digest: bytes, *, waits: bool
    ) -> ModelTurn | type[HoldfastError]:
        for turn in self.turns:
            if key is not None and turn.key == key:
                return turn if turn.digest == digest else KeyReused
        earlier = self.session(session)
        busy = any(turn.state != "ended" for turn in earlier)
        if busy and not waits:
            return SessionBusy
        state: TurnState = "queued" if busy else "running"
        turn = ModelTurn(session, len(earlier) + 1, message, len(self.turns), replica, state, key, digest)
        self.turns.append(turn)
        return turn

    def owned(self, turn: ModelTurn, claim: Claim) -> bool:
        return (turn.owner, turn.generation) == (claim.owner, claim.generation)

    def start(self, turn: ModelTurn, claim: Claim) -> list[str] | type[HoldfastError] | None:
        if not self.owned(turn, claim):
            return NotOwner
        if self.waits(turn):
            return None
        turn.state = "running"
        return self.past(turn)

    def put(self, turn: ModelTurn, claim: Claim, key: str, state: UnitState) -> bool | type[HoldfastError]:
        if not self.owned(turn, claim):
            return NotOwner
        turn.units[key] = state
        return turn.cancelled

    def suspend(self, turn: ModelTurn, claim: Claim, doubt: str | None) -> type[HoldfastError] | None:
        if not self.owned(turn, claim):
            return NotOwner
        turn.owner = None
        turn.state = "queued" if doubt is None else "in_doubt"
        if doubt is not None:
            turn.units[doubt] = "in_doubt"
        return None

    def end(self, turn: ModelTurn, claim: Claim, *, success: bool) -> type[HoldfastError] | None:
        if not self.owned(turn, claim):
            return NotOwner
        turn.owner, turn.state, turn.success = None, "ended", success
        turn.units = {key: "in_doubt" if state == "begun" else state for key, state in turn.units.items()}
        return None

    def claim(self, replica: str, limit: int) -> list[ModelTurn]:
        self.beats = {name: beat for name, beat in self.beats.items() if self.now - beat <= LEASE_S}
        free = [
            turn
            for turn in self.turns
            if turn.state != "ended"
            and (turn.state != "in_doubt" or turn.cancelled)
            and (turn.owner is None or turn.owner not in {*self.beats, replica})
        ][:limit]
        for turn in free:
            turn.owner, turn.state = replica, "queued"
            turn.generation += 1
        return free

    def leave(self, replica: str) -> None:
        self.beats.pop(replica, None)
        for turn in self.turns:
            if turn.owner == replica:
                turn.owner, turn.state = None, "queued"

    def cancel(self, turn: ModelTurn) -> bool:
        if turn.state != "ended":
            turn.cancelled = True
        return turn.state != "ended"

    def resolve(self, turn: ModelTurn, key: str, *, happened: bool) -> bool:
        if turn.units.get(key) != "in_doubt":
            return False
        turn.units[key] = "done" if happened else "failed"
        if turn.state == "in_doubt" and "in_doubt" not in turn.units.values():
            turn.state = "queued"
        return True
