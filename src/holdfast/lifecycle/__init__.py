"""The life of the process: what state it is in, how it is, and how it ends."""

from holdfast.lifecycle.drain import Drain, Phase
from holdfast.lifecycle.health import Check, Component, Health, Report
from holdfast.lifecycle.spec import ShutdownSpec

__all__ = ["Check", "Component", "Drain", "Health", "Phase", "Report", "ShutdownSpec"]
