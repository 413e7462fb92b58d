"""An attempt's way through the guards, in and out again."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from holdfast.clock import Clock
from holdfast.errors import Refused, TimedOut
from holdfast.resilience.classify import Failure
from holdfast.resilience.deadline import check_deadline
from holdfast.resilience.guards import NOT_RUN, NOT_YET, OK, WAIT, Attempt, Ending, Guard
from holdfast.resilience.keys import Call
from holdfast.resilience.rate import RateGuard

Judge = Callable[[BaseException, Attempt], Failure]


class Way:
    """What a pipeline's attempts have in common: guards, from the outside in, the clock, and who judges failures."""

    __slots__ = ("clock", "guards", "judge")

    def __init__(self, guards: tuple[Guard, ...], clock: Clock, judge: Judge) -> None:
        self.guards = guards
        self.clock = clock
        self.judge = judge

    def attempt(self, call: Call, id: int, number: int) -> "Passage":  # noqa: A002 - it is one
        """A new attempt, which has entered nothing yet."""
        passage = Passage()  # Field by field: a constructor would take longer than all of them.
        passage.call = call
        passage.id = id
        passage.number = number
        passage.sent_ns = passage.first_ns = NOT_YET
        passage.failure = None
        passage._way = self  # noqa: SLF001 - the same module
        passage._tokens = []  # noqa: SLF001 - the same module
        return passage


class Passage(Attempt):
    """
    An attempt that enters every guard from the outside in, and leaves them from the inside out.

    It leaves once, with how it ended. If a guard refuses, or the attempt is cancelled while it waits for one, those it
    had entered hear that it was not made. ``async with`` it to guard a block; ``Pipeline.guard`` makes it.
    """

    __slots__ = ("_tokens", "_way")

    _tokens: list[Any]
    _way: Way

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
        way, tokens = self._way, self._tokens
        read_clock = way.clock.now  # Python finds methods faster than functions that are kept in a field.
        now = read_clock()
        try:
            for guard in way.guards:
                token = guard.enter(self, now)
                if token is WAIT:
                    return False
                tokens.append(token)
            check_deadline(now)
        except BaseException:
            self.leave(NOT_RUN)
            raise
        self.sent_ns = now
        return True

    async def go_on(self) -> None:
        """Wait for the guard that ``start`` came to, and enter the others; errors are those of ``enter``."""
        try:
            await self._wait()
            if not self._stands():
                self.leave(NOT_RUN)
                await self._wait()
            now = self._way.clock.now()
            check_deadline(now)
        except BaseException:
            self.leave(NOT_RUN)
            raise
        self.sent_ns = now

    async def _wait(self) -> None:
        """Enter the guards that were not entered yet, waiting where one says so."""
        way, tokens = self._way, self._tokens
        for guard in way.guards[len(tokens) :]:
            token = guard.enter(self, way.clock.now())
            if token is WAIT:
                token = await guard.wait(self)
            tokens.append(token)

    def enter_nowait(self) -> bool:
        """Enter every guard if all let it in at once; if not, False, and what some had given was given back."""
        try:
            if self.start():
                return True
        except (Refused, TimedOut):
            return False
        self.leave(NOT_RUN)
        return False

    def leave(self, ending: Ending) -> None:
        """Leave every guard that was entered. Never waits; a second time does nothing."""
        way, tokens = self._way, self._tokens
        guards, read_clock = way.guards, way.clock.now
        now = read_clock()
        try:
            while tokens:
                token = tokens.pop()
                guards[len(tokens)].leave(self, token, ending, now)
        finally:
            if tokens:  # A key is the user's own function, and has raised.
                self.leave(ending)

    def failed(self, error: BaseException) -> None:
        """Leave every guard: the attempt ended with ``error``."""
        self.failure = self._way.judge(error, self)
        self.leave(Ending(self.failure))

    def arrived(self) -> None:
        """The first of a streamed answer has come. Only the first time counts."""
        if self.first_ns == NOT_YET:
            self.first_ns = self._way.clock.now()

    def adjust(self, **used: int) -> None:
        """
        Say how many units of limits the attempt really used, by the limits' names, while it is inside.

        Raises:
            ValueError: no limit has this name.
        """
        for guard, token in zip(self._way.guards, self._tokens, strict=False):
            if isinstance(guard, RateGuard):
                guard.adjust(self, token, used)

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
        return all(guard.stands(self, token) for guard, token in zip(self._way.guards, self._tokens, strict=True))
