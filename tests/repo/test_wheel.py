"""What is installed is all that is needed."""

import zipfile
from pathlib import Path

import pytest
from flit_core import buildapi  # type: ignore[import-untyped]  # it has no annotations

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_the_code_its_statements_its_types_and_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    wheel = zipfile.ZipFile(tmp_path / buildapi.build_wheel(str(tmp_path)))
    names = set(wheel.namelist())
    source = ROOT / "src"
    kinds = {".py", ".sql", ".lua"}
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.suffix in kinds}
    assert wanted | {"holdfast/py.typed"} <= names
    assert not {name for name in names if name.startswith(("tests", "docs", "bench"))}
    [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
    assert "holdfast=holdfast.cli:main" in wheel.read(entry_points).decode().replace(" ", "")
    wheel.close()
