"""
What each resilience policy costs on its success path, against a bare await, in one run.

    python bench/resilience.py [--calls N] [--rounds N]

Rounds go over the rows in turn, so that a machine whose speed drifts drifts for all of them; figures are the best of
the rounds, in nanoseconds a call. Libraries for the same job are measured beside ours where they are installed
(`pip install holdfast[bench]`).
"""

import argparse
import asyncio
import importlib.util
import time
from collections.abc import Awaitable, Callable

from holdfast.clock import NS, Clock
from holdfast.errors import AttemptTimedOut
from holdfast.resilience import within
from holdfast.resilience.bucket import Bucket, take_all
from holdfast.resilience.circuit import Circuit, CircuitSpec, Permit
from holdfast.resilience.compartment import Compartment
from holdfast.resilience.keys import per
from holdfast.resilience.rate_queue import RateQueue
from holdfast.resilience.wheel import Wheel

Call = Callable[[], Awaitable[None]]
ENDLESS = per.second(1_000_000_000)


async def work() -> None:
    """The call that is guarded: nothing."""


def ours(clock: Clock) -> dict[str, Call]:
    """Each of our policies around ``work``."""
    breaker = Circuit(CircuitSpec(), "bench", clock.random.random)
    limits = [Bucket(name, ENDLESS) for name in ("global", "user", "tool")]
    queue, bulkhead = RateQueue(clock, 10), Compartment(100, 10)
    one, three = [(limits[0], 1)], [(limit, 1) for limit in limits]

    async def with_breaker() -> None:
        permit = breaker.acquire(clock.now())
        assert isinstance(permit, Permit)
        await work()
        breaker.settle(permit, "ok", clock.now())

    async def with_limit() -> None:
        take_all(clock.now(), one)
        await work()

    async def with_three_limits() -> None:
        take_all(clock.now(), three)
        await work()

    async def with_queue() -> None:
        await queue.take(one, 1.0)
        await work()

    async def with_bulkhead() -> None:
        permit = await bulkhead.enter(1.0)
        await work()
        bulkhead.leave(permit)

    async def with_time_limit() -> None:
        async with within(clock, 30.0, AttemptTimedOut):
            await work()

    async def with_fuse() -> None:
        task = asyncio.current_task()
        assert task is not None
        fuse = Wheel.of(task.get_loop(), clock).light(task, clock.now() + 30 * NS)
        try:
            await work()
        except BaseException as error:
            if fuse.out(error):
                raise AttemptTimedOut from error
            raise
        fuse.out(None)

    return {
        "breaker": with_breaker,
        "limit": with_limit,
        "three limits, all or none": with_three_limits,
        "limit that may wait": with_queue,
        "bulkhead": with_bulkhead,
        "time limit": with_time_limit,
        "time limit, its fuse alone": with_fuse,
    }


def theirs() -> dict[str, Call]:
    """The same by other libraries, as their documentation has it, where they are installed."""

    async def timeout() -> None:
        async with asyncio.timeout(30.0):
            await work()

    rows: dict[str, Call] = {"asyncio.timeout": timeout}
    if importlib.util.find_spec("aiobreaker"):
        breaker = importlib.import_module("aiobreaker").CircuitBreaker()
        rows["aiobreaker"] = lambda: breaker.call_async(work)
    if importlib.util.find_spec("purgatory"):
        factory = importlib.import_module("purgatory").AsyncCircuitBreakerFactory()

        async def purgatory() -> None:
            async with await factory.get_breaker("bench"):
                await work()

        rows["purgatory"] = purgatory
    if importlib.util.find_spec("aiolimiter"):
        limiter = importlib.import_module("aiolimiter").AsyncLimiter(1_000_000_000, 1)

        async def aiolimiter() -> None:
            async with limiter:
                await work()

        rows["aiolimiter"] = aiolimiter
    if importlib.util.find_spec("tenacity"):
        retried: Call = importlib.import_module("tenacity").retry(work)
        rows["tenacity"] = retried
    return rows


async def measure(call: Call, calls: int) -> float:
    """Nanoseconds of CPU a call."""
    began = time.process_time_ns()
    for _ in range(calls):
        await call()
    return (time.process_time_ns() - began) / calls


async def run(calls: int, rounds: int) -> None:
    """Measure and print."""
    rows: dict[str, Call] = {"bare await": work, **ours(Clock()), **theirs()}
    best = dict.fromkeys(rows, float("inf"))
    for _ in range(rounds):
        for name, call in rows.items():
            best[name] = min(best[name], await measure(call, calls))
    bare = best["bare await"]
    print(f"{'policy':<28} {'ns/call':>8} {'over bare':>10}")
    for name, cost in best.items():
        print(f"{name:<28} {cost:>8.0f} {cost - bare:>10.0f}")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, help="calls a round and row")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    asyncio.run(run(args.calls, args.rounds))


if __name__ == "__main__":
    main()
