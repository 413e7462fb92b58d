"""Metrics of model calls and tool calls."""

from holdfast.telemetry.labels import AGENT, MODEL, PROVIDER, SECONDS, STATUS, TOOL
from holdfast.telemetry.terms import Alias, Label, Metric

LLM_CALLS = Metric(
    name="agent_llm_calls_total",
    kind="counter",
    help="Attempts at model calls that ended; those that were refused are among them.",
    labels=(PROVIDER, MODEL, STATUS),
    replaces=(Alias("llm_calls_total", "sum without (provider) (METRIC)"),),
)
LLM_DURATION = Metric(
    name="agent_llm_duration_seconds",
    kind="histogram",
    help="Time that attempts at model calls took, from when they were sent; those that were refused are left out.",
    labels=(PROVIDER, MODEL),
    buckets=SECONDS,
    replaces=(Alias("agent_llm_latency_seconds", "sum without (provider) (METRIC)"),),
)
LLM_FIRST_TOKEN = Metric(
    name="agent_llm_first_token_seconds",
    kind="histogram",
    help="Time from when a streamed model call was sent to its first token.",
    labels=(PROVIDER, MODEL),
    buckets=SECONDS,
)
LLM_TOKENS = Metric(
    name="agent_llm_tokens_total",
    kind="counter",
    help="Tokens as the provider counts them; cached ones are among the input, reasoning among the output.",
    labels=(PROVIDER, MODEL, Label("type", 2, ("input", "output"))),
    replaces=(
        Alias("agent_token_usage_total", "sum without (provider, model, type) (METRIC)"),
        Alias("llm_tokens_total", "sum without (provider) (METRIC)"),
    ),
)
LLM_CACHED_TOKENS = Metric(
    name="agent_llm_cached_tokens_total",
    kind="counter",
    help="Input tokens that providers read from their caches, and wrote to them: a part of the input.",
    labels=(PROVIDER, MODEL, Label("type", 2, ("read", "write"))),
)
LLM_REASONING_TOKENS = Metric(
    name="agent_llm_reasoning_tokens_total",
    kind="counter",
    help="Tokens that models reasoned with before they answered: a part of the output.",
    labels=(PROVIDER, MODEL),
)
LLM_COST = Metric(
    name="agent_llm_cost_usd_total",
    kind="counter",
    help="US dollars that tokens cost; those of a model whose price is not known are left out.",
    labels=(PROVIDER, MODEL),
    replaces=(Alias("agent_llm_cost_total", "sum without (provider) (METRIC)"),),
)
TOOL_CALLS = Metric(
    name="agent_tool_calls_total",
    kind="counter",
    help="Tool calls that ended; those that were refused are among them.",
    labels=(AGENT, TOOL, STATUS),
    replaces=(Alias("tool_executions_total", "sum without (agent) (METRIC)"),),
)
TOOL_DURATION = Metric(
    name="agent_tool_duration_seconds",
    kind="histogram",
    help="Time that tool calls took, a wait for their place included; those that were refused are left out.",
    labels=(TOOL,),
    buckets=SECONDS,
    replaces=(Alias("tool_duration_seconds"), Alias("agent_tool_latency_seconds")),
)
