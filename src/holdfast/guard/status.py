"""How a call ended, in one word."""

import asyncio

from holdfast.clock import Clock
from holdfast.errors import Denied, HoldfastError, Refused, TimedOut
from holdfast.events import CallStatus
from holdfast.resilience import remaining_s


def status_of(error: BaseException, clock: Clock) -> CallStatus:
    """The status of a call that raised ``error``. A call cancelled as the deadline around it passed has timed out."""
    if isinstance(error, TimedOut):
        return "timeout"
    if isinstance(error, Denied):
        return "denied"
    if isinstance(error, Refused):
        return "rejected"
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        left = remaining_s(clock)
        return "timeout" if left is not None and left <= 0 else "cancelled"
    return "error"


def code_of(error: BaseException) -> str:
    """A stable name for ``error``: its code where it is ours, else its class. Its text may quote content."""
    return error.code if isinstance(error, HoldfastError) else type(error).__name__
