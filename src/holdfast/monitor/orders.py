"""
Orders in force: what interventions forbid from one step to the next.

An order ends with the state that it was given for, or after its own number of steps; those of a budget stay.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.monitor.history import Fact, History
from holdfast.monitor.spec import ToolRule
from holdfast.monitor.verdicts import (
    BlockCall,
    FinishOnly,
    ForceFinal,
    ForceOther,
    HideTool,
    Intervention,
    State,
    SwitchModel,
    TrustedOnly,
)


@dataclass(frozen=True, slots=True)
class Hidden:
    """
    A tool that is not offered.

    Attributes:
        state: What for.
        until: Number of the last step of it; None until another tool's call succeeded.
    """

    state: State
    until: int | None


@dataclass(slots=True)
class Orders:
    """
    What holds now.

    Attributes:
        blocked: Calls that are answered without running, by their signature: what for, and the explanation.
        hidden: Tools that are not offered.
        forced: A tool other than which the next message has to call, and the step of the order; None for none.
        trusted: States for which only trusted tools are offered.
        finish_only: Whether only tools that finish are offered.
        final: For which state no tool is offered; None while tools are.
        switched: Whether another model is asked.
    """

    blocked: dict[str, tuple[State, str]] = field(default_factory=dict)
    hidden: dict[str, Hidden] = field(default_factory=dict)
    forced: tuple[str, int] | None = None
    trusted: set[State] = field(default_factory=set)
    finish_only: bool = False
    final: State | None = None
    switched: bool = False

    def give(self, intervention: Intervention, state: State, step: int) -> None:
        """Put an intervention in force."""
        match intervention:
            case BlockCall():
                self.blocked[intervention.signature] = (state, intervention.explanation)
            case HideTool():
                until = None if intervention.steps is None else step + intervention.steps
                self.hidden[intervention.tool] = Hidden(state, until)
            case ForceOther():
                self.forced = (intervention.tool, step)
            case TrustedOnly():
                self.trusted.add(state)
            case FinishOnly():
                self.finish_only = True
            case ForceFinal():
                self.final = state
            case SwitchModel():
                self.switched = True
            case _:
                pass

    def lift(self, state: State) -> None:
        """A state is over: what was ordered for it is too."""
        self.blocked = {called: order for called, order in self.blocked.items() if order[0] is not state}
        self.hidden = {tool: order for tool, order in self.hidden.items() if order.state is not state}
        self.trusted.discard(state)

    def pass_step(self, fact: Fact) -> None:
        """Let orders run out that hold for so many steps, or until another tool succeeded."""
        succeeded = {one.tool for one in fact.calls if one.failure is None and not one.blocked}
        self.hidden = {
            tool: order
            for tool, order in self.hidden.items()
            if (fact.step < order.until if order.until is not None else not succeeded - {tool})
        }
        if self.forced is not None and fact.step > self.forced[1]:
            self.forced = None

    def offered(self, tools: Iterable[str], history: History) -> tuple[str, ...]:
        """Those of an agent's tools that the next message may call."""
        return tuple(tool for tool in tools if self.refusal(tool, None, history) is None)

    def refusal(self, tool: str, signature: str | None, history: History) -> tuple[State, str] | None:
        """For what, and with which explanation, a call is answered without running; None to let it through."""
        rule = history.rule(tool)
        if self.final is not None:
            return self.final, "No tool may be called any more. Answer now with what is known."
        if self.finish_only and not rule.finish:
            return State.SCARCITY, "The budget is almost used up: only tools that finish may be called. Answer soon."
        if signature is not None and signature in self.blocked:
            return self.blocked[signature]
        if tool in self.hidden:
            return self.hidden[tool].state, f"{tool} is not available now. Use another tool, or answer."
        if self.forced is not None and self.forced[0] == tool:
            return State.DEADLOCK, f"Use another tool than {tool} now."
        if self.trusted and not _believed(rule, history):
            return min(
                self.trusted, key=list(State).index
            ), f"Only trusted, read-only tools may be used now; not {tool}."
        return None


def _believed(rule: ToolRule, history: History) -> bool:
    # Where nobody said which tools are trusted, those that are known to change something are not.
    return rule.trusted or (not history.some_trusted and rule.idempotent is not False and not rule.irreversible)
