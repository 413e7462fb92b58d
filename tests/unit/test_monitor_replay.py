"""Recorded runs are read, played and scored; what is wrong with a file is told in one line."""

import gzip
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main
from holdfast.errors import Misconfigured
from holdfast.monitor import Call, MonitorSpec, Severity, Step
from holdfast.monitor.replay import by_group, half, mean, play, play_all, read, score

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def holdfast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["holdfast", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(str(ended.value.code or 0)), said.out, said.err

    return run


def recorded(*results: str, success: bool = False, **more: Any) -> dict[str, Any]:
    steps = [{"tool": "search", "args": "same", "result": result, "tok": 10} for result in results]
    return {"success": success, "task": "t", "steps": steps, **more}


def write(path: Path, *runs: Any) -> Path:
    path.write_text("\n".join(json.dumps(run) for run in runs) + "\n", "utf-8")
    return path


LOOP = recorded(*["nothing"] * 6)
SHORT_LOOP = recorded(*["nothing"] * 3)
FINE = recorded("one", "two", success=True)


def test_a_run_needs_little(tmp_path: Path) -> None:
    [run] = read(write(tmp_path / "a.jsonl", {"success": True, "steps": [{"tool": "a"}]}))
    assert (run.group, run.success, len(run.steps)) == ("runs", True, 1)
    assert run.steps[0].calls[0].error is None


def test_a_file_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(LOOP).encode()))
    assert len(read(path)[0].steps) == 6


def test_calls_of_one_message_are_one_step(tmp_path: Path) -> None:
    steps = [
        {"tool": "a", "message": message, "err": error} for message, error in ((1, False), (1, True), (2, "quota"))
    ]
    [run] = read(write(tmp_path / "a.jsonl", {"success": True, "steps": [*steps, {"tool": "b"}, {"tool": "b"}]}))
    assert [[call.tool for call in step.calls] for step in run.steps] == [["a", "a"], ["a"], ["b"], ["b"]]
    assert [call.error for step in run.steps for call in step.calls] == [None, "", "quota", None, None]


def test_the_alarm_counts_only_before_the_last_step(tmp_path: Path) -> None:
    loop, short = read(write(tmp_path / "a.jsonl", LOOP, SHORT_LOOP))
    assert play(loop, MonitorSpec()).alarms[Severity.STOP].step == 3
    assert play(short, MonitorSpec()).alarms == {}


def test_a_score_tells_what_an_alarm_is_worth(tmp_path: Path) -> None:
    disturbed = recorded(*["nothing"] * 4, success=True)
    played = list(play_all(read(write(tmp_path / "a.jsonl", LOOP, SHORT_LOOP, FINE, disturbed)), MonitorSpec()))
    stop = score(played, Severity.STOP)
    assert (stop.failed, stop.succeeded, stop.recall, stop.false_alarms, stop.steps_left) == (2, 2, 0.5, 0.5, 3)
    # The loop pays 10 + 20 + ... + 60 = 210 tokens, 60 of them before the alarm; the short one pays 60 for nothing.
    assert stop.saved == pytest.approx(150 / 270)
    assert stop.rules == {"deadlock.rep": (1, 1)}


def test_a_stop_is_a_warning_too_and_a_warning_may_come_first(tmp_path: Path) -> None:
    errors = recorded(*[f"{letter}Error" for letter in "ABCDEFGH"])
    for number, step in enumerate(errors["steps"]):
        step |= {"args": "abcdefgh"[number], "err": True}
    [played] = play_all(read(write(tmp_path / "a.jsonl", errors)), MonitorSpec())
    assert {severity.name: alarm.step for severity, alarm in played.alarms.items()} == {"WARN": 3, "STOP": 6}


def test_scores_are_given_for_each_group(tmp_path: Path) -> None:
    runs = [{**LOOP, "ds": "a", "model": "m"}, {**FINE, "ds": "b"}, {**SHORT_LOOP, "ds": "b"}]
    scores = by_group(play_all(read(write(tmp_path / "a.jsonl", *runs)), MonitorSpec()), Severity.WARN)
    assert {name: each.recall for name, each in scores.items()} == {"a m": 1.0, "b": 0.0}
    assert scores["a m"].false_alarms is None
    assert mean(scores.values(), lambda each: each.recall) == 0.5
    assert mean(scores.values(), lambda each: each.false_alarms) == 0.0


def test_norms_are_learnt_from_the_other_half(tmp_path: Path) -> None:
    words = [f"text {'abcdefghijklmnop'[n]}" for n in range(16)]

    def run(task: int, length: int, *, success: bool) -> dict[str, Any]:
        made = recorded(*words[:length], success=success, task=str(task))
        for step, word in zip(made["steps"], words, strict=False):
            step["args"] = word
        return made

    runs = read(
        write(tmp_path / "a.jsonl", *[run(n, 3, success=True) for n in range(100)], run(100, 16, success=False))
    )
    assert 30 <= sum(map(half, runs)) <= 70
    long = [each for each in play_all(runs, MonitorSpec(), with_norms=True) if each.alarms]
    assert [each.run.success for each in long] == [False]
    assert long[0].alarms[Severity.STOP].rule == "stall.long"
    assert not any(each.alarms for each in play_all(runs, MonitorSpec()))


def test_no_run_is_judged_by_its_own_half(tmp_path: Path) -> None:
    tasks = read(write(tmp_path / "a.jsonl", *[recorded("x", success=True, task=str(n)) for n in range(100)]))
    steps = tuple(Step(calls=(Call(tool="read", args="x" * n, result="y" * n),)) for n in range(1, 17))
    runs = [replace(run, steps=steps if half(run) else steps[:3]) for run in tasks]
    alarmed = {half(each.run) for each in play_all(runs, MonitorSpec(), with_norms=True) if each.alarms}
    assert alarmed == {1}, "long ones by the short ones, and not the other way round"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no runs"),
        ("{", "line 1 is not JSON"),
        ('{"success": true, "steps": []}\n[]', "line 2: a run must be a JSON object"),
        ('{"steps": []}', "line 1: success is missing"),
        ('{"success": 1, "steps": []}', "success must be true or false, got 1"),
        ('{"success": true}', "steps is missing"),
        ('{"success": true, "steps": {}}', "steps must be a list"),
        ('{"success": true, "steps": [1]}', r"steps\[0\] must be a JSON object"),
        ('{"success": true, "steps": [{"tool": "a"}, {}]}', r"steps\[1\].tool is missing"),
        ('{"success": true, "steps": [{"tool": "a", "result": 1}]}', "result must be text, got 1"),
        ('{"success": true, "steps": [{"tool": "a", "err": 1}]}', "err must be true, false or a class"),
        ('{"success": true, "steps": [{"tool": "a", "tok": true}]}', "tok must be a number"),
        ('{"success": true, "steps": [{"tool": "a", "tok": NaN}]}', "tok must be a number"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Misconfigured, match=said):
        read(path)


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(b"x" * 1000)[:20]])
def test_a_broken_archive_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match="cannot be read"):
        read(path)


def test_the_command_prints_a_table_and_rules(tmp_path: Path, holdfast: Command) -> None:
    code, out, _ = holdfast("monitor", "replay", str(write(tmp_path / "a.jsonl", LOOP, FINE)))
    assert code == 0
    lines = out.splitlines()
    assert " ".join(lines[0].split()) == "runs failed succeeded point recall % false alarms % saved % steps left"
    assert lines[1].split() == ["runs", "1", "1", "WARN", "100.0", "0.0", "71.4", "3"]
    assert ["deadlock.rep", "STOP", "1", "0"] in [line.split() for line in lines]


def test_the_command_prints_json(tmp_path: Path, holdfast: Command) -> None:
    path = str(write(tmp_path / "a.jsonl", LOOP, FINE))
    code, out, _ = holdfast("monitor", "replay", path, path, "--json", "--norms")
    assert code == 0
    printed = json.loads(out)
    assert printed["STOP"]["groups"]["all"]["failed"] == 2
    assert printed["WARN"]["mean_of_groups"]["recall"] == 1.0


def test_the_command_takes_other_thresholds(tmp_path: Path, holdfast: Command) -> None:
    path = str(write(tmp_path / "a.jsonl", LOOP, FINE))
    late = [word for key in ("rep=5", "near=9", "stale_stop=9", "pair_stop=9") for word in ("--set", key)]
    for arguments, left in ((["--profile", "aggressive"], 4), (late, 1)):
        _, out, _ = holdfast("monitor", "replay", path, "--json", *arguments)
        assert json.loads(out)["STOP"]["groups"]["all"]["steps_left"] == left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "rep"], "--set rep: must be KEY=VALUE"),
        (["--set", "rep=1"], "--set rep: Input should be greater than or equal to 2"),
        (["--set", "rule=1"], "--set rule: Extra inputs are not permitted"),
        ([], "cannot be read: No such file or directory"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments: list[str], said: str, holdfast: Command) -> None:
    code, out, err = holdfast("monitor", "replay", "/nowhere/a.jsonl", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
