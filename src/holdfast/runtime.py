"""
The composition root: picks the concrete parts, joins them, and owns their start and their stop.

    hold = Holdfast.from_config("holdfast.toml")
    async with hold:                                      served: `holdfast serve` does this
        answer = await hold.begin(ask)
    Agent(..., capabilities=[hold.capability()])          in your own process: guarded and observed, not kept
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic_ai import Agent as PydanticAIAgent
from pydantic_ai.models import Model
from structlog.contextvars import bound_contextvars

from holdfast._version import __version__
from holdfast.adapters import HoldfastCapability, PydanticAgent, adapt, load_agent
from holdfast.adapters.pydantic_ai import GuardedModel
from holdfast.agents.assistant import NAME as ASSISTANT
from holdfast.agents.assistant import build_assistant
from holdfast.agents.demo_model import DEMO
from holdfast.agents.models import build_fallbacks, build_model, choose_model, settings_of
from holdfast.budget import Budgets
from holdfast.clock import Clock, token_hex
from holdfast.config import Settings, load
from holdfast.coord import open_coord
from holdfast.coord.spec import CoordSpec
from holdfast.errors import Misconfigured
from holdfast.events import EVERY_EVENT, Event, Observer, TurnIds
from holdfast.guard import Conduct, Guard, Policies, Sharing
from holdfast.lifecycle import (
    Check,
    Close,
    Drain,
    Health,
    Hooks,
    Target,
    disk_check,
    loop_check,
    model_check,
    tools_check,
)
from holdfast.ops.slo import SLOS
from holdfast.replica import Begun, Keeper, Turns, Webhooks
from holdfast.resilience import Notice, Pipeline
from holdfast.store import open_store
from holdfast.telemetry import TURN_LINES, Heartbeat, Metrics, Redactor, Traces, log_notice, secrets_in
from holdfast.tools import standard_tools
from holdfast.turn import Agent, Ask, Parts, Turn, unserved_turn

FREE = (f"function:{DEMO}",)
"""Models that cost nothing: the offline one."""

SEND_S = (0.5, 5.0)
"""Seconds that the last spans have to be sent, at least and at most."""


class Holdfast:
    """
    Agents, and what they are served with.

    Args:
        settings: Everything that can be set.
        environ: Where providers' usual variables are looked up; None is this process's environment.
        clock: The clock everything is handed.

    Attributes:
        agents: What is served, by name.
        default_agent: The name of the one that answers where a caller names none.
        model: The name of the model behind the assistant and ``turn.model``.
        store, metrics, traces, health, heartbeat, drain, hooks, turns, webhooks, policies, budgets, conduct: The parts,
            for the server to use.

    Raises:
        Misconfigured: the settings name a model or an agent that cannot be had, or OpenTelemetry's variables a way to
            send spans.
    """

    def __init__(
        self, settings: Settings, *, environ: Mapping[str, str] | None = None, clock: Clock | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        self.settings = settings
        self.clock = clock or Clock()
        self.model = choose_model(settings.llm, environ)
        self.store = open_store(settings.store)
        self.drain = Drain(settings.shutdown, self.clock)
        self.hooks = Hooks(self.drain)
        self._sharing = _sharing(settings.coord, self.clock)
        told = settings.telemetry
        self.traces = Traces(told, environ, self.clock, Redactor((*settings.secrets(), *secrets_in(environ))))
        replica = f"{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"
        lease_s, keep_s = settings.store.lease_s, settings.store.keep_turns_s
        self.budgets = Budgets(settings.budget, self.clock, self.store, replica, lease_s, FREE)
        turn_s = settings.resilience.turn_s
        self.conduct = Conduct(settings.monitor, self.store, self.clock, settings.budget, turn_s)
        self.policies = Policies(settings.resilience, self.clock, self._tell, self._sharing, self.budgets, self.conduct)
        model, sent_with = build_model(settings.llm, environ, settings.resilience.model_s), settings_of(settings.llm)
        self._fallbacks = build_fallbacks(settings.llm, environ, settings.resilience.model_s)
        plain = PydanticAIAgent(model, name="model", model_settings=sent_with)
        self._plain = PydanticAgent(plain, "model", self._fallbacks)
        tools = standard_tools(settings.tools, self.clock)
        assistant = build_assistant(model, sent_with, tools, settings.agent.instructions)
        self.agents: dict[str, Agent] = {}
        self.default_agent = ASSISTANT
        for target in settings.agent.targets:
            self._serve(load_agent(target, self._ask_model))
        self._serve(PydanticAgent(assistant, ASSISTANT, self._fallbacks))
        self.metrics = Metrics(
            __version__,
            self.agents,
            namespace=told.metrics_namespace,
            config_hash=settings.fingerprint(),
            objectives={slo.name: slo.objective for slo in SLOS},
            kept_trace_id=self.traces.tracing.kept_trace_id,
        )
        self.metrics.begin_agent(ASSISTANT, [tool.__name__ for tool in tools])
        for each in (model, *self._fallbacks):
            self.metrics.begin_model(each.system, each.model_name)
        self.metrics.policies.watch(self._circuits, self._bulkheads)
        self._takers = self._taking()
        self.heartbeat = Heartbeat(self.clock, self.metrics.loop_lag.observe, settings.health.loop_blocked_s)
        self.health = Health(settings.health, self.clock, tuple(self._checks(model, [tool.__name__ for tool in tools])))
        self._tasks: asyncio.TaskGroup | None = None
        wait_s, window = settings.server.session_wait_s, settings.agent.history_tokens
        parts = Parts(self.policies, self.store, wait_s, window, replica)
        self.turns = Turns(parts, self.agents, self.drain, self.traces.tracing, self._observed)
        self.webhooks = Webhooks(settings.server, self.turns, self._tell)
        self.metrics.watch_sessions(lambda: self.turns.sessions)
        self._keeper = Keeper(replica, self.turns, self.agents, self.drain, lease_s=lease_s, keep_s=keep_s)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Self:
        """
        From a settings file, with the environment on top.

        Args:
            path: The file; None takes ``holdfast.toml`` or ``.yaml`` in the working directory, if there is one.

        Raises:
            Misconfigured: something in them is wrong; each problem is one line of its text.
        """
        return cls(load(None if path is None else Path(path), environ=os.environ).settings)

    def serve(self, agent: object, name: str) -> None:
        """
        Serve a Pydantic AI agent or an ``async def handler(turn)`` too. Before the start; the first one is the default.

        Raises:
            Misconfigured: it is neither, or the name is taken.
        """
        self._serve(adapt(agent, name, self._ask_model))
        self.metrics.begin_agent(name)

    def _serve(self, agent: Agent) -> None:
        if agent.name in self.agents:
            raise Misconfigured(f"agent.targets: two agents are called {agent.name}; give one another name")
        if not self.agents or list(self.agents) == [ASSISTANT]:
            self.default_agent = agent.name
        self.agents[agent.name] = agent

    async def __aenter__(self) -> Self:
        """
        Open the store and the agents, and take turns from now on.

        Raises:
            Misconfigured: the store, or the coord, cannot be used. What was opened is closed again.
        """
        try:
            self.traces.open(self.metrics)
            self._takers = self._taking()
            self.hooks.add("traces", self._stop_telling)
            await self.store.open()
            self.hooks.add("store", self.store.close)
            if self._sharing is not None:
                await self.hooks.open("coord", self._sharing.joined(self.policies.pipelines))
            for model in self._fallbacks:
                await self.hooks.open(f"model {model.model_name}", model)
            await self.hooks.open("model", self._plain)
            for agent in self.agents.values():
                await self.hooks.open(f"agent {agent.name}", agent)
            self.store.listen(self.turns.heard)
            await self.hooks.open("replica", self._keeper.keeping(self._run))
            await self.hooks.open("budgets", self.budgets.kept())
            await self.hooks.open("conduct", self.conduct.keeping(self.agents))
            await self.hooks.open("webhooks", self.webhooks.telling())
            self._tasks = await self.hooks.open("turns", asyncio.TaskGroup())
            await self.hooks.open("health", self.health.watched())
        except BaseException:
            self.drain.hurry()  # Nothing was served: there is nobody to wait for.
            await self._stop()
            raise
        self.drain.start()
        self.metrics.ready.set_function(lambda: float(self.drain.ready))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let running turns finish within the shutdown deadline, then close everything in reverse order."""
        await self._stop()

    async def _stop(self) -> None:
        await self.drain.stop()
        await self.hooks.close()

    def on_stop(self, name: str, hook: Close, *, after: tuple[str, ...] = ()) -> None:
        """
        Have ``hook`` awaited when everything is closed: in reverse order, so before what was opened earlier.

        One that is registered before the start is closed last, and one that is registered after it first. Each has its
        share of what is left of ``shutdown.deadline_s``; one that raises or hangs is logged, and stops nothing.

        Args:
            name: Names it in the log, and for the ``after`` of others.
            hook: Called without arguments, once.
            after: Those that are to be closed before it: other hooks, ``turns``, ``agent NAME``, ``model``, ``coord``,
                ``store``, ``traces``.

        Raises:
            Draining: the process is stopping. It was not registered, and will not be called.
            ValueError: the name is taken, or hooks would wait for each other. It was not registered.
        """
        self.hooks.add(name, hook, after=after)

    def begin(self, ask: Ask, agent: str | None = None, watch: Sequence[Observer] = ()) -> Begun:
        """
        Begin a turn. It runs to its end whether or not anybody waits for the answer.

        Args:
            ask: What is asked.
            agent: Who is to answer; None is the default agent.
            watch: Observers of this turn alone.

        Raises:
            NotFound: there is no such agent; nothing was begun.
            Draining: the process is starting or stopping; nothing was begun.
        """
        name = self.default_agent if agent is None else agent
        return self.turns.begin(self._group, ask, name, watch)

    def _run(self, turn: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._group.create_task(turn)

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """Every pipeline of the process: those of the policies, and that of webhooks."""
        return (*self.policies.pipelines, self.webhooks.pipeline)

    @property
    def _group(self) -> asyncio.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("enter the Holdfast with `async with` before beginning turns")
        return self._tasks

    def capability(self) -> HoldfastCapability:
        """For a Pydantic AI agent that runs in your own process: guarded and observed, but not kept."""

        @asynccontextmanager
        async def begin(agent: str) -> AsyncIterator[Guard]:
            with self.traces.tracing.turn(agent, token_hex(16)) as spans:
                ids = TurnIds(session_id="", turn_id=token_hex(8), trace_id=spans.trace_id, agent=agent)
                with bound_contextvars(**ids._asdict()):
                    async with unserved_turn(ids, self.policies, self._observed(spans.observers)) as guard:
                        yield guard

        return HoldfastCapability(begin)

    def _tell(self, notice: Notice) -> None:
        """What policies tell, for the metrics and the log."""
        told = (notice.name, notice.pipeline, notice.key_class, notice.facts)
        if self.settings.telemetry.enabled:
            self.metrics.policies.told(*told)
            self.traces.notice(*told)
        log_notice(*told)

    async def _stop_telling(self) -> None:
        """Send the last spans, for as long as is left of the shutdown, within the bounds of ``SEND_S``."""
        self._takers = self._taking(traces=False)
        await self.traces.close(min(max(self.drain.left_s, SEND_S[0]), SEND_S[1]))

    def _circuits(self) -> Iterator[tuple[str, str]]:
        now = self.clock.now()
        for pipeline in self.pipelines:
            if pipeline.breaker is not None:
                yield from ((view.name, view.state.value) for view in pipeline.breaker.views(now))

    def _bulkheads(self) -> Iterator[tuple[str, int, int, int, int]]:
        for pipeline in self.pipelines:
            if pipeline.bulkhead is not None:
                for name, _, stats in pipeline.bulkhead.views():
                    yield name, stats.queued, stats.max_queue, stats.in_use, stats.limit

    async def _ask_model(self, current: Turn, prompt: str, instructions: str | None) -> str:
        result = await self._plain.run(current, prompt, instructions)
        return str(result.output)

    def _checks(self, model: Model, tools: Sequence[str]) -> Iterator[Check]:
        """What there is to check."""
        spec, told = self.settings.health, self.settings.telemetry
        yield Check("store", self._ask_store, needed=True)
        if self._sharing is not None:
            yield Check("coord", self._sharing.ask, on_failure="degraded")
        yield model_check([self._target(each) for each in (model, *self._fallbacks)])
        kind, _, path = self.settings.store.url.get_secret_value().partition(":")
        files = [Path(path)] if kind == "sqlite" else []
        files += [told.jsonl_path] if told.enabled and told.jsonl_path is not None else []
        if files:
            yield disk_check([file.parent for file in files], spec.free_bytes)
        yield loop_check(self.heartbeat.worst_s, spec.loop_blocked_s)
        if spec.required_tools:
            yield tools_check(spec.required_tools, lambda: tools)

    def _target(self, model: Model) -> Target:
        key = GuardedModel(model).key()
        credential = f"{key.provider}@{key.credential}"
        return Target(key.target, model.base_url, lambda: self.policies.model_state(key.target, credential))

    async def _ask_store(self) -> str:
        await self.store.ping()
        return self.settings.store.kind

    def _taking(self, *, traces: bool = True) -> Mapping[type[Event], Sequence[Observer]]:
        """Who, of those that are told of every turn, takes in which event."""
        counts = (self.metrics.by_event,) if self.settings.telemetry.enabled else ()
        tables = (TURN_LINES, *counts, *((self.traces.by_event,) if traces else ()))
        return {kind: tuple(table[kind] for table in tables if kind in table) for kind in EVERY_EVENT}

    def _observed(self, first: Sequence[Observer], watch: Sequence[Observer] = ()) -> list[Observer]:
        """Those that are told what happens: the spans first, as whether their trace is kept matters to metrics."""
        takers = self._takers

        def safely(ids: TurnIds, event: Event) -> None:
            for observe in (*first, *takers.get(type(event), ()), *watch):
                try:
                    observe(ids, event)
                except Exception:  # noqa: BLE001 - a broken observer must not break the turn it watches
                    self.metrics.dropped.labels("events", "observer_error").inc()

        return [safely]


def _sharing(spec: CoordSpec, clock: Clock) -> Sharing | None:
    """What this process shares with others; None where it shares nothing."""
    url = spec.url.get_secret_value()
    if url == "local:":
        return None
    coord = open_coord(url, clock, timeout_s=spec.timeout_s, namespace=spec.namespace)
    return Sharing(coord, f"{socket.gethostname()}:{os.getpid()}")
