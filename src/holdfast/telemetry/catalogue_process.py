"""Metrics of the process itself, and of what is told about it."""

from holdfast.telemetry.terms import Label, Metric

HEALTH = ("healthy", "degraded", "unhealthy")
_CHECK = Label("check", 12)
DECISIONS = ("head", "error", "slow", "dropped", "limited")

READY = Metric(
    name="agent_ready",
    kind="gauge",
    help="1 while new turns are taken, else 0.",
)
HEALTH_CHECK_STATE = Metric(
    name="agent_health_check_state",
    kind="gauge",
    help="1 for the state a component is in, by its last three checks, else 0.",
    labels=(_CHECK, Label("state", len(HEALTH), HEALTH)),
)
HEALTH_CHECK_AGE = Metric(
    name="agent_health_check_age_seconds",
    kind="gauge",
    help="How long ago a component was checked last.",
    labels=(_CHECK,),
)
EVENT_LOOP_LAG = Metric(
    name="agent_event_loop_lag_seconds",
    kind="histogram",
    help="How late the event loop comes to a timer of four a second: time that everything in the process waits.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)
BUILD_INFO = Metric(
    name="agent_build_info",
    kind="gauge",
    help="Always 1; the labels say what runs, and with which settings.",
    labels=(Label("version", 1), Label("python", 1), Label("config_hash", 1)),
)
SLO_OBJECTIVE = Metric(
    name="agent_slo_objective_ratio",
    kind="gauge",
    help="Share of events that is to be good, by service level objective.",
    labels=(Label("slo", 8),),
)
TRACES = Metric(
    name="agent_traces_total",
    kind="counter",
    help="Traces by what was decided about them.",
    labels=(Label("decision", len(DECISIONS), DECISIONS),),
)
TRACE_EVENTS = Metric(
    name="agent_trace_events_total",
    kind="counter",
    help="Events written to the trace file.",
)
TELEMETRY_DROPPED = Metric(
    name="agent_telemetry_dropped_total",
    kind="counter",
    help="Telemetry that was lost.",
    labels=(Label("signal", 4), Label("reason", 6)),
)
LABEL_OVERFLOW = Metric(
    name="agent_metric_label_overflow_total",
    kind="counter",
    help="Updates of a metric that were told as _other, as one of its labels had as many values as it may.",
    labels=(Label("metric", 60),),
)
