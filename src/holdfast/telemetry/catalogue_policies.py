"""Metrics of the policies: circuit breakers, rate limits, bulkheads, retries, timeouts, fallbacks."""

from holdfast.telemetry.terms import Alias, Label, Metric

STATES = ("closed", "half_open", "open")
"""Of a circuit, from best to worst. Of several that share a label, the worst is shown."""

RESOURCE = Label("resource", 40)
BULKHEAD = Label("bulkhead", 30)

_RETRIES = ("scheduled", "gave_up", "budget_empty")
_LIMITERS = ("global", "user", "tool")
_REASONS = ("full", "timeout")
_WAITS = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60)

CIRCUIT_BREAKER_STATE = Metric(
    name="agent_circuit_breaker_state",
    kind="gauge",
    help="1 for the state the circuit is in, else 0.",
    labels=(RESOURCE, Label("state", len(STATES), STATES)),
    replaces=(
        Alias(
            "circuit_breaker_state",
            'sum without (state) (METRIC{state="half_open"}) + 2 * sum without (state) (METRIC{state="open"})',
        ),
    ),
)
CIRCUIT_BREAKER_TRANSITIONS = Metric(
    name="agent_circuit_breaker_transitions_total",
    kind="counter",
    help="Changes of a circuit's state.",
    labels=(RESOURCE, Label("to", len(STATES), STATES)),
    replaces=(Alias("circuit_breaker_trips_total", 'sum without (to) (METRIC{to="open"})'),),
)
CIRCUIT_BREAKER_REJECTIONS = Metric(
    name="agent_circuit_breaker_rejections_total",
    kind="counter",
    help="Calls that a circuit did not let through.",
    labels=(RESOURCE,),
)
RATE_LIMIT_REJECTIONS = Metric(
    name="agent_rate_limit_rejections_total",
    kind="counter",
    help="Turns and calls that were more than a rate limit allows.",
    labels=(Label("limiter", len(_LIMITERS), _LIMITERS),),
    replaces=(Alias("rate_limit_rejections_total"),),
)
BULKHEAD_QUEUE_SIZE = Metric(
    name="agent_bulkhead_queue_size",
    kind="gauge",
    help="Calls that wait for a place.",
    labels=(BULKHEAD,),
    replaces=(Alias("bulkhead_queue_size"),),
)
BULKHEAD_QUEUE_LIMIT = Metric(
    name="agent_bulkhead_queue_limit",
    kind="gauge",
    help="Calls that may wait for a place.",
    labels=(BULKHEAD,),
)
BULKHEAD_IN_USE = Metric(
    name="agent_bulkhead_in_use",
    kind="gauge",
    help="Places taken.",
    labels=(BULKHEAD,),
)
BULKHEAD_LIMIT = Metric(
    name="agent_bulkhead_limit",
    kind="gauge",
    help="Places there are.",
    labels=(BULKHEAD,),
)
BULKHEAD_REJECTIONS = Metric(
    name="agent_bulkhead_rejections_total",
    kind="counter",
    help="Calls that found no place, as the queue was full or the wait too long.",
    labels=(BULKHEAD, Label("reason", len(_REASONS), _REASONS)),
)
BULKHEAD_WAIT = Metric(
    name="agent_bulkhead_wait_seconds",
    kind="histogram",
    help="Time that calls which had to wait for a place waited until they got it.",
    labels=(BULKHEAD,),
    buckets=_WAITS,
)
RETRIES = Metric(
    name="agent_retries_total",
    kind="counter",
    help="Failed attempts that another one may have helped, by what was decided.",
    labels=(Label("operation", 10), Label("outcome", len(_RETRIES), _RETRIES)),
)
TIMEOUTS = Metric(
    name="agent_timeouts_total",
    kind="counter",
    help="Attempts stopped as their time was up.",
    labels=(Label("operation", 10),),
)
FALLBACKS = Metric(
    name="agent_fallbacks_total",
    kind="counter",
    help="Calls answered by another target than the first.",
    labels=(Label("operation", 10),),
)
