"""The outcomes of the last while, counted."""

from collections import deque

BUCKETS = 12
_BEFORE_ALL_TIME = -(1 << 63)


class Window:
    """Outcomes in buckets of a twelfth of the window each. The sums are those of the last ``add``."""

    __slots__ = ("_buckets", "_end", "_here", "_width", "fail", "slow", "streak", "total")

    def __init__(self, width: int) -> None:
        self._width = width
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._buckets: deque[list[int]] = deque()  # each: its number since time began, total, fail, slow
        self._end = _BEFORE_ALL_TIME  # the next outcome begins a bucket
        self.total = self.fail = self.slow = self.streak = 0

    def add(self, now: int, fail: bool, slow: bool) -> None:  # noqa: FBT001 - named arguments cost time on every call
        """Count one outcome."""
        if now >= self._end:
            self._begin(now // self._width)
        here = self._here
        here[1] += 1
        self.total += 1
        if fail:
            here[2] += 1
            self.fail += 1
            self.streak += 1
        else:
            self.streak = 0
        if slow:
            here[3] += 1
            self.slow += 1

    def counts(self, now: int) -> tuple[int, int, int]:
        """How many outcomes there are at ``now``, how many of them failed, and how many were slow."""
        oldest = now // self._width - BUCKETS + 1
        kept = [bucket for bucket in self._buckets if bucket[0] >= oldest]
        return sum(one[1] for one in kept), sum(one[2] for one in kept), sum(one[3] for one in kept)

    def resize(self, width: int) -> None:
        """Keep what there is: each bucket goes on as if all of it had come at its start."""
        for bucket in self._buckets:
            bucket[0] = bucket[0] * self._width // width
        self._width = width
        self._end = _BEFORE_ALL_TIME

    def _begin(self, number: int) -> None:
        buckets = self._buckets
        while buckets and buckets[0][0] <= number - BUCKETS:
            _, total, fail, slow = buckets.popleft()
            self.total -= total
            self.fail -= fail
            self.slow -= slow
        if not buckets:
            self.streak = 0  # Failures that left the window are no part of a row.
        self._here = [number, 0, 0, 0]
        buckets.append(self._here)
        self._end = (number + 1) * self._width
