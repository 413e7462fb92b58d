"""The breaker's specification keeps its promises in every state it can reach, and no known bug would."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.properties import circuit_model as model
else:
    import circuit_model as model  # pytest puts a test's folder on the path, and mypy the project's


@pytest.mark.parametrize(
    "rules",
    [
        model.Rules(),
        model.Rules(probes=2, need=2),
        model.Rules(probes=1, need=1, lease=1),
        model.Rules(probes=2, need=3, open_ticks=1),
        model.Rules(min_calls=3, consecutive=2),
    ],
    ids=str,
)
def test_every_reachable_state_keeps_the_invariants(rules: model.Rules) -> None:
    assert model.check(rules) > 300


@pytest.mark.parametrize("mutant", model.MUTANTS)
def test_a_known_bug_is_caught(mutant: str) -> None:
    rules = model.Rules(mutant=mutant, probes=2 if mutant == "stale_same_kind" else 1)
    with pytest.raises(model.Violation):
        model.check(rules)
