"""
One of several processes that want the same units, run by test_coord_contention.

``python contender.py URL NAMESPACE SECONDS`` says that it is ready, waits for a line, asks as often as it can, and says
what it got as JSON: units admitted, when it began and ended, and the longest time that an answer took, in nanoseconds.
"""

import asyncio
import json
import sys

from holdfast.clock import NS, Clock
from holdfast.coord import Need, open_coord

TASKS = 8
SCARCE = Need("scarce", 200, NS, 100, 1)
PLENTY = Need("plenty", 2_000, NS, 1_000, 1)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str, namespace: str, seconds: float) -> None:
    clock = Clock()
    coord = open_coord(url, clock, timeout_s=10, namespace=namespace)
    await coord.open()
    await coord.replicas()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    begun, admitted, slowest = clock.now(), 0, 0

    async def ask(needs: tuple[Need, ...]) -> None:
        nonlocal admitted, slowest
        while (asked := clock.now()) < begun + seconds * NS:
            refusal = await coord.take(needs)
            admitted += refusal is None
            slowest = max(slowest, clock.now() - asked)

    async with asyncio.TaskGroup() as group:
        for number in range(TASKS):
            group.create_task(ask((SCARCE, PLENTY) if number % 2 else (PLENTY, SCARCE)))
    told = {"admitted": admitted, "begun": begun, "ended": clock.now(), "slowest": slowest}
    await coord.close()
    say(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
