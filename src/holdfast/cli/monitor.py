"""``holdfast monitor``: what the behaviour monitor would have made of recorded runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from holdfast.cli.table import print_table
from holdfast.errors import Misconfigured
from holdfast.monitor.replay import Played, Score, by_group, mean, play_all, read, score
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.verdicts import Severity

app = typer.Typer(help="Try the behaviour monitor on recorded runs.", no_args_is_help=True)

COLUMNS = ("runs", "failed", "succeeded", "point", "recall %", "false alarms %", "saved %", "steps left")
RULES = ("rule", "point", "failed", "succeeded")
SHARES: dict[str, Callable[[Score], float | None]] = {
    "recall": lambda each: each.recall,
    "false_alarms": lambda each: each.false_alarms,
    "saved": lambda each: each.saved,
}


@app.callback()
def _group() -> None:
    """Keep ``replay`` a command of its own, although there is no other one."""


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JSON lines, one run a line; .gz too.")],
    profile: Annotated[
        Literal["conservative", "default", "aggressive"], typer.Option(help="Which thresholds to take.")
    ] = "default",
    norms: Annotated[
        bool, typer.Option("--norms", help="Also go by how long successes take; each half is judged by the other's.")
    ] = False,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A threshold, as stale_stop=4; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Play recorded runs to the monitor: which failures it catches, how early, and which successes it disturbs."""
    spec = _spec(profile, given or [])
    runs = [run for file in files for run in read(file)]
    played = list(play_all(runs, spec, with_norms=norms))
    points = {severity.name: _scores(played, severity) for severity in Severity}
    if as_json:
        print(json.dumps({name: _plain(scores) for name, scores in points.items()}, indent=2))
        return
    groups = list(points["WARN"])
    rows = [_row(group, name, points[name][group]) for group in groups for name in points]
    rows += [_mean_row(name, list(scores.values())[:-1]) for name, scores in points.items()] if len(groups) > 2 else []
    print_table(COLUMNS, rows, [False] * len(rows))
    print()
    rules = [
        (rule, name, str(failed), str(succeeded))
        for name, scores in points.items()
        for rule, (failed, succeeded) in scores["all"].rules.items()
    ]
    print_table(RULES, rules, [False] * len(rules))


def _spec(profile: str, given: Sequence[str]) -> MonitorSpec:
    values: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise Misconfigured(f"--set {each}: must be KEY=VALUE")
        values[name] = value
    try:
        return MonitorSpec.model_validate({"profile": profile, **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise Misconfigured(f"--set {'.'.join(map(str, first['loc'])) or '...'}: {first['msg']}") from error


def _scores(played: Sequence[Played], severity: Severity) -> dict[str, Score]:
    """The score of each group, and of all runs together as the last."""
    return {**by_group(played, severity), "all": score(played, severity)}


def _plain(scores: dict[str, Score]) -> dict[str, Any]:
    groups = list(scores.values())[:-1]
    means = {name: mean(groups, share) for name, share in SHARES.items()}
    return {"groups": {name: asdict(each) for name, each in scores.items()}, "mean_of_groups": means}


def _row(group: str, point: str, each: Score) -> tuple[str, ...]:
    left = "-" if each.steps_left is None else f"{each.steps_left:g}"
    shares = (_percent(share(each)) for share in SHARES.values())
    return (group, str(each.failed), str(each.succeeded), point, *shares, left)


def _mean_row(point: str, groups: Sequence[Score]) -> tuple[str, ...]:
    shares = (_percent(mean(groups, share)) for share in SHARES.values())
    return ("mean of groups", "", "", point, *shares, "")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
