"""Which tools are called, which fail, and which are slow."""

from holdfast.ops.panels import CALL_FAILED, Dashboard, Panel, Query, quantiles, rate

TOOLS = Dashboard(
    "tools",
    "Holdfast: tools",
    "Which tools are called, which fail, and which are slow.",
    {
        "Calls": (
            Panel(
                "By tool",
                "Calls that end each second.",
                "ops",
                (Query(rate("agent_tool_calls_total", "tool"), "{{tool}}"),),
                stacked=True,
            ),
            Panel(
                "By status",
                "`rejected` and `denied` were not made; `timeout` may have had its effect.",
                "ops",
                (Query(rate("agent_tool_calls_total", "status"), "{{status}}"),),
                stacked=True,
            ),
            Panel(
                "Failing",
                "Share of a tool's calls that failed or ran out of time, over 5 minutes. Alerts look at this.",
                "percentunit",
                (Query("max by (tool) (agent:tool_errors:ratio_rate5m)", "{{tool}}"),),
                steps=((0.1, "red"),),
                most=1,
            ),
            Panel(
                "By agent",
                "Who calls tools, each second.",
                "ops",
                (Query(rate("agent_tool_calls_total", "agent"), "{{agent}}"),),
                stacked=True,
            ),
            Panel(
                "Failing now",
                "Calls of the last hour that failed or ran out of time.",
                "short",
                (Query(f"sum by (tool, status) (increase(agent_tool_calls_total{{{CALL_FAILED}}}[1h]))", ""),),
                "table",
            ),
            Panel(
                "Calls in a turn",
                "Calls that half, and 95 of a hundred, turns stay below.",
                "none",
                quantiles("agent_turn_tool_calls", "agent", "{{agent}}", 0.5, 0.95),
            ),
        ),
        "Time": (
            Panel(
                "Duration, half",
                "What half of the calls stay below, a wait for a place included.",
                "s",
                quantiles("agent_tool_duration_seconds", "tool", "{{tool}}", 0.5),
            ),
            Panel(
                "Duration, 95 of a hundred",
                "What 95 of a hundred calls stay below.",
                "s",
                quantiles("agent_tool_duration_seconds", "tool", "{{tool}}", 0.95),
            ),
            Panel(
                "Out of time",
                "Calls stopped as their time was up, each second. The limit is `resilience.tool_s`.",
                "ops",
                (Query(rate('agent_timeouts_total{operation="tool"}'), "timeouts"),),
            ),
            Panel(
                "Left alone",
                "Calls refused by the circuit of their tool, each second.",
                "ops",
                (
                    Query(
                        rate('agent_circuit_breaker_rejections_total{resource=~"tool:.+"}', "resource"), "{{resource}}"
                    ),
                ),
            ),
        ),
    },
)
