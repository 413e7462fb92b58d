"""What is asked, what comes of it, and how the processes are."""

from holdfast.ops.panels import TURN_FAILED, TURN_JUDGED, Dashboard, Panel, Query, quantiles, rate, share

OVERVIEW = Dashboard(
    "overview",
    "Holdfast: overview",
    "What is asked, what comes of it, and how the processes are.",
    {
        "Now": (
            Panel(
                "Processes",
                "Processes that Prometheus reaches.",
                "none",
                (Query("sum(up)", "up"),),
                "stat",
                4,
            ),
            Panel("Turns", "Turns that end each second.", "reqps", (Query(rate("agent_turns_total"), ""),), "stat", 4),
            Panel(
                "Failing",
                "Share of the turns that end in an error or out of time.",
                "percentunit",
                (Query(share(f"agent_turns_total{{{TURN_FAILED}}}", f"agent_turns_total{{{TURN_JUDGED}}}"), ""),),
                "stat",
                4,
                ((0.01, "orange"), (0.5, "red")),
            ),
            Panel("Running", "Turns that run now.", "none", (Query("sum(agent_turns_in_progress)", ""),), "stat", 4),
            Panel(
                "Sessions",
                "Sessions with a turn that runs, or waits for an earlier one.",
                "none",
                (Query("sum(agent_sessions_active)", ""),),
                "stat",
                4,
            ),
            Panel(
                "Open circuits",
                "Circuits that let nobody through, counted in each process.",
                "none",
                (Query('sum(agent_circuit_breaker_state{state="open"})', ""),),
                "stat",
                4,
                ((1, "red"),),
            ),
        ),
        "Turns": (
            Panel(
                "By outcome",
                "Turns that end each second. `rejected` and `guardrail_blocked` are no failures.",
                "reqps",
                (Query(rate("agent_turns_total", "outcome"), "{{outcome}}"),),
                stacked=True,
            ),
            Panel(
                "By agent",
                "Turns that end each second, by who answered.",
                "reqps",
                (Query(rate("agent_turns_total", "agent"), "{{agent}}"),),
                stacked=True,
            ),
            Panel(
                "Duration",
                "From a turn's admission to its stored answer.",
                "s",
                quantiles("agent_turn_duration_seconds", "", "", 0.5, 0.95, 0.99),
            ),
            Panel(
                "First token",
                "From a turn's first streamed model call to its first token; the objective is 2 s for 95 in a hundred.",
                "s",
                quantiles("agent_turn_first_token_seconds", "", "", 0.5, 0.95, 0.99),
                steps=((2, "red"),),
            ),
            Panel(
                "Running",
                "Turns that run now. When this grows and the rate does not, something became slow.",
                "none",
                (Query("sum by (agent) (agent_turns_in_progress)", "{{agent}}"),),
                stacked=True,
            ),
            Panel(
                "Calls in a turn",
                "Calls that 95 of a hundred turns stay below. A jump is an agent that goes round in circles.",
                "none",
                (
                    *quantiles("agent_turn_llm_calls", "agent", "{{agent}} model", 0.95),
                    *quantiles("agent_turn_tool_calls", "agent", "{{agent}} tool", 0.95),
                ),
            ),
            Panel(
                "Steps",
                "Model calls that were answered each second.",
                "ops",
                (Query(rate("agent_steps_total", "agent"), "{{agent}}"),),
            ),
            Panel(
                "Given up",
                "Turns given up before they ended. `in_doubt` ones wait for you; the others go on elsewhere.",
                "short",
                (
                    Query(
                        "sum by (because) (increase(agent_turns_suspended_total[$__rate_interval]))",
                        "{{because}}",
                    ),
                ),
                stacked=True,
            ),
            Panel(
                "Taken over",
                "Turns that went on where another process had left them, by who took them: deployments, or crashes.",
                "short",
                (
                    Query(
                        "sum by (instance) (increase(agent_turns_resumed_total[$__rate_interval]))",
                        "{{instance}}",
                    ),
                ),
                stacked=True,
            ),
        ),
        "Requests": (
            Panel(
                "By status",
                "HTTP requests answered each second.",
                "reqps",
                (Query(rate("agent_http_requests_total", "code"), "{{code}}"),),
                stacked=True,
            ),
            Panel(
                "Duration",
                "Time that 95 of a hundred requests stay below, by route.",
                "s",
                quantiles("agent_http_request_duration_seconds", "route", "{{route}}", 0.95),
            ),
            Panel(
                "Not let in",
                "Requests refused for who sent them, each second.",
                "reqps",
                (Query(rate("agent_auth_failures_total", "reason"), "{{reason}}"),),
            ),
        ),
        "Processes": (
            Panel(
                "Ready",
                "1 while a process takes new turns.",
                "none",
                (Query("max by (instance) (agent_ready)", "{{instance}}"),),
                "state-timeline",
                steps=((None, "red"), (1, "green")),
                most=1,
            ),
            Panel(
                "Health checks",
                "Components that were found unhealthy are 1.",
                "none",
                (
                    Query(
                        'max by (instance, check) (agent_health_check_state{state="unhealthy"})',
                        "{{instance}} {{check}}",
                    ),
                ),
                "state-timeline",
                steps=((1, "red"),),
                most=1,
            ),
            Panel(
                "Age of health checks",
                "Seconds since a component was checked last. One that grows stands for a check that hangs.",
                "s",
                (
                    Query(
                        "max by (instance, check) (agent_health_check_age_seconds)",
                        "{{instance}} {{check}}",
                    ),
                ),
            ),
            Panel(
                "Event loop",
                "How late the loop comes to its timers: every turn waits that long. Above 0.1 s something blocks it.",
                "s",
                quantiles("agent_event_loop_lag_seconds", "instance", "{{instance}}", 0.99),
                steps=((0.1, "red"),),
            ),
            Panel(
                "Processor",
                "Seconds of processor time a second; one process has one loop, so 1 is full.",
                "percentunit",
                (Query(rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
            ),
            Panel(
                "Memory",
                "Resident memory. It should not grow while traffic does not.",
                "bytes",
                (Query("sum by (instance) (process_resident_memory_bytes)", "{{instance}}"),),
            ),
            Panel(
                "Versions",
                "What runs, and with which settings: replicas should agree.",
                "none",
                (Query("sum by (instance, version, python, config_hash) (agent_build_info)", ""),),
                "table",
            ),
        ),
        "Behaviour": (
            Panel(
                "Critical states",
                "Critical states that turns got into, each second.",
                "ops",
                (Query(rate("agent_critical_states_total", "state"), "{{state}}"),),
                stacked=True,
            ),
            Panel(
                "Interventions",
                "What the monitor did to turns, each second; nothing in shadow.",
                "ops",
                (Query(rate("agent_protocol_overrides_total", "protocol"), "{{protocol}}"),),
                stacked=True,
            ),
            Panel(
                "Stopped",
                "Turns that the agent breaker stopped, each second.",
                "ops",
                (Query(rate("agent_monitor_trips_total", "state"), "{{state}}"),),
                steps=((0.001, "orange"),),
            ),
            Panel(
                "Critical now",
                "Turns that are in a critical state now.",
                "none",
                (Query("sum by (state) (agent_state_turns)", "{{state}}"),),
                stacked=True,
            ),
        ),
        "Telemetry": (
            Panel(
                "Lost",
                "Spans, log lines and events that were lost, each second. Anything above 0 is missing elsewhere.",
                "ops",
                (Query(rate("agent_telemetry_dropped_total", "signal, reason"), "{{signal}}: {{reason}}"),),
                steps=((0.001, "red"),),
            ),
            Panel(
                "Traces",
                "What was decided about traces, each second. `limited` are failing ones that were lost.",
                "ops",
                (Query(rate("agent_traces_total", "decision"), "{{decision}}"),),
                stacked=True,
            ),
            Panel(
                "Trace file",
                "Events written to the trace file each second.",
                "ops",
                (Query(rate("agent_trace_events_total"), "events"),),
            ),
            Panel(
                "Folded labels",
                "Updates told as `_other`, each second: a metric has more values of a label than it may.",
                "ops",
                (Query(rate("agent_metric_label_overflow_total", "metric"), "{{metric}}"),),
            ),
        ),
    },
)
