"""
Metrics: what is counted of requests, turns and calls, and the page they are on with those of the policies.

Label values are closed sets: routes, agents, models and tools come from their registries, never from a caller, and a
session, a user or a turn never becomes a label. The series are made from the catalogue.
"""

import platform
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import prometheus_client
from prometheus_client.exposition import choose_encoder

from holdfast.clock import NS
from holdfast.events import (
    Event,
    FallbackUsed,
    ModelFinished,
    MonitorActed,
    MonitorDetected,
    StateChanged,
    Takers,
    ToolFinished,
    TurnEnded,
    TurnIds,
    TurnStarted,
    TurnSuspended,
)
from holdfast.telemetry import catalogue_calls as calls
from holdfast.telemetry import catalogue_monitor as monitor
from holdfast.telemetry import catalogue_process as process
from holdfast.telemetry import catalogue_turns as turns
from holdfast.telemetry.instruments import Instruments
from holdfast.telemetry.labels import OTHER
from holdfast.telemetry.policies import PolicyMetrics

_REFUSED = frozenset({"rejected", "denied"})
"""Nothing was run: there is no duration to tell."""

_NO_OBJECTIVES: Mapping[str, float] = MappingProxyType({})


class Metrics:
    """
    Every series of one process, in a registry of its own.

    Args:
        version: Of Holdfast.
        agents: The names of the agents served.
        namespace: Goes in front of every name, with an underscore; empty adds nothing.
        config_hash: Tells one configuration from another.
        objectives: The share of good events that each service level objective asks for.
        kept_trace_id: The id of the current trace if it is kept, else None: durations are told with it.

    Attributes:
        policies: The series of the policies.
        traces, trace_events, dropped: For those who keep traces and write events.
        ready, loop_lag: For the runtime and the server.
        by_event: What takes in the events of turns.
    """

    def __init__(
        self,
        version: str,
        agents: Iterable[str],
        *,
        namespace: str = "",
        config_hash: str = "",
        objectives: Mapping[str, float] = _NO_OBJECTIVES,
        kept_trace_id: Callable[[], str | None] = lambda: None,
    ) -> None:
        make = Instruments(namespace)
        self.registry = make.registry
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self._kept_trace_id = kept_trace_id
        self._http_requests = make.counter(turns.HTTP_REQUESTS)
        self._http_duration = make.histogram(turns.HTTP_REQUEST_DURATION)
        self._turns = make.counter(turns.TURNS)
        self._turns_suspended = make.counter(turns.TURNS_SUSPENDED)
        self._turns_resumed = make.counter(turns.TURNS_RESUMED)
        self._turn_duration = make.histogram(turns.TURN_DURATION)
        self._turn_first_token = make.histogram(turns.TURN_FIRST_TOKEN)
        self._turns_in_progress = make.gauge(turns.TURNS_IN_PROGRESS)
        self._sessions_active = make.gauge(turns.SESSIONS_ACTIVE).labels()
        self._steps = make.counter(turns.STEPS)
        self._turn_llm_calls = make.histogram(turns.TURN_LLM_CALLS)
        self._turn_tool_calls = make.histogram(turns.TURN_TOOL_CALLS)
        self._auth_failures = make.counter(turns.AUTH_FAILURES)
        self._llm_calls = make.counter(calls.LLM_CALLS)
        self._llm_duration = make.histogram(calls.LLM_DURATION)
        self._llm_first_token = make.histogram(calls.LLM_FIRST_TOKEN)
        self._llm_tokens = make.counter(calls.LLM_TOKENS)
        self._llm_cached_tokens = make.counter(calls.LLM_CACHED_TOKENS)
        self._llm_reasoning_tokens = make.counter(calls.LLM_REASONING_TOKENS)
        self._llm_cost = make.counter(calls.LLM_COST)
        self._tool_calls = make.counter(calls.TOOL_CALLS)
        self._tool_duration = make.histogram(calls.TOOL_DURATION)
        self._critical_states = make.counter(monitor.CRITICAL_STATES)
        self._protocol_overrides = make.counter(monitor.PROTOCOL_OVERRIDES)
        self._monitor_trips = make.counter(monitor.MONITOR_TRIPS)
        self._state_turns = make.gauge(monitor.STATE_TURNS)
        self.policies = PolicyMetrics(make)
        self.ready = make.gauge(process.READY).labels()
        self._health = make.gauge(process.HEALTH_CHECK_STATE)
        self._health_age = make.gauge(process.HEALTH_CHECK_AGE)
        self.loop_lag = make.histogram(process.EVENT_LOOP_LAG).labels()
        make.gauge(process.BUILD_INFO).labels(version, platform.python_version(), config_hash).set(1)
        objective = make.gauge(process.SLO_OBJECTIVE)
        for name, ratio in objectives.items():
            objective.labels(name).set(ratio)
        self.traces = make.counter(process.TRACES)
        self.trace_events = make.counter(process.TRACE_EVENTS).labels()
        self.dropped = make.counter(process.TELEMETRY_DROPPED)
        self.dropped.labels("events", "observer_error")
        self.by_event: Takers = {
            TurnStarted: self._turn_started,
            ModelFinished: self._model_finished,
            ToolFinished: self._tool_finished,
            FallbackUsed: self._fallback_used,
            MonitorDetected: self._monitor_detected,
            MonitorActed: self._monitor_acted,
            StateChanged: self._state_changed,
            TurnEnded: self._turn_ended,
            TurnSuspended: self._turn_suspended,
        }
        for agent in agents:
            self.begin_agent(agent)

    def begin_agent(self, agent: str, tools: Iterable[str] = ()) -> None:
        """Make the series of one more agent, and of its tools as far as they are known."""
        self._turns_in_progress.labels(agent)
        self._turns_resumed.labels(agent)
        for because in turns.BECAUSE:
            self._turns_suspended.labels(agent, because)
        for tool in tools:
            self._tool_calls.labels(agent, tool, "ok")

    def begin_model(self, provider: str, model: str) -> None:
        """Make the series of one more model."""
        self._llm_calls.labels(provider, model, "ok")
        self._llm_duration.labels(provider, model)
        self._llm_first_token.labels(provider, model)
        self._llm_tokens.labels(provider, model, "input")
        self._llm_cached_tokens.labels(provider, model, "read")
        self._llm_reasoning_tokens.labels(provider, model)
        self._llm_cost.labels(provider, model)

    def begin_routes(self, routes: Iterable[tuple[str, str, Iterable[str]]]) -> None:
        """Make the series of these routes: each a method, a template, and the status codes it may answer with."""
        for method, template, codes in routes:
            self._http_duration.labels(method, template)
            for code in codes:
                self._http_requests.labels(method, template, code)

    def watch_sessions(self, active: Callable[[], int]) -> None:
        """Where to read how many sessions have a turn, when the page is asked for."""
        self._sessions_active.set_function(active)

    def observe(self, ids: TurnIds, event: Event) -> None:
        """An observer: counts turns, and what their calls met with."""
        observer = self.by_event.get(type(event))
        if observer is not None:
            observer(ids, event)

    def _turn_started(self, ids: TurnIds, event: TurnStarted) -> None:
        self._turns_in_progress.labels(ids.agent).inc()
        if event.generation > 1:
            self._turns_resumed.labels(ids.agent).inc()

    def _model_finished(self, ids: TurnIds, event: ModelFinished) -> None:
        provider, model, exemplar = event.provider, event.model, self._exemplar()
        self._llm_calls.labels(provider, model, event.status).inc()
        if event.status not in _REFUSED:
            self._llm_duration.labels(provider, model).observe(event.duration_s, exemplar)
        if event.first_token_s is not None:
            self._llm_first_token.labels(provider, model).observe(event.first_token_s, exemplar)
            if event.call == 1:
                self._turn_first_token.labels(ids.agent).observe(event.first_token_s, exemplar)
        if event.input_tokens or event.output_tokens:
            self._llm_tokens.labels(provider, model, "input").inc(event.input_tokens)
            self._llm_tokens.labels(provider, model, "output").inc(event.output_tokens)
        if event.cache_read_tokens or event.cache_write_tokens:
            self._llm_cached_tokens.labels(provider, model, "read").inc(event.cache_read_tokens)
            self._llm_cached_tokens.labels(provider, model, "write").inc(event.cache_write_tokens)
        if event.reasoning_tokens:
            self._llm_reasoning_tokens.labels(provider, model).inc(event.reasoning_tokens)
        if event.cost_nanos:
            self._llm_cost.labels(provider, model).inc(event.cost_nanos / NS)
        if event.status == "ok":
            self._steps.labels(ids.agent).inc()
        elif event.status == "timeout":
            self.policies.timed_out("model")

    def _tool_finished(self, ids: TurnIds, event: ToolFinished) -> None:
        self._tool_calls.labels(ids.agent, event.tool, event.status).inc()
        if event.status not in _REFUSED:
            self._tool_duration.labels(event.tool).observe(event.duration_s, self._exemplar())
        if event.status == "timeout":
            self.policies.timed_out("tool")

    def _fallback_used(self, _ids: TurnIds, _event: FallbackUsed) -> None:
        self.policies.fell_back()

    def _monitor_detected(self, _ids: TurnIds, event: MonitorDetected) -> None:
        if event.opened:
            self._critical_states.labels(event.state).inc()

    def _monitor_acted(self, _ids: TurnIds, event: MonitorActed) -> None:
        self._protocol_overrides.labels(event.protocol).inc()
        if event.protocol == "stop_partial":
            self._monitor_trips.labels(event.state).inc()

    def _state_changed(self, _ids: TurnIds, event: StateChanged) -> None:
        if event.was in monitor.STATES:
            self._state_turns.labels(event.was).dec()
        if event.state in monitor.STATES:
            self._state_turns.labels(event.state).inc()

    def _turn_ended(self, ids: TurnIds, event: TurnEnded) -> None:
        agent = ids.agent
        self._turns_in_progress.labels(agent).dec()
        self._turns.labels(agent, event.outcome).inc()
        self._turn_duration.labels(agent).observe(event.duration_s, self._exemplar())
        self._turn_llm_calls.labels(agent).observe(event.usage.model_calls)
        self._turn_tool_calls.labels(agent).observe(event.usage.tool_calls)

    def _turn_suspended(self, ids: TurnIds, event: TurnSuspended) -> None:
        self._turns_in_progress.labels(ids.agent).dec()
        self._turns_suspended.labels(ids.agent, event.because).inc()

    def answered(self, method: str, route: str, code: int, duration_s: float) -> None:
        """Count one HTTP request; ``route`` is the template that matched, or ``OTHER``."""
        known_method = method if method in turns.METHODS else OTHER
        self._http_requests.labels(known_method, route, str(code)).inc()
        self._http_duration.labels(known_method, route).observe(duration_s, self._exemplar())

    def auth_failed(self, reason: str) -> None:
        """Count a request that was not let in, for one of ``AUTH_REASONS``."""
        self._auth_failures.labels(reason).inc()

    def checked(self, found: Iterable[tuple[str, str, float | None]]) -> None:
        """Take in how components are: each one's name and state, and the seconds since it was asked, if it was."""
        for check, state, age_s in found:
            for each in process.HEALTH:
                self._health.labels(check, each).set(each == state)
            if age_s is not None:
                self._health_age.labels(check).set(age_s)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """The page a scraper reads, and its content type."""
        self.policies.read()
        return self.render(accept)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """
        The page as of the latest ``policies.read``. Takes milliseconds: may be called in a thread of its own.

        Args:
            accept: The scraper's ``Accept`` header. Only OpenMetrics, where it asks for that, has exemplars.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _exemplar(self) -> dict[str, str] | None:
        trace_id = self._kept_trace_id()
        return None if trace_id is None else {"trace_id": trace_id}
