"""
Service level objectives, as data: what is promised, and how much of it may fail.

An objective counts events and bad events. Prometheus asks it for rates, ``GET /v1/slo`` for what this process has
counted; both come from the same series. To add one, add it to ``SLOS``: rules, alerts, panels and the route follow.

::

    bad events / events = error ratio        1 - objective = budget
    error ratio / budget = burn rate         1 uses up the budget in exactly 30 days
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from holdfast.ops.rule import Record
from holdfast.telemetry.catalogue_process import SLO_OBJECTIVE
from holdfast.telemetry.catalogue_turns import HTTP_REQUESTS, TURN_FIRST_TOKEN, TURNS
from holdfast.telemetry.terms import Metric

PERIOD = "30d"
"""What a budget is for."""

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""Over which error ratios are recorded."""

BASE = "5m"
"""The window of the rates that all others are summed up from."""

Count = Callable[[str, Mapping[str, str]], float]
"""What this process has counted: the sum of a name's samples whose labels match these patterns as a whole."""


class Indicator(Protocol):
    """What tells good events from bad ones."""

    def rates(self, window: str) -> tuple[str, str]:
        """PromQL, by ``job``: bad events a second, and events a second."""

    def counts(self, count: Count) -> tuple[float, float]:
        """Bad events, and events."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """
    Bad are those of a counter's events whose labels match.

    Attributes:
        counter: Counts the events.
        bad: Which are bad: a pattern by label.
        of: Which are events at all; empty takes all.
    """

    counter: Metric
    bad: Mapping[str, str]
    of: Mapping[str, str]

    def rates(self, window: str) -> tuple[str, str]:
        """PromQL, by ``job``: bad events a second, and events a second."""
        return self._rate({**self.of, **self.bad}, window), self._rate(self.of, window)

    def counts(self, count: Count) -> tuple[float, float]:
        """Bad events, and events."""
        return count(self.counter.name, {**self.of, **self.bad}), count(self.counter.name, self.of)

    def _rate(self, where: Mapping[str, str], window: str) -> str:
        matchers = ", ".join(f'{label}=~"{pattern}"' for label, pattern in where.items())
        selected = f"{self.counter.name}{{{matchers}}}" if matchers else self.counter.name
        return f"sum by (job) (rate({selected}[{window}]))"


@dataclass(frozen=True, slots=True)
class Within:
    """
    Bad are those that took longer.

    Attributes:
        histogram: Knows how long each took.
        seconds: One of its bucket edges.
    """

    histogram: Metric
    seconds: float

    def rates(self, window: str) -> tuple[str, str]:
        """PromQL, by ``job``: bad events a second, and events a second."""
        name, edge = self.histogram.name, self._edge
        every = f"sum by (job) (rate({name}_count[{window}]))"
        return f'{every} - sum by (job) (rate({name}_bucket{{le="{edge}"}}[{window}]))', every

    def counts(self, count: Count) -> tuple[float, float]:
        """Bad events, and events."""
        every = count(f"{self.histogram.name}_count", {})
        return every - count(f"{self.histogram.name}_bucket", {"le": self._edge.replace(".", r"\.")}), every

    @property
    def _edge(self) -> str:
        return str(float(self.seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """
    One objective.

    Attributes:
        name: The label ``slo`` of its series.
        objective: Share of events that is to be good, in (0, 1).
        promise: The same as a sentence.
        indicator: Which events, and which of them are bad.
    """

    name: str
    objective: float
    promise: str
    indicator: Indicator


_ASKING = {"route": "/chat|/v1/chat"}

SLOS: tuple[Slo, ...] = (
    Slo(
        name="availability",
        objective=0.999,
        promise="99.9 % of turns end without an error and within their time; what a guardrail blocks has not failed.",
        indicator=Ratio(TURNS, bad={"outcome": "error|timeout"}, of={}),
    ),
    Slo(
        name="first_token",
        objective=0.95,
        promise="95 % of turns that stream their answer have its first token within 2 s of asking the model.",
        indicator=Within(TURN_FIRST_TOKEN, 2),
    ),
    Slo(
        name="errors",
        objective=0.99,
        promise="99 % of requests to ask an agent are not answered with a status of 500 or more; refusals count.",
        indicator=Ratio(HTTP_REQUESTS, bad={"code": "5.."}, of=_ASKING),
    ),
)


@dataclass(frozen=True, slots=True)
class Burn:
    """
    A speed at which a budget may not be used up: over the long window, and still over the short one.

    Attributes:
        factor: How many times faster than would use it up in ``PERIOD``.
    """

    factor: float
    long: str
    short: str


PAGES = (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m"))
"""A fiftieth of the budget in an hour, a twentieth in six hours: somebody is woken."""

TICKETS = (Burn(3, "1d", "2h"), Burn(1, "3d", "6h"))
"""A tenth of the budget in a day, or in three days: somebody looks during the day."""

FEW = 10
"""Bad events in a long window that wake nobody, however few the good ones are."""

_EVENTS, _BAD = f"agent:slo_events:rate{BASE}", f"agent:slo_bad_events:rate{BASE}"
_BUDGET = "agent:slo_budget:ratio"
BUDGET_LEFT = "agent:error_budget_remaining:ratio"
"""1 while nothing was used, 0 when all of it is, below that when it is overdrawn."""


def error_ratio(window: str) -> str:
    """The series with the share of bad events over ``window``."""
    return f"agent:slo_errors:ratio_rate{window}"


def slo_records() -> Iterator[Record]:
    """What is recorded of every objective, each after what it is made from."""
    for slo in SLOS:
        bad, events = slo.indicator.rates(BASE)
        yield Record(_EVENTS, events, {"slo": slo.name})
        yield Record(_BAD, bad, {"slo": slo.name})
    yield Record(_BUDGET, f"1 - max by (job, slo) ({SLO_OBJECTIVE.name})")
    for window in WINDOWS:
        yield Record(error_ratio(window), _ratio(window))
    yield Record(BUDGET_LEFT, f"1 - {_ratio(PERIOD)} / {_BUDGET}")


def burns(speeds: tuple[Burn, ...], few: int = 0) -> str:
    """PromQL that holds while a budget is used up at one of these speeds, with more than ``few`` bad events."""
    return "\nor\n".join(f"(\n{_burns(speed, few)}\n)" for speed in speeds)


def _burns(speed: Burn, few: int) -> str:
    over = [f"  {error_ratio(window)} / {_BUDGET} > {speed.factor:g}" for window in (speed.long, speed.short)]
    if few:
        over.append(f"  avg_over_time({_BAD}[{speed.long}]) * {_SECONDS[speed.long]} > {few}")
    return "\nand\n".join(over)


_SECONDS = {"1h": 3_600, "6h": 21_600}


def _ratio(window: str) -> str:
    """Events weigh the same whenever they happened; where there were none, none was bad."""
    if window == BASE:
        return f"{_BAD} / clamp_min({_EVENTS}, 1e-9)"
    return f"sum_over_time({_BAD}[{window}]) / clamp_min(sum_over_time({_EVENTS}[{window}]), 1e-9)"
