"""Which models are called, how they answer, and what they use."""

from holdfast.ops.panels import CALL_FAILED, CALL_MADE, Dashboard, Panel, Query, quantiles, rate, share

LLM = Dashboard(
    "llm",
    "Holdfast: models",
    "Which models are called, how they answer, and what they use.",
    {
        "Calls": (
            Panel(
                "By model",
                "Attempts that end each second.",
                "ops",
                (Query(rate("agent_llm_calls_total", "provider, model"), "{{provider}} {{model}}"),),
                stacked=True,
            ),
            Panel(
                "By status",
                "`rejected` were not sent; `error` and `timeout` count against the model.",
                "ops",
                (Query(rate("agent_llm_calls_total", "status"), "{{status}}"),),
                stacked=True,
            ),
            Panel(
                "Failing",
                "Share of the attempts that failed or ran out of time.",
                "percentunit",
                (
                    Query(
                        share(
                            f"agent_llm_calls_total{{{CALL_FAILED}}}",
                            f"agent_llm_calls_total{{{CALL_MADE}}}",
                            "provider, model",
                        ),
                        "{{provider}} {{model}}",
                    ),
                ),
                steps=((0.1, "red"),),
                most=1,
            ),
            Panel(
                "Calls in a turn",
                "Calls that half, and 95 of a hundred, turns stay below.",
                "none",
                quantiles("agent_turn_llm_calls", "agent", "{{agent}}", 0.5, 0.95),
            ),
        ),
        "Time": (
            Panel(
                "Duration",
                "From when an attempt was sent to the end of its answer.",
                "s",
                quantiles("agent_llm_duration_seconds", "model", "{{model}}", 0.5, 0.95, 0.99),
                steps=((5, "red"),),
            ),
            Panel(
                "First token",
                "From when a streamed attempt was sent to its first token.",
                "s",
                quantiles("agent_llm_first_token_seconds", "model", "{{model}}", 0.5, 0.95),
                steps=((2, "red"),),
            ),
        ),
        "Tokens": (
            Panel(
                "By type",
                "Tokens each second; cached ones are among the input, reasoning among the output.",
                "short",
                (Query(rate("agent_llm_tokens_total", "type"), "{{type}}"),),
                stacked=True,
            ),
            Panel(
                "In the last hour",
                "Tokens of each model. More than a million is a ticket.",
                "short",
                (Query("sum by (model) (increase(agent_llm_tokens_total[1h]))", "{{model}}"),),
                "bargauge",
                steps=((1_000_000, "red"),),
            ),
            Panel(
                "In a turn",
                "Tokens for each turn that ends. A rise without more traffic is a history or a loop that grows.",
                "short",
                (Query(f"{rate('agent_llm_tokens_total')} / {rate('agent_turns_total')}", "tokens"),),
            ),
            Panel(
                "In a call",
                "Tokens for each attempt that was answered, by model and type.",
                "short",
                (
                    Query(
                        f"{rate('agent_llm_tokens_total', 'model, type')} / on (model) group_left () "
                        + rate('agent_llm_calls_total{status="ok"}', "model"),
                        "{{model}} {{type}}",
                    ),
                ),
            ),
            Panel(
                "Cost",
                "US dollars of the last hour, by model, as far as prices are known.",
                "short",
                (Query("sum by (model) (increase(agent_llm_cost_usd_total[1h]))", "{{model}}"),),
                "bargauge",
            ),
            Panel(
                "From the cache",
                "Shares of the input that providers read from their caches, and wrote to them.",
                "percentunit",
                (
                    Query(
                        f"{rate('agent_llm_cached_tokens_total', 'model, type')} / on (model) group_left () "
                        + rate('agent_llm_tokens_total{type="input"}', "model"),
                        "{{model}} {{type}}",
                    ),
                ),
                most=1,
            ),
            Panel(
                "Reasoning",
                "Share of the output that is reasoning, which the caller never sees and somebody pays for.",
                "percentunit",
                (
                    Query(
                        share("agent_llm_reasoning_tokens_total", 'agent_llm_tokens_total{type="output"}', "model"),
                        "{{model}}",
                    ),
                ),
                most=1,
            ),
        ),
    },
)
