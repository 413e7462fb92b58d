"""
A model provider simulator over real HTTP: three wire formats, streaming, scripts, latency, and faults on demand.

    async with Simulator("rules.yaml") as sim:
        client = AsyncAnthropic(base_url=sim.url, api_key="x", max_retries=0)
"""

from holdfast.sim.dialogue import Call, MadeCall, Message, Request, Usage
from holdfast.sim.faults import (
    EVERY_FAULT,
    BadGateway,
    ContextTooLong,
    Fault,
    Hang,
    MalformedToolArgs,
    NotFound,
    Overloaded,
    Quota,
    RateLimited,
    Reset,
    ServerError,
    SlowFirstToken,
    Stall,
    StreamError,
    Truncated,
    Unauthorized,
)
from holdfast.sim.latency import Latency
from holdfast.sim.record import Record
from holdfast.sim.rules import Reply, Rule, Script, When
from holdfast.sim.simulator import Simulator
from holdfast.sim.threaded import running_simulator

__all__ = [
    "EVERY_FAULT",
    "BadGateway",
    "Call",
    "ContextTooLong",
    "Fault",
    "Hang",
    "Latency",
    "MadeCall",
    "MalformedToolArgs",
    "Message",
    "NotFound",
    "Overloaded",
    "Quota",
    "RateLimited",
    "Record",
    "Reply",
    "Request",
    "Reset",
    "Rule",
    "Script",
    "ServerError",
    "Simulator",
    "SlowFirstToken",
    "Stall",
    "StreamError",
    "Truncated",
    "Unauthorized",
    "Usage",
    "When",
    "running_simulator",
]
