"""
The agent breaker: ends a run that interventions do not help. It is none of the breakers around models and tools.

::

    watching ──▶ tripped, until somebody resets it

It trips after three interventions in a row that failed, six in all, states that take turns (A, B, A, B) over four
episodes, or a budget of which nothing is left. An intervention has failed when its state shows again within five steps.
"""

from collections import Counter, deque
from typing import Final

from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.verdicts import State

KEPT: Final = 10
TAKING_TURNS: Final = 4

ADVICE: Final = {
    State.DEADLOCK: (3, "give the agent more, and more different, tools"),
    State.THRASH: (3, "check the schema and the health of the tools that fail"),
    State.PANIC: (3, "state the question more precisely"),
    State.STALL: (3, "split the task, or say what counts as progress"),
    State.HUBRIS: (2, "look at hubris_confidence and min_evidence"),
    State.SCARCITY: (2, "give the run a larger budget"),
}


class AgentBreaker:
    """
    Counts what interventions came to.

    Attributes:
        tripped: Why it tripped, in one sentence; None while it has not.
        in_a_row: Interventions that failed since the run was last well.
        in_all: Interventions that failed.
        found: How often each state was found.
        last: The last ten detections, newest last.
    """

    def __init__(self, spec: MonitorSpec) -> None:
        self._spec = spec
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next run is watched from the start."""
        self.tripped: str | None = None
        self.in_a_row = 0
        self.in_all = 0
        self.found: Counter[State] = Counter()
        self.last: deque[str] = deque(maxlen=KEPT)
        self._episodes: deque[State] = deque(maxlen=TAKING_TURNS)
        self._pending: dict[State, int] = {}

    def trip(self, why: str) -> None:
        """Latch; the first reason stays."""
        self.tripped = self.tripped or why

    def tick(self, step: int, *, well: bool) -> None:
        """Let a step pass. Interventions have worked once none is waited for any more, and the run is ``well``."""
        self._pending = {state: at for state, at in self._pending.items() if step - at <= self._spec.reopen_steps}
        if well and not self._pending:
            self.in_a_row = 0

    def note(self, state: State, rule: str, step: int) -> None:
        """Take a detection into the diagnostics."""
        self.found[state] += 1
        self.last.append(f"step {step}: {state.value} ({rule})")

    def acted(self, state: State, step: int, *, opened: bool) -> None:
        """An intervention is about to be made: an earlier one for the same state has failed."""
        spec = self._spec
        if state in self._pending:
            self.in_a_row += 1
            self.in_all += 1
        self._pending[state] = step
        if opened:
            self._episodes.append(state)
        if self.in_a_row >= spec.failed_in_a_row:
            self.trip(f"{self.in_a_row} interventions in a row did not help")
        elif self.in_all >= spec.failed_in_all:
            self.trip(f"{self.in_all} interventions did not help")
        elif self._takes_turns():
            self.trip(
                f"the agent goes back and forth between {' and '.join(s.value for s in list(self._episodes)[:2])}"
            )

    def recommendations(self) -> tuple[str, ...]:
        """What whoever is responsible for the agent can change."""
        found = [text for state, (times, text) in ADVICE.items() if self.found[state] >= times]
        if self._takes_turns():
            found.append("look for instructions that contradict each other")
        return tuple(found) or ("make the task simpler, or its instructions",)

    def _takes_turns(self) -> bool:
        if len(self._episodes) < TAKING_TURNS:
            return False
        first, second, third, fourth = self._episodes
        return first == third != second == fourth
