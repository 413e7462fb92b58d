"""
The monitor of one turn: told what the turn does, and made to act where its calls cross the guard.

::

    step ─▶ Monitor.after_step ─┬─▶ notes, offer      the next request is changed
                                └─▶ stopped           every further crossing raises it
    before_call ─▶ Monitor.before_call ─▶ Blocked, a wait, or nothing
    finish ─▶ Monitor.before_finish ─▶ what to send the answer back with, or nothing

What it finds is told once: a turn that is run again after its server died finds it again, and says nothing of it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from holdfast.budget import TurnBudget
from holdfast.clock import Clock
from holdfast.errors import Blocked, BudgetExhausted, DeadlineExceeded, HoldfastError, StoppedPartial
from holdfast.events import Emit, Event, MonitorEnded, StateChanged, Usage
from holdfast.guard.findings import acted, class_of, detected
from holdfast.journal import encode
from holdfast.monitor import (
    Answer,
    AskUser,
    BlockCall,
    Call,
    ForceFinal,
    Monitor,
    Nudge,
    Outcome,
    RefuseFinish,
    Replan,
    Report,
    State,
    Step,
    StopPartial,
    Success,
    Verdict,
    Wait,
)
from holdfast.resilience import remaining_s


class Offer(NamedTuple):
    """
    What the next message of the model may do.

    Attributes:
        tools: Names of those it may call.
        must: Whether it has to call one of them.
    """

    tools: tuple[str, ...]
    must: bool


class Watch:
    """
    The monitor of one turn.

    Args:
        monitor: Of this run.
        emit: Tells what is found and done.
        clock: Where time comes from.
        tools: What the monitor knows the agent's tools by; filled in as they are known.

    Attributes:
        budget: What the turn may spend; None where nobody counts.
        mark: How far an adapter has told what the turn did; its own affair.
        by_calls: Whether steps are made of the calls that cross, as a plain function has no messages of its own.
        stopped: What ends the turn at the next crossing; None while it may go on.
    """

    def __init__(self, monitor: Monitor, emit: Emit, clock: Clock, tools: dict[str, str]) -> None:
        self._monitor = monitor
        self._emit = emit
        self._clock = clock
        self._tools = tools
        self._unsaid: list[Event] = []
        self._state = State.NONE
        self._used = 0
        self._spent = 0
        self._notes: tuple[str, ...] = ()
        self._final = ""
        self._seen: dict[str, Call] = {}
        self._under_way = 0
        self._calls: list[Call] = []
        self._text: str | None = None
        self._usage = Usage()
        self._latches = False
        self.budget: TurnBudget | None = None
        self.mark: object = None
        self.by_calls = False
        self.stopped: StoppedPartial | None = None

    @property
    def acts(self) -> bool:
        """Whether it intervenes, and does not only observe."""
        return self._monitor.acts

    @property
    def latches(self) -> bool:
        """Whether later turns of the session are to be stopped as well."""
        return self._latches

    @property
    def why(self) -> str:
        """Why the turn was stopped; empty while it was not."""
        return self._monitor.breaker.tripped or ""

    def halt(self, why: str) -> None:
        """The session was stopped in an earlier turn."""
        self._monitor.breaker.trip(f"{why}; the session is stopped until it is reset")
        self._stop(self._monitor.report())
        self._latches = False  # It is latched already.

    def check(self) -> None:
        """
        Let the turn go on.

        Raises:
            StoppedPartial: it must not.
        """
        if self.stopped is not None:
            raise self.stopped

    # Steps.

    def step(self, text: str, calls: Sequence[Call], used: Usage) -> None:
        """
        Take in a step that has ended.

        Args:
            text: What the model said beside its calls.
            calls: With what became of them.
            used: By the turn so far.
        """
        if self.stopped is not None:
            return
        tokens, nanos = used.input_tokens + used.output_tokens, used.cost_nanos
        verdicts = self._monitor.after_step(
            Step(
                text=text,
                calls=tuple(calls),
                tokens=max(0, tokens - self._used),
                nanodollars=max(0, nanos - self._spent),
                at=self._clock.now(),
                left=() if self.budget is None else tuple(self.budget.left()._asdict().items()),
            )
        )
        self._used, self._spent, self._notes = tokens, nanos, ()
        for verdict in verdicts:
            self._take(verdict)

    def seen(self, call_id: str, call: Call) -> Call:
        """``call`` as an adapter has it from its messages, with what is known from its crossing."""
        known = self._seen.pop(call_id, None)
        if known is None:
            return call
        return replace(call, error=known.error or call.error, duration_s=known.duration_s, blocked=known.blocked)

    def said(self, text: str, used: Usage) -> None:
        """Where steps are made of calls: a model has answered."""
        if self._text is not None:
            self._close()
        self._text, self._usage = text, used

    def _close(self) -> None:
        text, calls = self._text or "", self._calls
        self._text, self._calls = None, []
        self.step(text, calls, self._usage)

    # Requests.

    @property
    def introduced(self) -> bool:
        """Whether it knows which tools the agent has."""
        return bool(self._tools)

    def introduce(self, tools: Mapping[str, str]) -> None:
        """Say which tools the agent has, and the schemas of their arguments."""
        self._tools.update(tools)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the model is to be told with its next request."""
        return (*self._notes, self._final) if self._final else self._notes

    @property
    def switched(self) -> bool:
        """Whether another model is to be asked, where there is one."""
        return self.acts and self._monitor.orders.switched

    def offer(self, tools: Sequence[str]) -> Offer | None:
        """What the next message may do of an agent's ``tools``; None where it may do anything."""
        orders = self._monitor.orders
        offered = orders.offered(tools, self._monitor.history) if self.acts else tuple(tools)
        must = orders.forced is not None and bool(offered)
        return Offer(offered, must) if must or len(offered) < len(tools) else None

    # Calls.

    async def before_call(self, tool: str, args: Mapping[str, Any], call_id: str) -> None:
        """
        Let a call be made, perhaps after a while.

        Raises:
            Blocked: it is not to be made; its text is for whoever asked for it.
            StoppedPartial: the turn must not go on.
        """
        verdict = self._monitor.before_call(Call(tool=tool, args=args, id=call_id), self._clock.now())
        if verdict is None:
            return
        self._take(verdict)
        self.publish()
        self.check()
        for intervention in verdict.interventions:
            if isinstance(intervention, BlockCall):
                raise Blocked(intervention.explanation)
            if isinstance(intervention, Wait):
                left = remaining_s(self._clock)
                if left is not None and left <= intervention.seconds:
                    raise DeadlineExceeded
                await asyncio.sleep(intervention.seconds)

    def began(self) -> None:
        """A call is under way: those that are under way together are one step."""
        self._under_way += 1

    def ended(
        self,
        tool: str,
        args: Mapping[str, Any],
        call_id: str,
        used: Usage,
        took_s: float,
        result: str = "",
        error: BaseException | None = None,
    ) -> None:
        """A call has ended."""
        self._under_way -= 1
        call = Call(
            id=call_id,
            tool=tool,
            args=args,
            result=result if error is None else str(error),
            error=class_of(error),
            duration_s=took_s,
            blocked=isinstance(error, Blocked),
        )
        if not self.by_calls:
            self._seen[call_id] = call
            return
        self._calls.append(call)
        self._usage = used
        if self._under_way == 0:
            self._close()

    # The end.

    def finish(self, text: str, *, again: bool) -> str | None:
        """
        What to send an answer back with; None where it is to be taken.

        Args:
            text: The answer.
            again: Whether it can be sent back at all; else it is marked as not verified.

        Raises:
            StoppedPartial: the turn ends with a question in place of the answer.
        """
        if self.stopped is not None:
            return None
        verdict = self._monitor.before_finish(Answer(text=text))
        if verdict is None:
            return None
        self._take(verdict)
        self.check()
        for intervention in verdict.interventions:
            if isinstance(intervention, RefuseFinish | ForceFinal):
                if not again:
                    self._monitor.unverified = verdict.evidence.detail
                    return None
                if isinstance(intervention, ForceFinal):
                    self._monitor.orders.give(intervention, verdict.state, verdict.step)
                    self._final = ""  # It comes with the answer that is sent back.
                    return intervention.text
                return f"{intervention.check}. Do what is missing, or say plainly that it is not known."
        return None

    def stopped_by(self, error: HoldfastError | None) -> StoppedPartial | None:
        """
        What the turn ends with in place of what came of the agent; None where that holds.

        One whose own budget is used up ends with what it has, where the monitor acts and there is anything.
        """
        ran_out = isinstance(error, BudgetExhausted) and error.key_class == "turn"
        if ran_out and self.acts and self.stopped is None and self._monitor.history.steps:
            self._monitor.breaker.trip(str(error).rstrip("."))
            self._stop(self._monitor.report(), budget=True)
        return self.stopped

    def end(self, *, answered: bool) -> None:
        """The turn has ended: tell what is left to tell, and how the run went where it did not go as usual."""
        self.publish()
        monitor, stopped = self._monitor, self.stopped
        outcome = monitor.outcome(answered=answered, waiting=stopped is not None and stopped.asks)
        notable = stopped is not None or outcome is Outcome.DONE_UNVERIFIED
        if notable:
            report = None if stopped is None or stopped.asks else monitor.report()
            told = MonitorEnded(
                outcome=outcome.value,
                check=monitor.unverified,
                latched=self._latches,
                report=msgspec.Raw(encode(report)),
            )
            self._emit(told)
        self._move(State.NONE)

    def leave(self) -> None:
        """The turn goes on elsewhere, where all of it is found again."""
        self._unsaid.clear()
        self._move(State.NONE)

    def success(self) -> Success | None:
        """What norms learn from the run; None where its answer is not to be learnt from."""
        if self.stopped is not None or self._monitor.unverified is not None:
            return None
        success = self._monitor.success()
        # The answer itself is a message too, though no step was made of it.
        return success._replace(steps=self._monitor.history.steps + 1)

    # What is told.

    def tell(self, *, again: bool) -> None:
        """
        A call crosses: tell what was found before it, unless it was made when the turn was run before.

        Raises:
            StoppedPartial: the turn must not go on.
        """
        if again:
            self._unsaid.clear()
        else:
            self.publish()
        self.check()

    def publish(self) -> None:
        """Tell what was found."""
        for event in self._unsaid:
            self._emit(event)
        self._unsaid.clear()
        self._move(self._monitor.state)

    def _move(self, state: State) -> None:
        if state is not self._state:
            self._emit(StateChanged(was=self._state.value, state=state.value))
            self._state = state

    def _take(self, verdict: Verdict) -> None:
        """Tell of a verdict, and do what does not have to wait for a crossing."""
        if not verdict.standing or verdict.stopped() is not None:
            self._unsaid.append(detected(verdict, acts=self.acts))
        for intervention in verdict.interventions:
            if not isinstance(intervention, Wait):  # That is what polls are for.
                self._unsaid.append(acted(verdict, intervention))
            match intervention:
                case Nudge(text=text) | Replan(summary=text):
                    self._notes = (*self._notes, text)
                case ForceFinal(text=text):
                    self._final = text
                case AskUser(question=question):
                    self.stopped = StoppedPartial("the agent asks back", reply=question, asks=True)
                case StopPartial(report=report):
                    self._stop(report, budget=self._monitor.spent(self._clock.now()))
                case _:
                    pass

    def _stop(self, report: Report, *, budget: bool = False) -> None:
        self._latches = not budget
        self.stopped = StoppedPartial(report.why, reply=report.text(), budget=budget)
