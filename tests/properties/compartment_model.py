"""
The bulkhead as a pure state machine, and a checker that walks every state it can reach.

A permit is handed to the first waiter by whoever leaves. A waiter is WAITING, then GRANTED (the permit is its own
though its task has not run), then RUNNING; it can be cancelled in each. A mutant brings back one bug that real
libraries have had; one that is not caught would mean that the invariants J1 to J7 are too weak.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

MUTANTS = ("no_handoff", "grant_lost", "separate_counter", "resize_forgets", "wake_one")


class Violation(Exception):
    pass


@dataclass(frozen=True)
class State:
    limit: int
    max_queue: int
    in_use: int = 0
    waiting: tuple[int, ...] = ()  # in order of arrival
    granted: tuple[int, ...] = ()
    running: tuple[int, ...] = ()
    next_id: int = 0
    last_grant: int = -1
    shadow: int = 0  # a counter beside the queue, which only a mutant reads


def without(ids: tuple[int, ...], one: int) -> tuple[int, ...]:
    return tuple(i for i in ids if i != one)


def drain(q: State, mutant: str = "") -> State:
    while q.waiting and q.in_use < q.limit:
        first, rest = q.waiting[0], q.waiting[1:]
        q = replace(q, waiting=rest, granted=(*q.granted, first), in_use=q.in_use + 1, last_grant=first)
        if mutant == "wake_one":
            break
    return q


def arrive(q: State, mutant: str = "") -> tuple[str, State]:
    me, came = q.next_id, replace(q, next_id=q.next_id + 1)
    if q.in_use < q.limit and (mutant == "no_handoff" or not q.waiting):
        return "admit", replace(came, in_use=q.in_use + 1, running=(*q.running, me))
    if (q.shadow if mutant == "separate_counter" else len(q.waiting)) < q.max_queue:
        return "queue", replace(came, waiting=(*q.waiting, me), shadow=q.shadow + 1)
    return "full", came


def stop_waiting(q: State, who: int, mutant: str = "") -> State:
    shadow = q.shadow if mutant == "separate_counter" else q.shadow - 1
    return drain(replace(q, waiting=without(q.waiting, who), shadow=shadow), mutant)


def resume(q: State, who: int) -> State:
    return replace(q, granted=without(q.granted, who), running=(*q.running, who), shadow=q.shadow - 1)


def stop_granted(q: State, who: int, mutant: str = "") -> State:
    gone = replace(q, granted=without(q.granted, who), shadow=q.shadow - 1)
    return gone if mutant == "grant_lost" else drain(replace(gone, in_use=q.in_use - 1), mutant)


def leave(q: State, who: int, mutant: str = "") -> State:
    gone = replace(q, running=without(q.running, who), in_use=q.in_use - 1)
    return gone if mutant == "no_handoff" else drain(gone, mutant)


def resize(q: State, limit: int, mutant: str = "") -> State:
    changed = replace(q, limit=limit)
    return changed if mutant == "resize_forgets" else drain(changed, mutant)


def steps(q: State, mutant: str, most_ids: int) -> Iterator[tuple[str, State]]:
    if q.next_id < most_ids:
        yield arrive(q, mutant)
    for who in q.waiting:
        yield "cancel_waiting", stop_waiting(q, who, mutant)
    for who in q.granted:
        yield "resume", resume(q, who)
        yield "cancel_granted", stop_granted(q, who, mutant)
    for who in q.running:
        yield "leave", leave(q, who, mutant)
    if mutant == "no_handoff" and q.waiting and q.in_use < q.limit:
        yield "wake", drain(q, mutant)
    for limit in (1, 2, 3):
        if limit != q.limit and q.next_id in (2, 4):
            yield "resize", resize(q, limit, mutant)


def check_state(q: State) -> None:
    if q.in_use != len(q.granted) + len(q.running):
        raise Violation(f"J1 {q.in_use} in use, {len(q.granted) + len(q.running)} hold a permit: {q}")
    if len(q.waiting) > q.max_queue:
        raise Violation(f"J2 {len(q.waiting)} wait, {q.max_queue} may: {q}")
    if q.waiting and q.in_use < q.limit:
        raise Violation(f"J3 a free permit and a waiter: {q}")
    if not (q.waiting or q.granted or q.running) and q.in_use:
        raise Violation(f"J4 a leaked permit: {q}")


def check_step(q: State, why: str, after: State) -> None:
    grew = len(after.running) + len(after.granted) > len(q.running) + len(q.granted)
    if grew and after.in_use > after.limit:
        raise Violation(f"J5 granted above the limit by {why}: {after}")
    if why == "admit" and q.waiting:
        raise Violation(f"J6 a newcomer overtook a waiter: {q}")
    if after.last_grant < q.last_grant:
        raise Violation(f"J6 granted out of order: {q}")
    if why == "full" and len(q.waiting) < q.max_queue:
        raise Violation(f"J7 refused although {len(q.waiting)} < {q.max_queue} wait: {q}")


def check(mutant: str = "", limit: int = 2, max_queue: int = 2, most_ids: int = 6) -> int:
    """Walk every reachable state, and return how many there are."""
    start = State(limit, max_queue)
    seen, todo = {start}, deque([start])
    while todo:
        q = todo.popleft()
        check_state(q)
        for why, after in steps(q, mutant, most_ids):
            check_step(q, why, after)
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return len(seen)
