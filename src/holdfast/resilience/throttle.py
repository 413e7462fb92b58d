"""A client that stops asking a server that says no, as far as the server says no."""

from collections.abc import Callable

from holdfast.clock import NS
from holdfast.resilience.window import BUCKETS, Window

WINDOW_S = 120
"""Seconds of requests that are remembered; forgotten a twelfth at a time."""


class Throttle:
    """
    Refuses requests before they are sent, with a chance that follows what the server did with the others.

    The chance is ``max(0, (requests - 2 * accepts) / (requests + 1))`` over the last two minutes: nothing is refused
    while the server accepts half of what is asked or more, and from there on it gets about two requests for each that
    it accepts. However bad it is, the chance stays below 1: some request goes through and sees the server recover.

    Source: Site Reliability Engineering (Google, 2016), chapter 21, "Handling Overload", client-side throttling, with
    the book's factor 2 and its two minutes. There a request counts when it is made. Here it counts when its answer is
    known: a model takes seconds to answer, and the first requests to it would else look like refusals.
    """

    __slots__ = ("_window",)

    def __init__(self) -> None:
        self._window = Window(WINDOW_S * NS // BUCKETS)

    def refuse(self, now: int, chance: Callable[[], float]) -> bool:
        """
        Whether to refuse a request at ``now``. A refused one counts as a request that was not accepted.

        Args:
            now: Nanoseconds that never go back.
            chance: Draws from [0, 1); a ``random.Random``'s ``random``.
        """
        if not self._window.fail:
            return False
        requests, failed, _ = self._window.counts(now)
        # The same numbers as in the formula: what was not accepted failed.
        refused = chance() * (requests + 1) < requests - 2 * (requests - failed)
        if refused:
            self.record(now, False)  # noqa: FBT003 - named arguments cost time on every call
        return refused

    def record(self, now: int, accepted: bool) -> None:  # noqa: FBT001 - named arguments cost time on every call
        """
        Count a request that was sent, once, when its answer is known.

        Args:
            now: Nanoseconds that never go back.
            accepted: The server took it on, whatever came of it. False where it refused, or could not be reached.
        """
        self._window.add(now, not accepted, False)  # noqa: FBT003 - named arguments cost time on every call
