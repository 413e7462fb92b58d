"""Imports point down, and every module has its place in the order."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "holdfast"
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]
LAYERS = next(contract for contract in CONTRACTS if contract["type"] == "layers")


def modules() -> set[str]:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return folders | {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}


def test_every_contract_is_kept() -> None:
    command = (
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True, cache_dir=None))"
    )
    run = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_module_has_a_layer_and_every_layer_a_module() -> None:
    listed = {name.strip() for layer in LAYERS["layers"] for name in layer.split("|")}
    assert LAYERS["exhaustive"]
    assert listed == modules() - set(LAYERS["exhaustive_ignores"])


def test_the_testing_helpers_are_imported_by_nobody_in_the_package() -> None:
    contract = next(contract for contract in CONTRACTS if contract["type"] == "protected")
    assert (contract["protected_modules"], contract["allowed_importers"]) == (["holdfast.testing"], [])


def test_no_contract_has_an_exception() -> None:
    assert [contract["name"] for contract in CONTRACTS if contract.get("ignore_imports")] == []


@pytest.mark.parametrize("alone", ["holdfast.resilience", "holdfast.coord"])
def test_what_stands_alone_brings_no_library_with_it(alone: str) -> None:
    """In a process of its own: this one has imported everything already."""
    tell = f"import sys; before = set(sys.modules); import {alone}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
    brought = {module.partition(".")[0] for module in done.stdout.split()}
    assert brought - set(sys.stdlib_module_names) == {"holdfast"}
