"""
Recorded runs, and what the monitor would have made of them.

A recording is JSON lines, one run a line; a run that failed should have raised an alarm, one that succeeded should not.
Each run is played to a monitor in shadow. An alarm on the last step counts for nothing: it saves nothing. Tokens are
counted as they are paid for, with the conversation sent again on each model call.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, groupby
from math import isfinite
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

from holdfast.errors import Misconfigured
from holdfast.monitor.monitor import Monitor
from holdfast.monitor.norms import Norms
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.steps import Call, Step
from holdfast.monitor.verdicts import Severity

MISSING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    One recorded run.

    Attributes:
        group: Data set and model: what figures are given for.
        task: What it was about; runs of one task are kept in one half.
        success: What came of it.
        steps: In order.
    """

    group: str
    task: str
    success: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """
    The first alarm of a run at one severity.

    Attributes:
        rule: State and rule, as ``deadlock.rep``.
        step: Number of the step after which it came, from 1.
    """

    rule: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """
    A run, and the alarms that came before its last step.

    Attributes:
        run: The run.
        alarms: The first one for each severity; a STOP counts as a WARN too.
    """

    run: Run
    alarms: Mapping[Severity, Alarm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """
    How good one point is on some runs. Shares are in [0, 1], and None where there are no runs to have a share of.

    Attributes:
        failed: Runs that failed.
        succeeded: Runs that succeeded.
        recall: Share of the failed ones with an alarm.
        false_alarms: Share of the successful ones with an alarm.
        saved: Share of the failed ones' tokens that would not have been spent after it.
        steps_left: Steps that failed runs went on for after it, as a median.
        rules: For each rule, how many failed and successful runs it gave the alarm in.
    """

    failed: int
    succeeded: int
    recall: float | None
    false_alarms: float | None
    saved: float | None
    steps_left: float | None
    rules: dict[str, tuple[int, int]]


def read(path: Path) -> list[Run]:
    """
    Every run of a file, plain or gzip.

    Raises:
        Misconfigured: naming file, line and what is wrong with it.
    """
    runs = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            runs = [_line(f"{path} line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    except (OSError, EOFError, zlib.error) as error:
        raise Misconfigured(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is not UTF-8 text") from error
    if not runs:
        raise Misconfigured(f"{path} holds no runs")
    return runs


def play(run: Run, spec: MonitorSpec, norms: Norms | None = None) -> Played:
    """What a monitor in shadow says to a run."""
    monitor = Monitor(spec.model_copy(update={"mode": "shadow"}), norms)
    alarms: dict[Severity, Alarm] = {}
    for number, step in enumerate(run.steps[:-1], 1):
        for verdict in monitor.after_step(step):
            alarm = Alarm(rule=f"{verdict.state.value}.{verdict.rule}", step=number)
            for severity in Severity:
                if severity <= verdict.severity:
                    alarms.setdefault(severity, alarm)
        if Severity.STOP in alarms:
            break
    return Played(run=run, alarms=alarms)


def play_all(runs: Iterable[Run], spec: MonitorSpec, *, with_norms: bool = False) -> Iterator[Played]:
    """
    What a monitor in shadow says to each run.

    With norms, each half of the tasks is judged by those of the other half, so that no run is judged by itself.
    """
    if not with_norms:
        yield from (play(run, spec) for run in runs)
        return
    runs = list(runs)
    learnt: dict[tuple[str, int], Norms] = {}
    for run in runs:
        norms = learnt.setdefault((run.group, half(run)), Norms())
        if run.success and run.steps:
            monitor = Monitor(spec)
            for step in run.steps:
                monitor.after_step(step)
            norms.learn(monitor.success())
    for run in runs:
        yield play(run, spec, learnt.get((run.group, 1 - half(run))))


def half(run: Run) -> int:
    """Which half of the tasks a run belongs to: 0 or 1, the same for all runs of a task."""
    return blake2b(run.task.encode(), digest_size=1).digest()[0] & 1


def score(played: Iterable[Played], severity: Severity) -> Score:
    """How good the point is on these runs."""
    runs = list(played)
    failed = [each for each in runs if not each.run.success]
    succeeded = [each for each in runs if each.run.success]
    caught = [(each, each.alarms[severity]) for each in failed if severity in each.alarms]
    wrong = [each.alarms[severity] for each in succeeded if severity in each.alarms]
    spent = sum(_paid(each.run)[-1] for each in failed if each.run.steps)
    saved = sum(_paid(each.run)[-1] - _paid(each.run)[alarm.step - 1] for each, alarm in caught)
    right = Counter(alarm.rule for _, alarm in caught)
    false = Counter(alarm.rule for alarm in wrong)
    return Score(
        failed=len(failed),
        succeeded=len(succeeded),
        recall=len(caught) / len(failed) if failed else None,
        false_alarms=len(wrong) / len(succeeded) if succeeded else None,
        saved=saved / spent if spent else None,
        steps_left=median(len(each.run.steps) - alarm.step for each, alarm in caught) if caught else None,
        rules={rule: (right[rule], false[rule]) for rule in sorted(right | false)},
    )


def by_group(played: Iterable[Played], severity: Severity) -> dict[str, Score]:
    """The score of each data set and model."""
    ordered = sorted(played, key=_group)
    return {group: score(runs, severity) for group, runs in groupby(ordered, key=_group)}


def mean(scores: Iterable[Score], of: Callable[[Score], float | None]) -> float | None:
    """The mean over groups, each with the same weight, of a share; None where no group has it."""
    shares = [share for each in scores if (share := of(each)) is not None]
    return fmean(shares) if shares else None


def _group(played: Played) -> str:
    return played.run.group


def _paid(run: Run) -> list[int]:
    """Tokens paid for until the end of each step: every model call reads again all that was said before."""
    said = accumulate(step.tokens + sum(call.tokens for call in step.calls) for step in run.steps)
    return list(accumulate(said))


def _line(where: str, line: str) -> Run:
    try:
        return _run(json.loads(line))
    except (json.JSONDecodeError, RecursionError) as error:
        raise Misconfigured(f"{where} is not JSON: {error}") from error
    except _Wrong as error:
        raise Misconfigured(f"{where}: {error}") from error


class _Wrong(Exception):
    """What is wrong with a line, in words that begin with the name of the field."""


def _run(line: Any) -> Run:
    if not isinstance(line, dict):
        raise _Wrong("a run must be a JSON object")
    names = [str(line[name]) for name in ("ds", "model") if line.get(name)]
    group = " ".join(names) or "runs"
    success = _take(line, "success", bool)
    steps = _take(line, "steps", list)
    messages = groupby(enumerate(steps), key=lambda at: _message(at[0], at[1]))
    return Run(
        group=group,
        task=f"{group} {line.get('task', '')}",
        success=success,
        steps=tuple(_step([each for _, each in calls], at[0]) for at, calls in messages),
    )


def _message(number: int, step: Any) -> tuple[int, Any]:
    if not isinstance(step, dict):
        raise _Wrong(f"steps[{number}] must be a JSON object")
    message = step.get("message", MISSING)
    return (number, None) if message is MISSING else (-1, json.dumps(message))


def _step(calls: list[dict[str, Any]], number: int) -> Step:
    try:
        return Step(text=_take(calls[0], "text", str, ""), calls=tuple(_call(call) for call in calls))
    except _Wrong as error:
        raise _Wrong(f"steps[{number}].{error}" if number >= 0 else f"in a step, {error}") from error


def _call(step: dict[str, Any]) -> Call:
    failed = step.get("err", False)
    if not isinstance(failed, bool | str):
        raise _Wrong("err must be true, false or a class of failure")
    tokens = _take(step, "tok", int | float, 0)
    if not isfinite(tokens):
        raise _Wrong(f"tok must be a number, got {tokens}")
    return Call(
        tool=_take(step, "tool", str),
        args=step.get("args"),
        result=_take(step, "result", str, ""),
        error=(failed if isinstance(failed, str) else "") if failed else None,
        tokens=max(0, int(tokens)),
    )


def _take(given: dict[str, Any], name: str, kind: Any, default: Any = MISSING) -> Any:
    value = given.get(name, default)
    if value is MISSING:
        raise _Wrong(f"{name} is missing")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {bool: "true or false", list: "a list", str: "text"}
        raise _Wrong(f"{name} must be {names.get(kind, 'a number')}, got {value!r:.40}")
    return value
