"""Every alert speaks when it should, keeps silent just before, and is not fooled by silence: played by promtool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from holdfast.ops.alerts import ALERTS, Alert

if TYPE_CHECKING:
    from tests.ops.alert_cases import CASES, Scene
    from tests.ops.conftest import Play
else:
    from alert_cases import CASES, Scene

BY_NAME = {alert.name: alert for alert in ALERTS}
NOTHING = Scene("nothing is scraped but another job", {'up{job="other", instance="a"}': "1x6000"})


def played(alert: Alert, scene: Scene) -> dict[str, Any]:
    expected = {
        "exp_labels": {"severity": alert.severity, **(scene.labels or {})},
        "exp_annotations": {
            "summary": scene.summary,
            "description": scene.says,
            "runbook_url": f"docs/runbooks/{alert.name}.md",
            "dashboard_url": f"/d/holdfast-{alert.board}",
        },
    }
    return {
        "name": scene.title,
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in scene.series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{scene.minutes}m",
                "alertname": alert.name,
                "exp_alerts": [] if scene.labels is None else [expected],
            }
        ],
    }


def test_every_alert_has_its_scenes() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]
    assert all(scenes.fires and scenes.silent for scenes in CASES.values())


@pytest.mark.parametrize("name", CASES)
def test_it_fires_and_says_what_is_wrong(name: str, play_rules: Play) -> None:
    play_rules([played(BY_NAME[name], scene) for scene in CASES[name].fires], CASES[name].evaluated)


@pytest.mark.parametrize("name", CASES)
def test_it_is_silent_just_before(name: str, play_rules: Play) -> None:
    play_rules([played(BY_NAME[name], scene) for scene in CASES[name].silent], CASES[name].evaluated)


def test_where_nothing_is_scraped_one_alert_says_so_and_no_other_speaks(play_rules: Play) -> None:
    scenes = [played(BY_NAME[name], CASES[name].when_nothing_is_scraped or NOTHING) for name in CASES]
    asked = [alert for scene in scenes for alert in scene["alert_rule_test"]]
    play_rules([{**scenes[0], "alert_rule_test": asked}])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, scenes in CASES.items() if scenes.when_nothing_is_scraped is None])
def test_it_is_silent_once_its_series_are_gone(name: str, play_rules: Play) -> None:
    """What a process that died last said is not true for ever."""
    gone = []
    for scene in CASES[name].fires:
        cut = {series: values.replace("x6000", f"x{scene.minutes}") for series, values in scene.series.items()}
        gone.append(played(BY_NAME[name], Scene(f"{scene.title}, then nothing", cut, scene.minutes + 150)))
    play_rules(gone, CASES[name].evaluated)
