"""How a call ended, in one word and one code."""

import asyncio
from typing import NamedTuple

from holdfast.clock import Clock
from holdfast.errors import DeadlineExceeded, Denied, HoldfastError, Refused, TimedOut
from holdfast.events import CallStatus
from holdfast.resilience import remaining_s


class Ending(NamedTuple):
    """
    How a call ended.

    Attributes:
        status: In one word.
        error: A stable name: the error's code where it is ours, else its class, as its text may quote content.
    """

    status: CallStatus
    error: str | None = None


OK = Ending("ok")


def ending_of(error: BaseException, clock: Clock) -> Ending:
    """How a call ended that raised ``error``. One cancelled as the deadline around it passed has timed out."""
    code = error.code if isinstance(error, HoldfastError) else type(error).__name__
    match error:
        case TimedOut():
            return Ending("timeout", code)
        case Denied():
            return Ending("denied", code)
        case Refused():
            return Ending("rejected", code)
        case asyncio.CancelledError() | GeneratorExit():
            left = remaining_s(clock)
            passed = left is not None and left <= 0
            return Ending("timeout", DeadlineExceeded.code) if passed else Ending("cancelled", code)
        case _:
            return Ending("error", code)
