"""
A limit that finds itself: a little more for each success under load, three tenths less for each sign of overload.

It listens to what a provider says, not to how long it takes: model calls are short or long for reasons of their own.
Decides only. It reads no clock, and whoever owns the bulkhead resizes it to ``limit``.
"""

import math

SHRINK = 0.7
"""What is left of the limit after a sign of overload."""


class Aimd:
    """
    A limit between ``floor`` and ``ceiling``.

    Args:
        floor: Least limit, at least 1.
        ceiling: Greatest limit.
        start: Limit to begin with; None begins at the floor.
    """

    __slots__ = ("_ceiling", "_epoch", "_floor", "_level")

    def __init__(self, floor: int, ceiling: int, start: int | None = None) -> None:
        if floor < 1:
            raise ValueError(f"adaptive.floor must be >= 1, got {floor}")
        if ceiling < floor:
            raise ValueError(f"adaptive.ceiling must be >= floor {floor}, got {ceiling}")
        if start is not None and not floor <= start <= ceiling:
            raise ValueError(f"adaptive.start must be in {floor}..{ceiling}, got {start}")
        self._floor = floor
        self._ceiling = ceiling
        self._level = float(floor if start is None else start)
        self._epoch: int | None = None

    @property
    def limit(self) -> int:
        """How many may be inside: whole, from floor to ceiling."""
        return math.floor(self._level)

    def succeeded(self, in_use: int) -> int:
        """
        Count a success, and return the limit. Below half use it does not grow: nothing was learned about the rest.

        Args:
            in_use: Calls that were inside when it ended, this one among them.
        """
        if 2 * in_use >= self._level:
            self._level = min(self._ceiling, self._level + 1 / self._level)
        return self.limit

    def overloaded(self, now: int, sent_at: int) -> int:
        """
        Hear that the provider is overloaded, and return the limit.

        Calls that were sent before the last decrease say nothing new: a hundred refusals at once are one. A call that
        was cancelled, refused here, or failed in another way is no sign, and is not told.

        Args:
            now: When the answer came, in nanoseconds.
            sent_at: When the call was sent, on the same clock.
        """
        if self._epoch is None or sent_at > self._epoch:
            self._level = max(float(self._floor), SHRINK * self._level)
            self._epoch = now
        return self.limit

    def restart(self, now: int) -> int:
        """Begin at the floor again, as after an outage, and return it. What was sent before ``now`` says nothing."""
        self._level = float(self._floor)
        self._epoch = now
        return self.limit

    def reconfigure(self, floor: int, ceiling: int) -> None:
        """Stay within other bounds from now on."""
        self._floor, self._ceiling = floor, ceiling
        self._level = min(float(ceiling), max(float(floor), self._level))
