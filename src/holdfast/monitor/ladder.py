"""
Episodes and the ladder: how a sign becomes one alert, and how far the monitor goes.

::

    rung 0 observe ─▶ 1 nudge ─▶ 2 block ─▶ 3 other means ─▶ 4 person ─▶ 5 stop
         shadow         WARN        STOP                       (if any)

An episode of a state opens at its first sign and closes after three steps in a row that bring something new and are no
errors. While it is open, more signs raise the rung and are no new alerts. After an intervention the agent has two
steps to react, whatever the state; a budget that runs out does not wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.monitor.history import Fact
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.verdicts import OBSERVE, Firing, Severity, State


@dataclass(slots=True)
class Episode:
    """
    A state, from its first sign to its end.

    Attributes:
        state: Which one.
        rung: How far the ladder has got; 0 only observes.
        severity: The highest point that was reached.
        opened: Number of the step of the first sign.
        news: Steps in a row that brought something new.
    """

    state: State
    rung: int
    severity: Severity
    opened: int
    news: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """
    What a sign comes to.

    Attributes:
        rung: Which one to take.
        opened: Whether it opens an episode.
    """

    rung: int
    opened: bool


class Ladder:
    """
    The episodes of one run.

    Attributes:
        open: Those that are open, by their state.
        acted: Number of the step of the last intervention that the agent is to react to; None before the first.
    """

    def __init__(self, spec: MonitorSpec) -> None:
        self._spec = spec
        self.open: dict[State, Episode] = {}
        self.acted: int | None = None

    def state(self) -> State:
        """The most urgent of the open states."""
        return next((state for state in State if state in self.open), State.NONE)

    def well(self) -> bool:
        """Whether nothing is wrong with what the agent does; a budget that runs out is no fault of that."""
        return not self.open.keys() - {State.SCARCITY}

    def settle(self, fact: Fact, firing: frozenset[State]) -> tuple[State, ...]:
        """Count a step towards the end of each episode; the states that are over with it."""
        over = []
        for episode in self.open.values():
            episode.news = episode.news + 1 if fact.progress and episode.state not in firing else 0
            if episode.news >= self._spec.close_steps:
                over.append(episode.state)
        for state in over:
            del self.open[state]
        return tuple(over)

    def waits(self, step: int) -> bool:
        """Whether the agent still has time to react to the last intervention."""
        return self.acted is not None and step - self.acted < self._spec.wait_steps

    def observe(self, firing: Firing, step: int) -> Move | None:
        """Take in a sign without acting on it; None where it tells nothing that was not known."""
        episode = self.open.get(firing.state)
        if episode is None:
            self.open[firing.state] = Episode(firing.state, OBSERVE, firing.severity, step)
            return Move(OBSERVE, opened=True)
        if firing.severity > episode.severity:
            episode.severity = firing.severity
            return Move(OBSERVE, opened=False)
        return None

    def climb(self, firing: Firing, step: int, rungs: Sequence[int]) -> Move | None:
        """
        Take a sign as a reason to act.

        Args:
            firing: The sign.
            step: Number of the step.
            rungs: Those that the state's protocol has, in order; the last is kept once it was reached.

        Returns:
            The rung to take; None while the agent has time to react.
        """
        if firing.level == 0 and self.waits(step):
            return None
        episode = self.open.get(firing.state)
        if firing.level:
            wanted = firing.level
        elif episode is None:
            wanted = int(firing.severity)
        else:
            wanted = max(episode.rung + 1, int(firing.severity))
        rung = next((each for each in rungs if each >= wanted), rungs[-1])
        opened = episode is None
        if episode is None:
            episode = self.open[firing.state] = Episode(firing.state, rung, firing.severity, step)
        episode.rung, episode.news = rung, 0
        episode.severity = max(episode.severity, firing.severity)
        if firing.level == 0:
            self.acted = step
        return Move(rung, opened)
