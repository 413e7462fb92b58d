"""
Policies that keep a call inside its bounds. Standard library only; usable alone.

::

    claude = Pipeline(
        "model",
        Deadline(90),
        Retry(attempts=4),
        Breaker(key=per.target),
        Rate(Limit("requests", per.minute(1_000), key=per.credential)),
        Bulkhead(Adaptive(start=8, max=64), queue=100, key=per.target),
        Timeout(total=60),
    )
    answer = await claude.on(Call(target="claude", repeatable=True))(ask, prompt)

``Pipeline`` joins policies around calls. Each has a page in ``docs/resilience``.
"""

from holdfast.resilience.breaker import Breaker, CircuitView
from holdfast.resilience.bucket import Quota
from holdfast.resilience.bulkhead import Adaptive, Bulkhead, BulkheadView
from holdfast.resilience.circuit import Circuit, CircuitSpec, State, Why
from holdfast.resilience.classify import TREATMENTS, Facts, Failure, FailureClass, classify
from holdfast.resilience.deadline import remaining_s, within
from holdfast.resilience.fallback import Answered, Fallback
from holdfast.resilience.guards import NOT_YET
from holdfast.resilience.guards import OK as ENDED_WELL
from holdfast.resilience.guards import Attempt as PolicyAttempt
from holdfast.resilience.hedge import Hedge
from holdfast.resilience.keys import Call, Key, per
from holdfast.resilience.notice import Fact, Notice, Sink
from holdfast.resilience.passage import Passage
from holdfast.resilience.pipeline import Bound, Pipeline
from holdfast.resilience.rate import Limit, LimitView, Rate
from holdfast.resilience.recognise import recognise
from holdfast.resilience.retry import Budget, Retry
from holdfast.resilience.share import Share, SharedNeed, ShareUnavailable
from holdfast.resilience.shed import Priority, Shedder, ShedRefused, ShedStats
from holdfast.resilience.timeout import Deadline, Timeout

__all__ = [
    "ENDED_WELL",
    "NOT_YET",
    "TREATMENTS",
    "Adaptive",
    "Answered",
    "Bound",
    "Breaker",
    "Budget",
    "Bulkhead",
    "BulkheadView",
    "Call",
    "Circuit",
    "CircuitSpec",
    "CircuitView",
    "Deadline",
    "Fact",
    "Facts",
    "Failure",
    "FailureClass",
    "Fallback",
    "Hedge",
    "Key",
    "Limit",
    "LimitView",
    "Notice",
    "Passage",
    "Pipeline",
    "PolicyAttempt",
    "Priority",
    "Quota",
    "Rate",
    "Retry",
    "Share",
    "ShareUnavailable",
    "SharedNeed",
    "ShedRefused",
    "ShedStats",
    "Shedder",
    "Sink",
    "State",
    "Timeout",
    "Why",
    "classify",
    "per",
    "recognise",
    "remaining_s",
    "within",
]
