"""What the policies refuse, wait for and try again."""

from holdfast.ops.panels import Dashboard, Panel, Query, quantiles, rate

RESILIENCE = Dashboard(
    "resilience",
    "Holdfast: resilience",
    "What the policies refuse, wait for and try again.",
    {
        "Circuit breakers": (
            Panel(
                "Open",
                "Processes in which a circuit lets nobody through.",
                "none",
                (Query('sum by (resource) (agent_circuit_breaker_state{state="open"})', "{{resource}}"),),
                "state-timeline",
                steps=((1, "red"),),
            ),
            Panel(
                "Trying again",
                "Processes in which a circuit lets single calls through, to see whether its target has recovered.",
                "none",
                (Query('sum by (resource) (agent_circuit_breaker_state{state="half_open"})', "{{resource}}"),),
                "state-timeline",
                steps=((1, "orange"),),
            ),
            Panel(
                "Opened in the last hour",
                "More than 5 in one process is a ticket.",
                "short",
                (
                    Query(
                        'sum by (resource) (increase(agent_circuit_breaker_transitions_total{to="open"}[1h]))',
                        "{{resource}}",
                    ),
                ),
                "bargauge",
                steps=((1, "orange"), (5, "red")),
            ),
            Panel(
                "Refused",
                "Calls that a circuit did not let through, each second.",
                "ops",
                (Query(rate("agent_circuit_breaker_rejections_total", "resource"), "{{resource}}"),),
                stacked=True,
            ),
        ),
        "Limits": (
            Panel(
                "Over a rate limit",
                "Turns and calls refused each second, by whose limit it was. More than 10 is a ticket.",
                "ops",
                (Query(rate("agent_rate_limit_rejections_total", "limiter"), "{{limiter}}"),),
                steps=((10, "red"),),
            ),
            Panel(
                "Waiting for a place",
                "Calls in a queue now; the longest of all processes. More than 10 is a ticket.",
                "none",
                (Query("max by (bulkhead) (agent_bulkhead_queue_size)", "{{bulkhead}}"),),
                steps=((10, "red"),),
            ),
            Panel(
                "Places taken",
                "Share of a bulkhead's places that are in use.",
                "percentunit",
                (
                    Query(
                        "sum by (bulkhead) (agent_bulkhead_in_use) / sum by (bulkhead) (agent_bulkhead_limit)",
                        "{{bulkhead}}",
                    ),
                ),
                steps=((0.9, "red"),),
            ),
            Panel(
                "Room in the queue",
                "Share of a queue that is taken; at 100 % calls are refused at once.",
                "percentunit",
                (
                    Query(
                        "sum by (bulkhead) (agent_bulkhead_queue_size)"
                        " / sum by (bulkhead) (agent_bulkhead_queue_limit)",
                        "{{bulkhead}}",
                    ),
                ),
                steps=((0.8, "red"),),
            ),
            Panel(
                "Found no place",
                "Calls refused each second, as the queue was full or the wait too long.",
                "ops",
                (Query(rate("agent_bulkhead_rejections_total", "bulkhead, reason"), "{{bulkhead}}: {{reason}}"),),
                stacked=True,
            ),
            Panel(
                "Wait",
                "What 95 of a hundred calls that had to wait waited for at most.",
                "s",
                quantiles("agent_bulkhead_wait_seconds", "bulkhead", "{{bulkhead}}", 0.95),
            ),
        ),
        "Trying again": (
            Panel(
                "Retries",
                "`scheduled` were made again, `gave_up` had no try left, `budget_empty` were too many altogether.",
                "ops",
                (Query(rate("agent_retries_total", "operation, outcome"), "{{operation}}: {{outcome}}"),),
                stacked=True,
            ),
            Panel(
                "Share of calls made again",
                "At most about a tenth, with `resilience.retry_ratio` as it comes. More than 5 % is a ticket.",
                "percentunit",
                (
                    Query(
                        rate('agent_retries_total{operation="model", outcome="scheduled"}')
                        + " / "
                        + rate("agent_llm_calls_total"),
                        "retries",
                    ),
                ),
                steps=((0.05, "red"),),
            ),
            Panel(
                "Out of time",
                "Attempts stopped as their time was up, each second.",
                "ops",
                (Query(rate("agent_timeouts_total", "operation"), "{{operation}}"),),
            ),
            Panel(
                "Answered by another model",
                "Calls that a fallback answered, each second.",
                "ops",
                (Query(rate("agent_fallbacks_total", "operation"), "{{operation}}"),),
            ),
        ),
    },
)
