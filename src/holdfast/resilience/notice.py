"""What policies tell about themselves."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from holdfast.clock import Clock

Fact = str | float | bool | None


class Notice(NamedTuple):
    """
    Something a policy did. On the way of a call that goes well there is none.

    Attributes:
        at_ns: When, on the pipeline's clock.
        name: What happened: ``breaker.moved``, ``rate.refused`` and so on; each policy's page lists its own.
        pipeline: In which pipeline.
        key_class: By what kind of key: ``user``, ``tool``; never the key itself, which may be a person.
        call: Counts the pipeline's calls; 0 where it is about none of them.
        attempt: Which attempt at the call, from 1.
        facts: What else there is to know. Of texts there are names of circuits and targets, and reasons.
    """

    at_ns: int
    name: str
    pipeline: str
    key_class: str = "all"
    call: int = 0
    attempt: int = 0
    facts: Mapping[str, Fact] = MappingProxyType({})


Sink = Callable[[Notice], object]
"""Takes in notices. It must not block; it may call the pipeline; what it raises is counted and goes no further."""


class Teller:
    """
    Tells a pipeline's notices to its sink, if it has one.

    Attributes:
        sink_errors: Times that the sink raised.
    """

    __slots__ = ("_clock", "_pipeline", "_sink", "sink_errors")

    def __init__(self, pipeline: str, clock: Clock, sink: Sink | None) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._sink = sink
        self.sink_errors = 0

    def __call__(
        self,
        name: str,
        key_class: str = "all",
        call: int = 0,
        attempt: int = 0,
        **facts: Fact,
    ) -> None:
        """Tell what has happened, after it has."""
        if self._sink is None:
            return
        try:
            self._sink(Notice(self._clock.now(), name, self._pipeline, key_class, call, attempt, facts))
        except Exception:  # noqa: BLE001 - whoever watches must not be able to break the call it watches
            self.sink_errors += 1
