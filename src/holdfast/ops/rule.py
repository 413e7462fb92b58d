"""A recording rule: a question whose answer is kept as a series of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Record:
    """
    One recording rule.

    Attributes:
        name: ``level:metric:operation_window``, or the name that a source system gave it.
        expr: PromQL.
        labels: Added to each series.
    """

    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
