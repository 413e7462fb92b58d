"""
What a guard is: a policy that decides once for each attempt, and is told how the attempt ended.

    enter ──> a token ──────────────┐
      └─> WAIT ── wait ──> a token ─┴──> the attempt ──> leave, exactly once, with the token

``leave`` never awaits and never raises, so that no cancellation, not even a second one, loses what is held.
"""

from typing import Any, Final, Literal, NamedTuple, Protocol

from holdfast.clock import NS, Clock
from holdfast.resilience.classify import TREATMENTS, Failure
from holdfast.resilience.keys import Call
from holdfast.resilience.notice import Teller

Mode = Literal["enforce", "observe"]
"""Whether a guard refuses, or only tells what it would have refused."""


class Waits:
    """The type of ``WAIT``."""


WAIT: Final = Waits()
"""What ``enter`` returns where the attempt has to wait."""


class Ending:
    """
    How an attempt ended.

    Attributes:
        ran: Whether it was made at all; if not, a later guard refused it, or it was cancelled while it waited.
        failure: What went wrong; None where nothing did.
        evidence: What that tells a breaker.
        load: What it tells an adaptive limit.
        asked_ns: Nanoseconds for which the target asked to be left alone; None where it did not.
    """

    __slots__ = ("asked_ns", "evidence", "failure", "load", "ran")

    def __init__(self, failure: Failure | None, *, ran: bool = True) -> None:
        treatment = None if failure is None else TREATMENTS[failure.kind]
        asked_s = None if failure is None else failure.retry_after_s
        self.failure = failure
        self.ran = ran
        self.asked_ns = None if asked_s is None else round(asked_s * NS)
        self.evidence = "none" if not ran else "ok" if treatment is None else treatment.breaker
        self.load = "none" if not ran else "ok" if treatment is None else treatment.load


OK: Final = Ending(None)
NOT_RUN: Final = Ending(None, ran=False)


NOT_YET: Final = -1
"""No time: what has not happened yet."""


class Attempt:
    """
    One attempt at a call, as guards see it on its way through them: its ``Passage``.

    Attributes:
        call: What it is about.
        id: Counts the pipeline's calls.
        number: Which attempt at the call it is, from 1.
        sent_ns: When the last guard had let it through; ``NOT_YET`` until then.
        first_ns: When the first of a streamed answer came; ``NOT_YET`` until then.
        failure: What went wrong; None until then.
    """

    __slots__ = ("call", "failure", "first_ns", "id", "number", "sent_ns")

    call: Call
    id: int
    number: int
    sent_ns: int
    first_ns: int
    failure: Failure | None


class Surroundings(NamedTuple):
    """What a pipeline hands its guards."""

    name: str
    clock: Clock
    tell: Teller
    max_keys: int


class Guard(Protocol):
    """One policy at work in one pipeline, for one event loop."""

    def enter(self, attempt: Attempt, now: int) -> Any:
        """
        Let the attempt in: a token to be given back, or ``WAIT``.

        Raises:
            Refused: nothing was taken.
        """

    async def wait(self, attempt: Attempt) -> Any:
        """
        Wait for a token, after ``enter`` said so.

        Raises:
            Refused: nothing was taken. A cancellation takes nothing either.
        """

    def stands(self, attempt: Attempt, token: Any) -> bool:
        """Whether it would still let the attempt in, which has waited for a later guard since."""

    def leave(self, attempt: Attempt, token: Any, ending: Ending, now: int) -> None:
        """Hear how it ended, and free what the token held."""

    def reconfigure(self, policy: Any) -> None:
        """Go on under other rules; what was seen, taken or queued stays."""
