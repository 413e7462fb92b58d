"""The settings of the monitor check themselves; norms learn from successes."""

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from holdfast.monitor import Monitor, MonitorSpec, Norms, Success
from holdfast.monitor.spec import PROFILES

if TYPE_CHECKING:
    from tests.unit.monitor_runs import call, found, norms
else:
    from monitor_runs import call, found, norms  # pytest puts a test's folder on the path


def test_every_key_has_a_sentence() -> None:
    for name, field in MonitorSpec.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rep": 1}, "greater than or equal to 2"),
        ({"err_warn": 7}, "err_warn must be <= err_stop, got 7 > 6"),
        ({"tell_ratio": 0.9}, "must be in order"),
        ({"cls_stop": 9}, "cls_stop must be <= cls_window, got 9 > 8"),
        ({"profile": "wild"}, "'conservative', 'default' or 'aggressive'"),
        ({"surprise": 1}, "Extra inputs"),
        ({"agents": {"a": {"rep": 1}}}, r"agents.a.rep\s+Input should be greater"),
        ({"agents": {"a": {"nothing": 1}}}, r"agents.a.nothing\s+Extra"),
        ({"tools": {"a": {"repeatable": "often"}}}, "'none', 'poll' or 'page'"),
    ],
)
def test_what_is_wrong_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MonitorSpec.model_validate(given)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_sets_what_is_not_set_by_itself(profile: str) -> None:
    plain = MonitorSpec.model_validate({"profile": profile})
    assert {name: getattr(plain, name) for name in PROFILES[plain.profile]} == PROFILES[plain.profile]
    assert MonitorSpec.model_validate({"profile": profile, "rep": 7}).rep == 7


def test_profiles_differ_in_how_soon_they_fire() -> None:
    fired = {}
    for profile in PROFILES:
        spec = MonitorSpec(profile=profile, mode="shadow", stale_warn=50, stale_stop=50)
        fired[profile] = found(Monitor(spec), [call()] * 9)[0]
    assert fired == {
        "conservative": "deadlock.rep STOP 5",
        "default": "deadlock.rep STOP 3",
        "aggressive": "deadlock.rep STOP 2",
    }


def test_an_agent_may_differ() -> None:
    spec = MonitorSpec(rep=4, agents={"poet": {"rep": 9, "mode": "shadow"}, "bot": {"profile": "aggressive"}})
    assert (spec.for_agent("poet").rep, spec.for_agent("poet").mode) == (9, "shadow")
    assert spec.for_agent("other") is spec
    assert (spec.for_agent("bot").rep, spec.for_agent("bot").err_stop) == (4, 4), "what is set by itself stays"
    assert Monitor(spec, agent="poet").spec.rep == 9


def test_an_agents_profile_takes_the_place_of_the_profile_of_all() -> None:
    spec = MonitorSpec(profile="conservative", agents={"bot": {"profile": "default"}})
    assert (spec.rep, spec.for_agent("bot").rep) == (5, 3)


def test_norms_are_those_of_successes() -> None:
    usual = norms([*range(1, 101)])
    assert (usual.p95(), usual.longest(), len(usual)) == (95, 100, 100)
    assert usual.left(90) == 5
    assert usual.left(101) is None
    assert (Norms().p95(), Norms().longest(), Norms().left(1)) == (0, 0, None)


def test_norms_forget_the_oldest() -> None:
    usual = norms([1_000] * 10 + [5] * 500)
    assert (len(usual), usual.longest()) == (500, 5)


def test_norms_can_be_kept() -> None:
    usual = Norms([Success(3, 10, 2, 0.7), Success(5)])
    again = Norms.load(usual.dump())
    assert again.dump() == usual.dump() == {"successes": [[3, 10, 2, 0.7], [5, 0, 0, None]]}
    assert again.confidence() == 0.7


def test_a_success_has_steps() -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        Norms([Success(0)])


def test_the_least_evidence_is_what_nearly_all_had() -> None:
    assert Norms(Success(3, evidence=each) for each in [0, *[4] * 39]).least_evidence() == 4
    assert Norms(Success(3, evidence=each) for each in [0, 0, 0, *[4] * 36]).least_evidence() == 0
    assert Norms().least_evidence() == 0
