"""Labels that several metrics share. What is outside of a label's values is told as ``OTHER``."""

from typing import get_args

from holdfast.events import OUTCOMES, CallStatus
from holdfast.telemetry.terms import Label

OTHER = "_other"
"""Stands for every label value outside its closed set."""

AGENT = Label("agent", 30)
TOOL = Label("tool", 60)
PROVIDER = Label("provider", 5)
MODEL = Label("model", 12)
OUTCOME = Label("outcome", len(OUTCOMES), OUTCOMES)
STATUS = Label("status", len(get_args(CallStatus)), get_args(CallStatus))

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""Bucket edges of durations: the 2 s and 30 s of the service level objectives are among them."""
