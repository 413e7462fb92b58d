"""
The monitor on recorded runs of real agents: it catches those that fail, and leaves those that succeed alone.

Thresholds are chosen on half the tasks and scored on the other half, both ways, and are the same for all data sets. The
recordings are no part of the repository: ``RECORDINGS`` names their folder, and without them this is skipped.
"""

import os
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.monitor import MonitorSpec, Severity
from holdfast.monitor.replay import Played, Run, half, mean, play, play_all, read, score

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "trajectories"
STALE, ERRORS = (3, 4), (4, 6, 8)
COST = 10  # a success that is disturbed weighs as much as so many failures that are not caught


class Bar(NamedTuple):
    """
    What a group of runs has to reach.

    Attributes:
        belongs: Which runs.
        severity: At which point.
        recall: At least.
        false_alarms: At most.
    """

    belongs: Callable[[str], bool]
    severity: Severity
    recall: float
    false_alarms: float


def is_weak(group: str) -> bool:
    return "bison" in group or "vicuna" in group


BARS = {
    "InterCode, gpt-4": Bar(
        lambda group: group.startswith("intercode") and "gpt-4" in group, Severity.STOP, 0.52, 0.005
    ),
    "InterCode, weak models": Bar(is_weak, Severity.STOP, 0.88, 0.015),
    "tau-bench": Bar(lambda group: group.startswith("tau"), Severity.WARN, 0.0, 0.015),
}


@cache
def recorded() -> tuple[Run, ...]:
    folder = Path(os.environ.get("RECORDINGS", BESIDE))
    present = [file for name in ("intercode", "tau") if (file := folder / f"{name}.jsonl.gz").is_file()]
    if not present:
        pytest.skip("the recordings are not on this machine: RECORDINGS names their folder")
    return tuple(run for file in present for run in read(file))


@cache
def played(*given: tuple[str, int]) -> tuple[Played, ...]:
    return tuple(play_all(recorded(), MonitorSpec.model_validate(dict(given))))


def of(bar: Bar, runs: Iterable[Played], which: int | None) -> list[Played]:
    return [each for each in runs if bar.belongs(each.run.group) and which in {None, half(each.run)}]


@pytest.mark.parametrize("which", [None, 0, 1], ids=["all", "one half", "other half"])
@pytest.mark.parametrize("name", BARS)
def test_the_defaults_reach_the_bar(name: str, which: int | None) -> None:
    bar = BARS[name]
    reached = score(of(bar, played(), which), bar.severity)
    assert reached.recall is not None
    assert reached.false_alarms is not None
    assert reached.recall >= bar.recall
    assert reached.false_alarms <= bar.false_alarms


def choose(which: int) -> tuple[tuple[str, int], ...]:
    """The thresholds that are best on one half: each kind of model has the same weight."""
    kinds: list[Callable[[str], bool]] = [*(bar.belongs for bar in BARS.values()), lambda group: "gpt-3.5" in group]

    def worth(given: tuple[tuple[str, int], ...]) -> float:
        runs = [each for each in played(*given) if half(each.run) == which]
        scores = [score([each for each in runs if kind(each.run.group)], Severity.STOP) for kind in kinds]
        return (mean(scores, lambda each: each.recall) or 0) - COST * (
            mean(scores, lambda each: each.false_alarms) or 0
        )

    grid = [(("stale_stop", stale), ("err_stop", errors), ("cls_stop", errors)) for stale in STALE for errors in ERRORS]
    return max(grid, key=worth)


@pytest.mark.slow
@pytest.mark.parametrize("chosen_on", [0, 1])
def test_thresholds_chosen_on_one_half_reach_the_bar_on_the_other(chosen_on: int) -> None:
    given = choose(chosen_on)
    for name, bar in BARS.items():
        reached = score(of(bar, played(*given), 1 - chosen_on), bar.severity)
        assert reached.recall is not None
        assert reached.false_alarms is not None
        assert reached.recall >= bar.recall, (name, given)
        assert reached.false_alarms <= bar.false_alarms, (name, given)


def test_a_step_costs_far_less_than_a_millisecond() -> None:
    runs = recorded()[:400]
    spec = MonitorSpec()
    before = time.process_time()
    for run in runs:
        play(run, spec)
    spent = time.process_time() - before
    assert spent / sum(len(run.steps) for run in runs) < 0.001
