"""The circuit breaker of a pipeline in one of several processes: its probes are the others' too."""

import asyncio
from functools import partial
from typing import Any

from holdfast.clock import NS
from holdfast.resilience.breaker import Breaker, BreakerGuard, Token
from holdfast.resilience.circuit import Circuit, Permit, Refusal, State
from holdfast.resilience.guards import WAIT, Attempt, Ending, Surroundings
from holdfast.resilience.share import Probes, ShareUnavailable


class SharedBreakerGuard(BreakerGuard):
    """
    The same as a ``BreakerGuard``, with at most ``probes`` tries at a time by all processes together.

    Each process tries by itself while the places cannot be asked for: a target is never given up because of that.
    """

    def __init__(self, policy: Breaker, around: Surroundings, probes: Probes) -> None:
        super().__init__(policy, around)
        self._probes = probes
        self._places: dict[Permit, str] = {}

    def enter(self, attempt: Attempt, now: int) -> Any:
        """Ask the circuits; before a probe, the other processes first."""
        return WAIT if self._target(attempt, now).state(now) is State.HALF_OPEN else super().enter(attempt, now)

    async def wait(self, attempt: Attempt) -> Token:
        """Take one of the places there are for probes, and ask the circuits."""
        clock, spec = self._around.clock, self._policy
        circuit = self._target(attempt, clock.now())
        # A task of its own, in no group: who is cancelled leaves at once, and a place that comes then is given back.
        probe = self._probes.probe(circuit.name, spec.probes, round(spec.lease_s * NS))
        asked = asyncio.get_running_loop().create_task(probe)
        try:
            place = await asyncio.shield(asked)
        except ShareUnavailable:
            return self._enter_here(attempt)
        except BaseException:
            asked.add_done_callback(partial(self._too_late, circuit))
            raise
        if place is None and circuit.state(clock.now()) is State.HALF_OPEN:
            self._refuse(circuit, Refusal(round(spec.lease_s * NS), "probing"), spec.key, attempt)
            return None, None, None
        try:
            token = self._enter_here(attempt)
        except BaseException:
            self._give_back(circuit, place)
            raise
        permit = token[1]
        if place is not None and permit is not None and permit.lease_end is not None:
            self._places[permit] = place
        else:
            self._give_back(circuit, place)
        return token

    def _enter_here(self, attempt: Attempt) -> Token:
        token: Token = super().enter(attempt, self._around.clock.now())
        return token

    def leave(self, attempt: Attempt, token: Token, ending: Ending, now: int) -> None:
        """Settle the circuits, and let another process try."""
        circuit, permit, _ = token
        place = None if permit is None else self._places.pop(permit, None)
        super().leave(attempt, token, ending, now)
        if circuit is not None:
            self._give_back(circuit, place)

    def _too_late(self, circuit: Circuit, asked: asyncio.Task[str | None]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._give_back(circuit, asked.result())

    def _give_back(self, circuit: Circuit, place: str | None) -> None:
        if place is not None:
            self._probes.release(circuit.name, place)
