"""An attempt's way through the guards, in and out again."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from holdfast.clock import Clock
from holdfast.errors import DeadlineExceeded, Refused
from holdfast.resilience.classify import Failure
from holdfast.resilience.deadline import remaining_s, within
from holdfast.resilience.guards import NOT_RUN, NOT_YET, OK, WAIT, Attempt, Ending, Guard
from holdfast.resilience.rate import RateGuard

Judge = Callable[[BaseException, Attempt], Failure]


class Passage:
    """
    Enters every guard from the outside in, and leaves them from the inside out, once, with how the attempt ended.

    If a guard refuses, or the attempt is cancelled while it waits for one, those that were entered hear that it was not
    made. ``async with`` it to guard a block; ``Pipeline.guard`` makes it.

    Attributes:
        attempt: Whose way it is.
    """

    __slots__ = ("_clock", "_guards", "_judge", "_tokens", "attempt")

    def __init__(self, guards: Sequence[Guard], attempt: Attempt, clock: Clock, judge: Judge) -> None:
        self._guards = guards
        self._clock = clock
        self._judge = judge
        self._tokens: list[Any] = []
        self.attempt = attempt

    async def enter(self) -> None:
        """
        Enter every guard, waiting where one says so.

        If a guard would not let it in any more after it has waited for another one, it begins anew; but only once, so
        that no wait is without end.

        Raises:
            Refused: by one of them. What the others had given was given back.
            TimedOut: the deadline had passed by then; the same.
        """
        if not self.start():
            await self.go_on()

    def start(self) -> bool:
        """Enter as many guards as let it in at once, from the outside in; whether it is through. If not, ``go_on``."""
        attempt, tokens, now = self.attempt, self._tokens, self._clock.now()
        try:
            for guard in self._guards:
                token = guard.enter(attempt, now)
                if token is WAIT:
                    return False
                tokens.append(token)
            self._check_deadline()
        except BaseException:
            self.leave(NOT_RUN)
            raise
        attempt.sent_ns = now
        return True

    async def go_on(self) -> None:
        """Wait for the guard that ``start`` came to, and enter the others; errors are those of ``enter``."""
        try:
            await self._wait()
            if not self._stands():
                self.leave(NOT_RUN)
                await self._wait()
            self._check_deadline()
        except BaseException:
            self.leave(NOT_RUN)
            raise
        self.attempt.sent_ns = self._clock.now()

    async def _wait(self) -> None:
        """Enter the guards that were not entered yet, waiting where one says so."""
        attempt, tokens = self.attempt, self._tokens
        for guard in self._guards[len(tokens) :]:
            token = guard.enter(attempt, self._clock.now())
            if token is WAIT:
                token = await guard.wait(attempt)
            tokens.append(token)

    def _check_deadline(self) -> None:
        left_s = remaining_s(self._clock)
        if left_s is not None and left_s <= 0:
            within(self._clock, 0.0, DeadlineExceeded).__enter__()  # Raises the error of the one that passed.

    def enter_nowait(self) -> bool:
        """Enter every guard if all let it in at once; if not, False, and what some had given was given back."""
        now, inside = self._clock.now(), False
        try:
            for guard in self._guards:
                token = guard.enter(self.attempt, now)
                if token is WAIT:
                    return False
                self._tokens.append(token)
            inside = True
        except Refused:
            return False
        finally:
            if not inside:
                self.leave(NOT_RUN)
        self.attempt.sent_ns = now
        return True

    def leave(self, ending: Ending) -> None:
        """Leave every guard that was entered. Never waits; a second time does nothing."""
        now, attempt, tokens = self._clock.now(), self.attempt, self._tokens
        try:
            while tokens:
                token = tokens.pop()
                self._guards[len(tokens)].leave(attempt, token, ending, now)
        finally:
            if tokens:  # A key is the user's own function, and has raised.
                self.leave(ending)

    def failed(self, error: BaseException) -> None:
        """Leave every guard: the attempt ended with ``error``."""
        failure = self.attempt.failure = self._judge(error, self.attempt)
        self.leave(Ending(failure))

    def arrived(self) -> None:
        """The first of a streamed answer has come. Only the first time counts."""
        if self.attempt.first_ns == NOT_YET:
            self.attempt.first_ns = self._clock.now()

    def adjust(self, **used: int) -> None:
        """
        Say how many units of limits the attempt really used, by the limits' names, while it is inside.

        Raises:
            ValueError: no limit has this name.
        """
        for guard, token in zip(self._guards, self._tokens, strict=False):
            if isinstance(guard, RateGuard):
                guard.adjust(self.attempt, token, used)

    async def __aenter__(self) -> Self:
        """Enter every guard; errors are those of ``enter``."""
        await self.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave every guard with how the block ended."""
        if error is None:
            self.leave(OK)
        else:
            self.failed(error)

    def _stands(self) -> bool:
        return all(guard.stands(self.attempt, token) for guard, token in zip(self._guards, self._tokens, strict=True))
