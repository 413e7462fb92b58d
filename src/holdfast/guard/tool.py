"""
The tool crossing: what every attempt at a tool call passes through, in order.

    deadline ▸ what the journal knows of it ▸ tell that it starts ▸ the monitor ▸ breaker ▸ rate ▸ bulkhead ▸
    keep that it begins ▸ time limit ▸ the call ▸ leave the policies with how it ended ▸ tell how it ended ▸
    keep how it ended ▸ the monitor is told
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from holdfast.clock import NS
from holdfast.errors import AttemptTimedOut, DeadlineExceeded, StoppedPartial
from holdfast.events import Emit, ToolFinished, ToolStarted, Usage
from holdfast.guard.policies import Policies, Who
from holdfast.guard.status import OK, ending_of
from holdfast.guard.watch import Watch
from holdfast.journal import (
    JSON,
    ONCE,
    STOPS,
    UNKEPT,
    Asked,
    Codec,
    Declared,
    Entry,
    Unkept,
    canonical,
    current_key,
    digest_of,
    encode_json,
    inside,
    unicode,
)
from holdfast.resilience import Call, remaining_s, within

T = TypeVar("T")

SHOWN_CHARS = 2_000
"""Characters of a tool's result that its event carries."""


class ToolCrossing:
    """
    The way of one turn's tool calls into the world.

    Attributes:
        calls: Tool calls that were started.
    """

    __slots__ = ("_book", "_clock", "_emit", "_policies", "_usage", "_watch", "_who", "calls")

    def __init__(
        self,
        policies: Policies,
        emit: Emit,
        who: Who,
        book: Unkept = UNKEPT,
        watch: Watch | None = None,
        usage: Callable[[], Usage] = Usage,
    ) -> None:
        self._watch = watch
        self._usage = usage
        self._policies = policies
        self._clock = policies.clock
        self._emit = emit
        self._who = who
        self._book = book
        self.calls = 0

    async def __call__(
        self,
        name: str,
        args: Mapping[str, Any],
        call_id: str,
        call: Callable[[], Awaitable[T]],
        *,
        declared: Declared | None = None,
        codec: Codec = JSON,
    ) -> T:
        """
        Make one attempt at a tool call; one that the journal knows the end of is not made again.

        Args:
            name: The tool's name, as registered.
            args: Its arguments, checked already.
            call_id: Names this call within the turn; the framework's own id where it has one.
            call: Runs the tool.
            declared: What the tool does to the world, where its own code says so; settings go before it.
            codec: How what it returns and raises is kept.

        Raises:
            DeadlineExceeded: the turn had no time left; the tool was not run.
            Blocked: the monitor answers in the tool's place; the tool was not run.
            StoppedPartial: the monitor has ended the turn; the tool was not run.
            Refused: a breaker, rate limit or bulkhead said no; the tool was not run.
            AttemptTimedOut: the tool took longer than it may and was cancelled; its effect may have happened.
            InDoubt, Diverged, HandedOver, NotOwner: the turn must not go on here; the tool was not run.
            StoreUnavailable: the journal could not keep the call. It was not run, or what it returned is not known.
            Exception: whatever ``call`` raised.
        """
        left = remaining_s(self._clock)
        stopped = self._watch is not None and self._watch.stopped is not None
        if stopped or (left is not None and left <= 0):
            await asyncio.sleep(0)  # An agent that takes no error for an answer must not keep the loop to itself.
        if left is not None and left <= 0:
            raise DeadlineExceeded
        watch = None if inside.get() else self._watch  # What runs inside of a call is that call's affair.
        if watch is None:
            return await self._crossed(name, args, call_id, call, declared, codec, None)
        watch.began()
        started = self._clock.now()
        try:
            result = await self._crossed(name, args, call_id, call, declared, codec, watch)
        except BaseException as error:
            watch.ended(name, args, call_id, self._usage(), self._lasted_s(started), error=error)
            raise
        shown = _shown(result) if watch.by_calls else ""
        watch.ended(name, args, call_id, self._usage(), self._lasted_s(started), shown)
        return result

    async def _crossed(
        self,
        name: str,
        args: Mapping[str, Any],
        call_id: str,
        call: Callable[[], Awaitable[T]],
        declared: Declared | None,
        codec: Codec,
        watch: Watch | None,
    ) -> T:
        """The way of a call from and to the journal."""
        sent, request = encode_json(dict(args)), digest_of(name.encode(), canonical(dict(args)))
        about = self._policies.effect_of(name) or declared or ONCE
        entry = await self._book.open(Asked("tool", name, call_id, request, about, codec, sent))
        known = entry.result is not None or entry.failure is not None
        if watch is not None:
            watch.tell(again=known)
        if known:
            self.calls += 1
            if entry.result is not None:
                return codec.decode(entry.result)  # type: ignore[no-any-return]  # it is what `call` returned before
            raise codec.decode_failure(entry.failure or b"")
        self._emit(ToolStarted(call_id=call_id, tool=name, args=msgspec.Raw(sent)))
        try:
            result = await self._made(name, args, call_id, call, entry, watch)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, (StoppedPartial, *STOPS)):
                await entry.failed(codec.encode_failure(error))
            else:
                entry.cut_short()
            raise
        await entry.done(codec.encode(result))
        return result

    async def _made(
        self,
        name: str,
        args: Mapping[str, Any],
        call_id: str,
        call: Callable[[], Awaitable[T]],
        entry: Entry,
        watch: Watch | None,
    ) -> T:
        """The call itself, past the monitor and through the policies."""
        started = self._clock.now()
        ending = OK
        shown = ""
        try:
            if watch is not None:
                await watch.before_call(name, args, call_id)
            about = Call(tool=name, user=self._who.user, agent=self._who.agent)
            limit_s = self._policies.tool_s(name)
            async with self._policies.tool.guard(about):
                await entry.begin()
                above, key = inside.set(entry.path), current_key.set(entry.key)
                try:
                    async with within(self._clock, limit_s, lambda: self._too_slow(name, limit_s)):
                        self.calls += 1
                        result = await call()
                finally:
                    inside.reset(above)
                    current_key.reset(key)
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
                    duration_s=self._lasted_s(started),
                    result=shown,
                    error=ending.error,
                )
            )

    def _lasted_s(self, since_ns: int) -> float:
        return (self._clock.now() - since_ns) / NS

    @staticmethod
    def _too_slow(name: str, limit_s: float) -> AttemptTimedOut:
        return AttemptTimedOut(f"the tool {name} took longer than {limit_s:g} s and was stopped")


def _shown(result: object) -> str:
    text = result if isinstance(result, str) else encode_json(result).decode()
    return unicode(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…")
