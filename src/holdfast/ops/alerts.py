"""
Alerts: what somebody is told, and how soon they have to look.

What users feel pages; what may be the cause of it is a ticket for the day. Every alert has one page of its own name in
``docs/runbooks``. Ratios ask for a least number of events, so that one failure in a quiet hour wakes nobody.
"""

from dataclasses import dataclass
from typing import Literal

from holdfast.ops.slo import FEW, PAGES, TICKETS, burns

Severity = Literal["page", "ticket", "info"]
Board = Literal["overview", "tools", "llm", "resilience", "slo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """
    One alert.

    Attributes:
        name: Also that of its page.
        severity: ``page`` wakes somebody, ``ticket`` is for the day, ``info`` is only kept.
        expr: PromQL that returns something while all is not well.
        lasting: For how long it has to.
        summary: One line; ``{{ $labels.x }}`` and ``{{ $value }}`` are filled in.
        description: What it means, with the number.
        board: The dashboard that shows it.
    """

    name: str
    severity: Severity
    expr: str
    lasting: str = "5m"
    summary: str
    description: str
    board: Board


USERS = (
    Alert(
        name="HoldfastAbsent",
        severity="page",
        expr="absent(up == 1)",
        lasting="2m",
        summary="No Holdfast process can be scraped.",
        description="Every process is gone, or Prometheus cannot reach any. No other alert can tell of anything now.",
        board="overview",
    ),
    Alert(
        name="HoldfastBudgetBurnsFast",
        severity="page",
        expr=burns(PAGES, FEW),
        lasting="2m",
        summary="The error budget of {{ $labels.slo }} is being used up fast.",
        description="{{ $labels.job }} uses up its budget {{ $value | humanize }} times as fast as 30 days allow.",
        board="slo",
    ),
    Alert(
        name="HoldfastBudgetBurnsSlowly",
        severity="ticket",
        expr=burns(TICKETS),
        lasting="15m",
        summary="The error budget of {{ $labels.slo }} will not last for 30 days.",
        description="{{ $labels.job }} uses up its budget {{ $value | humanize }} times as fast as 30 days allow.",
        board="slo",
    ),
    Alert(
        name="HoldfastTurnsFailing",
        severity="page",
        expr="""\
sum by (job, agent) (rate(agent_turns_total{outcome="success"}[10m]))
/
sum by (job, agent) (rate(agent_turns_total{outcome=~"success|error|timeout"}[10m]))
< 0.5
and
sum by (job, agent) (increase(agent_turns_total{outcome=~"success|error|timeout"}[10m])) >= 10""",
        lasting="2m",
        summary="Most turns of the agent {{ $labels.agent }} fail.",
        description="Only {{ $value | humanizePercentage }} of them succeeded in the last 10 minutes.",
        board="overview",
    ),
    Alert(
        name="HoldfastTurnsSlow",
        severity="ticket",
        expr="""\
histogram_quantile(0.99, sum by (job, agent, le) (rate(agent_turn_duration_seconds_bucket[10m]))) > 60""",
        summary="Turns of the agent {{ $labels.agent }} are slow.",
        description="One in a hundred takes longer than {{ $value | humanizeDuration }}.",
        board="overview",
    ),
    Alert(
        name="HoldfastTurnsInDoubt",
        severity="ticket",
        expr='sum by (job, agent) (increase(agent_turns_suspended_total{because="in_doubt"}[1h])) > 0',
        lasting="1m",
        summary="Turns of the agent {{ $labels.agent }} wait for somebody to say what became of a call.",
        description="{{ $value | humanize }} in the last hour. They do not go on by themselves.",
        board="overview",
    ),
    Alert(
        name="HoldfastTurnsTakenOver",
        severity="ticket",
        expr="sum by (job) (increase(agent_turns_resumed_total[1h])) >= 10",
        lasting="1m",
        summary="Processes of {{ $labels.job }} leave turns behind.",
        description="{{ $value | humanize }} turns in the last hour went on in another process than they began in.",
        board="overview",
    ),
    Alert(
        name="HoldfastNoTraffic",
        severity="info",
        expr="sum by (job) (increase(agent_turns_total[10m])) == 0",
        lasting="10m",
        summary="Nobody asks {{ $labels.job }} anything.",
        description="No turn ended in the last 10 minutes. That may be the night, or something in front of it.",
        board="overview",
    ),
)

MODELS = (
    Alert(
        name="HoldfastModelFailing",
        severity="ticket",
        expr="""\
sum by (job, provider, model) (rate(agent_llm_calls_total{status=~"error|timeout"}[10m]))
/
sum by (job, provider, model) (rate(agent_llm_calls_total{status=~"ok|error|timeout"}[10m]))
> 0.1
and
sum by (job, provider, model) (increase(agent_llm_calls_total{status=~"ok|error|timeout"}[10m])) >= 10""",
        summary="Calls of {{ $labels.model }} fail.",
        description="{{ $value | humanizePercentage }} of the attempts at {{ $labels.provider }} failed or timed out.",
        board="llm",
    ),
    Alert(
        name="HoldfastModelSlow",
        severity="ticket",
        expr="""\
histogram_quantile(0.99, sum by (job, provider, model, le) (rate(agent_llm_duration_seconds_bucket[10m]))) > 5""",
        lasting="10m",
        summary="{{ $labels.model }} is slow.",
        description="One call in a hundred takes longer than {{ $value | humanizeDuration }}.",
        board="llm",
    ),
    Alert(
        name="HoldfastRetriesSurge",
        severity="ticket",
        expr="""\
sum by (job) (rate(agent_retries_total{operation="model", outcome="scheduled"}[10m]))
/
sum by (job) (rate(agent_llm_calls_total[10m]))
> 0.05
and
sum by (job) (increase(agent_retries_total{operation="model", outcome="scheduled"}[10m])) >= 10""",
        summary="Many model calls are made again.",
        description="{{ $value | humanizePercentage }} of the model calls of {{ $labels.job }} are made again.",
        board="resilience",
    ),
    Alert(
        name="HoldfastFallbacksSurge",
        severity="ticket",
        expr="""\
sum by (job) (rate(agent_fallbacks_total[10m]))
/
sum by (job) (rate(agent_llm_calls_total{status="ok"}[10m]))
> 0.05
and
sum by (job) (increase(agent_fallbacks_total[10m])) >= 10""",
        summary="Other models answer than those that are meant to.",
        description="{{ $value | humanizePercentage }} of the answers of {{ $labels.job }} came from a fallback.",
        board="resilience",
    ),
    Alert(
        name="HoldfastTokenSpendHigh",
        severity="ticket",
        expr="sum by (job, model) (increase(agent_llm_tokens_total[1h])) > 1e6",
        summary="{{ $labels.model }} uses many tokens.",
        description="{{ $value | humanize }} tokens in the last hour.",
        board="llm",
    ),
)

TOOLS = (
    Alert(
        name="HoldfastToolFailing",
        severity="ticket",
        expr="""\
agent:tool_errors:ratio_rate5m > 0.1
and
sum by (job, tool) (increase(agent_tool_calls_total{status=~"ok|error|timeout"}[5m])) >= 10""",
        summary="The tool {{ $labels.tool }} fails.",
        description="{{ $value | humanizePercentage }} of its calls failed or ran out of time in the last 5 minutes.",
        board="tools",
    ),
)

POLICIES = (
    Alert(
        name="HoldfastBreakerOpen",
        severity="ticket",
        expr='sum by (job, resource) (agent_circuit_breaker_state{state="open"}) > 0',
        lasting="1m",
        summary="{{ $labels.resource }} is left alone.",
        description="Its circuit is open in {{ $value | humanize }} processes: calls are refused, not made.",
        board="resilience",
    ),
    Alert(
        name="HoldfastBreakerFlaps",
        severity="ticket",
        expr='max by (job, resource) (increase(agent_circuit_breaker_transitions_total{to="open"}[1h])) > 5',
        summary="The circuit of {{ $labels.resource }} opens again and again.",
        description="{{ $value | humanize }} times in the last hour, in one process.",
        board="resilience",
    ),
    Alert(
        name="HoldfastRateLimited",
        severity="ticket",
        expr="sum by (job, limiter) (rate(agent_rate_limit_rejections_total[5m])) > 10",
        summary="Much is refused by the limit {{ $labels.limiter }}.",
        description="{{ $value | humanize }} turns or calls a second are more than it allows.",
        board="resilience",
    ),
    Alert(
        name="HoldfastBulkheadQueueLong",
        severity="ticket",
        expr="max by (job, bulkhead) (agent_bulkhead_queue_size) > 10",
        lasting="2m",
        summary="Calls wait for a place in {{ $labels.bulkhead }}.",
        description="{{ $value | humanize }} wait in one process.",
        board="resilience",
    ),
)

PROCESSES = (
    Alert(
        name="HoldfastInstanceDown",
        severity="ticket",
        expr="up == 0",
        summary="{{ $labels.instance }} cannot be scraped.",
        description="Prometheus has not reached this process for 5 minutes.",
        board="overview",
    ),
    Alert(
        name="HoldfastReadyButFailing",
        severity="ticket",
        expr="""\
sum by (job, instance) (rate(agent_turns_total{outcome=~"error|timeout"}[5m]))
/
sum by (job, instance) (rate(agent_turns_total{outcome=~"success|error|timeout"}[5m]))
> 0.5
and
sum by (job, instance) (increase(agent_turns_total{outcome=~"success|error|timeout"}[5m])) >= 10
and
max by (job, instance) (agent_ready) == 1""",
        summary="{{ $labels.instance }} says it is ready, and fails.",
        description="{{ $value | humanizePercentage }} of its turns failed in the last 5 minutes.",
        board="overview",
    ),
    Alert(
        name="HoldfastHealthCheckFailing",
        severity="ticket",
        expr='max by (job, instance, check) (agent_health_check_state{state="unhealthy"}) == 1',
        lasting="2m",
        summary="{{ $labels.check }} of {{ $labels.instance }} is unhealthy.",
        description="The process is not ready while that is so.",
        board="overview",
    ),
    Alert(
        name="HoldfastStoreUnavailable",
        severity="ticket",
        expr='sum by (job, instance) (increase(agent_turns_suspended_total{because="store_unavailable"}[10m])) > 0',
        lasting="1m",
        summary="{{ $labels.instance }} could not keep turns.",
        description="{{ $value | humanize }} in 10 minutes: the store did not answer. They go on once it does.",
        board="overview",
    ),
    Alert(
        name="HoldfastEventLoopLags",
        severity="ticket",
        expr="""\
histogram_quantile(0.99, sum by (job, instance, le) (rate(agent_event_loop_lag_seconds_bucket[5m]))) > 0.1""",
        summary="{{ $labels.instance }} comes late to everything.",
        description="Its event loop is up to {{ $value | humanizeDuration }} late: every turn in it waits that long.",
        board="overview",
    ),
    Alert(
        name="HoldfastTelemetryDropped",
        severity="ticket",
        expr="sum by (job, signal, reason) (increase(agent_telemetry_dropped_total[10m])) > 0",
        lasting="15m",
        summary="{{ $labels.signal }} are lost: {{ $labels.reason }}.",
        description="{{ $value | humanize }} in the last 10 minutes. What dashboards show is not all there was.",
        board="overview",
    ),
    Alert(
        name="HoldfastTracesLimited",
        severity="info",
        expr='sum by (job) (increase(agent_traces_total{decision="limited"}[10m])) > 0',
        summary="More traces fail than are exported.",
        description="{{ $value | humanize }} failing traces in the last 10 minutes were over the limit, and are lost.",
        board="overview",
    ),
)

ALERTS: tuple[Alert, ...] = (*USERS, *MODELS, *TOOLS, *POLICIES, *PROCESSES)
