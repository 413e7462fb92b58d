"""
The model crossing: what every attempt at a model call passes through, in order.

    deadline ▸ what the journal knows of it ▸ tell that it starts ▸ budget ▸ breaker ▸ rate ▸ bulkhead ▸ keep that it
    begins ▸ time limit ▸ the call ▸ count what it used ▸ leave the policies with how it ended ▸ settle the budget ▸
    tell how it ended ▸ keep how it ended ▸ again, if it failed and that may help
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from holdfast.budget import Booking, Estimate, Price, TurnBudget
from holdfast.clock import NS
from holdfast.errors import (
    AttemptTimedOut,
    BudgetExhausted,
    DeadlineExceeded,
    HoldfastError,
    PriceUnknown,
    Refused,
    TimedOut,
)
from holdfast.events import Emit, FallbackUsed, ModelFinished, ModelStarted, Usage
from holdfast.guard.attempt import Attempt, Degraded, ModelKey
from holdfast.guard.policies import Policies, Who
from holdfast.guard.status import OK, Ending, ending_of
from holdfast.guard.watch import Watch
from holdfast.journal import JSON, PURE, STOPS, UNKEPT, Asked, Entry, Unkept
from holdfast.resilience import (
    ENDED_WELL,
    NOT_YET,
    TREATMENTS,
    Call,
    FailureClass,
    Passage,
    PolicyAttempt,
    remaining_s,
    within,
)
from holdfast.telemetry import model_sent

T = TypeVar("T")

_TOKENS = "tokens"


class ModelCrossing:
    """
    The way of one turn's model calls to the provider.

    Attributes:
        calls: Attempts that were sent.
        latest_model: The model of the latest attempt, or None before the first.
        degraded: Who answered the latest call that was answered, if it was not the model that was meant to.
        known: Whether the latest call was answered by the journal, so that nobody need be told of it again.
        input_tokens: Sum over the attempts that ended.
        output_tokens: Sum over the attempts that ended.
        watch: The monitor of the turn; None where nobody looks.
        cost_nanos: Sum over the attempts that ended, as far as prices are known.
    """

    __slots__ = (
        "_attempts",
        "_because",
        "_book",
        "_budget",
        "_clock",
        "_emit",
        "_failed",
        "_failure",
        "_latest",
        "_next",
        "_pipeline",
        "_spec",
        "_who",
        "calls",
        "cost_nanos",
        "degraded",
        "input_tokens",
        "known",
        "latest_model",
        "output_tokens",
        "watch",
    )

    def __init__(
        self, policies: Policies, emit: Emit, who: Who, book: Unkept = UNKEPT, budget: TurnBudget | None = None
    ) -> None:
        self.watch: Watch | None = None
        self._budget = budget or policies.budget_of(who)
        self._spec = policies.spec
        self._clock = policies.clock
        self._book = book
        self._pipeline = policies.model
        self._emit = emit
        self._who = who
        self._latest: Attempt | None = None
        self._failed: dict[str, PolicyAttempt] = {}
        self._next: dict[str, int] = {}
        self._because: str | None = None
        self._failure: FailureClass | None = None
        self._attempts = 0
        self.calls = 0
        self.latest_model: str | None = None
        self.degraded: Degraded | None = None
        self.known = False
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_nanos = 0

    async def __call__(
        self, key: ModelKey, estimate: Estimate | None, call: Callable[[Attempt], Awaitable[T]], request: bytes = b""
    ) -> T:
        """
        Make a model call, again where that may help.

        Args:
            key: Which model.
            estimate: What the call may use, or None where nobody knows.
            call: Sends the request, unless the attempt knows the answer from ``before``. It is handed the attempt, to
                say what was used, and to leave its ``answer`` for the journal.
            request: Digest of what is asked, the same whenever the agent asks for this; empty for a call that is made
                whenever it is asked for.

        Raises:
            DeadlineExceeded: the turn had no time left; nothing was sent.
            BudgetExhausted: a budget has no room for it; nothing was sent by this attempt.
            PriceUnknown: money is limited, and nobody knows what the model costs; nothing was sent.
            Refused: a breaker, rate limit or bulkhead said no; nothing was sent by this attempt.
            Diverged, HandedOver, NotOwner, StoppedPartial: the turn must not go on here; nothing was sent.
            StoreUnavailable: the journal could not keep the call.
            AttemptTimedOut: the last attempt took longer than ``model_s`` and was cancelled; it may have been billed.
            Exception: whatever ``call`` raised the last time.
        """
        while True:
            try:
                return await self._once(key, estimate, call, request)
            except Exception as error:
                if not await self.again(key, error):
                    raise

    async def _once(
        self, key: ModelKey, estimate: Estimate | None, call: Callable[[Attempt], Awaitable[T]], request: bytes
    ) -> T:
        limit_s = self._spec.model_s
        async with (
            self._attempt(key, estimate, limit_s, request) as attempt,
            within(self._clock, limit_s, self._too_slow),
        ):
            return await call(attempt)

    def stream(
        self, key: ModelKey, estimate: Estimate | None, request: bytes = b""
    ) -> AbstractAsyncContextManager[Attempt]:
        """
        Make one attempt at a streamed model call: the block opens the stream, reads it and closes it.

        The block keeps the limits of ``stream_limits`` itself, as only it knows when it waits for the provider and
        when for its own reader. Arguments and errors are those of an unstreamed attempt. Whoever makes it asks
        ``again`` after a failure before the first token; afterwards nothing may be made again.
        """
        return self._attempt(key, estimate, min(self.stream_limits()), request)

    async def again(self, key: ModelKey, error: Exception) -> bool:
        """Whether the call that has just failed is to be made again, at the same model; True only after the wait."""
        attempt = self._failed.pop(key.target, None)
        if attempt is None or not await self._pipeline.again(attempt, error):
            return False
        self._next[attempt.call.target] = attempt.number + 1
        return True

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit on tokens or money, so that an estimate is worth making."""
        return self._limits_rate or self._budget.counts_tokens

    @property
    def _limits_rate(self) -> bool:
        return self._spec.model_tokens_per_minute is not None

    def may_ask_another(self) -> bool:
        """Whether the latest failure is one that another model may not have, and there is time to ask it."""
        left = remaining_s(self._clock)
        return self._failure is not None and TREATMENTS[self._failure].fallback and (left is None or left > 0)

    @asynccontextmanager
    async def _attempt(
        self, key: ModelKey, estimate: Estimate | None, silent_s: float, request: bytes
    ) -> AsyncIterator[Attempt]:
        """The way of every attempt, from and to the journal."""
        left = remaining_s(self._clock)
        if left is not None and left <= 0:
            await asyncio.sleep(0)  # So that it is cancelled, whatever its agent makes of the error.
            raise DeadlineExceeded
        book = self._book if request else UNKEPT
        entry = await book.open(Asked("model", key.model, request.hex(), request, PURE, JSON))
        self.known = entry.result is not None
        if self.watch is not None:
            self.watch.tell(again=self.known)
        if self.known:
            yield self._answered_before(entry)
            return
        attempt: Attempt | None = None
        try:
            async with self._sent(key, estimate, silent_s, entry) as attempt:
                yield attempt
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, STOPS):
                await entry.failed(b"", _usage(attempt))
            else:
                entry.cut_short()
            raise
        if attempt.answer is None:
            await entry.failed(b"", _usage(attempt))  # Nobody could be given it again: it is asked for again.
        else:
            await entry.done(attempt.answer, _usage(attempt))

    def _answered_before(self, entry: Entry) -> Attempt:
        self.calls += entry.usage.model_calls
        self.input_tokens += entry.usage.input_tokens
        self.output_tokens += entry.usage.output_tokens
        self.cost_nanos += entry.usage.cost_nanos
        self._budget.replayed(entry.usage)
        self.latest_model = entry.name
        return Attempt(self._clock, entry.result)

    @asynccontextmanager
    async def _sent(
        self, key: ModelKey, estimate: Estimate | None, silent_s: float, entry: Entry
    ) -> AsyncIterator[Attempt]:
        """The way of an attempt that is sent; ``silent_s`` is how long it may take until some of its answer came."""
        self._attempts += 1
        number = self._attempts
        self.latest_model = key.model
        attempt = self._latest = Attempt(self._clock)
        asked_ns = attempt.started_ns
        passage = self._pipeline.attempt(self._about(key, estimate), self._next.pop(key.target, 1))
        self._emit(ModelStarted(call=number, provider=key.provider, model=key.model))
        ending, booking, sent = OK, None, False
        try:
            booking = await self._reserve(key, estimate)
            await passage.enter()
            await entry.begin()
            sent = True
            self.calls += 1
            attempt.started_ns = self._clock.now()
            model_sent(number)
            yield attempt
            self._answered(key, attempt, passage)
        except BaseException as raised:
            ending = ending_of(raised, self._clock)
            late = None
            if passage.sent_ns != NOT_YET and isinstance(raised, asyncio.CancelledError | GeneratorExit):
                if ending.status == "cancelled" and self._ran_out(attempt, asked_ns, silent_s):
                    late = self._too_slow()
                    ending = Ending("timeout", late.code)
                elif ending.status == "timeout" and 2 * self._lasted_s(attempt.started_ns) >= self._spec.model_s:
                    late = self._too_slow()  # The turn had no more time for it, and it has had half of its own.
            self._gone_wrong(attempt, passage, late or raised)
            raise
        finally:
            self.input_tokens += attempt.input_tokens
            self.output_tokens += attempt.output_tokens
            cost = self._pay(booking, attempt, ending, sent=sent)
            first = attempt.first_token_ns
            self._emit(
                ModelFinished(
                    call=number,
                    provider=key.provider,
                    model=key.model,
                    status=ending.status,
                    duration_s=self._lasted_s(attempt.started_ns),
                    first_token_s=None if first is None else (first - attempt.started_ns) / NS,
                    input_tokens=attempt.input_tokens,
                    output_tokens=attempt.output_tokens,
                    cache_read_tokens=attempt.cache_read_tokens,
                    cache_write_tokens=attempt.cache_write_tokens,
                    reasoning_tokens=attempt.reasoning_tokens,
                    cost_nanos=cost,
                    error=ending.error,
                )
            )

    async def _reserve(self, key: ModelKey, estimate: Estimate | None) -> Booking:
        try:
            return await self._budget.reserve(key.provider, key.model, estimate)
        except (BudgetExhausted, PriceUnknown) as no:
            _not_the_models_fault(no)
            raise

    def _pay(self, booking: Booking | None, attempt: Attempt, ending: Ending, *, sent: bool) -> int | None:
        """
        Settle what the attempt reserved. Returns what it cost, or None where nobody knows.

        One that was sent, and of which nobody says what it used, may have used all that it reserved; but not one that
        the provider refused.
        """
        if booking is None:
            return None
        attempt.cost_nanos = _cost(booking.price, attempt)
        self.cost_nanos += attempt.cost_nanos
        refused = ending.status == "error" and attempt.first_token_ns is None
        unknown = sent and not refused and attempt.input_tokens + attempt.output_tokens == 0
        self._budget.settle(booking, None if unknown else _usage(attempt), answered=ending is OK)
        return None if booking.price is None else attempt.cost_nanos

    def _answered(self, key: ModelKey, attempt: Attempt, passage: Passage) -> None:
        self._settle(attempt, passage, attempt.input_tokens + attempt.output_tokens or None)
        passage.leave(ENDED_WELL)
        self.degraded = None
        if key.standby and self._because is not None:
            self.degraded = Degraded(key.model, self._because)
            self._emit(FallbackUsed(via=self.degraded.via, because=self._because))

    def _gone_wrong(self, attempt: Attempt, passage: Passage, error: BaseException) -> None:
        nothing = attempt.first_token_ns is None and isinstance(error, Exception) and not isinstance(error, TimedOut)
        self._settle(attempt, passage, attempt.input_tokens + attempt.output_tokens or (0 if nothing else None))
        passage.failed(error)
        if passage.failure is not None:
            self._failure = passage.failure.kind
            self._because = error.code if isinstance(error, Refused) else self._failure.value
        self._failed[passage.call.target] = passage

    def stream_limits(self) -> tuple[float, float]:
        """
        Seconds a streamed attempt may take to its first token, and to its end.

        The turn's deadline is not among them: it stops the attempt from outside, as it stops everything.
        """
        return self._spec.first_token_s, self._spec.model_s

    def _ran_out(self, attempt: Attempt, asked_ns: int, silent_s: float) -> bool:
        """
        Whether an attempt that was cancelled had used up its limit, and was cancelled for that.

        A framework that keeps the limits starts its timer when it asks: before a place was waited for, and a little
        before we hear of it. Nine tenths are enough.
        """
        limit_s = silent_s if attempt.first_token_ns is None else self._spec.model_s
        return self._lasted_s(asked_ns) >= 0.9 * limit_s

    def _lasted_s(self, since_ns: int) -> float:
        return (self._clock.now() - since_ns) / NS

    def first_token(self) -> None:
        """The latest attempt's answer has begun to arrive; for adapters that learn it away from the attempt."""
        if self._latest is not None:
            self._latest.first_token()

    def _too_slow(self) -> AttemptTimedOut:
        return AttemptTimedOut(f"a model call took longer than {self._spec.model_s:g} s")

    def _about(self, key: ModelKey, estimate: Estimate | None) -> Call:
        tokens = 0 if estimate is None else estimate.input_tokens + (estimate.output_tokens or 0)
        return Call(
            target=key.target,
            credential=f"{key.provider}@{key.credential}",
            user=self._who.user,
            agent=self._who.agent,
            repeatable=True,
            elsewhere=key.elsewhere,
            costs={_TOKENS: min(tokens or 1, self._spec.model_tokens_per_minute or 1)},
        )

    def _settle(self, attempt: Attempt, passage: Passage, used: int | None) -> None:
        """
        Tell when it began to answer, and how many of the reserved tokens it took; None where nobody knows.

        A request that the provider refused took none; one that was not waited for may have taken all of them.
        """
        passage.first_ns = NOT_YET if attempt.first_token_ns is None else attempt.first_token_ns
        if used is not None and self._limits_rate:
            passage.adjust(tokens=used)


def _usage(attempt: Attempt | None) -> Usage:
    if attempt is None:
        return Usage()
    return Usage(
        model_calls=1,
        input_tokens=attempt.input_tokens,
        output_tokens=attempt.output_tokens,
        cost_nanos=attempt.cost_nanos,
    )


def _cost(price: Price | None, attempt: Attempt) -> int:
    if price is None:
        return 0
    return price.cost(
        attempt.input_tokens, attempt.output_tokens, attempt.cache_read_tokens, attempt.cache_write_tokens
    )


def _not_the_models_fault(no: HoldfastError) -> None:
    """No other model would be let through, nor the same one later in this turn."""
    no.failure_class = FailureClass.CANCELLED  # type: ignore[attr-defined]  # what `recognise` looks for
