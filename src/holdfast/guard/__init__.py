"""
The guard: the two crossings a turn makes, a model call and a tool call.

It knows no framework's message types. An adapter hands it something to await and tells it what was used.
"""

from contextvars import ContextVar

from holdfast.budget import Estimate
from holdfast.events import Emit, Usage
from holdfast.guard.attempt import Attempt, Degraded, ModelKey
from holdfast.guard.conduct import Conduct
from holdfast.guard.model import ModelCrossing
from holdfast.guard.policies import NOBODY, Policies, Who
from holdfast.guard.sharing import Sharing
from holdfast.guard.spec import GuardSpec, ToolLimits
from holdfast.guard.tool import ToolCrossing
from holdfast.guard.watch import Offer, Watch
from holdfast.journal import UNKEPT, Unkept


class Guard:
    """
    The crossings of one turn.

    Attributes:
        model: ``await guard.model(key, estimate, call)``, or ``async with guard.model.stream(key, estimate)``.
        tool: ``await guard.tool(name, args, call_id, call)``.
        budget: What the turn may spend, and ``guard.budget.left()`` of it.
        watch: The monitor of the turn; None where nobody looks.
    """

    __slots__ = ("budget", "model", "tool", "watch")

    def __init__(
        self,
        policies: Policies,
        emit: Emit,
        who: Who = NOBODY,
        book: Unkept = UNKEPT,
        watch: Watch | None = None,
    ) -> None:
        self.budget = policies.budget_of(who)
        self.watch = watch
        self.model = ModelCrossing(policies, emit, who, book, self.budget)
        self.model.watch = watch
        if watch is not None:
            watch.budget = self.budget
        self.tool = ToolCrossing(policies, emit, who, book, watch, self.usage)

    def usage(self) -> Usage:
        """What the turn has used so far, calls that failed included."""
        return Usage(
            model_calls=self.model.calls,
            tool_calls=self.tool.calls,
            input_tokens=self.model.input_tokens,
            output_tokens=self.model.output_tokens,
            cost_nanos=self.model.cost_nanos,
        )


ambient: ContextVar[Guard | None] = ContextVar("holdfast_guard", default=None)
"""The guard of the turn this code runs in, for adapters whose framework has no other way to hand it on."""

__all__ = [
    "Attempt",
    "Conduct",
    "Degraded",
    "Estimate",
    "Guard",
    "GuardSpec",
    "ModelCrossing",
    "ModelKey",
    "Offer",
    "Policies",
    "Sharing",
    "ToolCrossing",
    "ToolLimits",
    "Watch",
    "Who",
    "ambient",
]
