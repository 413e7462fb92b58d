"""
Falling back: targets are asked in order until one answers, and the answer says which it was.

::

    claude ── fails, in a way another target may not ──▶ gpt ── fails ──▶ the last answer kept ── fails ──▶ an error
       └── answers: not degraded                          └── answers: degraded, and why ──┘
"""

import math
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, NamedTuple, ParamSpec, TypeVar

from holdfast.clock import NS, Clock
from holdfast.errors import DeadlineExceeded, HoldfastError
from holdfast.resilience.classify import TREATMENTS, Failure, FailureClass
from holdfast.resilience.deadline import remaining_s
from holdfast.resilience.notice import Sink, Teller
from holdfast.resilience.recognise import recognise

P = ParamSpec("P")
T = TypeVar("T")

_WHEN = frozenset(kind for kind, treatment in TREATMENTS.items() if treatment.fallback)


class Answered(NamedTuple, Generic[T]):
    """
    An answer, and where it comes from.

    Attributes:
        value: What the rung returned.
        degraded: Whether it is not the first rung's.
        via: The rung's name.
        because: What kind of failure the rung before had; None where there is none before.
    """

    value: T
    degraded: bool
    via: str
    because: str | None


class Fallback(Generic[P, T]):
    """
    A ladder of targets for one kind of call: ``answered = await router(*args)``.

    Args:
        rungs: Names and async callables, best first; all take the same arguments. None may be allowed more than the
            first one is: in permissions, tools, or where data goes.
        name: Of the ladder, in notices.
        when: Failures after which the next rung is asked; None for those that ``TREATMENTS`` say so of.
        classify: What a failure is, as for a pipeline.
        clock: Where the time comes from; None makes one. It is the one deadlines are kept on.
        sink: Takes in notices; None for nobody.

    Raises:
        ValueError: there is no rung, or two have one name.
    """

    def __init__(
        self,
        *rungs: tuple[str, Callable[P, Awaitable[T]]],
        name: str = "fallback",
        when: Collection[FailureClass] | None = None,
        classify: Callable[[BaseException, float], Failure] = recognise,
        clock: Clock | None = None,
        sink: Sink | None = None,
    ) -> None:
        if not rungs or len(dict(rungs)) < len(rungs):
            raise ValueError(f"the fallback {name} needs rungs, each with a name of its own")
        self._rungs = rungs
        self._name = name
        self._when = _WHEN if when is None else frozenset(when)
        self._classify = classify
        self._clock = clock or Clock()
        self._tell = Teller(name, self._clock, sink)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Answered[T]:
        """
        Ask each rung at most once, in order, within the deadline there is.

        Raises:
            DeadlineExceeded: no time was left to ask the first.
            Exception: a failure after which no other rung is asked; or, where all failed, that of the rung that can be
                asked again soonest. It has a note for each rung that was asked.
        """
        failed: list[tuple[Exception, Failure]] = []
        notes: list[str] = []
        because: str | None = None
        for via, ask in self._rungs:
            if (left_s := remaining_s(self._clock)) is not None and left_s <= 0:
                told = failed[-1][0] if failed else DeadlineExceeded(f"{self._name} had no time left to ask {via}")
                break
            try:
                value = await ask(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is judged, and raised if nobody answers
                failure = self._classify(error, self._clock.wall_ns() / NS)
                because = failure.kind.value
                failed.append((error, failure))
                notes.append(f"{via}: {because}, {type(error).__name__}")
                if failure.kind not in self._when and len(failed) < len(self._rungs):
                    told = error
                    break
            else:
                if because is not None:
                    self._tell("fallback.used", via=via, because=because)
                return Answered(value, because is not None, via, because)
        else:
            told = min(failed, key=_soonest)[0]
        for note in notes:
            told.add_note(note)
        raise told


def _soonest(failed: tuple[Exception, Failure]) -> tuple[bool, float]:
    error, failure = failed
    retryable = error.retryable if isinstance(error, HoldfastError) else failure.retryable
    return not retryable, math.inf if failure.retry_after_s is None else failure.retry_after_s
