"""What is told about the running process: logs, metrics, and the ids that join them."""

from holdfast.telemetry.labels import OTHER
from holdfast.telemetry.logs import configure_logs, log_failure, log_notice, log_turns, logger
from holdfast.telemetry.metrics import Metrics
from holdfast.telemetry.spec import TelemetrySpec
from holdfast.telemetry.trace import TraceContext, read_traceparent

__all__ = [
    "OTHER",
    "Metrics",
    "TelemetrySpec",
    "TraceContext",
    "configure_logs",
    "log_failure",
    "log_notice",
    "log_turns",
    "logger",
    "read_traceparent",
]
