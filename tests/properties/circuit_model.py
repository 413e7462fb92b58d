"""
The breaker, as an executable specification, and a checker that visits every state it can reach.

The specification is two pure functions, ``acquire`` and ``settle``, on a frozen machine. ``check`` explores every
interleaving of calls, outcomes, lost answers, orders and time within small bounds, by renaming generations and clamping
times so that unbounded histories fold into finitely many worlds. Each name in ``MUTANTS`` brings back one bug that
breakers in use have had: one that ``check`` does not catch means that what it checks is too weak.

Its window counts outcomes; the ageing of time buckets, slow calls and the growth of breaks are tested elsewhere.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, DISABLED = "closed", "open", "half_open", "forced_open", "disabled"
KINDS = (CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, DISABLED)
OUTCOMES = ("ok", "fail", "none")
ORDERS = {"force_open": FORCED_OPEN, "disable": DISABLED, "reset": CLOSED}

EDGES: dict[str, set[tuple[str, str]]] = {
    "tick": set(),
    "acquire": {(OPEN, HALF_OPEN)},
    "refused": {(HALF_OPEN, OPEN)},
    "settle": {(CLOSED, OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED)},
} | {order: {(kind, to) for kind in KINDS if kind != to} for order, to in ORDERS.items()}
"""What may bring about which change of kind."""

MUTANTS = (
    "herd",
    "no_lease",
    "ignored_leaks_slot",
    "cancel_is_success",
    "cancel_is_failure",
    "stale_any",
    "stale_same_kind",
    "open_admits",
    "one_ok_closes",
    "reset_keeps_gen",
)


@dataclass(frozen=True)
class Rules:
    """Times are in ticks."""

    min_calls: int = 2  # the ratio, one half, counts from this many outcomes on
    consecutive: int = 0  # failures in a row that open; 0: no such rule
    open_ticks: int = 2
    probes: int = 1
    need: int = 2
    lease: int = 3
    window: int = 3  # outcomes
    mutant: str = ""


class Permit(NamedTuple):
    gen: int
    probe: bool
    lease_end: int


@dataclass(frozen=True)
class Machine:
    kind: str = CLOSED
    gen: int = 0
    window: tuple[int, ...] = ()  # 1: failure
    streak: int = 0
    open_until: int = 0
    ok: int = 0
    inflight: int = 0
    leases: tuple[int, ...] = ()  # of each live probe, sorted


def opened(m: Machine, now: int, rules: Rules) -> Machine:
    return Machine(OPEN, m.gen + 1, open_until=now + rules.open_ticks)


def ordered(m: Machine, order: str, rules: Rules) -> Machine:
    return Machine(ORDERS[order], m.gen if order == "reset" and rules.mutant == "reset_keeps_gen" else m.gen + 1)


def acquire(m: Machine, now: int, rules: Rules) -> tuple[Machine, Permit | None]:
    if m.kind == FORCED_OPEN:
        return m, None
    if m.kind in (CLOSED, DISABLED):
        return replace(m, inflight=m.inflight + 1), Permit(m.gen, probe=False, lease_end=0)
    if m.kind == OPEN:
        if now < m.open_until and rules.mutant != "open_admits":
            return m, None
        m = Machine(HALF_OPEN, m.gen + 1)
    if rules.mutant != "no_lease" and m.leases and m.leases[0] <= now:
        return opened(m, now, rules), None  # A probe that never answers is an answer.
    if m.inflight >= rules.probes and rules.mutant != "herd":
        return m, None
    end = now + rules.lease
    probing = replace(m, inflight=m.inflight + 1, leases=tuple(sorted((*m.leases, end))))
    return probing, Permit(m.gen, probe=True, lease_end=end)


def settle(m: Machine, permit: Permit, outcome: str, now: int, rules: Rules) -> Machine:
    if outcome == "none":
        outcome = {"cancel_is_success": "ok", "cancel_is_failure": "fail"}.get(rules.mutant, outcome)
    if permit.gen != m.gen and not (
        rules.mutant == "stale_any" or (rules.mutant == "stale_same_kind" and permit.probe and m.kind == HALF_OPEN)
    ):
        return m
    if outcome == "none" and rules.mutant == "ignored_leaks_slot" and permit.probe:
        return m
    leases = list(m.leases)
    if permit.lease_end in leases:
        leases.remove(permit.lease_end)
    back = replace(m, inflight=m.inflight - 1, leases=tuple(leases))
    if outcome == "none" or m.kind not in (CLOSED, HALF_OPEN):
        return back
    return (_counted if m.kind == CLOSED else _probed)(back, int(outcome == "fail"), now, rules)


def _counted(m: Machine, fail: int, now: int, rules: Rules) -> Machine:
    window = (*m.window, fail)[-rules.window :]
    streak = m.streak + 1 if fail else 0
    if rules.consecutive and streak >= rules.consecutive:
        return opened(m, now, rules)
    if len(window) >= rules.min_calls and sum(window) * 2 >= len(window):
        return opened(m, now, rules)
    return replace(m, window=window, streak=streak if rules.consecutive else 0)


def _probed(m: Machine, fail: int, now: int, rules: Rules) -> Machine:
    if fail:
        return opened(m, now, rules)
    if m.ok + 1 >= (1 if rules.mutant == "one_ok_closes" else rules.need):
        return Machine(CLOSED, m.gen + 1)
    return replace(m, ok=m.ok + 1)


class Violation(Exception):
    pass


class World(NamedTuple):
    """It is always 0 o'clock, the present generation is 0, and every earlier one -1."""

    machine: Machine
    calls: tuple[Permit, ...]
    ok: int  # what the probes of this generation said
    bad: int


def check(rules: Rules, max_calls: int = 4) -> int:
    """
    Visit every world and return how many there are.

    Raises:
        Violation: an invariant does not hold in one of them.
    """
    start = World(Machine(), (), 0, 0)
    seen, todo = {start}, deque([start])

    def push(was: World, m: Machine, calls: tuple[Permit, ...], ok: int, bad: int, why: str) -> None:
        if m.kind != was.machine.kind:
            _require((was.machine.kind, m.kind) in EDGES[why], f"B0 {was.machine.kind}->{m.kind} by {why}")
            _require(m.gen > was.machine.gen, f"B0 no new generation by {why}")
        if m.gen != was.machine.gen:
            ok = bad = 0
        world = _folded(m, calls, ok, bad, rules)
        if world not in seen:
            seen.add(world)
            todo.append(world)

    while todo:
        world = todo.popleft()
        _hold_still(world, rules)
        _let_time_pass(world, push)
        if len(world.calls) < max_calls:
            _call(world, push, rules)
        for at in range(len(world.calls)):
            for outcome in OUTCOMES:
                _answer(world, at, outcome, push, rules)
        for order in ORDERS:
            push(world, ordered(world.machine, order, rules), world.calls, 0, 0, order)
    return len(seen)


Push = Callable[[World, Machine, tuple[Permit, ...], int, int, str], None]


def _require(fine: bool, what: str) -> None:  # noqa: FBT001 - an assertion that -O does not take away
    if not fine:
        raise Violation(what)


def _folded(m: Machine, calls: tuple[Permit, ...], ok: int, bad: int, rules: Rules) -> World:
    live = [Permit(0, p.probe, max(0, p.lease_end)) for p in calls if p.gen == m.gen]
    stale = [Permit(-1, p.probe, 0) for p in calls if p.gen != m.gen]
    leases = tuple(sorted(max(0, end) for end in m.leases))
    machine = replace(m, gen=0, open_until=max(0, m.open_until), leases=leases)
    return World(machine, tuple(sorted(live + stale)), min(ok, rules.need), min(bad, 1))


def _hold_still(world: World, rules: Rules) -> None:
    m = world.machine
    live = [p for p in world.calls if p.gen == 0]
    probes = sum(p.probe for p in live)
    _require(probes <= rules.probes, f"B1 {probes} live probes: {world}")
    _require(m.inflight == len(live), f"B2 {m.inflight} in flight, {len(live)} live: {world}")
    _require(m.kind != HALF_OPEN or probes == len(live), f"B2 a live call that is no probe: {world}")
    if m.kind == FORCED_OPEN:
        return
    for now in range(2 * rules.open_ticks + 2 * rules.lease + 4):
        m, permit = acquire(m, now, rules)
        if permit:
            return
    raise Violation(f"B6 nobody is let through ever again: {world}")


def _let_time_pass(world: World, push: Push) -> None:
    m = world.machine
    later = replace(m, open_until=m.open_until - 1, leases=tuple(end - 1 for end in m.leases))
    calls = tuple(p._replace(lease_end=p.lease_end - 1) for p in world.calls)
    push(world, later, calls, world.ok, world.bad, "tick")


def _call(world: World, push: Push, rules: Rules) -> None:
    was = world.machine
    m, permit = acquire(was, 0, rules)
    if permit is None:
        push(world, m, world.calls, world.ok, world.bad, "refused")
        return
    _require(was.kind != FORCED_OPEN and not (was.kind == OPEN and was.open_until > 0), f"B3 let through: {world}")
    push(world, m, (*world.calls, permit), world.ok, world.bad, "acquire")


def _answer(world: World, at: int, outcome: str, push: Push, rules: Rules) -> None:
    was, permit = world.machine, world.calls[at]
    m = settle(was, permit, outcome, 0, rules)
    fresh = permit.probe and permit.gen == 0
    ok, bad = world.ok + (fresh and outcome == "ok"), world.bad + (fresh and outcome == "fail")
    _require(permit.gen == 0 or m == was, f"B4 a stale {outcome} changed {was} to {m}")
    _require(outcome != "none" or m.kind == was.kind, f"B5 {was.kind}->{m.kind} without evidence")
    closes = was.kind == HALF_OPEN and m.kind == CLOSED
    _require(not closes or (ok >= rules.need and not bad), f"B7 closed after {ok} ok, {bad} bad")
    push(world, m, world.calls[:at] + world.calls[at + 1 :], ok, bad, "settle")
