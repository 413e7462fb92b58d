"""What is told about the running process, and to whom."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field


class TelemetrySpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Logs, metrics and traces. Section ``telemetry``."""

    enabled: bool = Field(default=True, json_schema_extra={"x-also": "AGENT_OBSERVABILITY_ENABLED"})
    """`false` leaves the log alone: no spans, no trace events, and nothing is counted of turns and calls."""

    content: bool = False
    """Whether what people and models wrote, and what tools were given and answered, is in spans and trace events."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged; `debug` adds tracebacks, whose texts may quote messages."""

    log_format: Literal["auto", "json", "pretty"] = "auto"
    """`json` is one object a line, `pretty` is for people; `auto` is `pretty` on a terminal and `json` elsewhere."""

    metrics_host: str = "127.0.0.1"
    """Address of the metrics port, which takes no credentials; the same rule as for `server.host` applies."""

    metrics_port: int = Field(9090, ge=0, le=65_535)
    """TCP port that serves `/metrics` on its own; 0 serves it on the API port only."""

    metrics_namespace: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        examples=["security_agent"],
        json_schema_extra={"x-also": "AGENT_METRICS_NAMESPACE"},
    )
    """Goes in front of the name of each of our metrics, with an underscore; empty leaves the names as they are."""

    traces_ratio: float = Field(0.1, ge=0, le=1)
    """Share of the traces that go well that is exported; 0 exports failed ones alone."""

    traces_slow_s: float | None = Field(None, gt=0, le=86_400)
    """Seconds that a turn, a call or a request must take for its trace to be exported for that; none exports none."""

    traces_failed_per_s: float = Field(100.0, gt=0, le=1_000_000)
    """Most traces a second that are exported for having failed or been slow: in an outage all of them fail."""

    jsonl_path: Path | None = Field(
        Path("data/logs/agent-traces.jsonl"), json_schema_extra={"x-also": "AGENT_TRACE_JSONL_PATH"}
    )
    """File that trace events are written to, one JSON object a line; none writes none."""

    jsonl_max_bytes: int = Field(67_108_864, ge=65_536, le=1_099_511_627_776)
    """Size in bytes from which on it is renamed to end in `.1`, and a new one is begun."""

    jsonl_files: int = Field(4, ge=0, le=1_000)
    """Earlier files that are kept."""
