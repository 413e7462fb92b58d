"""
The tool crossing: what every attempt at a tool call passes through, in order.

    deadline ▸ tell that it starts ▸ breaker ▸ rate ▸ bulkhead ▸ time limit ▸ the call ▸
    leave the policies with how it ended ▸ tell how it ended
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from holdfast.clock import NS
from holdfast.errors import AttemptTimedOut, DeadlineExceeded
from holdfast.events import Emit, ToolFinished, ToolStarted
from holdfast.guard.policies import Policies, Who
from holdfast.guard.status import OK, ending_of
from holdfast.resilience import Call, remaining_s, within

T = TypeVar("T")

SHOWN_CHARS = 2_000
"""Characters of a tool's result that its event carries."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


def _json(value: object) -> bytes:
    """``value`` as JSON; what JSON cannot hold is told by its own ``str``, or else by its type."""
    with suppress(Exception):  # What a tool is given or returns may raise anything when it is looked at.
        return _encode(value)
    with suppress(Exception):
        return _encode(_unicode(str(value)))
    return _encode(f"<{type(value).__name__}>")


def _unicode(text: str) -> str:
    """``text`` as UTF-8 can hold it: half a surrogate pair becomes a question mark."""
    return text.encode(errors="replace").decode()


class ToolCrossing:
    """
    The way of one turn's tool calls into the world.

    Attributes:
        calls: Tool calls that were started.
    """

    __slots__ = ("_clock", "_emit", "_policies", "_who", "calls")

    def __init__(self, policies: Policies, emit: Emit, who: Who) -> None:
        self._policies = policies
        self._clock = policies.clock
        self._emit = emit
        self._who = who
        self.calls = 0

    async def __call__(self, name: str, args: Mapping[str, Any], call_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """
        Make one attempt at a tool call.

        Args:
            name: The tool's name, as registered.
            args: Its arguments, checked already.
            call_id: Names this call within the turn; the framework's own id where it has one.
            call: Runs the tool.

        Raises:
            DeadlineExceeded: the turn had no time left; the tool was not run.
            Refused: a breaker, rate limit or bulkhead said no; the tool was not run.
            AttemptTimedOut: the tool took longer than it may and was cancelled; its effect may have happened.
            Exception: whatever ``call`` raised.
        """
        left = remaining_s(self._clock)
        if left is not None and left <= 0:
            raise DeadlineExceeded
        started = self._clock.now()
        self._emit(ToolStarted(call_id=call_id, tool=name, args=msgspec.Raw(_json(dict(args)))))
        ending = OK
        shown = ""
        try:
            about = Call(tool=name, user=self._who.user, agent=self._who.agent)
            limit_s = self._policies.tool_s(name)
            async with (
                self._policies.tool.guard(about),
                within(self._clock, limit_s, lambda: self._too_slow(name, limit_s)),
            ):
                self.calls += 1
                result = await call()
            shown = _shown(result)
            return result
        except BaseException as raised:
            ending = ending_of(raised, self._clock)
            raise
        finally:
            self._emit(
                ToolFinished(
                    call_id=call_id,
                    tool=name,
                    status=ending.status,
                    duration_s=(self._clock.now() - started) / NS,
                    result=shown,
                    error=ending.error,
                )
            )

    @staticmethod
    def _too_slow(name: str, limit_s: float) -> AttemptTimedOut:
        return AttemptTimedOut(f"the tool {name} took longer than {limit_s:g} s and was stopped")


def _shown(result: object) -> str:
    text = result if isinstance(result, str) else _json(result).decode()
    return _unicode(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…")
