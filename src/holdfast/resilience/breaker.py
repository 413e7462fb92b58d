"""
The circuit breaker: a circuit for each target, and one for each credential that no longer pays.

A target is left alone when it keeps failing. A credential is left alone as soon as the target says that it is refused
or has no credit, for every target it would have been used for: asking again helps nobody until a person has been there.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from holdfast.clock import NS
from holdfast.errors import CircuitOpen
from holdfast.resilience.circuit import Circuit, CircuitSpec, Permit, Refusal, State, Why
from holdfast.resilience.classify import TREATMENTS
from holdfast.resilience.guards import NOT_YET, Attempt, Ending, Mode, Surroundings
from holdfast.resilience.keys import Key, key_class, per
from holdfast.resilience.share import Probes
from holdfast.resilience.table import KeyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker(CircuitSpec):
    """
    A circuit breaker in a pipeline: the rules of a circuit, and these.

    Attributes:
        key: Whose failures add up; None for one circuit altogether.
        account: What a refused or unpaid credential closes; None to treat that like other errors of the caller's.
        closed_s: Seconds it stays closed where the target does not say, > 0.
        special: Keys whose circuits have rules of their own.
        share: Where several processes keep the places for probes together; None for this process alone.
        mode: ``observe`` lets everybody through, and tells whom it would have refused.
    """

    key: Key | None = per.target
    account: Key | None = per.credential
    closed_s: float = 600
    special: Mapping[Hashable, CircuitSpec] = field(default_factory=dict)
    share: Probes | None = None
    mode: Mode = "enforce"

    def __post_init__(self) -> None:
        CircuitSpec.__post_init__(self)
        if not self.closed_s > 0:
            raise ValueError(f"breaker.closed_s must be > 0, got {self.closed_s}")


class CircuitView(NamedTuple):
    """
    A circuit as an operator sees it.

    Attributes:
        name: What it is called in orders and events: the pipeline and the key.
        state: What a call would find now.
        key_class: What kind of key it is by.
        retry_after_s: Seconds until the break is over; None where it is closed, or time alone will not help.
        calls: Outcomes in its window.
        failed: How many of them failed.
        slow: How many of them were slow.
        inflight: Calls that it let through and that have not ended.
    """

    name: str
    state: State
    key_class: str
    retry_after_s: float | None
    calls: int
    failed: int
    slow: int
    inflight: int


ACCOUNT: Final = "(account)"
"""What ``Moved`` is told for the key of a credential's circuit."""

Moved = Callable[[Hashable, Circuit, State, State, Why, int], object]
"""Called as ``moved(key, circuit, from_, to, why, now)``; the key is ``ACCOUNT`` for a credential's circuit."""

Token = tuple[Circuit | None, Permit | None, tuple[Circuit, Permit] | None]
"""What an attempt holds: of the target's circuit, and of the credential's where that was ever closed."""


class BreakerGuard:
    """
    The breaker of one pipeline.

    Attributes:
        watchers: Told of each move of each circuit.
    """

    member = "breaker"

    def __init__(self, policy: Breaker, around: Surroundings) -> None:
        self._around = around
        self._policy = policy
        self._slow_ns = _slow_ns(policy)
        self._circuits = KeyTable[Circuit](self._make, Circuit.quiescent, around.max_keys)
        self._accounts = KeyTable[Circuit](self._make_account, Circuit.quiescent, around.max_keys)
        self._closing = False  # Whether any credential was ever closed.
        self.watchers: list[Moved] = []

    def enter(self, attempt: Attempt, now: int) -> Any:
        """Ask the credential's circuit, if there is one, and the target's."""
        circuit = self._target(attempt, now)
        account = self._enter_account(attempt, now) if self._closing else None
        permit = circuit.acquire(now)
        if isinstance(permit, Permit):
            return circuit, permit, account
        try:
            self._refuse(circuit, permit, self._policy.key, attempt)
        except CircuitOpen:
            if account is not None:
                account[0].settle(account[1], "none", now)
            raise
        return None, None, account

    async def wait(self, attempt: Attempt) -> Token:
        """Nobody waits for a circuit: it has already said when to come again."""
        token: Token = self.enter(attempt, self._around.clock.now())
        return token

    def stands(self, attempt: Attempt, token: Token) -> bool:
        """Whether neither circuit has been opened since."""
        circuit, permit, account = token
        closing = self._account(attempt)
        return self._policy.mode == "observe" or (
            self._let_in(circuit, permit) and self._let_in(closing, None if account is None else account[1])
        )

    def leave(self, attempt: Attempt, token: Token, ending: Ending, now: int) -> None:
        """Settle both circuits, and close the credential's where the target said so."""
        circuit, permit, account = token
        if circuit is not None and permit is not None:
            slow = self._slow_ns is not None and ending.ran and _lasted_ns(attempt, now) >= self._slow_ns
            circuit.settle(permit, ending.evidence, now, slow, ending.asked_ns)
        if account is not None:
            account[0].settle(account[1], "ok" if ending.evidence == "ok" else "none", now)
        key, failure = self._policy.account, ending.failure
        if failure is not None and key is not None and TREATMENTS[failure.kind].closes:
            closed_s = self._policy.closed_s if failure.retry_after_s is None else failure.retry_after_s
            self._accounts.get(key(attempt.call), now).force_open(now, now + round(closed_s * NS))

    def reconfigure(self, policy: Breaker) -> None:
        """Use other rules from the next call on."""
        self._policy = policy
        self._slow_ns = _slow_ns(policy)
        for key, circuit in self._circuits.entries():
            circuit.reconfigure(policy.special.get(key, policy))
        for _, circuit in self._accounts.entries():
            circuit.reconfigure(policy)

    def follow(self, name: str, state: str, left_ns: int | None) -> bool:
        """
        Do as a breaker of this name did in another process: open, be forced open, be disabled, or begin anew.

        A target that works from here is not left alone because it failed there: a break is not followed where at least
        ``min_calls`` were seen and less than half of ``failure_ratio`` failed.

        Returns:
            Whether this guard has, or would have, a circuit of this name.
        """
        circuit = self._named(name)
        if circuit is None:
            return False
        now = self._around.clock.now()
        until = None if left_ns is None else now + left_ns
        match state:
            case State.OPEN.value if until is not None and not self._works(circuit, now):
                circuit.adopt(now, until)
            case State.FORCED_OPEN.value:
                circuit.force_open(now, until)
            case State.DISABLED.value:
                circuit.disable(now)
            case State.CLOSED.value:
                circuit.reset(now)
        return True

    def circuits(self) -> Iterator[tuple[Circuit, str]]:
        """Every circuit there is, with the kind of its key."""
        for table, key in ((self._circuits, self._policy.key), (self._accounts, self._policy.account)):
            for _, circuit in table.entries():
                yield circuit, key_class(key)

    def views(self, now: int) -> Iterator[CircuitView]:
        """Every circuit there is, as an operator sees it."""
        for circuit, kind in self.circuits():
            left = circuit.left_ns(now)
            retry_after_s = None if left is None else left / NS
            yield CircuitView(
                circuit.name, circuit.state(now), kind, retry_after_s, *circuit.counts(now), circuit.inflight
            )

    def _target(self, attempt: Attempt, now: int) -> Circuit:
        key_of = self._policy.key
        key = None if key_of is None else key_of(attempt.call)
        return self._circuits.live.get(key) or self._circuits.get(key, now)

    def _named(self, name: str) -> Circuit | None:
        policy, now, mine = self._policy, self._around.clock.now(), self._around.name
        if policy.key is None:
            return self._circuits.get(None, now) if name == mine else None
        if policy.account is not None and name.startswith(prefix := f"{mine}:{key_class(policy.account)}:"):
            return self._accounts.get(name.removeprefix(prefix), now)
        if name.startswith(prefix := f"{mine}:"):
            return self._circuits.get(name.removeprefix(prefix), now)
        return None

    def _works(self, circuit: Circuit, now: int) -> bool:
        if circuit.state(now) is not State.CLOSED:
            return circuit.state(now) in (State.FORCED_OPEN, State.DISABLED)  # An order outweighs a break.
        total, failed, _ = circuit.counts(now)
        return total >= circuit.spec.min_calls and 2 * failed < circuit.spec.failure_ratio * total

    def _enter_account(self, attempt: Attempt, now: int) -> tuple[Circuit, Permit] | None:
        circuit = self._account(attempt)
        if circuit is None:
            return None
        permit = circuit.acquire(now)
        if isinstance(permit, Permit):
            return circuit, permit
        self._refuse(circuit, permit, self._policy.account, attempt)
        return None

    def _account(self, attempt: Attempt) -> Circuit | None:
        key = self._policy.account
        return self._accounts.find(key(attempt.call)) if key is not None and self._closing else None

    def _let_in(self, circuit: Circuit | None, permit: Permit | None) -> bool:
        """Whether a permit is still one, or a new one would be had for it."""
        if circuit is None or (permit is not None and permit.gen == circuit.gen):
            return True
        return circuit.state(self._around.clock.now()) in (State.CLOSED, State.DISABLED)

    def _refuse(self, circuit: Circuit, refusal: Refusal, key: Key | None, attempt: Attempt) -> None:
        wait_ns = refusal.retry_after_ns
        wait_s = None if wait_ns is None else wait_ns / NS
        observed = self._policy.mode == "observe"
        kind = key_class(key)
        self._around.tell(
            "breaker.refused",
            kind,
            attempt.id,
            attempt.number,
            circuit=circuit.name,
            reason=refusal.why,
            retry_after_s=wait_s,
            observed=observed,
        )
        if observed:
            return
        again = "until it is reset" if wait_s is None else f"for {wait_s:.3g} s"
        raise CircuitOpen(
            f"the circuit breaker of {circuit.name} lets nobody through {again}",
            retry_after_s=wait_s,
            guard=self.member,
            key_class=kind,
            reason=refusal.why,
        )

    def _make(self, key: Hashable) -> Circuit:
        name = self._around.name if key is None or key == "" else f"{self._around.name}:{key}"
        return self._circuit(name, key, key_class(self._policy.key))

    def _make_account(self, key: Hashable) -> Circuit:
        self._closing = True
        kind = key_class(self._policy.account)
        return self._circuit(f"{self._around.name}:{kind}:{key}", ACCOUNT, kind)

    def _circuit(self, name: str, key: Hashable, kind: str) -> Circuit:
        def moved(was: State, state: State, why: Why, now: int) -> None:
            left_ns = circuit.left_ns(now)
            self._around.tell(
                "breaker.moved",
                kind,
                circuit=name,
                was=was.value,
                state=state.value,
                reason=why,
                retry_after_s=None if left_ns is None else left_ns / NS,
            )
            for watcher in self.watchers:
                watcher(key, circuit, was, state, why, now)

        spec = self._policy.special.get(key, self._policy)
        circuit = Circuit(spec, name, self._around.clock.random.random, moved)
        return circuit


def _lasted_ns(attempt: Attempt, now: int) -> int:
    """How long its answer took, or the first of it."""
    return (now if attempt.first_ns == NOT_YET else attempt.first_ns) - attempt.sent_ns


def _slow_ns(policy: Breaker) -> int | None:
    return None if policy.slow_s is None else round(policy.slow_s * NS)
