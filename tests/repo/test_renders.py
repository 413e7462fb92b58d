"""What is rendered from the code is what the code says now."""

import importlib.util
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def render() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def elsewhere(render: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(render, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_every_rendered_document_is_fresh(render: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["--check"]) == 0, capsys.readouterr().out


def test_a_stale_document_is_named_with_the_command_that_renders_it(
    render: types.ModuleType, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render.main([]) == 0
    (elsewhere / "docs" / "errors.md").write_text("old", "utf-8")
    (elsewhere / "api.txt").unlink()
    capsys.readouterr()
    assert render.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "docs/errors.md is stale: run `make render`",
        "api.txt is stale: run `make render`",
    ]
    assert (elsewhere / "docs" / "errors.md").read_text("utf-8") == "old"


def test_rendering_twice_changes_nothing(
    render: types.ModuleType, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name} written" for name in render.RENDERED]
    assert render.main([]) == 0
    assert capsys.readouterr().out == ""


def test_an_error_nobody_explained_stops_the_rendering(
    render: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(render.TO_DO, "TooLarge")
    with pytest.raises(SystemExit, match="TooLarge"):
        render.errors_page()
