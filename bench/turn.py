"""
What a turn costs: the bare agent behind a route, and the same agent served by Holdfast, in one run.

    python bench/turn.py [--turns N] [--rounds N]

The agent makes two model calls and one tool call; its model answers at once, so that what is measured is everything
around it. Each variant is a server process of its own. Rounds go over the variants in turn, so that a machine whose
speed drifts drifts for all of them; the figures are medians over the rounds. CPU is the server process's own user and
system time, read from the kernel. Every turn is the first of a session of its own.
"""

import argparse
import contextlib
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.servers import measure, running, serve_bare, serve_holdfast
else:
    from servers import measure, running, serve_bare, serve_holdfast  # a script's own folder is on the path

VARIANTS = ("bare", "holdfast", "bare-sse", "holdfast-sse")


def main() -> None:
    """Run every variant and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=400, help="turns a round and variant")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=("bare", "holdfast"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        (serve_bare if args.serve == "bare" else serve_holdfast)()
        return
    figures: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    with contextlib.ExitStack() as stack:
        servers = {variant: stack.enter_context(running("--serve", variant.partition("-")[0])) for variant in VARIANTS}
        for variant, server in servers.items():
            measure(server, 100, "warm", streams=variant.endswith("sse"))
        for number in range(args.rounds):
            for variant, server in servers.items():
                streams = variant.endswith("sse")
                figures[variant].append(measure(server, args.turns, f"r{number}", streams=streams))
        idle = servers["holdfast"]
        before = idle.rss_kib()
        measure(idle, 1_000, "idle")
        grown = idle.rss_kib() - before
    print(f"{'variant':<14} {'CPU ms/turn':>12} {'over bare':>10} {'ratio':>6} {'turns/s':>8}")
    for variant in VARIANTS:
        cpu = statistics.median(cpu for cpu, _ in figures[variant])
        rate = statistics.median(rate for _, rate in figures[variant])
        bare = statistics.median(cpu for cpu, _ in figures[variant.replace("holdfast", "bare")])
        print(f"{variant:<14} {cpu:>12.2f} {cpu - bare:>10.2f} {cpu / bare:>6.2f} {rate:>8.0f}")
    print(f"memory of 1,000 more idle sessions: {grown} KiB")


if __name__ == "__main__":
    main()
