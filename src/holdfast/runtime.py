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
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from pydantic_ai import Agent as PydanticAIAgent
from structlog.contextvars import bound_contextvars

from holdfast._version import __version__
from holdfast.adapters import HoldfastCapability, PydanticAgent, adapt, load_agent
from holdfast.agents.assistant import NAME as ASSISTANT
from holdfast.agents.assistant import build_assistant
from holdfast.agents.models import build_fallbacks, build_model, choose_model, settings_of
from holdfast.clock import Clock, token_hex
from holdfast.config import Settings, load
from holdfast.coord import open_coord
from holdfast.coord.spec import CoordSpec
from holdfast.errors import HoldfastError, Misconfigured, NotFound, TurnCancelled
from holdfast.events import Event, Observer, TurnIds
from holdfast.guard import Guard, Policies, Sharing
from holdfast.lifecycle import Check, Drain, Health, Phase
from holdfast.ops.slo import SLOS
from holdfast.resilience import Notice, Turnstile
from holdfast.store import open_store
from holdfast.telemetry import Metrics, Redactor, Traces, log_failure, log_notice, log_turns, secrets_in
from holdfast.tools import standard_tools
from holdfast.turn import Agent, Answer, Ask, Parts, Turn, turn, unserved_turn

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
        store, metrics, traces, health, drain, places, policies: The parts, for the server to use.

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
        self.places = Turnstile()
        self.drain = Drain(settings.shutdown, self.clock)
        self._sharing = _sharing(settings.coord, self.clock)
        checks = [Check("store", self._ask_store)]
        if self._sharing is not None:
            checks.append(Check("coord", self._sharing.ask, on_failure="degraded"))
        told = settings.telemetry
        self.traces = Traces(told, environ, self.clock, Redactor((*settings.secrets(), *secrets_in(environ))))
        self.health = Health(self.clock, tuple(checks))
        self.policies = Policies(settings.resilience, self.clock, self._tell, self._sharing)
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
        self.metrics.watch_sessions(lambda: len(self.places))
        self._observers: tuple[Observer, ...] = (log_turns, self.metrics.observe) if told.enabled else (log_turns,)
        self._tasks: asyncio.TaskGroup | None = None
        self._open = AsyncExitStack()

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
        async with AsyncExitStack() as opening:
            self.traces.open(self.metrics)
            opening.push_async_callback(self._stop_telling)
            await self.store.open()
            opening.push_async_callback(self.store.close)
            if self._sharing is not None:
                await opening.enter_async_context(self._sharing.joined(self.policies.pipelines))
            for model in self._fallbacks:
                await opening.enter_async_context(model)
            await opening.enter_async_context(self._plain)
            for agent in self.agents.values():
                await opening.enter_async_context(agent)
            self._tasks = await opening.enter_async_context(asyncio.TaskGroup())
            self._open = opening.pop_all()
        self.drain.phase = Phase.RUNNING
        self.metrics.ready.set_function(lambda: float(self.drain.ready))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let running turns finish within the shutdown deadline, then close everything in reverse order."""
        await self.drain.stop()
        await self._open.aclose()

    def begin(self, ask: Ask, agent: str | None = None, watch: Sequence[Observer] = ()) -> asyncio.Future[Answer]:
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
        if name not in self.agents:
            raise NotFound(f"there is no agent {name}; there is {', '.join(sorted(self.agents))}")
        self.drain.admit()
        if self._tasks is None:
            raise RuntimeError("enter the Holdfast with `async with` before beginning turns")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # Nobody need wait for it.
        self.drain.track(self._tasks.create_task(self._run(ask, self.agents[name], watch, answer)))
        return answer

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

    async def _run(self, ask: Ask, agent: Agent, watch: Sequence[Observer], answer: asyncio.Future[Answer]) -> None:
        parts = Parts(
            self.policies,
            self.store,
            self.places,
            self.settings.server.session_wait_s,
            self.settings.agent.history_tokens,
        )
        try:
            async with self.policies.admit(ask.principal, ask.priority):
                with self.traces.tracing.turn(agent.name, ask.trace_id, ask.message) as spans:
                    ask = msgspec.structs.replace(ask, trace_id=spans.trace_id)
                    ended = await turn(ask, agent, parts, self._observed(spans.observers, watch))
        except asyncio.CancelledError:
            if not answer.done():
                answer.set_exception(TurnCancelled())
            raise
        except Exception as error:  # noqa: BLE001 - one turn's failure is its caller's to hear, and nobody else's
            known = error if isinstance(error, HoldfastError) else HoldfastError(f"{type(error).__name__} in a turn")
            log_failure(error)
            if not answer.done():
                answer.set_exception(known)
        else:
            if not answer.done():
                answer.set_result(ended)

    def _tell(self, notice: Notice) -> None:
        """What policies tell, for the metrics and the log."""
        told = (notice.name, notice.pipeline, notice.key_class, notice.facts)
        if self.settings.telemetry.enabled:
            self.metrics.policies.told(*told)
            self.traces.notice(*told)
        log_notice(*told)

    async def _stop_telling(self) -> None:
        """Send the last spans, for as long as is left of the shutdown, within the bounds of ``SEND_S``."""
        await self.traces.close(min(max(self.drain.left_s, SEND_S[0]), SEND_S[1]))

    def _circuits(self) -> Iterator[tuple[str, str]]:
        now = self.clock.now()
        for pipeline in self.policies.pipelines:
            if pipeline.breaker is not None:
                yield from ((view.name, view.state.value) for view in pipeline.breaker.views(now))

    def _bulkheads(self) -> Iterator[tuple[str, int, int, int, int]]:
        for pipeline in self.policies.pipelines:
            if pipeline.bulkhead is not None:
                for name, _, stats in pipeline.bulkhead.views():
                    yield name, stats.queued, stats.max_queue, stats.in_use, stats.limit

    async def _ask_model(self, current: Turn, prompt: str, instructions: str | None) -> str:
        result = await self._plain.run(current, prompt, instructions)
        return str(result.output)

    async def _ask_store(self) -> str:
        await self.store.ping()
        return self.settings.store.url.partition(":")[0]

    def _observed(self, first: Sequence[Observer], watch: Sequence[Observer] = ()) -> list[Observer]:
        """Those that are told what happens: the spans first, as whether their trace is kept matters to metrics."""
        return [self._safely(observe) for observe in (*first, *self._observers, *self.traces.observers, *watch)]

    def _safely(self, observe: Observer) -> Observer:
        def safely(ids: TurnIds, event: Event) -> None:
            try:
                observe(ids, event)
            except Exception:  # noqa: BLE001 - a broken observer must not break the turn it watches
                self.metrics.dropped.labels("events", "observer_error").inc()

        return safely


def _sharing(spec: CoordSpec, clock: Clock) -> Sharing | None:
    """What this process shares with others; None where it shares nothing."""
    url = spec.url.get_secret_value()
    if url == "local:":
        return None
    coord = open_coord(url, clock, timeout_s=spec.timeout_s, namespace=spec.namespace)
    return Sharing(coord, f"{socket.gethostname()}:{os.getpid()}")
