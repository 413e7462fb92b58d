"""What is told about the running process, and to whom."""

from typing import Literal

from pydantic import BaseModel, Field


class TelemetrySpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Logs and metrics. Section ``telemetry``."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged; `debug` adds tracebacks, whose texts may quote messages."""

    log_format: Literal["auto", "json", "pretty"] = "auto"
    """`json` is one object a line, `pretty` is for people; `auto` is `pretty` on a terminal and `json` elsewhere."""

    metrics_host: str = "127.0.0.1"
    """Address of the metrics port, which takes no credentials; the same rule as for `server.host` applies."""

    metrics_port: int = Field(9090, ge=0, le=65_535)
    """TCP port that serves `/metrics` on its own; 0 serves it on the API port only."""
