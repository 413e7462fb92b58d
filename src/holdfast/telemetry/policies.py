"""
Metrics of the policies: what they did, and how they stand.

What happens is counted as the policies tell it. How they stand is read when somebody asks for the page, so that a call
that goes well pays for none of this. No label tells a credential: circuits and bulkheads of one model share a label
whatever it is called with, and credentials share one too.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from holdfast.events import Event, FallbackUsed, ModelFinished, ToolFinished
from holdfast.telemetry.labels import OTHER, bounded

STATES = ("closed", "half_open", "open")
"""Of a circuit, from best to worst. Of several that share a label, the worst is shown."""

_SHOWN = {"forced_open": "open", "disabled": "closed"}
"""What an operator's orders come to: nobody is let through, or everybody is."""

MAX_RESOURCES = 40
"""Targets of circuits that are told apart."""

MAX_BULKHEADS = 30
"""Bulkheads that are told apart."""

CREDENTIAL = "model:credential"
LIMITERS = {"all": "global", "user": "user", "tool": "tool"}
RETRIES = ("scheduled", "gave_up", "budget_empty")
REASONS = ("full", "timeout")
WAITS = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60)

Circuits = Callable[[], Iterable[tuple[str, str]]]
"""Every circuit's name and state."""

Bulkheads = Callable[[], Iterable[tuple[str, int, int, int, int]]]
"""Every bulkhead's name, how many wait and may wait in it, and how many run and may run in it."""


class PolicyMetrics:
    """The series of the policies of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.breaker_state = Gauge(
            "agent_circuit_breaker_state",
            "1 for the state the circuit is in, else 0.",
            ("resource", "state"),
            registry=registry,
        )
        self.breaker_transitions = Counter(
            "agent_circuit_breaker_transitions_total",
            "Changes of a circuit's state.",
            ("resource", "to"),
            registry=registry,
        )
        self.breaker_rejections = Counter(
            "agent_circuit_breaker_rejections_total",
            "Calls that a circuit did not let through.",
            ("resource",),
            registry=registry,
        )
        self.rate_rejections = Counter(
            "agent_rate_limit_rejections_total",
            "Turns and calls that were more than a rate limit allows.",
            ("limiter",),
            registry=registry,
        )
        self.bulkhead_queue_size = Gauge(
            "agent_bulkhead_queue_size", "Calls that wait for a place.", ("bulkhead",), registry=registry
        )
        self.bulkhead_queue_limit = Gauge(
            "agent_bulkhead_queue_limit", "Calls that may wait for a place.", ("bulkhead",), registry=registry
        )
        self.bulkhead_in_use = Gauge("agent_bulkhead_in_use", "Places taken.", ("bulkhead",), registry=registry)
        self.bulkhead_limit = Gauge("agent_bulkhead_limit", "Places there are.", ("bulkhead",), registry=registry)
        self.bulkhead_rejections = Counter(
            "agent_bulkhead_rejections_total",
            "Calls that found no place, as the queue was full or the wait too long.",
            ("bulkhead", "reason"),
            registry=registry,
        )
        self.bulkhead_wait = Histogram(
            "agent_bulkhead_wait_seconds",
            "Time that calls which had to wait for a place waited until they got it.",
            ("bulkhead",),
            buckets=WAITS,
            registry=registry,
        )
        self.retries = Counter(
            "agent_retries_total",
            "Failed attempts that another one may have helped, by what was decided.",
            ("operation", "outcome"),
            registry=registry,
        )
        self.timeouts = Counter(
            "agent_timeouts_total",
            "Attempts stopped as their time was up.",
            ("operation",),
            registry=registry,
        )
        self.fallbacks = Counter(
            "agent_fallbacks_total",
            "Calls answered by another target than the first.",
            ("operation",),
            registry=registry,
        )
        self._resources = {CREDENTIAL}
        self._bulkheads: set[str] = set()
        self._read_circuits: Circuits = tuple
        self._read_bulkheads: Bulkheads = tuple
        self._begin()

    def watch(self, circuits: Circuits, bulkheads: Bulkheads) -> None:
        """Where to read how they stand, when the page is asked for."""
        self._read_circuits = circuits
        self._read_bulkheads = bulkheads

    def told(self, name: str, pipeline: str, key_class: str, facts: Mapping[str, Any]) -> None:
        """Count what a policy tells. What it would only have refused is not counted."""
        if facts.get("observed"):
            return
        match name:
            case "breaker.moved":
                was, to = (_SHOWN.get(facts[key], facts[key]) for key in ("was", "state"))
                if was != to:
                    self.breaker_transitions.labels(self._resource(facts), to).inc()
            case "breaker.refused":
                self.breaker_rejections.labels(self._resource(facts)).inc()
            case "rate.refused":
                self.rate_rejections.labels(LIMITERS.get(key_class, OTHER)).inc()
            case "bulkhead.refused":
                self.bulkhead_rejections.labels(self._bulkhead(facts), facts["reason"]).inc()
            case "bulkhead.queued":
                self.bulkhead_wait.labels(self._bulkhead(facts)).observe(facts["waited_s"])
            case "retry.scheduled":
                self.retries.labels(pipeline, "scheduled").inc()
            case "retry.gave_up" if facts["reason"] != "not_retryable":
                outcome = "budget_empty" if facts["reason"] == "budget" else "gave_up"
                self.retries.labels(pipeline, outcome).inc()

    def observe(self, event: Event) -> None:
        """Count what the events of a turn tell of limits and fallbacks."""
        match event:
            case ModelFinished(status="timeout"):
                self.timeouts.labels("model").inc()
            case ToolFinished(status="timeout"):
                self.timeouts.labels("tool").inc()
            case FallbackUsed():
                self.fallbacks.labels("model").inc()

    def read(self) -> None:
        """Bring up to date what is not counted but read."""
        self._read_states()
        gauges = (self.bulkhead_queue_size, self.bulkhead_queue_limit, self.bulkhead_in_use, self.bulkhead_limit)
        for gauge in gauges:
            gauge.clear()
        for name, *standing in self._read_bulkheads():
            label = bounded(_plain(name), self._bulkheads, MAX_BULKHEADS)
            for gauge, value in zip(gauges, standing, strict=True):
                gauge.labels(label).inc(value)
        self._begin()

    def _read_states(self) -> None:
        worst = dict.fromkeys(self._resources, STATES[0])
        for name, state in self._read_circuits():
            label = bounded(_plain(name), self._resources, MAX_RESOURCES)
            worst[label] = max(worst.get(label, STATES[0]), _SHOWN.get(state, state), key=STATES.index)
        for label, shown in worst.items():
            for state in STATES:
                self.breaker_state.labels(label, state).set(state == shown)

    def _begin(self) -> None:
        """Make the series of everything that is known, so that the first of its failures is seen as an increase."""
        for resource in self._resources:
            self.breaker_rejections.labels(resource)
            for state in STATES:
                self.breaker_transitions.labels(resource, state)
        for bulkhead in self._bulkheads:
            self.bulkhead_wait.labels(bulkhead)
            for reason in REASONS:
                self.bulkhead_rejections.labels(bulkhead, reason)
        for limiter in (*LIMITERS.values(), OTHER):
            self.rate_rejections.labels(limiter)
        for outcome in RETRIES:
            self.retries.labels("model", outcome)
        for operation in ("model", "tool"):
            self.timeouts.labels(operation)
        self.fallbacks.labels("model")

    def _resource(self, facts: Mapping[str, Any]) -> str:
        return bounded(_plain(facts["circuit"]), self._resources, MAX_RESOURCES)

    def _bulkhead(self, facts: Mapping[str, Any]) -> str:
        return bounded(_plain(facts["bulkhead"]), self._bulkheads, MAX_BULKHEADS)


def _plain(name: str) -> str:
    """The name of a circuit or a bulkhead, without the credential."""
    if not name.startswith("model:"):
        return name
    return CREDENTIAL if name.startswith(f"{CREDENTIAL}:") else name.rpartition("@")[0] or name
