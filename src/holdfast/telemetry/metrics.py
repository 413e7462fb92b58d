"""
Metrics: the request and turn series, and the page they are on with those of the policies.

Label values are closed sets: routes and agents come from their registries, never from a caller, and a session, a user
or a turn never becomes a label. Series whose labels are known exist from the start, so that ``rate()`` sees the first
error.
"""

import platform
from collections.abc import Iterable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from holdfast.events import OUTCOMES, Event, ModelFinished, TurnEnded, TurnIds, TurnStarted
from holdfast.telemetry.labels import OTHER
from holdfast.telemetry.policies import PolicyMetrics

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""Bucket edges of durations: the 2 s and 30 s of the service level objectives are among them."""

MAX_AGENTS = 30
"""Agents that are told apart; further ones, which programs may make at will, are told as ``OTHER``."""

CALLS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55)


class Metrics:
    """
    Every series of one process, in a registry of its own.

    Args:
        version: Of Holdfast.
        agents: The names of the agents served.

    Attributes:
        policies: The series of the policies.
    """

    def __init__(self, version: str, agents: Iterable[str]) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.registry = registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.GCCollector(registry=registry)
        self.http_requests = Counter(
            "agent_http_requests_total", "HTTP requests answered.", ("method", "route", "code"), registry=registry
        )
        self.http_duration = Histogram(
            "agent_http_request_duration_seconds",
            "Time from a request's first byte to its answer's last.",
            ("method", "route"),
            buckets=SECONDS,
            registry=registry,
        )
        self.turns = Counter("agent_turns_total", "Turns that ended.", ("agent", "outcome"), registry=registry)
        self.turn_duration = Histogram(
            "agent_turn_duration_seconds",
            "Time from a turn's admission to its stored answer.",
            ("agent",),
            buckets=SECONDS,
            registry=registry,
        )
        self.turn_first_token = Histogram(
            "agent_turn_first_token_seconds",
            "Time from the start of a turn's first streamed model call to its first token.",
            ("agent",),
            buckets=SECONDS,
            registry=registry,
        )
        self.turns_in_progress = Gauge("agent_turns_in_progress", "Turns that run now.", ("agent",), registry=registry)
        self.turn_llm_calls = Histogram(
            "agent_turn_llm_calls", "Model calls in a turn.", ("agent",), buckets=CALLS, registry=registry
        )
        self.turn_tool_calls = Histogram(
            "agent_turn_tool_calls", "Tool calls in a turn.", ("agent",), buckets=CALLS, registry=registry
        )
        self.dropped = Counter(
            "agent_telemetry_dropped_total", "Telemetry that was lost.", ("signal", "reason"), registry=registry
        )
        self.dropped.labels("events", "observer_error")
        self.ready = Gauge("agent_ready", "1 while new turns are taken, else 0.", registry=registry)
        build = Gauge(
            "agent_build_info", "Always 1; the labels say what runs.", ("version", "python"), registry=registry
        )
        build.labels(version, platform.python_version()).set(1)
        self.policies = PolicyMetrics(registry)
        self._agents: set[str] = set()
        for agent in agents:
            self.begin_agent(agent)

    def begin_agent(self, agent: str) -> None:
        """Make the series of one more agent."""
        self._agents.add(agent)
        for outcome in OUTCOMES:
            self.turns.labels(agent, outcome)
        for series in (self.turn_duration, self.turn_first_token, self.turn_llm_calls, self.turn_tool_calls):
            series.labels(agent)
        self.turns_in_progress.labels(agent)

    def observe(self, ids: TurnIds, event: Event) -> None:
        """An observer: counts turns, and what their calls met with."""
        self.policies.observe(event)
        match event:
            case TurnStarted():
                self.turns_in_progress.labels(self._agent(ids.agent)).inc()
            case ModelFinished(call=1, first_token_s=float() as seconds):
                self.turn_first_token.labels(self._agent(ids.agent)).observe(seconds)
            case TurnEnded():
                agent = self._agent(ids.agent)
                self.turns_in_progress.labels(agent).dec()
                self.turns.labels(agent, event.outcome).inc()
                self.turn_duration.labels(agent).observe(event.duration_s)
                self.turn_llm_calls.labels(agent).observe(event.usage.model_calls)
                self.turn_tool_calls.labels(agent).observe(event.usage.tool_calls)

    def _agent(self, name: str) -> str:
        """The label of the agent called ``name``. It never changes for one that has been seen."""
        if name not in self._agents and len(self._agents) < MAX_AGENTS:
            self.begin_agent(name)
        return name if name in self._agents else OTHER

    def begin_routes(self, routes: Iterable[tuple[str, str, Iterable[str]]]) -> None:
        """Make the series of these routes: each a method, a template, and the status codes it may answer with."""
        for method, template, codes in routes:
            self.http_duration.labels(method, template)
            for code in codes:
                self.http_requests.labels(method, template, code)

    def answered(self, method: str, route: str, code: int, duration_s: float) -> None:
        """Count one HTTP request; ``route`` is the template that matched, or ``OTHER``."""
        known_method = method if method in METHODS else OTHER
        self.http_requests.labels(known_method, route, str(code)).inc()
        self.http_duration.labels(known_method, route).observe(duration_s)

    def page(self) -> tuple[bytes, str]:
        """The page a scraper reads, and its content type."""
        self.policies.read()
        return generate_latest(self.registry), "text/plain; version=0.0.4; charset=utf-8"
