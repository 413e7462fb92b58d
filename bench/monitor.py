"""
What the behaviour monitor costs a step.

    python bench/monitor.py [--steps N] [--rounds N]

Rows are kinds of steps: results as long as tools give them, long ones of which the beginning and the end are looked at,
loops that fire, and runs so long that every window is full. Each step has one call. Figures are microseconds of CPU for
a step, with `before_call` and `after_step`; the best of the rounds, and their median.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from holdfast.monitor import Call, Monitor, MonitorSpec, Step

WORDS = "the quick brown fox 2024-05-01T10:00:00Z jumps over 8f14e45f-ceea-467f-a3b2-0123456789ab in 12.5 ms "


def text(size: int, number: int) -> str:
    """A result of so many characters, with what is masked in it."""
    return (f"row {number} " + WORDS * (size // len(WORDS) + 1))[:size]


ROWS: dict[str, Callable[[int], Call]] = {
    "1 kB results": lambda n: Call(tool="read", args={"path": f"file {n}"}, result=text(1_000, n)),
    "100 kB results": lambda n: Call(tool="read", args={"path": f"file {n}"}, result=text(100_000, n)),
    "100 kB arguments": lambda n: Call(tool="write", args={"path": f"file {n}", "text": text(100_000, n)}, result="ok"),
    "a loop": lambda _: Call(tool="read", args={"path": "file"}, result=text(1_000, 1)),
    "errors": lambda n: Call(tool="read", args={"path": f"file {n}"}, result=f"KeyError: {n}", error=""),
}


def measure(make: Callable[[int], Call], steps: int) -> float:
    """Microseconds a step."""
    made = [make(number) for number in range(steps)]
    spec = MonitorSpec(mode="act")
    monitor = Monitor(spec)
    before = time.process_time_ns()
    for call in made:
        if monitor.breaker.tripped is not None:
            monitor = Monitor(spec)  # a run that was stopped would cost nothing any more
        monitor.before_call(call)
        monitor.after_step(Step(calls=(call,), tokens=100))
    return (time.process_time_ns() - before) / steps / 1_000


def main() -> None:
    """Measure every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(f"{'step':<18} {'best':>8} {'median':>8}  us of CPU")
    for name, make in ROWS.items():
        found = [measure(make, given.steps) for _ in range(given.rounds)]
        print(f"{name:<18} {min(found):8.1f} {statistics.median(found):8.1f}")


if __name__ == "__main__":
    main()
