"""The specification of the bulkhead holds in every state it can reach, and would notice each known bug."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.properties import compartment_model as model
else:
    import compartment_model as model  # pytest puts a test's folder on the path, and mypy the project's


@pytest.mark.parametrize(("limit", "max_queue", "states"), [(2, 2, 2248), (1, 3, 4204), (2, 0, 227)])
def test_the_specification_holds_in_every_reachable_state(limit: int, max_queue: int, states: int) -> None:
    assert model.check("", limit, max_queue) == states


@pytest.mark.parametrize("mutant", model.MUTANTS)
def test_a_known_bug_is_caught(mutant: str) -> None:
    with pytest.raises(model.Violation):
        model.check(mutant)
