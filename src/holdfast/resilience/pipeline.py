"""
Policies around a call, joined in the one order that makes sense.

::

    Deadline ─▶ Retry ─▶ Hedge ─▶ Breaker ─▶ Rate ─▶ Bulkhead ─▶ Timeout ─▶ the call
                                  └──────── once for each attempt ────────┘

An open circuit costs no tokens, nobody holds a place in a bulkhead while waiting for tokens, and each attempt is timed,
counted and judged by itself. A pipeline belongs to one event loop.
"""

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

from holdfast.clock import NS, Clock
from holdfast.errors import AttemptTimedOut, DeadlineExceeded, Refused
from holdfast.resilience.breaker import Breaker, BreakerGuard
from holdfast.resilience.breaker_shared import SharedBreakerGuard
from holdfast.resilience.bulkhead import Bulkhead, BulkheadGuard
from holdfast.resilience.classify import Failure, FailureClass
from holdfast.resilience.deadline import TimeLimit, remaining_s, within
from holdfast.resilience.guards import NOT_YET, OK, Attempt, Guard, Surroundings
from holdfast.resilience.hedge import Hedge, Hedger
from holdfast.resilience.keys import Call
from holdfast.resilience.notice import Sink, Teller
from holdfast.resilience.order import Policy, check_order, kinds, same_key
from holdfast.resilience.passage import Passage, Way
from holdfast.resilience.rate import Rate, RateGuard
from holdfast.resilience.rate_shared import SharedRateGuard
from holdfast.resilience.recognise import recognise
from holdfast.resilience.retrier import Retrier, recall
from holdfast.resilience.retry import Retry
from holdfast.resilience.streams import Streaming, around, stream
from holdfast.resilience.timeout import Deadline, Timeout

P = ParamSpec("P")
T = TypeVar("T")

Classify = Callable[[BaseException, float], Failure]
"""Judges an exception, given the wall clock's seconds since 1970."""

_ANYTHING = Call()
_CUT_SHORT = Failure(FailureClass.TIMEOUT, None, retryable=True, harmless=False)
_NOT_JUDGED = Failure(FailureClass.UNKNOWN, None, retryable=False, harmless=False)


class Pipeline:
    """
    Policies around calls: ``await pipeline(fn, *args)``, ``@pipeline.wrap``, ``pipeline.on(call).stream(fn, *args)``.

    Args:
        name: Of the pipeline, in refusals, notices and the names of its circuits.
        policies: Outermost first, at most one of each kind. Another order than the one above works, and warns.
        classify: What a failure of the call is. Where it raises, that is noted on the failure, whose class is unknown.
        clock: Where time and chance come from; None makes one.
        sink: Takes in notices; None for nobody.
        max_keys: Keys that each policy keeps apart; see ``KeyTable``.

    Attributes:
        name: Of the pipeline.
        breaker, rate, bulkhead: The guards, for those who look at them or steer them; None where there is none.

    Raises:
        ValueError: there are two of a kind; a deadline is not first, a timeout not last, or a hedge not in between; or
            limits that are shared are to be hedged.
    """

    def __init__(
        self,
        name: str,
        *policies: Policy,
        classify: Classify = recognise,
        clock: Clock | None = None,
        sink: Sink | None = None,
        max_keys: int = 10_000,
    ) -> None:
        check_order(name, policies)
        self.name = name
        self._clock = clock = clock or Clock()
        self._classify = classify
        self.tell = Teller(name, clock, sink)
        at = Surroundings(name, clock, self.tell, max_keys)
        self._deadline: Deadline | None = None
        self._set_timeout(Timeout())
        self._retrier: Retrier | None = None
        self._hedger: Hedger | None = None
        self.breaker: BreakerGuard | None = None
        self.rate: RateGuard | None = None
        self.bulkhead: BulkheadGuard | None = None
        guards: list[Guard] = []
        self._outer: tuple[Guard, ...] = ()
        for policy in policies:
            match policy:
                case Deadline():
                    self._deadline = policy
                case Timeout():
                    self._set_timeout(policy)
                case Retry():
                    self._retrier = Retrier(policy, at)
                    self._outer, guards = tuple(guards), []
                case Hedge():
                    self._hedger = Hedger(policy, at, self._passage, self._attempt_limit, self._once, self._retrier)
                case Breaker():
                    probes = policy.share
                    self.breaker = (
                        BreakerGuard(policy, at) if probes is None else SharedBreakerGuard(policy, at, probes)
                    )
                    guards.append(self.breaker)
                case Rate():
                    share = policy.share
                    self.rate = RateGuard(policy, at) if share is None else SharedRateGuard(policy, at, share)
                    guards.append(self.rate)
                case Bulkhead():
                    self.bulkhead = BulkheadGuard(policy, at)
                    guards.append(self.bulkhead)
        self._guards = tuple(guards)
        self._way = Way(self._guards, clock, self._judge)
        self._outer_way = Way(self._outer, clock, self._judge)
        self._plain = self._deadline is None and not self._outer
        self._policies = policies
        self._calls = 0
        if self.breaker is not None and self.bulkhead is not None and same_key(policies):
            self.breaker.watchers.append(self.bulkhead.moved)

    async def __call__(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call ``fn`` through every policy; the call is about nothing in particular: see ``on``.

        Raises:
            Refused: a policy refused; nothing was sent.
            TimedOut: a limit passed; what was sent may have happened.
            Exception: whatever the last attempt raised, with a note for each attempt.
        """
        return await self.run(_ANYTHING, functools.partial(fn, *args, **kwargs) if args or kwargs else fn)

    def on(self, call: Call) -> "Bound":
        """The same pipeline, for calls about this."""
        return Bound(self, call)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """A decorator: the function, called through every policy."""
        return self.on(_ANYTHING).wrap(fn)

    def guard(self, call: Call = _ANYTHING) -> AbstractAsyncContextManager[Passage]:
        """
        Guard a block: ``async with pipeline.guard(call) as passage``. It is one attempt, within every limit.

        Raises:
            ValueError: the pipeline repeats calls, which a block cannot be.
        """
        if self._retrier is not None or self._hedger is not None:
            raise ValueError(
                f"the pipeline {self.name} repeats calls, so it needs a function to call: use it without guard()"
            )
        return self._block(call)

    @asynccontextmanager
    async def _block(self, call: Call) -> AsyncGenerator[Passage, None]:
        async with self._whole_limit(), self.attempt(call, 1) as passage, self._attempt_limit() or nullcontext():
            yield passage

    def attempt(self, call: Call, number: int) -> Passage:
        """
        One attempt at a call, for those who repeat it themselves with ``again``, and keep its time limits.

        Args:
            call: What it is about.
            number: Which attempt it is, from 1.
        """
        if number == 1:
            self._begin(call)
        return self._way.attempt(call, self._calls, number)  # A repetition has the latest call's number.

    async def again(self, attempt: Attempt, error: BaseException) -> bool:
        """Whether an attempt that ended with ``error`` is to be made again; True only after the wait for it."""
        if self._retrier is None or not isinstance(error, Exception):
            return False
        failure = attempt.failure or self._judge(error, attempt)
        return await self._retrier.again(attempt, failure, error)

    def run(self, call: Call, fn: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """Call ``fn`` through every policy; errors are those of calling the pipeline."""
        # It awaits nothing itself, as each coroutine around a call takes its time.
        return self._tries(call, fn) if self._plain else self._whole(call, fn)

    def stream(self, fn: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, None]:
        """
        Yield what ``fn`` gives: an async iterator, also one that has to be awaited or entered first.

        Until its first part has come it is an attempt like any other, and may be made again; afterwards it is not.
        Close it if you leave it early: ``async with aclosing(pipeline.stream(...)) as parts``.

        Raises:
            Refused, TimedOut: as for a call.
            StreamBroken: it failed after its first part.
            Exception: whatever the last attempt raised before its first part.
        """
        return self.on(_ANYTHING).stream(fn, *args, **kwargs)

    def run_stream(self, call: Call, open: Callable[[], Any]) -> AsyncGenerator[Any, None]:  # noqa: A002 - it does
        """Yield what ``open()`` gives, for a call about ``call``; see ``stream``."""
        deadline = self._deadline
        how = Streaming(
            name=self.name,
            clock=self._clock,
            limits=self._timeout,
            call=call,
            id=self._begin(call),
            passage=self._passage,
            again=self.again,
            late=self._phase_too_slow,
            until=None if deadline is None else self._clock.now() + round(deadline.seconds * NS),
            past=self._past_deadline,
        )
        if not self._outer:
            return stream(how, open)
        outer = self._outer_way.attempt(call, how.id, 1)
        return around(outer, how, open)

    def reconfigure(self, *policies: Policy) -> None:
        """
        Go on with other settings of the same policies, from the next call on. Nothing that was seen or taken is lost.

        Raises:
            ValueError: they are not the same kinds in the same order, by the same keys. Nothing was changed.
        """
        if kinds(policies) != kinds(self._policies):
            raise ValueError(
                f"the pipeline {self.name} keeps its policies, their order and keys; make a new one for others"
            )
        for policy in sorted(policies, key=lambda policy: not isinstance(policy, Rate)):  # It alone may still refuse.
            match policy:
                case Deadline():
                    self._deadline = policy
                case Timeout():
                    self._set_timeout(policy)
                case Retry() if self._retrier is not None:
                    self._retrier.reconfigure(policy)
                case Hedge() if self._hedger is not None:
                    self._hedger.reconfigure(policy)
                case Breaker() if self.breaker is not None:
                    self.breaker.reconfigure(policy)
                case Rate() if self.rate is not None:
                    self.rate.reconfigure(policy)
                case Bulkhead() if self.bulkhead is not None:
                    self.bulkhead.reconfigure(policy)
        self._policies = policies

    async def aclose(self) -> None:
        """
        Wait for attempts that another one has overtaken: they are cancelled already, and have their grace to end.

        Nothing else is held, and the pipeline can be used on.
        """
        if self._hedger is not None:
            await self._hedger.wait_losers()

    async def _whole(self, call: Call, fn: Callable[[], Awaitable[T]]) -> T:
        with self._whole_limit():
            id = self._begin(call)  # noqa: A001 - it is one
            if not self._outer:
                return await self._tries(call, fn, id)
            async with self._outer_way.attempt(call, id, 1):
                return await self._tries(call, fn, id)

    async def _tries(self, call: Call, fn: Callable[[], Awaitable[T]], id: int | None = None) -> T:  # noqa: A002 - it is one
        if id is None:
            id = self._begin(call)  # noqa: A001 - it is one
        number = 1
        notes: tuple[str, ...] = ()
        while True:
            attempt = self._way.attempt(call, id, number)
            try:
                if self._hedger is not None:
                    return await self._hedger.run(attempt, fn)
                # What `_once` does, without its coroutine and its two blocks: nearly every call comes this way.
                limit, span = self._limit, None
                if not attempt.start():
                    await attempt.go_on()
                try:
                    if limit is not None:
                        span = limit.begin(attempt.sent_ns)
                    answer = await fn()
                except BaseException as error:
                    late = None if span is None else span.end(error)
                    attempt.failed(late or error)
                    if late is not None:
                        raise late from error
                    raise
                if span is not None:
                    span.end(None)
                attempt.leave(OK)
                return answer
            except Exception as error:
                if not await self.again(attempt, error):
                    recall(error, notes)
                    raise
                notes = (*notes, error.__notes__[-1])
            number += 1

    async def _once(self, attempt: Passage, fn: Callable[[], Awaitable[T]]) -> T:
        async with attempt, self._attempt_limit() or nullcontext():
            return await fn()

    def _begin(self, call: Call) -> int:
        self._calls += 1
        if self._retrier is not None:
            self._retrier.began(call)
        return self._calls

    def _judge(self, error: BaseException, attempt: Attempt) -> Failure:
        """What a failure is. One that the deadline cut short is slow if it took half of its own time."""
        # A cancellation, and a refusal before anything was sent, are not the call's own failures.
        ours = not isinstance(error, Exception) or (isinstance(error, Refused) and attempt.sent_ns == NOT_YET)
        try:
            failure = (recognise if ours else self._classify)(error, self._clock.wall_ns() / NS)
        except Exception as broken:  # noqa: BLE001 - it is the user's function, and the guards have to be left
            error.add_note(f"classify raised {broken!r}")
            return _NOT_JUDGED
        if failure.kind is FailureClass.CANCELLED and self._timeout.total is not None and attempt.sent_ns != NOT_YET:
            left_s = remaining_s(self._clock)
            lasted_s = (self._clock.now() - attempt.sent_ns) / NS
            if left_s is not None and left_s <= 0 and 2 * lasted_s >= self._timeout.total:
                return _CUT_SHORT
        return failure

    def _set_timeout(self, policy: Timeout) -> None:
        self._timeout = policy
        self._limit = None if policy.total is None else TimeLimit(self._clock, policy.total, self._too_slow)

    def _whole_limit(self) -> within | nullcontext[None]:
        deadline = self._deadline
        return nullcontext() if deadline is None else within(self._clock, deadline.seconds, self._past_deadline)

    def _attempt_limit(self) -> within | None:
        total = self._timeout.total
        return None if total is None else within(self._clock, total, self._too_slow)

    def _passage(self, call: Call, id: int, number: int) -> Passage:  # noqa: A002 - it is one
        return self._way.attempt(call, id, number)

    def _too_slow(self) -> AttemptTimedOut:
        return self._phase_too_slow("total", self._timeout.total or 0.0)

    def _phase_too_slow(self, phase: str, limit_s: float) -> AttemptTimedOut:
        self.tell("timeout.fired", phase=phase)
        return AttemptTimedOut(f"a call of {self.name} took longer than it may: {phase} within {limit_s:.3g} s")

    def _past_deadline(self) -> DeadlineExceeded:
        self.tell("deadline.exceeded")
        return DeadlineExceeded(f"{self.name} did not finish before its deadline")


class Bound:
    """A pipeline, for calls about one thing."""

    __slots__ = ("_call", "_pipeline")

    def __init__(self, pipeline: Pipeline, call: Call) -> None:
        self._pipeline = pipeline
        self._call = call

    async def __call__(self, fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn`` through every policy; errors are those of calling the pipeline."""
        return await self._pipeline.run(self._call, functools.partial(fn, *args, **kwargs) if args or kwargs else fn)

    def wrap(self, fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """A decorator: the function, called through every policy."""
        run, call = self._pipeline.run, self._call

        @functools.wraps(fn)
        async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            return await run(call, functools.partial(fn, *args, **kwargs) if args or kwargs else fn)

        return wrapped

    def stream(self, fn: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, None]:
        """Yield what ``fn`` gives, through every policy; see ``Pipeline.stream``."""
        return self._pipeline.run_stream(self._call, functools.partial(fn, *args, **kwargs))

    def guard(self) -> AbstractAsyncContextManager[Passage]:
        """Guard a block; see ``Pipeline.guard``."""
        return self._pipeline.guard(self._call)
