"""
What each policy costs a call, against a bare await, in one run.

    python bench/resilience.py [--calls N] [--rounds N]

Rounds go over the rows in turn, so that a machine whose speed drifts drifts for all of them. Figures are nanoseconds of
CPU a call: the best of the rounds, and how far their median was from it. Libraries for the same job are measured beside
ours, as their documentation has it, where they are installed (``pip install holdfast[bench]``).
"""

import argparse
import asyncio
import importlib
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from typing import Any

from holdfast.clock import NS
from holdfast.resilience import (
    Adaptive,
    Breaker,
    Bulkhead,
    Call,
    Deadline,
    Hedge,
    Limit,
    Notice,
    Pipeline,
    Quota,
    Rate,
    Retry,
    Sink,
    Timeout,
    per,
)
from holdfast.resilience.order import Policy

Do = Callable[[], Awaitable[object]]
Rows = dict[str, Do]

ENDLESS = per.second(1_000_000_000)
SPENT = Quota(1, 3_600 * NS, 1)
LONG_S = 3_600.0
FIVE = (Retry(), Breaker(), Rate(Limit("calls", ENDLESS)), Bulkhead(100), Timeout(total=30))


async def work() -> None:
    """The call that is guarded: nothing."""


async def fail() -> None:
    """A call that opens breakers."""
    raise ConnectionError


def refused(call: Do) -> Do:
    """The same call, by somebody who expects it to be refused."""

    async def caught() -> None:
        with suppress(Exception):
            await call()
            raise SystemExit("it was let through")

    return caught


async def opened(through: Callable[[Do], Awaitable[object]]) -> Do:
    """Calls through a breaker that five failures in a row have opened."""
    for _ in range(5):
        with suppress(Exception):
            await through(fail)
    return refused(partial(through, work))


def inside(make: Callable[[], AbstractAsyncContextManager[object]]) -> Callable[[Do], Awaitable[object]]:
    """Calls in a block that is made for each of them."""

    async def through(fn: Do) -> None:
        async with make():
            await fn()

    return through


def ours() -> Rows:
    """Each of our policies around ``work``, and five of them with a sink and without."""
    alone: dict[str, tuple[Policy, ...]] = {
        "no policy": (),
        "deadline": (Deadline(90),),
        "retry": (Retry(),),
        "hedge": (Hedge(after_s=30),),
        "breaker": (Breaker(),),
        "rate, one limit": (Rate(Limit("calls", ENDLESS)),),
        "rate, three limits": (Rate(*(Limit(name, ENDLESS) for name in ("calls", "tokens_in", "tokens_out"))),),
        "bulkhead": (Bulkhead(100),),
        "bulkhead, adaptive": (Bulkhead(Adaptive(start=8)),),
        "timeout": (Timeout(total=30),),
        "five": FIVE,
    }
    rows: Rows = {name: Pipeline("bench", *policies).wrap(work) for name, policies in alone.items()}
    for what, sink in SINKS.items():
        rows[f"five, {what}"] = Pipeline("bench", *FIVE, sink=sink).wrap(work)
    rows["five, for a call of its own"] = Pipeline("bench", *FIVE).on(Call(target="x", repeatable=True)).wrap(work)
    return rows


async def ours_refused(stack: AsyncExitStack) -> Rows:
    """Calls that our policies refuse, with a sink and without."""
    rows: Rows = {}
    for what, sink in {"": None, **{f", {what}": sink for what, sink in SINKS.items()}}.items():
        breaker = Pipeline("bench", Breaker(consecutive=5, open_s=LONG_S, max_open_s=LONG_S), sink=sink)
        rows[f"refused: open breaker{what}"] = await opened(breaker)
        rate = Pipeline("bench", Rate(Limit("calls", SPENT), max_wait_s=0), sink=sink)
        await rate(work)
        rows[f"refused: spent limit{what}"] = refused(rate.wrap(work))
        bulkhead = Pipeline("bench", Bulkhead(1, queue=0), sink=sink)
        await stack.enter_async_context(bulkhead.guard())
        rows[f"refused: full bulkhead{what}"] = refused(bulkhead.wrap(work))
    return rows


class Counted:
    """A sink that counts notices by their names."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def __call__(self, notice: Notice) -> None:
        """Count it."""
        self.seen[notice.name] = self.seen.get(notice.name, 0) + 1


TOLD: list[Notice] = []
SINKS: dict[str, Sink] = {"sink appends": TOLD.append, "sink counts": Counted()}


async def _asyncio(_: Any, __: AsyncExitStack) -> Rows:
    return {"timeout": partial(inside(partial(asyncio.timeout, 30.0)), work)}


async def _aiobreaker(peer: Any, _: AsyncExitStack) -> Rows:
    def breaker() -> Callable[[Do], Awaitable[object]]:
        made: Callable[[Do], Awaitable[object]] = peer.CircuitBreaker(5, timedelta(seconds=LONG_S)).call_async
        return made

    return {"breaker": partial(breaker(), work), "refused: open breaker": await opened(breaker())}


async def _purgatory(peer: Any, _: AsyncExitStack) -> Rows:
    async def through(name: str, fn: Do) -> None:
        async with await factory.get_breaker(name):
            await fn()

    factory = peer.AsyncCircuitBreakerFactory(5, LONG_S)
    return {
        "breaker": partial(through, "closed", work),
        "refused: open breaker": await opened(partial(through, "open")),
    }


async def _hyx(_: Any, stack: AsyncExitStack) -> Rows:
    parts = ("circuitbreaker", "bulkhead", "ratelimit", "retry", "timeout")
    breakers, bulkheads, limits, retries, timeouts = (importlib.import_module(f"hyx.{part}") for part in parts)

    def breaker() -> Callable[[Do], Awaitable[object]]:
        made = breakers.consecutive_breaker(failure_threshold=5, recovery_time_secs=LONG_S)
        return inside(lambda: made)

    bulkhead, full = bulkheads.bulkhead(100, 200), bulkheads.bulkhead(1, 1)
    await stack.enter_async_context(full)
    limit, spent = limits.tokenbucket(1_000_000_000, 1), limits.tokenbucket(1, LONG_S)
    await inside(lambda: spent)(work)
    retried: Do = retries.retry()(work)
    return {
        "retry": retried,
        "breaker": partial(breaker(), work),
        "rate, one limit": partial(inside(lambda: limit), work),
        "bulkhead": partial(inside(lambda: bulkhead), work),
        "timeout": partial(inside(lambda: timeouts.timeout(30)), work),
        "refused: open breaker": await opened(breaker()),
        "refused: spent limit": refused(partial(inside(lambda: spent), work)),
        "refused: full bulkhead": refused(partial(inside(lambda: full), work)),
    }


async def _aiolimiter(peer: Any, _: AsyncExitStack) -> Rows:
    limiter = peer.AsyncLimiter(1_000_000_000, 1)
    return {"rate, one limit": partial(inside(lambda: limiter), work)}


async def _limits(peer: Any, _: AsyncExitStack) -> Rows:
    strategies = importlib.import_module("limits.aio.strategies")
    storage = importlib.import_module("limits.aio.storage").MemoryStorage()
    window = strategies.FixedWindowRateLimiter(storage)

    async def through(limit: object, fn: Do) -> None:
        if not await window.hit(limit, "bench"):
            raise PermissionError
        await fn()

    spent = peer.RateLimitItemPerHour(1)
    await through(spent, work)
    return {
        "rate, one limit": partial(through, peer.RateLimitItemPerHour(1_000_000_000), work),
        "refused: spent limit": refused(partial(through, spent, work)),
    }


async def _stamina(peer: Any, _: AsyncExitStack) -> Rows:
    retried: Do = peer.retry(on=ConnectionError)(work)
    return {"retry": retried}


async def _tenacity(peer: Any, _: AsyncExitStack) -> Rows:
    retried: Do = peer.retry(work)
    return {"retry": retried}


PEERS = {
    "asyncio": _asyncio,
    "aiobreaker": _aiobreaker,
    "purgatory": _purgatory,
    "hyx": _hyx,
    "aiolimiter": _aiolimiter,
    "limits": _limits,
    "stamina": _stamina,
    "tenacity": _tenacity,
}


async def theirs(stack: AsyncExitStack) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each library that is installed, and the names of those that are not."""
    rows, missing = {}, []
    for name, make in PEERS.items():
        try:
            peer = importlib.import_module(name)
        except ImportError:
            missing.append(name)
        else:
            rows[name] = await make(peer, stack)
    return rows, missing


async def measure(call: Do, calls: int) -> float:
    """Nanoseconds of CPU a call."""
    TOLD.clear()
    began = time.process_time_ns()
    for _ in range(calls):
        await call()
    return (time.process_time_ns() - began) / calls


async def run(calls: int, rounds: int) -> None:
    """Measure and print."""
    async with AsyncExitStack() as stack:
        mine = ours() | await ours_refused(stack)
        peers, missing = await theirs(stack)
        rows: dict[tuple[str, str], Do] = {("bare await", ""): work}
        for what, call in mine.items():
            rows[what, "holdfast"] = call
            rows |= {(what, peer): by[what] for peer, by in peers.items() if what in by}
        times: dict[tuple[str, str], list[float]] = {row: [] for row in rows}
        for _ in range(rounds):
            for row, call in rows.items():
                times[row].append(await measure(call, calls))
    bare = min(times["bare await", ""])
    print("| what | by | ns a call | over bare | times bare | median |")
    print("|---|---|---:|---:|---:|---:|")
    for (what, by), seen in times.items():
        best, off = min(seen), statistics.median(seen) / min(seen) - 1
        print(f"| {what} | {by} | {best:,.0f} | {best - bare:,.0f} | {best / bare:.0f} | +{off:.0%} |")
    if missing:
        print(f"\nnot installed, and left out: {', '.join(missing)}")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, help="calls a round and row")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    asyncio.run(run(args.calls, args.rounds))


if __name__ == "__main__":
    main()
