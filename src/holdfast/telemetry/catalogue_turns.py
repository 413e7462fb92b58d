"""Metrics of requests, and of the turns they begin."""

from holdfast.telemetry.labels import AGENT, OUTCOME, SECONDS
from holdfast.telemetry.terms import Alias, Label, Metric

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")
_METHOD = Label("method", len(METHODS))
_ROUTE = Label("route", 60)
_CALLS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55)

AUTH_REASONS = ("missing", "unknown", "expired", "revoked", "scope", "origin")
"""Why a request is not let in: no key; no key of ours; too old; taken back; not for this; from elsewhere than here."""

BECAUSE = ("in_doubt", "handed_over", "not_owner", "store_unavailable")
"""Why a turn is given up: nobody knows whether a call took effect; the process stops; another one took it over; how it
ended could not be kept."""

HTTP_REQUESTS = Metric(
    name="agent_http_requests_total",
    kind="counter",
    help="HTTP requests answered.",
    labels=(_METHOD, _ROUTE, Label("code", 24)),
)
HTTP_REQUEST_DURATION = Metric(
    name="agent_http_request_duration_seconds",
    kind="histogram",
    help="Time from a request's first byte to its answer's last.",
    labels=(_METHOD, _ROUTE),
    buckets=SECONDS,
)
TURNS = Metric(
    name="agent_turns_total",
    kind="counter",
    help="Turns that ended.",
    labels=(AGENT, OUTCOME),
    replaces=(
        Alias("agent_requests_total", "sum without (agent, outcome) (METRIC)"),
        Alias("agent_requests_successful", 'sum without (agent, outcome) (METRIC{outcome="success"})'),
        Alias("agent_requests_failed", 'sum without (agent, outcome) (METRIC{outcome=~"error|timeout"})'),
    ),
)
TURNS_SUSPENDED = Metric(
    name="agent_turns_suspended_total",
    kind="counter",
    help="Turns that this process gave up before they ended: they go on later, or elsewhere.",
    labels=(AGENT, Label("because", len(BECAUSE), BECAUSE)),
)
TURNS_RESUMED = Metric(
    name="agent_turns_resumed_total",
    kind="counter",
    help="Turns that this process went on with where another one left them.",
    labels=(AGENT,),
)
TURN_DURATION = Metric(
    name="agent_turn_duration_seconds",
    kind="histogram",
    help="Time from a turn's admission to its stored answer.",
    labels=(AGENT,),
    buckets=SECONDS,
    replaces=(Alias("agent_turn_latency_seconds", "sum without (agent) (METRIC)"),),
)
TURN_FIRST_TOKEN = Metric(
    name="agent_turn_first_token_seconds",
    kind="histogram",
    help="Time from the start of a turn's first streamed model call to its first token.",
    labels=(AGENT,),
    buckets=SECONDS,
)
TURNS_IN_PROGRESS = Metric(
    name="agent_turns_in_progress",
    kind="gauge",
    help="Turns that run now.",
    labels=(AGENT,),
)
SESSIONS_ACTIVE = Metric(
    name="agent_sessions_active",
    kind="gauge",
    help="Sessions with a turn that runs or waits for an earlier one.",
    replaces=(Alias("active_agent_sessions"),),
)
STEPS = Metric(
    name="agent_steps_total",
    kind="counter",
    help="Steps that agents took: model calls that were answered.",
    labels=(AGENT,),
)
TURN_LLM_CALLS = Metric(
    name="agent_turn_llm_calls",
    kind="histogram",
    help="Model calls in a turn.",
    labels=(AGENT,),
    buckets=_CALLS,
)
TURN_TOOL_CALLS = Metric(
    name="agent_turn_tool_calls",
    kind="histogram",
    help="Tool calls in a turn.",
    labels=(AGENT,),
    buckets=_CALLS,
)
AUTH_FAILURES = Metric(
    name="agent_auth_failures_total",
    kind="counter",
    help="Requests that were not let in for who sent them.",
    labels=(Label("reason", len(AUTH_REASONS), AUTH_REASONS),),
)
