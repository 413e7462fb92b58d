"""
What is usual for an agent: learnt from its runs that succeeded, and from nothing else.

They count once there are enough of them. Each agent has its own, as what is long for one is short for the other.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

KEPT = 500


class Success(NamedTuple):
    """
    One run that succeeded.

    Attributes:
        steps: Messages of the model, >= 1.
        tokens: It used, >= 0.
        evidence: Different calls that succeeded, >= 0.
        confidence: Mean of what its messages stated, in [0, 1]; None where they stated none.
    """

    steps: int
    tokens: int = 0
    evidence: int = 0
    confidence: float | None = None


class Norms:
    """The last 500 successes of one agent."""

    def __init__(self, successes: Iterable[Success] = ()) -> None:
        self._kept: deque[Success] = deque()
        self._steps: list[int] = []
        for success in successes:
            self.learn(success)

    def __len__(self) -> int:
        return len(self._kept)

    def learn(self, success: Success) -> None:
        """Take one more in, and forget the oldest where there are too many."""
        if success.steps < 1:
            raise ValueError(f"success.steps must be >= 1, got {success.steps}")
        if len(self._kept) == KEPT:
            del self._steps[bisect_left(self._steps, self._kept.popleft().steps)]
        self._kept.append(success)
        insort(self._steps, success.steps)

    def count(self, enough: int) -> bool:
        """Whether there are enough of them to go by."""
        return len(self._kept) >= enough

    def p95(self) -> int:
        """Steps that 95 in 100 successes do not exceed; 0 without any."""
        return self._steps[(len(self._steps) * 95 - 1) // 100] if self._steps else 0

    def longest(self) -> int:
        """Steps of the longest success; 0 without any."""
        return self._steps[-1] if self._steps else 0

    def left(self, steps: int) -> float | None:
        """Steps that a success of at least ``steps`` steps had left then, as a median; None where none was so long."""
        at = bisect_left(self._steps, steps)
        return median(self._steps[at:]) - steps if at < len(self._steps) else None

    def least_evidence(self) -> int:
        """Different calls that 95 in 100 successes had at least; 0 without any."""
        evidence = sorted(success.evidence for success in self._kept)
        return evidence[len(evidence) * 5 // 100] if evidence else 0

    def confidence(self) -> float | None:
        """Mean stated confidence; None where no success stated any."""
        stated = [success.confidence for success in self._kept if success.confidence is not None]
        return sum(stated) / len(stated) if stated else None

    def dump(self) -> dict[str, Any]:
        """Plain data, for keeping."""
        return {"successes": [list(success) for success in self._kept]}

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> "Norms":
        """What ``dump`` gave."""
        return cls(Success(*each) for each in dumped["successes"])
