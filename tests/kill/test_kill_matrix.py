"""Some of the kill matrix, and of the turns under load; `make kill-matrix` and `make kill-load` do all of it."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kill.cases import FUNCTION, PYDANTIC, Case, few_cases
    from tests.kill.load import repeat
    from tests.kill.matrix import InPostgres, Line, Matrix, Run, judge, sqlite
else:
    from cases import FUNCTION, PYDANTIC, Case, few_cases
    from load import repeat
    from matrix import InPostgres, Line, Matrix, Run, judge, sqlite

pytestmark = [pytest.mark.slow, pytest.mark.sockets]


async def test_a_server_that_is_killed_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    matrix = Matrix(tmp_path, 3)
    cases = list(few_cases())
    await matrix.play(cases, {"SQLite": sqlite})
    assert matrix.wrong == []
    assert len(matrix.runs["SQLite"]) == len(cases)


async def test_nor_does_one_whose_turns_are_in_postgres(tmp_path: Path, postgres: InPostgres) -> None:
    matrix = Matrix(tmp_path, 3)
    cases = [case for case in few_cases() if case.scenario in (FUNCTION, PYDANTIC) and case.effect != "unknown"]
    await matrix.play(cases, {"PostgreSQL": postgres})
    assert matrix.wrong == []
    assert len(matrix.runs["PostgreSQL"]) == len(cases)


async def test_no_turn_under_load_is_lost_or_doubled(tmp_path: Path) -> None:
    seen = await repeat(tmp_path, sqlite(tmp_path), 200, 0.5)
    assert seen.pays == seen.turns == 200
    assert seen.answered < seen.turns


@pytest.mark.parametrize(
    ("effect", "kill", "did", "doubts"),
    [
        ("once", "middle inside after", ["called", "effect", "called", "effect"], [("middle_once", True)]),
        ("once", "middle inside after", ["called", "effect"], []),
        ("reconcile", "middle inside after", ["called", "effect"], []),
        ("pure", "middle inside after", ["called", "effect"], []),
        ("once", "middle done after", ["called", "effect"], [("middle_once", True)]),
        ("once", "middle inside before", [], [("middle_once", False)]),
    ],
)
def test_the_matrix_can_tell(effect: str, kill: str, did: list[str], doubts: list[tuple[str, bool]]) -> None:
    """What is not as promised does not pass."""
    lines = [Line("r", f"middle_{effect}", what, "key") for what in did]
    lines += [Line("r", tool, what, tool) for tool in ("first", "last") for what in ("called", "effect")]
    with pytest.raises(AssertionError):
        judge(Run(Case(FUNCTION, effect, (kill,)), "", lines, doubts, 1))
