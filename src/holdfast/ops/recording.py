"""What is recorded besides the objectives: ratios that alerts and panels share, and the source systems' old names."""

from collections.abc import Iterator

from holdfast.ops.rule import Record
from holdfast.telemetry.catalogue import METRICS

TOOL_ERRORS = "agent:tool_errors:ratio_rate5m"
"""Share of a tool's calls that failed or ran out of time; no series for a tool that was not called."""

CACHE_HITS = "agent:cache_hit:ratio_rate5m"
"""Share of a model's input tokens that came from the provider's cache; no series for a model that was not asked."""

RECORDS = (
    Record(
        TOOL_ERRORS,
        """\
sum by (job, tool) (rate(agent_tool_calls_total{status=~"error|timeout"}[5m]))
/
(sum by (job, tool) (rate(agent_tool_calls_total{status=~"ok|error|timeout"}[5m])) > 0)""",
    ),
    Record(
        CACHE_HITS,
        """\
sum by (job, model) (rate(agent_llm_cached_tokens_total{type="read"}[5m]))
/
(sum by (job, model) (rate(agent_llm_tokens_total{type="input"}[5m])) > 0)""",
    ),
)


def aliases() -> Iterator[Record]:
    """The old names, from the catalogue, which knows how each is made from ours."""
    for metric in METRICS:
        for name, expr in metric.rules():
            yield Record(name, expr)
