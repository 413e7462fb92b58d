"""The state of one process that shares with nobody; or of several that are played in one."""

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.clock import Clock, token_hex
from holdfast.coord.base import CoordUnavailable, Need, Transition
from holdfast.coord.limits import Limits

_FEW = 1_000
"""Limits that are kept without looking for full ones."""


class _Kept(NamedTuple):
    """When a limit is full again, in nanoseconds times the units of its rate; the gate's moment; and what it is."""

    tat: int
    gate: int | None
    need: Need

    def full_at(self, need: Need) -> int:
        """When ``need``'s limit is full again, times the units of its rate: what it owes in time stays as it was."""
        tat = self.tat if self.need.num == need.num else -(-self.tat * need.num // self.need.num)
        return tat if self.gate is None else max(tat, self.gate * need.num + (need.burst - 1) * need.den_ns)


class Shared:
    """What each ``Local`` that is given it shares with the others."""

    def __init__(self) -> None:
        self.limits: dict[str, _Kept] = {}
        self.probes: dict[str, dict[str, int]] = {}
        self.members: list[Local] = []
        self.many = _FEW

    def forget_full(self, now: int) -> None:
        """Forget limits that are full, once there are twice as many as were left the last time."""
        if len(self.limits) > self.many:
            self.limits = {key: kept for key, kept in self.limits.items() if _owes(kept, now)}
            self.many = max(_FEW, 2 * len(self.limits))


def _owes(kept: _Kept, now: int) -> bool:
    return kept.full_at(kept.need) > now * kept.need.num


class Local(Limits):
    """
    A ``Coord`` within this process: exact to the nanosecond, and always there.

    Args:
        clock: Where the time comes from.
        shared: State to share with others who are given the same; None shares with nobody.
    """

    name = "local"

    def __init__(self, clock: Clock, shared: Shared | None = None) -> None:
        super().__init__()
        self._clock = clock
        self._shared = shared or Shared()

    async def open(self) -> None:
        """See ``Coord.open``."""
        if self not in self._shared.members:
            self._shared.members.append(self)

    async def close(self) -> None:
        """See ``Coord.close``."""
        if self in self._shared.members:
            self._shared.members.remove(self)

    async def _spend(self, needs: Sequence[Need], *, must_fit: bool, gate_ns: int | None) -> tuple[int, int]:
        now = self._now()
        at, longest = 0, 0
        written: list[_Kept] = []
        for index, need in enumerate(needs):
            kept = self._shared.limits.get(need.key, _Kept(0, None, need))
            if gate_ns is not None:
                kept = kept._replace(gate=max(kept.gate or 0, now + gate_ns))
            snow = now * need.num
            tat = max(kept.full_at(need), snow) + need.cost * need.den_ns
            wait = -(-(tat - need.burst * need.den_ns - snow) // need.num)
            if wait > longest:
                at, longest = index, wait
            written.append(_Kept(tat, kept.gate, need))
        if not (must_fit and longest):
            self._shared.limits.update((kept.need.key, kept) for kept in written)
            self._shared.forget_full(now)
        return at, longest

    async def probe(self, name: str, slots: int, lease_ns: int) -> str | None:
        """See ``Coord.probe``."""
        now = self._now()
        taken = {probe: until for probe, until in self._shared.probes.get(name, {}).items() if until > now}
        probe = token_hex(8) if len(taken) < slots else None
        if probe is not None:
            taken[probe] = now + lease_ns
        self._shared.probes[name] = taken
        return probe

    async def release(self, name: str, probe: str) -> None:
        """See ``Coord.release``."""
        self._now()
        taken = self._shared.probes.get(name, {})
        taken.pop(probe, None)
        if not taken:
            self._shared.probes.pop(name, None)

    async def publish(self, moved: Transition) -> None:
        """See ``Coord.publish``."""
        self._now()
        for member in self._shared.members:
            if member is not self:
                member._tell(moved)  # noqa: SLF001 - another of the same class

    async def replicas(self) -> int:
        """See ``Coord.replicas``."""
        self._now()
        return len(self._shared.members)

    def _now(self) -> int:
        if self not in self._shared.members:
            raise CoordUnavailable("the coord is not open")
        return self._clock.now()
