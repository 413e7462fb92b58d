"""
What counts: made from the catalogue, in a registry of its own, and bounded.

    turns = Instruments().counter(TURNS)
    turns.labels("assistant", "success").inc()

A label takes as many values as its bound says; what comes later is told as ``OTHER`` and counted, and no value ever
changes the label it got. A series exists as soon as its labels' values are known, so that ``rate()`` sees the first
error: values of a closed set are known beforehand, and those of an open one once they were seen on any metric.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from holdfast.telemetry.catalogue import Label, Metric
from holdfast.telemetry.catalogue_process import LABEL_OVERFLOW
from holdfast.telemetry.labels import OTHER

Child = TypeVar("Child", Counter, Gauge, Histogram)


class _Values:
    """The values that one label has taken, for all metrics that have it."""

    __slots__ = ("closed", "on_new", "room", "seen")

    def __init__(self, label: Label) -> None:
        self.closed = label.values
        self.room = label.bound - len(label.values)
        self.seen = set(label.values)
        self.on_new: list[Callable[[str], None]] = []

    def fold(self, value: str) -> str:
        """The label of ``value``: itself, or ``OTHER``."""
        if value in self.seen:
            return value
        if value != OTHER:
            unicode = value.encode(errors="replace").decode() == value  # One that is not would spoil the whole page.
            if self.room == 0 or not unicode:
                return self.fold(OTHER)
            self.room -= 1
        self.seen.add(value)
        for begin in self.on_new:
            begin(value)
        return value


class Family(Generic[Child]):
    """The series of one metric, by the values of its labels."""

    __slots__ = ("_children", "_made", "_overflow", "_values")

    def __init__(self, made: Child, values: Sequence[_Values], overflow: Callable[[], None]) -> None:
        self._made: Child = made
        self._values = values
        self._overflow = overflow
        self._children: dict[tuple[str, ...], Child] = {}
        open_ = [of for of in values if not of.closed]
        if not open_:
            self._begin("")
        elif len(open_) == 1:
            open_[0].on_new.append(self._begin)

    def labels(self, *values: str) -> Child:
        """The series with these values, in the order of the labels; folded where they are beyond the bounds."""
        child = self._children.get(values)
        return child if child is not None else self._children[self.fold(*values)]

    def fold(self, *values: str) -> tuple[str, ...]:
        """The values that the series for ``values`` has; it is made if it is new."""
        folded = tuple(of.fold(value) for of, value in zip(self._values, values, strict=True))
        if folded != values:
            self._overflow()
        if folded not in self._children:
            pairs = zip(self._values, folded, strict=True)
            self._make([of.closed if value in of.closed else (value,) for of, value in pairs])
        return folded

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """The values that there are series for."""
        return iter(tuple(self._children))

    def clear(self) -> None:
        """Forget every series. Only of what is set anew before each page."""
        self._made.clear()
        self._children.clear()

    def _begin(self, value: str) -> None:
        """Make the series of ``value``, which the only label that is open has taken."""
        self._make([of.closed or (value,) for of in self._values])

    def _make(self, choices: list[tuple[str, ...]]) -> None:
        for values in product(*choices):
            if values not in self._children:
                self._children[values] = self._made.labels(*values) if values else self._made


class Instruments:
    """
    Makes counters, gauges and histograms from the catalogue.

    Args:
        namespace: Goes in front of every name, with an underscore; empty adds nothing.

    Attributes:
        registry: What they are in.
    """

    def __init__(self, namespace: str = "") -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.registry = CollectorRegistry()
        self._namespace = namespace
        self._values: dict[Label, _Values] = {}
        made = self._counter(LABEL_OVERFLOW)
        self._overflows = Family(made, [self._of(label) for label in LABEL_OVERFLOW.labels], lambda: None)

    def counter(self, metric: Metric) -> Family[Counter]:
        """The series of a counter."""
        return self._family(metric, self._counter(metric))

    def gauge(self, metric: Metric) -> Family[Gauge]:
        """The series of a gauge."""
        name = metric.named(self._namespace)
        return self._family(metric, Gauge(name, metric.help, metric.label_names, registry=self.registry))

    def histogram(self, metric: Metric) -> Family[Histogram]:
        """The series of a histogram."""
        name, edges = metric.named(self._namespace), metric.buckets
        made = Histogram(name, metric.help, metric.label_names, buckets=edges, registry=self.registry)
        return self._family(metric, made)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.named(self._namespace), metric.help, metric.label_names, registry=self.registry)

    def _family(self, metric: Metric, made: Child) -> Family[Child]:
        if metric.labels:
            self._overflows.labels(metric.name)
        values = [self._of(label) for label in metric.labels]
        return Family(made, values, lambda: self._overflows.labels(metric.name).inc())

    def _of(self, label: Label) -> _Values:
        return self._values.setdefault(label, _Values(label))
