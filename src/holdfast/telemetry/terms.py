"""
What an entry of the catalogue says: a metric, a span, a line of the log, an event of the trace file.

Each entry is a constant of a module ``catalogue_*``; ``catalogue`` collects them. What is counted, traced and written
is made from these objects, and so are the documents, the rules and the dashboards: no name stands in two places.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram"]

UNITS = ("seconds", "bytes", "ratio", "usd")
"""Base units. A metric that has one ends in it, before the ``_total`` of a counter."""

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "counter": ("",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """
    One label. Metrics that have the same one share its values: what is told apart, or not, on one is on all of them.

    Attributes:
        name: What it is called.
        bound: Values that are told apart at most; further ones are told as ``OTHER``, which comes on top.
        values: All there are, where that is known beforehand: their series exist from the start.
    """

    name: str
    bound: int
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Alias:
    """
    A name that another system gives to the same thing, kept as a recording rule.

    Attributes:
        name: That name.
        expr: PromQL in which ``METRIC`` stands for ours; of a histogram there is a rule for each of its three series.
    """

    name: str
    expr: str = "METRIC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """
    One metric.

    Attributes:
        name: As on the page, without a namespace.
        kind: What it is.
        help: One sentence, as on the page.
        labels: In the order in which their values are given.
        buckets: Upper edges of a histogram's buckets, ascending; the last, infinite one is understood.
        replaces: What systems that Holdfast takes the place of call it.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    replaces: tuple[Alias, ...] = ()

    @property
    def unit(self) -> str:
        """One of ``UNITS``; empty where it counts things."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in UNITS else ""

    @property
    def label_names(self) -> tuple[str, ...]:
        """What its labels are called."""
        return tuple(label.name for label in self.labels)

    @property
    def series(self) -> tuple[str, ...]:
        """What its samples are called: the name itself, or the three of a histogram."""
        return tuple(self.name + suffix for suffix in _SUFFIXES[self.kind])

    def named(self, namespace: str) -> str:
        """Its name with ``namespace`` in front; empty adds nothing."""
        return f"{namespace}_{self.name}" if namespace else self.name

    def rules(self, namespace: str = "") -> list[tuple[str, str]]:
        """The names it replaces, and the PromQL that each is recorded from."""
        full = self.named(namespace)
        return [
            (alias.name + suffix, alias.expr.replace("METRIC", full + suffix))
            for alias in self.replaces
            for suffix in _SUFFIXES[self.kind]
        ]


@dataclass(frozen=True, slots=True)
class Attribute:
    """
    One attribute of a span, or one field of a line or an event.

    Attributes:
        name: What it is called.
        type: What its values are: ``text``, ``whole number``, ``number``, ``true or false``, ``list of texts``.
        help: One sentence.
        content: Whether it holds what people or models wrote: left out unless it is asked for.
    """

    name: str
    type: str
    help: str
    content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """
    One kind of span.

    Attributes:
        name: With ``{}`` around what varies, as in ``chat {model}``.
        kind: As in OpenTelemetry.
        help: What it lasts for.
        attributes: All it may have.
    """

    name: str
    kind: Literal["internal", "server", "client", "producer", "consumer"]
    help: str
    attributes: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """
    One kind of line in the log.

    Attributes:
        name: The line's ``event``.
        level: How severe it is; the mildest one where it varies.
        help: When it is written.
        fields: What it says besides the ids that every line carries.
    """

    name: str
    level: Literal["debug", "info", "warning", "error", "critical"]
    help: str
    fields: tuple[Attribute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """
    One kind of event in the trace file.

    Attributes:
        name: The record's ``event``.
        help: When it is written.
        fields: What is in its ``metadata``.
    """

    name: str
    help: str
    fields: tuple[Attribute, ...] = ()


Entry = TypeVar("Entry", Metric, Span, LogEvent, TraceEvent)


def collect(kind: type[Entry], modules: Iterable[ModuleType]) -> tuple[Entry, ...]:
    """The entries of this kind that are constants of the modules, in the order they are written in."""
    return tuple(entry for module in modules for entry in vars(module).values() if isinstance(entry, kind))
