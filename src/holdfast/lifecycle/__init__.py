"""The life of the process: what state it is in, how it is, and how it ends."""

from holdfast.lifecycle.checks import Target, disk_check, loop_check, model_check, tools_check
from holdfast.lifecycle.drain import Drain, Phase
from holdfast.lifecycle.health import Check, Component, Finding, Health, Report, State, worst
from holdfast.lifecycle.hooks import Close, Failure, Hooks
from holdfast.lifecycle.spec import HealthSpec, ShutdownSpec

__all__ = [
    "Check",
    "Close",
    "Component",
    "Drain",
    "Failure",
    "Finding",
    "Health",
    "HealthSpec",
    "Hooks",
    "Phase",
    "Report",
    "ShutdownSpec",
    "State",
    "Target",
    "disk_check",
    "loop_check",
    "model_check",
    "tools_check",
    "worst",
]
