"""
The policies that turns, model calls and tool calls pass, made once from the settings.

::

    ingress   Rate(all, user) ▸ shedding                                            a turn
    model     Retry ▸ Breaker(target, credential) ▸ Rate(credential) ▸ Bulkhead     a model call
    tool      Breaker(tool) ▸ Rate(all, user, tool) ▸ Bulkhead(agent)               a tool call
"""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

from holdfast.budget import Budgets, BudgetSpec, Member, TurnBudget
from holdfast.clock import NS, Clock
from holdfast.errors import Shed
from holdfast.guard.conduct import Conduct
from holdfast.guard.sharing import Sharing
from holdfast.guard.spec import GuardSpec
from holdfast.journal import Declared
from holdfast.resilience import (
    Adaptive,
    Breaker,
    Budget,
    Bulkhead,
    Call,
    CircuitSpec,
    Fact,
    Limit,
    Notice,
    Pipeline,
    Priority,
    Rate,
    Retry,
    Shedder,
    ShedRefused,
    Sink,
    per,
)

_MAX_OPEN_S = 600.0
_LEAST_CONCURRENT = 4


class Who(NamedTuple):
    """On whose behalf calls are made, by which agent, and in which turn if it is kept."""

    user: str = ""
    agent: str = ""
    turn_id: str = ""


NOBODY = Who()


class Policies:
    """
    Every policy of one process.

    Args:
        spec: Their settings.
        clock: Where time and chance come from.
        sink: Takes in what they tell; None for nobody.
        share: What several processes keep together: rate limits, and places for probes; None for this process alone.
        budgets: What turns may spend; None limits each to the steps of the default.
        conduct: What is known of how agents behave; None watches nobody.

    Attributes:
        spec, clock, budgets, conduct: As given.
        ingress, model, tool: The pipelines.
        shedder: Who is let in when more turns come than can run.
    """

    def __init__(
        self,
        spec: GuardSpec,
        clock: Clock,
        sink: Sink | None = None,
        share: Sharing | None = None,
        budgets: Budgets | None = None,
        conduct: Conduct | None = None,
    ) -> None:
        self.spec = spec
        self.conduct = conduct
        self.clock = clock
        self.budgets = budgets or Budgets(BudgetSpec(), clock)
        self._sink = sink
        self.ingress = Pipeline("ingress", _ingress_rate(spec, share), clock=clock, sink=sink, max_keys=100_000)
        self.model = Pipeline(
            "model",
            _retry(spec),
            _model_breaker(spec, share),
            _model_rate(spec, share),
            _model_bulkhead(spec),
            clock=clock,
            sink=sink,
        )
        self.tool = Pipeline(
            "tool",
            _tool_breaker(spec, share),
            _tool_rate(spec, share),
            _tool_bulkhead(spec),
            clock=clock,
            sink=sink,
            max_keys=100_000,
        )
        self.shedder = Shedder(spec.turns, clock, clock.random.random)

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """All of them, from the outside in."""
        return self.ingress, self.model, self.tool

    @asynccontextmanager
    async def admit(self, user: str, priority: Priority) -> AsyncIterator[None]:
        """
        Let a turn in, and hold its place for the length of the block.

        Raises:
            RateLimited: too many turns by this user, or by everybody.
            Shed: too many turns run and wait.
        """
        async with self.ingress.guard(Call(user=user)):
            try:
                permit = await self.shedder.enter(priority, self.spec.turn_s)
            except ShedRefused as refused:
                raise self._shed(refused, priority) from None
            try:
                yield
            finally:
                self.shedder.leave(permit)

    def budget_of(self, who: Who) -> TurnBudget:
        """What a turn may spend."""
        return TurnBudget(self.budgets, Member(who.turn_id, who.user, who.agent), self.spec.turn_s)

    def tool_s(self, tool: str) -> float:
        """Seconds one call of ``tool`` may take."""
        own = self.spec.tools.get(tool)
        return self.spec.tool_s if own is None or own.timeout_s is None else own.timeout_s

    def effect_of(self, tool: str) -> Declared | None:
        """What the settings say that ``tool`` does to the world; None where they say nothing."""
        own = self.spec.tools.get(tool)
        return None if own is None or own.effect is None else Declared(own.effect)

    def model_state(self, target: str, credential: str) -> str:
        """
        How the circuit of a model stands, or of the credential it is called with if that is worse.

        One of ``closed``, ``open``, ``half_open``, ``forced_open``. Where circuits refuse nothing, all count as closed.
        """
        breaker = self.model.breaker
        if breaker is None or self.spec.mode == "observe":
            return "closed"
        names = (f"{self.model.name}:{target}", f"{self.model.name}:{per.credential.__name__}:{credential}")
        states = {view.state.value for view in breaker.views(self.clock.now()) if view.name in names}
        return next((state for state in ("forced_open", "open", "half_open") if state in states), "closed")

    def _shed(self, refused: ShedRefused, priority: Priority) -> Shed:
        kind, wait_s = priority.name.lower(), refused.retry_after_ns / NS
        if self._sink is not None:
            facts: dict[str, Fact] = {"priority": kind, "reason": refused.why, "retry_after_s": wait_s}
            self._sink(Notice(self.clock.now(), "shed", "ingress", facts=facts))
        return Shed(
            f"the server runs as many turns as it may, and this one would have to wait too long; "
            f"try again in {wait_s:.3g} s",
            retry_after_s=wait_s,
            guard="shed",
            key_class="all",
            reason=refused.why,
        )


def _ingress_rate(spec: GuardSpec, share: Sharing | None) -> Rate:
    return Rate(
        Limit("turns", per.second(spec.all_per_s, spec.all_burst)),
        Limit("turns", per.second(spec.user_per_s, spec.user_burst), key=per.user),
        max_wait_s=0,
        gate=None,
        share=share,
        mode=spec.mode,
    )


def _retry(spec: GuardSpec) -> Retry:
    return Retry(attempts=spec.attempts, budget=Budget(ratio=spec.retry_ratio))


def _model_breaker(spec: GuardSpec, share: Sharing | None) -> Breaker:
    return Breaker(
        key=per.target,
        account=per.credential,
        closed_s=spec.credential_s,
        consecutive=spec.breaker_failures,
        failure_ratio=spec.breaker_failure_ratio,
        open_s=spec.breaker_open_s,
        max_open_s=max(_MAX_OPEN_S, spec.breaker_open_s),
        need=spec.breaker_successes,
        lease_s=spec.model_s + spec.model_wait_s,
        share=share,
        mode=spec.mode,
    )


def _model_rate(spec: GuardSpec, share: Sharing | None) -> Rate:
    limits = []
    if spec.model_per_minute is not None:
        limits.append(Limit("requests", per.minute(spec.model_per_minute), key=per.credential))
    if spec.model_tokens_per_minute is not None:
        limits.append(Limit("tokens", per.minute(spec.model_tokens_per_minute), key=per.credential))
    return Rate(
        *limits,
        max_wait_s=spec.model_wait_s,
        max_queue=spec.model_queue,
        gate=per.target,
        share=share if limits else None,
        mode=spec.mode,
    )


def _model_bulkhead(spec: GuardSpec) -> Bulkhead:
    limit = Adaptive(
        start=spec.model_concurrent, min=min(_LEAST_CONCURRENT, spec.model_concurrent), max=spec.model_concurrent
    )
    return Bulkhead(limit, queue=spec.model_queue, max_wait_s=spec.model_wait_s, key=per.target, mode=spec.mode)


def _tool_breaker(spec: GuardSpec, share: Sharing | None) -> Breaker:
    usual = Breaker(
        key=per.tool,
        account=None,
        consecutive=spec.breaker_failures,
        failure_ratio=spec.breaker_failure_ratio,
        open_s=spec.breaker_open_s,
        max_open_s=max(_MAX_OPEN_S, spec.breaker_open_s),
        need=spec.breaker_successes,
        lease_s=spec.tool_s + spec.tool_wait_s,
        share=share,
        mode=spec.mode,
    )
    special: dict[Hashable, CircuitSpec] = {}
    for name, own in spec.tools.items():
        open_s = own.breaker_open_s or spec.breaker_open_s
        special[name] = replace(
            usual,
            consecutive=own.breaker_failures or spec.breaker_failures,
            open_s=open_s,
            max_open_s=max(_MAX_OPEN_S, open_s),
            lease_s=(own.timeout_s or spec.tool_s) + spec.tool_wait_s,
        )
    return replace(usual, special=special)


def _tool_rate(spec: GuardSpec, share: Sharing | None) -> Rate:
    return Rate(
        Limit("calls", per.second(spec.tools_per_s)),
        Limit("calls", per.second(spec.user_tools_per_s), key=per.user),
        Limit(
            "calls",
            per.second(spec.tool_per_s),
            key=per.tool,
            special={name: per.second(own.per_s) for name, own in spec.tools.items() if own.per_s is not None},
        ),
        max_wait_s=spec.tool_wait_s,
        max_queue=spec.tool_queue,
        gate=None,
        share=share,
        mode=spec.mode,
    )


def _tool_bulkhead(spec: GuardSpec) -> Bulkhead:
    return Bulkhead(
        spec.tool_concurrent,
        queue=spec.tool_queue,
        max_wait_s=spec.tool_wait_s,
        key=per.agent,
        mode=spec.mode,
    )
