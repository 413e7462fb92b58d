"""
A circuit, which is what a breaker decides for one target: who is let through, what an outcome changes, and when.

::

               failures add up               the break is over, somebody asks
      CLOSED ───────────────────▶ OPEN ──────────────────────────────▶ HALF_OPEN
        ▲                          ▲                                    │    │
        │                          └── a probe failed, was slow, ───────┘    │
        │                              or was never answered                 │
        └────────────────────────── `need` probes were ok ───────────────────┘

      from anywhere:  force_open ──▶ FORCED_OPEN    disable ──▶ DISABLED    reset ──▶ CLOSED
      FORCED_OPEN until a moment ──▶ HALF_OPEN, once it has passed and somebody asks

It reads no clock, has no timers and awaits nothing: time is told in nanoseconds that never go back, and what time alone
would change changes at the next ``acquire``. Every permit belongs to a generation, which ends with each change of
state: an answer to an earlier one says nothing about the present.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from typing import Literal, NamedTuple

from holdfast.clock import NS
from holdfast.resilience.window import BUCKETS, Window


class State(Enum):
    """What the breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


_BREAKS = (State.OPEN, State.FORCED_OPEN)
_GONE = -1
"""The generation of a permit that has gone back."""
_CLOSED = State.CLOSED  # Every call reads it, and a module's name is found faster than an enum's member.

Outcome = Literal["ok", "fail", "none"]
"""What a call tells about its target; ``none``: nothing, as it was cancelled, or never ran."""

Trip = Literal["consecutive", "failure_ratio", "slow_ratio", "probe_failed", "probe_slow", "probe_lost"]
Why = Literal[Trip, "break_over", "probes_ok", "adopted", "force_open", "disable", "reset"]
_ORDERS = frozenset({"force_open", "disable", "reset"})

Moved = Callable[[State, State, Why, int], object]
"""Called as ``moved(from_, to, why, now)``, after the change; and after an order, even if it changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSpec:
    """
    When to open, for how long, and what closes again.

    Attributes:
        window_s: Seconds of outcomes that the ratios look at, > 0; forgotten a twelfth at a time.
        failure_ratio: Share of failed calls in the window that opens the breaker, in (0, 1].
        min_calls: Outcomes the window must hold before a ratio counts, at least 1.
        consecutive: Failures in a row that open the breaker, at least 1; None for no such rule.
        slow_s: Seconds from which a call is slow, > 0; None for never. Whoever calls measures, and tells ``settle``.
        slow_ratio: Share of slow calls in the window that opens the breaker, in (0, 1].
        open_s: Seconds of the first break, > 0. Each further one is twice as long.
        max_open_s: Seconds that a break grows to at most, before jitter; at least ``open_s``.
        jitter: Share by which chance makes a break shorter or longer, in [0, 1).
        probes: Calls let through at a time to try the target after a break, at least 1.
        need: Probes that must be ok, with none failing, to close; at least 1.
        lease_s: Seconds a probe has to settle, > 0; after that it counts as failed. The call's own total timeout.
        heal_s: Seconds closed after which breaks are short again, at least 0; None for ten times ``open_s``.
        max_retry_after_s: Seconds for which a server's retry-after is obeyed at most, at least 0.

    Raises:
        ValueError: a value is out of its range.
    """

    window_s: float = 60
    failure_ratio: float = 0.5
    min_calls: int = 10
    consecutive: int | None = 5
    slow_s: float | None = None
    slow_ratio: float = 0.5
    open_s: float = 5
    max_open_s: float = 120
    jitter: float = 0.2
    probes: int = 1
    need: int = 2
    lease_s: float = 60
    heal_s: float | None = None
    max_retry_after_s: float = 60

    def __post_init__(self) -> None:
        for names, must, fine in _RANGES:
            for name in names:
                value = getattr(self, name)
                left_out = value is None and name in ("consecutive", "slow_s", "heal_s")
                if not left_out and not (value is not None and isfinite(value) and fine(value)):
                    raise ValueError(f"breaker.{name} must be {must}, got {value}")
        if self.max_open_s < self.open_s:
            raise ValueError(f"breaker.max_open_s must be >= open_s ({self.open_s}), got {self.max_open_s}")


_RANGES: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (("window_s", "open_s", "max_open_s", "lease_s", "slow_s"), "> 0", lambda value: value > 0),
    (("heal_s", "max_retry_after_s"), ">= 0", lambda value: value >= 0),
    (("failure_ratio", "slow_ratio"), "in (0, 1]", lambda value: 0 < value <= 1),
    (("jitter",), "in [0, 1)", lambda value: 0 <= value < 1),
    (("min_calls", "consecutive", "probes", "need"), "a whole number >= 1", lambda value: value % 1 == 0 < value),
)


class Permit:
    """
    Leave to make one call. It goes back, once, to the breaker that gave it.

    Attributes:
        gen: The generation it belongs to; that of no circuit once it has gone back.
        lease_end: When a probe must have settled, in nanoseconds; None for an ordinary call.
    """

    __slots__ = ("gen", "lease_end")

    gen: int
    lease_end: int | None


class Refusal(NamedTuple):
    """
    The call may not be made.

    Attributes:
        retry_after_ns: Nanoseconds until asking again can help; None when time alone will not.
        why: ``open``: the break is not over. ``probing``: all probes are under way. ``forced_open``: somebody said so.
    """

    retry_after_ns: int | None
    why: Literal["open", "probing", "forced_open"]


@dataclass(slots=True, eq=False)
class Circuit:
    """
    One circuit: ask with ``acquire``, answer with ``settle``, always both.

    For one thread at a time; no method suspends, so the tasks of one event loop need no lock.

    Attributes:
        spec: The rules in force; ``reconfigure`` changes them.
        name: What it guards.
        chance: Draws from [0, 1), for jitter; a ``random.Random``'s ``random``.
        moved: Told of each change of state. It may call the breaker; what it raises is counted and goes no further.
        gen: The present generation; grows with every change of state, and with every order from outside.
        inflight: Permits of this generation that have not come back.
        stale: Permits that came back twice, or in a later generation than their own; they changed nothing else.
        moved_errors: Times that ``moved`` raised.
    """

    spec: CircuitSpec
    name: str
    chance: Callable[[], float] = field(repr=False)
    moved: Moved | None = field(default=None, repr=False)
    gen: int = field(default=0, init=False)
    inflight: int = field(default=0, init=False)
    stale: int = field(default=0, init=False)
    moved_errors: int = field(default=0, init=False)
    _kind: State = field(default=_CLOSED, init=False)
    _window: Window = field(init=False, repr=False)
    _leases: list[int] = field(default_factory=list, init=False)  # of this generation's probes, sorted
    _ok: int = field(default=0, init=False)  # of this generation's probes
    _open_until: int | None = field(default=0, init=False)  # None: until somebody says so
    _opens: int = field(default=0, init=False)  # breaks since it last healed
    _closed_at: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._window = Window(_width(self.spec))

    def state(self, now: int) -> State:
        """What a call at ``now`` would find. Changes nothing."""
        if self._over(now):
            return State.HALF_OPEN
        if self._kind is State.HALF_OPEN and self._leases and self._leases[0] <= now:
            return State.OPEN
        return self._kind

    def left_ns(self, now: int) -> int | None:
        """Nanoseconds until the break is over; None where there is none, or it ends when somebody says so."""
        return max(0, self._open_until - now) if self._kind in _BREAKS and self._open_until is not None else None

    def counts(self, now: int) -> tuple[int, int, int]:
        """How many outcomes the window holds at ``now``, how many of them failed, and how many were slow."""
        return self._window.counts(now)

    def quiescent(self, now: int) -> bool:
        """Whether a new breaker would do the same from ``now`` on, so that this one may be dropped."""
        grown = self._opens and now - self._closed_at < _heal_ns(self.spec)
        return self._kind is _CLOSED and not self.inflight and not grown and not self._window.counts(now)[0]

    def acquire(self, now: int) -> Permit | Refusal:
        """Ask to make a call; a permit must be settled, whatever becomes of the call."""
        kind = self._kind
        if kind is _CLOSED or kind is State.DISABLED:
            self.inflight += 1
            permit = Permit()
            permit.gen = self.gen
            permit.lease_end = None
            return permit
        if kind is State.OPEN or kind is State.FORCED_OPEN:
            if not self._over(now):
                return self._refusal(now)
            self._become(State.HALF_OPEN)
            permit = self._probe(now)
            self._tell(kind, "break_over", now)
            return permit
        if self._leases and self._leases[0] <= now:
            self._open("probe_lost", now)
            return self._refusal(now)
        if self.inflight >= self.spec.probes:
            return Refusal(self._leases[0] - now, "probing")
        return self._probe(now)

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        now: int,
        slow: bool = False,  # noqa: FBT001, FBT002 - arguments that must be named cost time on every call
        retry_after_ns: int | None = None,
    ) -> None:
        """
        Give a permit back with what the call told.

        Args:
            permit: From this breaker's ``acquire``. Given back a second time it changes nothing.
            outcome: ``none`` is no evidence: it frees the permit's place and changes nothing else.
            now: When the call ended, in nanoseconds.
            slow: The call took ``slow_s`` or longer. Means nothing where ``slow_s`` is None.
            retry_after_ns: How long the server asked to be left alone. If this outcome opens the breaker, the break is
                at least as long, up to ``max_retry_after_s``.
        """
        gen, permit.gen = permit.gen, _GONE
        if gen != self.gen:
            self.stale += 1
            return
        self.inflight -= 1
        if permit.lease_end is not None:
            self._leases.remove(permit.lease_end)
        if outcome == "none":
            return
        slow = slow and self.spec.slow_s is not None
        trip: Trip | None
        if self._kind is _CLOSED:
            window = self._window
            window.add(now, outcome == "fail", slow)
            trip = self._judged() if window.fail or window.slow else None
        elif self._kind is State.HALF_OPEN:
            if outcome == "ok" and not slow:
                self._ok += 1
                if self._ok >= self.spec.need:
                    self._move(_CLOSED, "probes_ok", now)
                return
            trip = "probe_failed" if outcome == "fail" else "probe_slow"
        else:
            trip = None
        if trip is not None:
            self._open(trip, now, retry_after_ns)

    def force_open(self, now: int, until: int | None = None) -> None:
        """Let nobody through until ``reset``, or until the moment ``until``; then probes decide."""
        self._open_until = until
        self._move(State.FORCED_OPEN, "force_open", now)

    def adopt(self, now: int, until: int) -> None:
        """Open until ``until``, as somebody else who calls the same target found that it fails."""
        self._open_until = until
        self._opens = min(self._opens + 1, 64)
        self._move(State.OPEN, "adopted", now)

    def disable(self, now: int) -> None:
        """Let everybody through and learn nothing, until ``reset``."""
        self._move(State.DISABLED, "disable", now)

    def reset(self, now: int) -> None:
        """Begin anew: closed, with nothing remembered. What is under way will tell nothing."""
        self._opens = 0
        self._move(_CLOSED, "reset", now)

    def reconfigure(self, spec: CircuitSpec) -> None:
        """
        Use other rules from the next call and outcome on. Nothing moves, and nothing that was seen is forgotten.

        A break and leases that were given stay as they are. With fewer ``probes``, those under way are waited for.
        """
        self.spec = spec
        self._window.resize(_width(spec))

    def _over(self, now: int) -> bool:
        """Whether a break has lasted long enough."""
        return self._kind in _BREAKS and self._open_until is not None and now >= self._open_until

    def _refusal(self, now: int) -> Refusal:
        left = None if self._open_until is None else self._open_until - now
        return Refusal(left, "forced_open" if self._kind is State.FORCED_OPEN else "open")

    def _probe(self, now: int) -> Permit:
        end = now + _ns(self.spec.lease_s)
        insort(self._leases, end)
        return self._permit(end)

    def _permit(self, lease_end: int | None) -> Permit:
        self.inflight += 1
        permit = Permit()
        permit.gen = self.gen
        permit.lease_end = lease_end
        return permit

    def _judged(self) -> Trip | None:
        spec, window = self.spec, self._window
        if spec.consecutive is not None and window.streak >= spec.consecutive:
            return "consecutive"
        if window.total >= spec.min_calls:
            if window.fail / window.total >= spec.failure_ratio:
                return "failure_ratio"
            if spec.slow_s is not None and window.slow / window.total >= spec.slow_ratio:
                return "slow_ratio"
        return None

    def _open(self, why: Trip, now: int, retry_after_ns: int | None = None) -> None:
        spec = self.spec
        if self._kind is _CLOSED and now - self._closed_at >= _heal_ns(spec):
            self._opens = 0
        pause = min(_ns(spec.max_open_s), _ns(spec.open_s) << self._opens)
        pause = max(1, round(pause * (1 + spec.jitter * (2 * self.chance() - 1))))
        asked = min(retry_after_ns or 0, round(spec.max_retry_after_s * NS))
        self._opens = min(self._opens + 1, 64)  # Far past any longest break, and no number without end.
        self._open_until = now + max(pause, asked)
        self._move(State.OPEN, why, now)

    def _move(self, kind: State, why: Why, now: int) -> None:
        was = self._kind
        self._closed_at = now  # read in CLOSED alone
        self._become(kind)
        self._tell(was, why, now)

    def _become(self, kind: State) -> None:
        self._kind = kind
        self.gen += 1
        self.inflight = self._ok = 0
        self._leases.clear()
        self._window.clear()

    def _tell(self, was: State, why: Why, now: int) -> None:
        # Last in every change: `moved` may call back, and must find the change complete.
        if self.moved is None or (self._kind is was and why not in _ORDERS):
            return
        try:
            self.moved(was, self._kind, why, now)
        except Exception:  # noqa: BLE001 - whoever watches must not be able to break the call it watches
            self.moved_errors += 1


def _ns(seconds: float) -> int:
    return max(1, round(seconds * NS))


def _heal_ns(spec: CircuitSpec) -> int:
    return round((10 * spec.open_s if spec.heal_s is None else spec.heal_s) * NS)


def _width(spec: CircuitSpec) -> int:
    return -(-_ns(spec.window_s) // BUCKETS)
