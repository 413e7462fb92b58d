"""
What makes an expression silently wrong, found before it is deployed.

An expression is followed from the inside out: which series there are, whether a counter was rated, which labels are
left. So it is known that each name and label exists, that two sides can match at all, and what a text may speak of.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.ops.alerts import Alert
from holdfast.ops.promql import (
    COMPARISONS,
    SETS,
    Aggregate,
    Binary,
    Call,
    Matcher,
    Node,
    Number,
    Selector,
    Text,
    parse,
    walk,
)
from holdfast.ops.rule import Record
from holdfast.telemetry.catalogue import METRICS
from holdfast.telemetry.labels import OTHER

SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus puts on what it scrapes."""

SCRAPE_S = 15
"""Seconds between two scrapes; a range has to hold four of them."""

_RATES = frozenset({"rate", "irate", "increase"})
_OVER_TIME = frozenset({*(f"{word}_over_time" for word in ("avg", "sum", "max", "min", "count")), "changes"})
_KEEP = frozenset({"clamp_min", "clamp_max", "abs", "ceil", "floor", "round", "sort", "sort_desc", *_OVER_TIME})
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LABEL = re.compile(r"\$labels\.(\w+)")


@dataclass(frozen=True, slots=True)
class Known:
    """
    What is known of a name.

    Attributes:
        labels: Those its series have.
        counter: Whether it only goes up.
        values: All values of a label, where they are known; others never come.
        top: The last finite edge of a histogram's buckets; None of anything else.
    """

    labels: frozenset[str]
    counter: bool = False
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    top: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What an expression comes to: its labels, None of a plain number; and whether it is a counter not yet rated."""

    labels: frozenset[str] | None
    counter: bool = False


def known_names() -> dict[str, Known]:
    """What is on the page and what Prometheus adds, by name."""
    names = {"up": Known(SCRAPED)}
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"):
        names[name] = Known(SCRAPED)
    names["process_cpu_seconds_total"] = Known(SCRAPED, counter=True)
    for metric in METRICS:
        labels = SCRAPED | set(metric.label_names)
        values = {label.name: frozenset({*label.values, OTHER}) for label in metric.labels if label.values}
        for series in metric.series:
            bucket = series.endswith("_bucket")
            more = {"le"} if bucket else set()
            top = metric.buckets[-1] if bucket else None
            counter = metric.kind != "gauge"
            edges = {"le": frozenset({*(str(float(edge)) for edge in metric.buckets), "+Inf"})} if bucket else {}
            names[series] = Known(labels | more, counter, {**values, **edges}, top)
    return names


class Linter:
    """
    Checks expressions, one after another: what one records, the next ones may ask for.

    Attributes:
        problems: What was found, each as one line.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._names = known_names()
        self._recorded: set[str] = set()
        self._about = ""

    def record(self, record: Record, *, alias: bool = False) -> None:
        """Check a recording rule, and know its name from now on. Aliases keep raw counters raw."""
        found = self._follow(f"{record.name}{dict(record.labels) or ''}", record.expr)
        if found.labels is None:
            self._say("is a number, not series")
            return
        if found.counter and not alias:
            self._say("records a counter that is not rated")
        if not alias and not re.fullmatch(r"agent:[a-z_]+:(ratio|rate[0-9a-z]*)(_rate[0-9a-z]+)?", record.name):
            self._say("must be called level:metric:operation_window")
        labels = found.labels | set(record.labels)
        before = self._names.get(record.name)
        if before is not None and (before.labels != labels or record.name not in self._recorded):
            self._say(f"stands for other series too, by {_listed(before.labels)}")
        self._recorded.add(record.name)
        self._names[record.name] = Known(labels, found.counter)

    def alert(self, alert: Alert) -> None:
        """Check an alert: its expression, and that its texts speak of labels there are."""
        found = self._follow(alert.name, alert.expr)
        if found.labels is None:
            self._say("is a number, not series")
            return
        tree = parse(alert.expr)
        if not _decides(tree):
            self._say("compares with nothing, so it would always fire")
        if any(isinstance(node, Aggregate) and node.op in {"topk", "bottomk"} for node in walk(tree)):
            self._say("uses topk, which changes its series from one moment to the next")
        for label in _LABEL.findall(alert.summary + alert.description):
            if label not in found.labels:
                self._say(f"speaks of the label {label}; there is {_listed(found.labels)}")

    def panel(self, about: str, expr: str, legend: str) -> None:
        """Check a panel's expression, and that its legend speaks of labels there are."""
        found = self._follow(about, expr)
        for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", legend):
            if found.labels is not None and label not in found.labels:
                self._say(f"has the legend {legend}; there is {_listed(found.labels)}")
        if found.counter:
            self._say("shows a counter that is not rated")
        if found.labels is not None and _has_bare_rate(parse(expr)):
            self._say("shows every process's counter by itself: aggregate it")

    def _say(self, problem: str) -> None:
        self.problems.append(f"{self._about}: {problem}")

    def _follow(self, about: str, expr: str) -> Found:
        self._about = about
        try:
            tree = parse(expr)
        except ValueError as error:
            self._say(f"cannot be read: {error}")
            return Found(None)
        return self._of(tree)

    def _of(self, node: Node) -> Found:
        match node:
            case Number() | Text():
                return Found(None)
            case Selector():
                return self._selector(node)
            case Call():
                return self._call(node)
            case Aggregate():
                return self._aggregate(node)
            case Binary():
                return self._binary(node)

    def _selector(self, node: Selector) -> Found:
        known = self._names.get(node.name)
        if known is None:
            self._say(f"there is no {node.name}")
            return Found(None)
        for matcher in node.matchers:
            if matcher.label not in known.labels:
                self._say(f"{node.name} has no label {matcher.label}; it has {_listed(known.labels)}")
            elif wrong := _never(matcher, known.values.get(matcher.label)):
                self._say(f"{node.name} never has {matcher.label} {wrong}")
        if node.window is not None and _seconds(node.window) < 4 * SCRAPE_S:
            self._say(f"[{node.window}] holds fewer than four scrapes")
        return Found(known.labels, known.counter)

    def _call(self, node: Call) -> Found:
        inside = [self._of(arg) for arg in node.args]
        labels = next((found.labels for found in inside if found.labels is not None), None)
        ranged = [arg for arg in node.args if isinstance(arg, Selector) and arg.window is not None]
        if node.name in _RATES | _OVER_TIME and not ranged and labels is not None:
            self._say(f"{node.name}() needs a range of one name's series")
        if node.name in _RATES:
            if labels is not None and not any(found.counter for found in inside):
                self._say(f"{node.name}() of what is no counter")
            return Found(labels)
        if node.name == "histogram_quantile":
            if labels is not None and "le" not in labels:
                self._say("histogram_quantile() needs the label le")
            return Found(None if labels is None else labels - {"le"})
        if node.name == "absent":
            [arg] = node.args
            pinned = {m.label for m in arg.matchers if m.op == "="} if isinstance(arg, Selector) else set()
            return Found(frozenset(pinned))
        if node.name in {"time", "scalar"}:
            return Found(None)
        if node.name == "label_replace" and isinstance(node.args[1], Text) and labels is not None:
            return Found(labels | {node.args[1].value}, any(found.counter for found in inside))
        if node.name not in _KEEP:
            self._say(f"there is no function {node.name} that this linter knows")
        return Found(labels, any(found.counter for found in inside))

    def _aggregate(self, node: Aggregate) -> Found:
        inside = self._of(node.args[-1])
        if inside.labels is None:
            return inside
        if node.keeps and (strange := set(node.labels) - inside.labels):
            self._say(f"{node.op} by {_listed(strange)}, which is not among {_listed(inside.labels)}")
        left = frozenset(node.labels) if node.keeps else inside.labels - set(node.labels)
        return Found(inside.labels if node.op in {"topk", "bottomk"} else left, inside.counter)

    def _binary(self, node: Binary) -> Found:
        left, right = self._of(node.left), self._of(node.right)
        if node.op in COMPARISONS:
            self._check_bound(node)
        counter = left.counter or right.counter
        if left.labels is None or right.labels is None:
            return Found(left.labels if right.labels is None else right.labels, counter)
        if node.op == "or":
            return Found(left.labels & right.labels, counter)
        if node.on is None:
            if left.labels != right.labels:
                self._say(f"{node.op} joins series by {_listed(left.labels)} with series by {_listed(right.labels)}")
            return Found(left.labels, counter)
        for side in (left.labels, right.labels):
            if strange := set(node.on) - side:
                self._say(f"{node.op} on {_listed(strange)}, which is not among {_listed(side)}")
        if node.op in SETS or node.group == "group_left":
            return Found(left.labels | set(node.brings), counter)
        if node.group == "group_right":
            return Found(right.labels | set(node.brings), counter)
        return Found(frozenset(node.on), counter)

    def _check_bound(self, node: Binary) -> None:
        match node:
            case Binary(left=Call(name="histogram_quantile") as quantile, right=Number(value=bound)):
                tops = [self._names.get(below.name) for below in walk(quantile) if isinstance(below, Selector)]
                for known in tops:
                    if known is not None and known.top is not None and bound >= known.top:
                        self._say(f"compares with {bound:g}, but no quantile is above the last bucket, {known.top:g}")


def _decides(node: Node) -> bool:
    """Whether it returns nothing while all is well."""
    match node:
        case Binary(op="or", left=left, right=right):
            return _decides(left) and _decides(right)
        case Binary(op="and" | "unless", left=left, right=right):
            return _decides(left) or _decides(right)
        case Binary(op=op):
            return op in COMPARISONS
        case Call(name="absent"):
            return True
        case _:
            return False


def _has_bare_rate(node: Node) -> bool:
    """Whether a rate is aggregated by nothing around it."""
    match node:
        case Aggregate():
            return False
        case Call(name=name, args=args):
            return name in _RATES or any(_has_bare_rate(arg) for arg in args)
        case Binary(left=left, right=right):
            return _has_bare_rate(left) or _has_bare_rate(right)
        case _:
            return False


def _never(matcher: Matcher, values: frozenset[str] | None) -> str:
    """What a matcher asks for and never gets."""
    if values is None or matcher.op in {"!=", "!~"}:
        return ""
    wanted = matcher.value.split("|") if matcher.op == "=~" else [matcher.value]
    plain = [value for value in wanted if re.fullmatch(r"[\w.+]+", value)]
    return ", ".join(value for value in plain if value not in values)


def _seconds(window: str) -> float:
    if window.startswith("$__"):
        return 4 * SCRAPE_S  # Grafana sees to it.
    return sum(int(number) * _UNITS_S[unit] for number, unit in re.findall(r"(\d+)([smhdw])", window))


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(sorted(labels)) or "nothing"
