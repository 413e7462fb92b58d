"""What the monitor found in a turn, and did about it, as it is shown: read from the turn's events."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from holdfast.clock import NS, iso
from holdfast.errors import Blocked
from holdfast.events import Event, MonitorActed, MonitorDetected, MonitorEnded
from holdfast.journal import Numbered
from holdfast.store import TurnRecord, Unit, UnitState

E = TypeVar("E", bound=Event)


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """
    A critical state that a turn showed.

    Attributes:
        state: Which one.
        rule: Which of its rules.
        severity: `warn` or `stop`.
        confidence: That the state holds.
        rung: How far the ladder had got; 0 only observes.
        opened: Whether it was new.
        acts: Whether the monitor acted; false in shadow.
        step: The step after which it was found.
        steps: The steps it rests on.
        count: How often, or how many.
        detail: The same in words.
        tokens: Tokens that the turn had used.
    """

    state: str
    rule: str
    severity: str
    confidence: float
    rung: int
    opened: bool
    acts: bool
    step: int
    steps: list[int]
    count: int
    detail: str
    tokens: int


class Intervention(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the monitor did.

    Attributes:
        protocol: In a word.
        state: What for.
        rule: What for.
        step: After which step.
        tool: The tool it is about; null where it is not about one.
        text: What the agent, or the one who asked, was told.
    """

    protocol: str
    state: str
    rule: str
    step: int
    tool: str | None
    text: str


class Monitored(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a turn behaved; forgotten `store.keep_turns_s` after its end.

    Attributes:
        outcome: `stopped_partial`, `tripped`, `needs_human` or `done_unverified`; null where it went as usual.
        check: What the answer lacks that was taken all the same.
        latched: Whether the later turns of the session are stopped too, until it is reset.
        detections: In order.
        interventions: In order.
        report: What a turn that was stopped leaves behind: why, what was done, what is open, what to change, and the
            turn to go on from; null where it was not stopped.
    """

    outcome: str | None
    check: str | None
    latched: bool
    detections: list[Detection]
    interventions: list[Intervention]
    report: Any


class ActionItem(msgspec.Struct, frozen=True, kw_only=True):
    """
    One attempt at a tool call of a session.

    Attributes:
        turn_id: The turn it is of.
        key: Names the call within the turn.
        tool: Its name.
        state: How it is.
        blocked: Whether the monitor answered in the tool's place.
        duration_s: Null where nobody knows.
        args: What the tool was given.
    """

    turn_id: str
    key: str
    tool: str
    attempt: int
    state: UnitState
    blocked: bool
    started_at: str
    duration_s: float | None
    args: Any


class TurnActions(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn of a session did, in order, and what the monitor made of it."""

    turn_id: str
    number: int
    actions: list[ActionItem]
    monitor: Monitored


class SessionActions(msgspec.Struct, frozen=True, kw_only=True):
    """
    The action history of a session, latest turn first.

    Attributes:
        latched: Why its turns are stopped until it is reset; null where they are not.
        next: Pass as `before` for the next page; null on the last.
    """

    session_id: str
    latched: str | None
    turns: list[TurnActions]
    next: int | None


def monitored_of(told: Iterable[Numbered]) -> Monitored:
    """How a turn behaved, from its events."""
    by_name: dict[str, list[bytes]] = {}
    for each in told:
        by_name.setdefault(each.name, []).append(each.data)
    detected = _read(by_name, MonitorDetected)
    ended = _read(by_name, MonitorEnded)
    last = ended[-1] if ended else MonitorEnded(outcome="")
    return Monitored(
        outcome=last.outcome or None,
        check=last.check,
        latched=last.latched,
        detections=[msgspec.convert(one, Detection, from_attributes=True) for one in detected],
        interventions=[
            msgspec.convert(one, Intervention, from_attributes=True) for one in _read(by_name, MonitorActed)
        ],
        report=last.report,
    )


def actions_of(turn: TurnRecord, units: Iterable[Unit], told: Iterable[Numbered]) -> TurnActions:
    """What a turn did."""
    return TurnActions(
        turn_id=turn.turn_id,
        number=turn.number,
        actions=[_action(turn.turn_id, unit) for unit in units if unit.kind == "tool"],
        monitor=monitored_of(told),
    )


def _action(turn_id: str, unit: Unit) -> ActionItem:
    blocked = unit.failure is not None and f'"{Blocked.code}"'.encode() in unit.failure[:64]
    return ActionItem(
        turn_id=turn_id,
        key=unit.key,
        tool=unit.name,
        attempt=unit.attempt,
        state=unit.state,
        blocked=blocked,
        started_at=iso(unit.begun_ns),
        duration_s=None if unit.ended_ns is None else (unit.ended_ns - unit.begun_ns) / NS,
        args=None if unit.args is None else msgspec.Raw(unit.args),
    )


def _read(by_name: dict[str, list[bytes]], kind: type[E]) -> list[E]:
    """Each once: a server that died may have told what the next one found again."""
    return [msgspec.json.decode(data, type=kind) for data in dict.fromkeys(by_name.get(kind.name, []))]
