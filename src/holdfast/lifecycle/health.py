"""
How the process is: a registry of checks, asked when somebody asks.

Liveness is not here: it means that the event loop answers, and depends on nothing else, so that an outage elsewhere
never restarts this process. The worst component decides; a degraded one still serves.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

import msgspec

from holdfast.clock import NS, Clock

State = Literal["healthy", "degraded", "unhealthy"]
_WORST_FIRST: tuple[State, ...] = ("unhealthy", "degraded", "healthy")


class Check(NamedTuple):
    """
    One component's check.

    Attributes:
        name: The component.
        ask: Returns a short note when all is well, and raises when not.
        timeout_s: Seconds it may take; longer is unhealthy.
        on_failure: What a failure makes the component: ``degraded`` where turns are still served without it.
    """

    name: str
    ask: Callable[[], Awaitable[str]]
    timeout_s: float = 2.0
    on_failure: State = "unhealthy"


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. ``note`` is for operators."""

    name: str
    state: State
    note: str
    latency_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The worst of the components, and each of them."""

    state: State
    components: tuple[Component, ...]


class Health:
    """Runs the checks, all at once and each with its own timeout."""

    def __init__(self, clock: Clock, checks: tuple[Check, ...] = ()) -> None:
        self._clock = clock
        self._checks = checks

    async def report(self) -> Report:
        """Ask every component. Takes at most the longest timeout."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(check)) for check in self._checks]
        components = tuple(task.result() for task in asked)
        states = {component.state for component in components}
        return Report(state=next((s for s in _WORST_FIRST if s in states), "healthy"), components=components)

    async def _ask(self, check: Check) -> Component:
        began = self._clock.now()
        state, note = await self._found(check)
        return Component(name=check.name, state=state, note=note, latency_s=(self._clock.now() - began) / NS)

    @staticmethod
    async def _found(check: Check) -> tuple[State, str]:
        try:
            async with asyncio.timeout(check.timeout_s) as limit:
                return "healthy", await check.ask()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a check raises is its finding
            if limit.expired():
                return check.on_failure, f"did not answer within {check.timeout_s:g} s"
            # A cancellation may be the check's own; one of the whole report goes on in the group it waits for.
            return check.on_failure, f"{type(error).__name__}: {error}"
