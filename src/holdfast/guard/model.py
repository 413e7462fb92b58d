"""
The model crossing: what every attempt at a model call passes through, in order.

    deadline ▸ tell that it starts ▸ time limit ▸ the call ▸ count what it used ▸ tell how it ended
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, TypeVar

from holdfast.clock import NS, Clock
from holdfast.errors import AttemptTimedOut, DeadlineExceeded
from holdfast.events import Emit, ModelFinished, ModelStarted
from holdfast.guard.spec import GuardSpec
from holdfast.guard.status import OK, Ending, ending_of
from holdfast.resilience import remaining_s, within

T = TypeVar("T")


class ModelKey(NamedTuple):
    """Which model is called: what limits and statistics are kept by."""

    provider: str
    model: str


class Attempt:
    """
    One attempt at a model call, told by the adapter how it goes.

    Attributes:
        started_ns: When it began, on the guard's clock.
        first_token_ns: When the first token came, on the guard's clock; None until then and for unstreamed answers.
        input_tokens: As the provider counted them, as far as it said.
        output_tokens: The same for the answer.
    """

    __slots__ = ("_clock", "first_token_ns", "input_tokens", "output_tokens", "started_ns")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_ns = clock.now()
        self.first_token_ns: int | None = None
        self.input_tokens = 0
        self.output_tokens = 0

    def first_token(self) -> None:
        """Something of the answer has arrived. Calling it again changes nothing."""
        if self.first_token_ns is None:
            self.first_token_ns = self._clock.now()

    def used(self, input_tokens: int, output_tokens: int) -> None:
        """What the provider says the attempt used so far: the latest call wins."""
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens


class ModelCrossing:
    """
    The way of one turn's model calls to the provider.

    Attributes:
        calls: Attempts that were started.
        latest_model: The model of the latest attempt, or None before the first.
        input_tokens: Sum over the attempts that ended.
        output_tokens: Sum over the attempts that ended.
    """

    __slots__ = ("_clock", "_emit", "_latest", "_spec", "calls", "input_tokens", "latest_model", "output_tokens")

    def __init__(self, spec: GuardSpec, clock: Clock, emit: Emit) -> None:
        self._spec = spec
        self._clock = clock
        self._emit = emit
        self._latest: Attempt | None = None
        self.calls = 0
        self.latest_model: str | None = None
        self.input_tokens = 0
        self.output_tokens = 0

    async def __call__(self, key: ModelKey, estimate: int | None, call: Callable[[Attempt], Awaitable[T]]) -> T:
        """
        Make one attempt at a model call.

        Args:
            key: Which model.
            estimate: Tokens the request is thought to need, or None where nobody knows.
            call: Sends the request. It is handed the attempt, to say what was used.

        Raises:
            DeadlineExceeded: the turn had no time left; nothing was sent.
            AttemptTimedOut: the attempt took longer than ``model_s`` and was cancelled; it may have been billed.
            Exception: whatever ``call`` raised.
        """
        limit_s = self._spec.model_s
        async with self._attempt(key, estimate, limit_s) as attempt, within(self._clock, limit_s, self._too_slow):
            return await call(attempt)

    def stream(self, key: ModelKey, estimate: int | None) -> AbstractAsyncContextManager[Attempt]:
        """
        Make one attempt at a streamed model call: the block opens the stream, reads it and closes it.

        The block keeps the limits of ``stream_limits`` itself, as only it knows when it waits for the provider and
        when for its own reader. Arguments and errors are those of an unstreamed attempt.
        """
        return self._attempt(key, estimate, min(self.stream_limits()))

    @asynccontextmanager
    async def _attempt(self, key: ModelKey, estimate: int | None, silent_s: float) -> AsyncIterator[Attempt]:
        """The way of every attempt; ``silent_s`` is how long it may take until something of its answer has come."""
        del estimate
        left = remaining_s(self._clock)
        if left is not None and left <= 0:
            raise DeadlineExceeded
        self.calls += 1
        number = self.calls
        self.latest_model = key.model
        attempt = self._latest = Attempt(self._clock)
        self._emit(ModelStarted(call=number, provider=key.provider, model=key.model))
        ending = OK
        try:
            yield attempt
        except BaseException as raised:
            ending = ending_of(raised, self._clock)
            if ending.status == "cancelled" and self._ran_out(attempt, silent_s):
                ending = Ending("timeout", AttemptTimedOut.code)
            raise
        finally:
            self.input_tokens += attempt.input_tokens
            self.output_tokens += attempt.output_tokens
            first = attempt.first_token_ns
            self._emit(
                ModelFinished(
                    call=number,
                    provider=key.provider,
                    model=key.model,
                    status=ending.status,
                    duration_s=(self._clock.now() - attempt.started_ns) / NS,
                    first_token_s=None if first is None else (first - attempt.started_ns) / NS,
                    input_tokens=attempt.input_tokens,
                    output_tokens=attempt.output_tokens,
                    error=ending.error,
                )
            )

    def stream_limits(self) -> tuple[float, float]:
        """
        Seconds a streamed attempt may take to its first token, and to its end.

        The turn's deadline is not among them: it stops the attempt from outside, as it stops everything.
        """
        return self._spec.first_token_s, self._spec.model_s

    def _ran_out(self, attempt: Attempt, silent_s: float) -> bool:
        """
        Whether an attempt that was cancelled had used up its limit, and was cancelled for that.

        A framework that keeps the limits may start its timer a little before the attempt: nine tenths are enough.
        """
        limit_s = silent_s if attempt.first_token_ns is None else self._spec.model_s
        return (self._clock.now() - attempt.started_ns) / NS >= 0.9 * limit_s

    def first_token(self) -> None:
        """The latest attempt's answer has begun to arrive; for adapters that learn it away from the attempt."""
        if self._latest is not None:
            self._latest.first_token()

    def _too_slow(self) -> AttemptTimedOut:
        return AttemptTimedOut(f"a model call took longer than {self._spec.model_s:g} s")
