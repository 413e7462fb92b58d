"""
Whether a failed call is made again, and when.

::

    failure ─▶ its class allows it ─▶ attempts left ─▶ the call may be repeated ─▶ the wait fits ─▶ the budget pays
                     │no                   │no                 │no                     │no               │no
                     └───────────────────────────── give up, and say why ─────────────────────────────────┘

The decision reads no clock and sleeps nowhere. State is shared between calls in one place only, the budget, so that a
target in trouble is not buried under retries: over any time there are at most ``ratio`` of them for each first attempt.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from holdfast.clock import NS
from holdfast.resilience.classify import TREATMENTS, Failure, FailureClass

Chance = Callable[[], float]
"""A number in [0, 1), as ``random.Random.random`` draws it."""

_SLOW = frozenset({FailureClass.OVERLOADED, FailureClass.RATE_LIMITED})
"""Classes that ask for patience: their waits begin at ``slow_base_s``, and at least half of each is kept."""

_LIGHT = frozenset({FailureClass.RATE_LIMITED})
"""Classes whose retries weigh less in the budget: the target answered, and said when it will have time."""

_LIGHT_WEIGHT = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """
    How many retries a target bears.

    Attributes:
        ratio: Retries that each first attempt pays for; 0 leaves them to the floor.
        floor_per_s: Retries a second that are free, so that a target that is seldom asked can be retried at all.
        cap: Retries that can be saved up, and that are there from the start.
    """

    ratio: float = 0.1
    floor_per_s: float = 0.2
    cap: float = 10.0

    def __post_init__(self) -> None:
        for name in ("ratio", "floor_per_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"budget.{name} must be >= 0, got {getattr(self, name)}")
        if self.cap < 1:
            raise ValueError(f"budget.cap must be at least 1, got {self.cap}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """
    How often a call is tried, and how long is waited in between.

    Attributes:
        attempts: How often it is tried at most, the first time included; at least 1.
        base_s: Seconds that the first wait takes at most; each further one twice as long.
        slow_base_s: The same where the target has too much to do.
        cap_s: Seconds that no wait exceeds.
        max_retry_after_s: Seconds that a target may ask to be left alone; asked for longer, the call is given up.
        min_useful_s: Seconds that have to be left after the wait for another attempt to make sense.
        wait_out: Whether a refusal of our own, by a limit or an open circuit, is waited out too, if it says how long.
        budget: How many retries each target bears.
    """

    attempts: int = 4
    base_s: float = 0.1
    slow_base_s: float = 1.0
    cap_s: float = 20.0
    max_retry_after_s: float = 60.0
    min_useful_s: float = 0.5
    wait_out: bool = False
    budget: Budget = Budget()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"retry.attempts must be at least 1, got {self.attempts}")
        for name in ("base_s", "slow_base_s", "cap_s", "max_retry_after_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"retry.{name} must be > 0, got {getattr(self, name)}")
        if self.min_useful_s < 0:
            raise ValueError(f"retry.min_useful_s must be >= 0, got {self.min_useful_s}")


class RetryBudget:
    """
    The retries and hedges one target bears, shared by everybody who calls it.

    Kept in whole thousandths of a retry, times nanoseconds, so that no share of one is ever rounded away.
    """

    __slots__ = ("_cap", "_floor", "_level", "_ratio", "_updated_ns")

    def __init__(self, spec: Budget, now: int) -> None:
        self._ratio = round(spec.ratio * 1_000) * NS
        self._floor = round(spec.floor_per_s * 1_000)
        self._cap = round(spec.cap * 1_000) * NS
        self._level = self._cap
        self._updated_ns = now

    def deposit(self, now: int) -> None:
        """A first attempt was made."""
        if self._level == self._cap:
            return  # Time alone changes nothing either, until something is withdrawn.
        self._accrue(now)
        self._level = min(self._cap, self._level + self._ratio)

    def withdraw(self, now: int, weight: float = 1.0) -> bool:
        """Pay for a retry or hedge of this weight. False, with nothing paid, where there is not enough."""
        self._accrue(now)
        price = round(weight * 1_000) * NS
        if price > self._level:
            return False
        self._level -= price
        return True

    def quiescent(self, now: int) -> bool:
        """Whether it is full, as a new one would be."""
        self._accrue(now)
        return self._level == self._cap

    def _accrue(self, now: int) -> None:
        if now > self._updated_ns:
            self._level = min(self._cap, self._level + self._floor * (now - self._updated_ns))
            self._updated_ns = now


GiveUp = Literal["not_retryable", "attempts", "effects", "elsewhere", "too_long", "no_time", "budget"]


class Again(NamedTuple):
    """Make the call again, after this many seconds."""

    wait_s: float


class NotAgain(NamedTuple):
    """Do not make the call again, and why."""

    why: GiveUp


def decide(
    spec: Retry,
    failure: Failure,
    attempt: int,
    *,
    repeatable: bool,
    elsewhere: bool = False,
    left_s: float | None,
    budget: RetryBudget,
    now: int,
    chance: Chance,
) -> Again | NotAgain:
    """
    Whether to make a call again that has failed.

    Args:
        spec: Bounds.
        failure: What happened.
        attempt: Which attempt it was, from 1.
        repeatable: Whether the call has no effects, or the same effect however often it is made.
        elsewhere: Whether another target can be asked at once, so that one that has too much to do is let be.
        left_s: Seconds left of the deadline around it; None where there is none.
        budget: The target's. It pays only where the answer is to make the call again.
        now: The clock, in nanoseconds.
        chance: Draws the jitter.
    """
    treatment = TREATMENTS[failure.kind]
    if failure.kind is FailureClass.REFUSED and spec.wait_out and failure.retry_after_s is not None:
        return _wait_out(spec, failure.retry_after_s, attempt, left_s, chance)
    if not failure.retryable:
        return NotAgain("not_retryable")
    if attempt >= spec.attempts or (treatment.retries is not None and attempt > treatment.retries):
        return NotAgain("attempts")
    if not (repeatable or failure.harmless):
        return NotAgain("effects")
    if elsewhere and failure.kind is FailureClass.OVERLOADED:
        return NotAgain("elsewhere")
    asked_s = failure.retry_after_s
    if asked_s is not None and asked_s > spec.max_retry_after_s:
        return NotAgain("too_long")
    wait_s = wait_before(spec, failure.kind, attempt, asked_s, chance)
    if left_s is not None and wait_s + spec.min_useful_s > left_s:
        return NotAgain("no_time")
    if not budget.withdraw(now, _LIGHT_WEIGHT if failure.kind in _LIGHT else 1.0):
        return NotAgain("budget")
    return Again(wait_s)


def _wait_out(spec: Retry, asked_s: float, attempt: int, left_s: float | None, chance: Chance) -> Again | NotAgain:
    """Nothing was sent, so that nobody has to bear it: the budget does not pay for this."""
    if attempt >= spec.attempts:
        return NotAgain("attempts")
    if asked_s > spec.max_retry_after_s:
        return NotAgain("too_long")
    wait_s = asked_s + spec.base_s * chance()
    return NotAgain("no_time") if left_s is not None and wait_s + spec.min_useful_s > left_s else Again(wait_s)


def wait_before(spec: Retry, kind: FailureClass, attempt: int, retry_after_s: float | None, chance: Chance) -> float:
    """
    Seconds to wait after attempt number ``attempt``: doubling from one to the next, and drawn by lot.

    Full jitter: anywhere in [0, d); where the target has too much to do, [d/2, d). A time the target asked for is never
    cut short, and callers who were asked for the same one do not come back together.
    """
    slow = kind in _SLOW
    base = spec.slow_base_s if slow else spec.base_s
    most = min(spec.cap_s, base * 2.0 ** min(attempt - 1, 60))
    drawn = most * (0.5 + chance() / 2) if slow else most * chance()
    if retry_after_s is None:
        return drawn
    return retry_after_s + drawn if kind is FailureClass.RATE_LIMITED else max(retry_after_s, drawn)
