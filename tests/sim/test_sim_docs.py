"""docs/sim.md: its examples run, and its tables leave nothing out."""

import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.sim import EVERY_FAULT, Message, Overloaded, Record, Reply, Request, Rule, Script, When
from holdfast.sim.loading import load

PAGE = (Path(__file__).parents[2] / "docs" / "sim.md").read_text(encoding="utf-8")
FIRST_CELLS = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]*)\|", PAGE, re.MULTILINE))))


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_yaml_example_is_a_script(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    (text,) = examples("yaml")
    file.write_text(text)
    script, _ = load(file)
    assert isinstance(script, Script)
    assert [rule.name for rule in script.rules] == ["outage", "result", "ask", "", ""]


def test_the_python_script_answers() -> None:
    names: dict[str, Any] = {}
    exec(examples("python")[0], names)
    request = Request(format="anthropic", model="m", messages=(Message(role="user", text="cats"),), tools=("search",))
    replies = [names["script"](request, random.Random(seed)) for seed in range(40)]
    assert {reply.call[0].args["query"] for reply in replies if reply.call} == {"cats"}
    assert Reply(fault=Overloaded(retry_after_s=2)) in replies


@pytest.mark.parametrize("code", examples("python")[1:])
def test_the_programs_run(code: str) -> None:
    exec(code, {"__name__": "__main__"})


def test_the_table_of_faults_is_complete() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", PAGE.partition("## Faults")[2], re.MULTILINE))
    told = {kind: set(re.findall(r"`(\w+)`", keys)) for kind, keys in rows.items()}
    told |= {kind: told["rate_limited"] for kind, keys in rows.items() if keys.strip() == "the same"}
    faults = {str(fault.__struct_config__.tag): set(fault.__struct_fields__) for fault in EVERY_FAULT}
    assert {kind: told.get(kind) for kind in faults} == faults


@pytest.mark.parametrize("shape", [Rule, When, Record])
def test_every_key_has_its_row(shape: type[msgspec.Struct]) -> None:
    assert set(shape.__struct_fields__) <= FIRST_CELLS
