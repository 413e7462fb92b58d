"""
The catalogue: everything that is told about the running process, each as one object.

A module ``catalogue_*`` holds the entries of one part as constants, made of what is in ``terms``; a new module is added
to ``PARTS``. Whoever counts, traces, renders or checks takes the objects from here.
"""

from holdfast.telemetry import (
    catalogue_calls,
    catalogue_events,
    catalogue_logs,
    catalogue_monitor,
    catalogue_policies,
    catalogue_process,
    catalogue_spans,
    catalogue_turns,
)
from holdfast.telemetry.terms import Alias, Attribute, Label, LogEvent, Metric, Span, TraceEvent, collect

__all__ = [
    "LOG_EVENTS",
    "METRICS",
    "SPANS",
    "TRACE_EVENTS",
    "Alias",
    "Attribute",
    "Label",
    "LogEvent",
    "Metric",
    "Span",
    "TraceEvent",
]

PARTS = (
    catalogue_turns,
    catalogue_calls,
    catalogue_policies,
    catalogue_process,
    catalogue_spans,
    catalogue_logs,
    catalogue_events,
    catalogue_monitor,
)

METRICS: tuple[Metric, ...] = collect(Metric, PARTS)
SPANS: tuple[Span, ...] = collect(Span, PARTS)
LOG_EVENTS: tuple[LogEvent, ...] = collect(LogEvent, PARTS)
TRACE_EVENTS: tuple[TraceEvent, ...] = collect(TraceEvent, PARTS)
