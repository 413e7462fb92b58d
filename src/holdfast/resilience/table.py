"""State by key, bounded, and never forgotten while it matters."""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

S = TypeVar("S")

OVERFLOW = "(overflow)"
"""The key of the one entry that newcomers share when the table is full."""


class KeyTable(Generic[S]):
    """
    One state for each key.

    An entry is dropped only when it is quiescent, which means that a new one would do the same: dropping it changes
    nothing. Each newcomer has the two oldest looked at. When ``max_keys`` are live, further ones share one entry:
    strangers may then be limited together, but nobody escapes a limit by making up keys.

    Args:
        make: Makes the state of a key.
        quiescent: Whether a state may be dropped at this time.
        max_keys: Keys that are kept apart, at least 1.

    Attributes:
        live: The states that keys have of their own, to be looked at: ``table.live.get(key) or table.get(key, now)`` is
            the faster ``get``.
    """

    __slots__ = ("_make", "_max_keys", "_overflow", "_quiescent", "live")

    def __init__(self, make: Callable[[Hashable], S], quiescent: Callable[[S, int], bool], max_keys: int) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be >= 1, got {max_keys}")
        self._make = make
        self._quiescent = quiescent
        self._max_keys = max_keys
        self.live: dict[Hashable, S] = {}
        self._overflow: S | None = None

    def __len__(self) -> int:
        """Keys that are kept apart now."""
        return len(self.live)

    def get(self, key: Hashable, now: int) -> S:
        """The state of ``key``, made where there is none."""
        entry = self.live.get(key)
        return self._add(key, now) if entry is None else entry

    def find(self, key: Hashable) -> S | None:
        """The state of ``key``, if it has one of its own."""
        return self.live.get(key)

    def entries(self) -> Iterator[tuple[Hashable, S]]:
        """Every key with its state, and the shared one if it was ever needed."""
        yield from list(self.live.items())
        if self._overflow is not None:
            yield OVERFLOW, self._overflow

    def _add(self, key: Hashable, now: int) -> S:
        entries = self.live
        for _ in range(min(2, len(entries))):
            oldest = next(iter(entries))
            kept = entries.pop(oldest)
            if not self._quiescent(kept, now):
                entries[oldest] = kept  # Now it counts as the youngest, and others are looked at first.
        if len(entries) < self._max_keys:
            entries[key] = entry = self._make(key)
            return entry
        if self._overflow is None:
            self._overflow = self._make(OVERFLOW)
        return self._overflow
