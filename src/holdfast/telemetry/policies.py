"""
Metrics of the policies: what they did, and how they stand.

What happens is counted as the policies tell it. How they stand is read when somebody asks for the page, so that a call
that goes well pays for none of this. No label tells a credential: circuits and bulkheads of one model share a label
whatever it is called with, and credentials share one too.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.telemetry import catalogue_policies as catalogue
from holdfast.telemetry.catalogue_policies import STATES
from holdfast.telemetry.instruments import Instruments
from holdfast.telemetry.labels import OTHER

_SHOWN = {"forced_open": "open", "disabled": "closed"}
"""What an operator's orders come to: nobody is let through, or everybody is."""

CREDENTIAL = "model:credential"
LIMITERS = {"all": "global", "user": "user", "tool": "tool"}

Circuits = Callable[[], Iterable[tuple[str, str]]]
"""Every circuit's name and state."""

Bulkheads = Callable[[], Iterable[tuple[str, int, int, int, int]]]
"""Every bulkhead's name, how many wait and may wait in it, and how many run and may run in it."""


class PolicyMetrics:
    """The series of the policies of one process."""

    def __init__(self, make: Instruments) -> None:
        self._breaker_state = make.gauge(catalogue.CIRCUIT_BREAKER_STATE)
        self._breaker_transitions = make.counter(catalogue.CIRCUIT_BREAKER_TRANSITIONS)
        self._breaker_rejections = make.counter(catalogue.CIRCUIT_BREAKER_REJECTIONS)
        self._rate_rejections = make.counter(catalogue.RATE_LIMIT_REJECTIONS)
        self._standing = (
            make.gauge(catalogue.BULKHEAD_QUEUE_SIZE),
            make.gauge(catalogue.BULKHEAD_QUEUE_LIMIT),
            make.gauge(catalogue.BULKHEAD_IN_USE),
            make.gauge(catalogue.BULKHEAD_LIMIT),
        )
        self._bulkhead_rejections = make.counter(catalogue.BULKHEAD_REJECTIONS)
        self._bulkhead_wait = make.histogram(catalogue.BULKHEAD_WAIT)
        self._retries = make.counter(catalogue.RETRIES)
        self._timeouts = make.counter(catalogue.TIMEOUTS)
        self._fallbacks = make.counter(catalogue.FALLBACKS)
        self._read_circuits: Circuits = tuple
        self._read_bulkheads: Bulkheads = tuple
        self._breaker_rejections.labels(CREDENTIAL)
        self._rate_rejections.labels(OTHER)
        self._retries.labels("model", "scheduled")
        for operation in ("model", "tool"):
            self._timeouts.labels(operation)
        self._fallbacks.labels("model")

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
                    self._breaker_transitions.labels(_plain(facts["circuit"]), to).inc()
            case "breaker.refused":
                self._breaker_rejections.labels(_plain(facts["circuit"])).inc()
            case "rate.refused":
                self._rate_rejections.labels(LIMITERS.get(key_class, OTHER)).inc()
            case "bulkhead.refused":
                self._bulkhead_rejections.labels(_plain(facts["bulkhead"]), facts["reason"]).inc()
            case "bulkhead.queued":
                self._bulkhead_wait.labels(_plain(facts["bulkhead"])).observe(facts["waited_s"])
            case "retry.scheduled":
                self._retries.labels(pipeline, "scheduled").inc()
            case "retry.gave_up" if facts["reason"] != "not_retryable":
                outcome = "budget_empty" if facts["reason"] == "budget" else "gave_up"
                self._retries.labels(pipeline, outcome).inc()

    def timed_out(self, operation: str) -> None:
        """Count an attempt at a call that was stopped as its time was up."""
        self._timeouts.labels(operation).inc()

    def fell_back(self) -> None:
        """Count a model call that another model answered than was meant to."""
        self._fallbacks.labels("model").inc()

    def read(self) -> None:
        """Bring up to date what is not counted but read."""
        self._read_states()
        for gauge in self._standing:
            gauge.clear()
        for name, *standing in self._read_bulkheads():
            for gauge, value in zip(self._standing, standing, strict=True):
                gauge.labels(_plain(name)).inc(value)

    def _read_states(self) -> None:
        # A circuit that is no longer there is closed: only one that has nothing to remember is forgotten.
        worst = dict.fromkeys((label for label, _ in self._breaker_state), STATES[0])
        for name, state in self._read_circuits():
            label, shown = self._breaker_state.fold(_plain(name), _SHOWN.get(state, state))
            worst[label] = max(worst.get(label, STATES[0]), shown, key=STATES.index)
        for label, shown in worst.items():
            for state in STATES:
                self._breaker_state.labels(label, state).set(state == shown)


def _plain(name: str) -> str:
    """The name of a circuit or a bulkhead, without the credential."""
    if not name.startswith("model:"):
        return name
    return CREDENTIAL if name.startswith(f"{CREDENTIAL}:") else name.rpartition("@")[0] or name
