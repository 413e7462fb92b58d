"""Prometheus' own tools, where they are installed; without them what needs them is skipped, and says so."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.ops.render import Place, rendered

Promtool = Callable[..., str]
Play = Callable[..., None]


@pytest.fixture(scope="session")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything, rendered now."""
    folder = tmp_path_factory.mktemp("deploy")
    for name, text in rendered(Place()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Where a program is; the test is skipped where it is not."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed: apt-get install prometheus prometheus-alertmanager")
        return found

    return find


@pytest.fixture(scope="session")
def promtool(tool: Callable[[str], str]) -> Promtool:
    """Run promtool, which has to be content; what it says."""

    def run(*words: object) -> str:
        done = subprocess.run(
            [tool("promtool"), *map(str, words)], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def play_rules(promtool: Promtool, deploy: Path, tmp_path: Path) -> Play:
    """Have promtool play ``tests`` against every rule."""

    def play(tests: list[dict[str, Any]], every: str = "1m") -> None:
        rules = sorted(str(path) for path in (deploy / "prometheus" / "rules").glob("*.yml"))
        file = tmp_path / "tests.yml"
        file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": every, "tests": tests}), "utf-8")
        promtool("test", "rules", file)

    return play
