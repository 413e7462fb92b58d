"""What is told about the running process: logs, metrics, and the ids that join them."""

from holdfast.telemetry.labels import OTHER
from holdfast.telemetry.logs import (
    TURN_LINES,
    Level,
    configure_logs,
    log_failure,
    log_level,
    log_notice,
    log_turns,
    logger,
    set_log_level,
)
from holdfast.telemetry.loop_lag import Heartbeat
from holdfast.telemetry.metrics import Metrics
from holdfast.telemetry.redact import Redactor, secrets_in
from holdfast.telemetry.spec import TelemetrySpec
from holdfast.telemetry.trace import TraceContext, among_strangers, outgoing, read_traceparent
from holdfast.telemetry.traces import Traces
from holdfast.telemetry.tracing import Tracing
from holdfast.telemetry.turn_spans import model_sent, model_teller

__all__ = [
    "OTHER",
    "TURN_LINES",
    "Heartbeat",
    "Level",
    "Metrics",
    "Redactor",
    "TelemetrySpec",
    "TraceContext",
    "Traces",
    "Tracing",
    "among_strangers",
    "configure_logs",
    "log_failure",
    "log_level",
    "log_notice",
    "log_turns",
    "logger",
    "model_sent",
    "model_teller",
    "outgoing",
    "read_traceparent",
    "secrets_in",
    "set_log_level",
]
