"""
The monitor of one run: told each step, it says what is wrong and what to do.

::

    before_call ─▶ the call runs ─▶ after_step ─▶ … ─▶ before_finish ─▶ the answer
    orders in       (or not)         signals ▸ ladder      evidence
    force                            ▸ protocol ▸ breaker

It reads no clock, awaits nothing and acts on nothing: what it answers is data. In shadow it sees all and orders
nothing. Of several states in one step it acts on the most urgent.
"""

from collections.abc import Mapping
from statistics import median
from types import MappingProxyType
from typing import Final

from holdfast.clock import NS
from holdfast.monitor.breaker import AgentBreaker
from holdfast.monitor.deadlock import Deadlock
from holdfast.monitor.drift import Drift
from holdfast.monitor.history import Fact, History, signature
from holdfast.monitor.hubris import Hubris
from holdfast.monitor.ladder import Ladder
from holdfast.monitor.norms import Norms, Success
from holdfast.monitor.orders import Orders
from holdfast.monitor.panic import Novelty, Panic
from holdfast.monitor.protocols import ABSTAIN, STOP, Around, interventions, rungs
from holdfast.monitor.scarcity import Scarcity
from holdfast.monitor.spec import MonitorSpec
from holdfast.monitor.stall import Stall
from holdfast.monitor.steps import Answer, Budget, Call, Step
from holdfast.monitor.thrash import Thrash
from holdfast.monitor.verdicts import (
    OBSERVE,
    AskUser,
    BlockCall,
    Evidence,
    Firing,
    ForceFinal,
    Intervention,
    Outcome,
    RefuseFinish,
    Report,
    Severity,
    State,
    StopPartial,
    Verdict,
    Wait,
)

NO_TOOLS: Final[Mapping[str, str]] = MappingProxyType({})
KEPT: Final = 200
LIMITED: Final = frozenset({"rate_limited", "quota"})


class Monitor:
    """
    One run of one agent.

    Args:
        spec: Thresholds; those of the agent are taken where it has any of its own.
        norms: What is usual for the agent; None knows nothing of it.
        agent: Its name.
        budget: What the run may use.
        goal: What was asked, for summaries and reminders.
        tools: The agent's tools, and the schema of their arguments as text or nothing.
        human: Whether a person can be asked.
        breaker: One that was kept from an earlier run of the session; None for a new one.
        run: Names the run in the report of one that was stopped.

    Attributes:
        spec: In force for this agent.
        acts: Whether it intervenes; it only observes otherwise.
        history: What the run has done.
        orders: What holds now.
        breaker: Whether the run was stopped, and why.
        verdicts: The last of them, oldest first.
        unverified: Which check the answer failed that was taken all the same; None for none.
        open_items: What is left to do, for a partial answer; whoever runs the agent may set it.
    """

    def __init__(
        self,
        spec: MonitorSpec | None = None,
        norms: Norms | None = None,
        *,
        agent: str = "",
        budget: Budget | None = None,
        goal: str = "",
        tools: Mapping[str, str] = NO_TOOLS,
        human: bool = False,
        breaker: AgentBreaker | None = None,
        run: str = "",
    ) -> None:
        self.spec = spec = (spec or MonitorSpec()).for_agent(agent)
        norms = norms or Norms()
        self.acts = spec.mode == "act" or (spec.mode == "auto" and norms.count(spec.successes))
        self.history = History(spec)
        self.orders = Orders()
        self.breaker = breaker or AgentBreaker(spec)
        self.verdicts: list[Verdict] = []
        self.unverified: str | None = None
        self.open_items: tuple[str, ...] = ()
        self._agent, self._run = agent, run
        self._latched = self.breaker.tripped is not None
        self._ladder = Ladder(spec)
        self._around = Around(spec, self.history, goal, tools, human)
        self._deadlock = Deadlock(spec)
        self._thrash = Thrash(spec)
        self._stall = Stall(spec, norms)
        self._panic = Panic(spec, norms)
        self._novelty = Novelty(spec)
        self._hubris = Hubris(spec, norms)
        self._drift = Drift(spec, goal)
        self._scarcity = Scarcity(spec, norms, budget or Budget())
        self._refused = False

    @property
    def state(self) -> State:
        """The most urgent state that is open; NONE where all is well."""
        return self._ladder.state()

    def after_step(self, step: Step) -> tuple[Verdict, ...]:
        """
        Take in a step that has ended.

        Returns:
            What is new about the run, and what to do before its next step; mostly nothing.
        """
        if self.breaker.tripped is not None:
            return (self._halted(),)
        fact = self.history.add(step)
        firings = self._look(step, fact)
        if fact is not None:
            for state in self._ladder.settle(fact, frozenset(firing.state for firing in firings)):
                self.orders.lift(state)
            self.orders.pass_step(fact)
            self.breaker.tick(fact.step, well=self._ladder.well())
        found = self._act(firings, step) if self.acts else self._observe(firings)
        self.verdicts = [*self.verdicts, *found][-KEPT:] if found else self.verdicts
        return found

    def before_call(self, call: Call, now: int = 0) -> Verdict | None:
        """
        What keeps a call from running as it is; None lets it run.

        Its interventions are a BlockCall, whose explanation answers the call, a Wait, an AskUser or a StopPartial.
        Siblings of the same message do not count against it.
        """
        if self.breaker.tripped is not None:
            return self._halted()
        if not self.acts:
            return None
        called = signature(call.tool, call.args)
        if (refusal := self.orders.refusal(call.tool, called, self.history)) is not None:
            state, explanation = refusal
            evidence = Evidence(steps=(self.history.steps + 1,), count=1, detail=explanation)
            firing = Firing(state=state, rule="order", severity=Severity.STOP, evidence=evidence)
            block = BlockCall(signature=called, tool=call.tool, explanation=explanation)
            return self._verdict(firing, self._rung(state), (block,), opened=False, standing=True)
        return self._polls(call, called, now) or self._too_late(call, called, now) or self._unsafe(call, called)

    def before_finish(self, answer: Answer) -> Verdict | None:
        """
        What speaks against an answer; None where nothing does.

        It is refused once in a run at most, and never where nothing is left to improve it with. Without interventions
        the answer is to be taken: it is marked ``unverified``, or the monitor only observes.
        """
        if self.breaker.tripped is not None or (firing := self._missing(answer)) is None:
            return None
        if not self.acts:
            return self._keep(self._verdict(firing, OBSERVE, (), opened=True))
        self.breaker.note(firing.state, firing.rule, self.history.steps)
        check = firing.evidence.detail
        if self._refused or self.orders.final is not None:
            self.unverified = check
            return self._keep(self._verdict(firing, 2, (), opened=False))
        self._refused = True
        intervention: Intervention = RefuseFinish(check=check)
        if firing.state is State.PANIC:
            question = f"I am not sure of the answer ({check}). Can you tell me more?"
            intervention = AskUser(question=question) if self._around.human else ForceFinal(text=ABSTAIN)
        return self._keep(self._verdict(firing, 1, (intervention,), opened=True))

    def spent(self, now: int) -> bool:
        """Whether nothing is left of a budget."""
        return self._scarcity.spent(self.history, now) is not None

    def outcome(self, *, answered: bool, waiting: bool = False) -> Outcome:
        """
        How the run ended.

        Args:
            answered: Whether it gave an answer of its own.
            waiting: Whether it waits for a person.
        """
        history = self.history
        if self.breaker.tripped is not None:
            return Outcome.TRIPPED if self._latched or not history.done else Outcome.STOPPED_PARTIAL
        if waiting:
            return Outcome.NEEDS_HUMAN
        if answered:
            return Outcome.DONE if self.unverified is None else Outcome.DONE_UNVERIFIED
        if history.last_failure is not None:
            return Outcome.RATE_LIMITED if history.last_failure in LIMITED else Outcome.PROVIDER_DOWN
        return Outcome.STOPPED_PARTIAL if history.done else Outcome.NOT_STARTED

    def success(self) -> Success:
        """What norms learn from the run, once it is known to have succeeded."""
        history = self.history
        return Success(max(1, history.steps), history.tokens, len(history.evidence), self._panic.mean())

    def report(self) -> Report:
        """What the run leaves behind if it ends now."""
        done = tuple(dict.fromkeys(line for _, line in self.history.done))
        failing = (self.history.failing[1],) if self.history.failing is not None else ()
        return Report(
            why=self.breaker.tripped or "it was ended",
            done=done,
            open_items=self.open_items or failing,
            evidence=tuple(dict.fromkeys(name for name, _ in self.history.done)),
            frequencies={state.value: count for state, count in self.breaker.found.items()},
            last=tuple(self.breaker.last),
            recommendations=self.breaker.recommendations(),
            resume=self._run,
        )

    def _look(self, step: Step, fact: Fact | None) -> list[Firing]:
        history = self.history
        if fact is None:
            return [] if step.failure is not None else self._present(self._scarcity.look(history, step.at, step.left))
        return self._present(
            self._scarcity.look(history, step.at, step.left),
            self._deadlock.look(history, fact),
            self._thrash.look(history, fact),
            self._panic.look(history, step, fact),
            self._novelty.look(step, fact),
            self._stall.look(history, fact),
            self._drift.look(history, step, fact),
        )

    @staticmethod
    def _present(*firings: Firing | None) -> list[Firing]:
        return [firing for firing in firings if firing is not None]

    def _observe(self, firings: list[Firing]) -> tuple[Verdict, ...]:
        found = []
        for firing in firings:
            move = self._ladder.observe(firing, self.history.steps)
            if move is not None:
                self.breaker.note(firing.state, firing.rule, self.history.steps)
                found.append(self._verdict(firing, OBSERVE, (), opened=move.opened))
        return tuple(found)

    def _act(self, firings: list[Firing], step: Step) -> tuple[Verdict, ...]:
        if (spent := self._scarcity.spent(self.history, step.at)) is not None:
            self.breaker.trip(f"nothing is left of {spent.limit:g} {spent.what}")
            return (self._halted(),)
        found = []
        for firing in firings:
            verdict = self._climb(firing)
            if verdict is not None:
                found.append(verdict)
                if firing.level == 0 or verdict.stopped() is not None:
                    break
        return tuple(found)

    def _climb(self, firing: Firing) -> Verdict | None:
        now = self.history.steps
        move = self._ladder.climb(firing, now, rungs(firing.state, human=self._around.human))
        if move is None:
            return None
        self.breaker.note(firing.state, firing.rule, now)
        rung = move.rung
        if firing.level == 0:
            self.history.since = now
            if firing.signature is not None:
                self.history.alarmed.add(firing.signature)
            if firing.state is not State.NOVELTY:  # that sources disagree is no fault of the agent's
                self.breaker.acted(firing.state, now, opened=move.opened)
        if rung == STOP:
            self.breaker.trip(f"nothing helped against {firing.state.value}: {firing.evidence.detail}")
        if self.breaker.tripped is not None:
            return self._verdict(firing, STOP, (StopPartial(report=self.report()),), opened=move.opened)
        todo = interventions(firing, rung, self._around)
        for intervention in todo:
            self.orders.give(intervention, firing.state, now)
        return self._verdict(firing, rung, todo, opened=move.opened)

    def _polls(self, call: Call, called: str, now: int) -> Verdict | None:
        rule = self.history.rule(call.tool)
        last = self.history.last_poll(called)
        if rule.repeatable != "poll" or last is None:
            return None
        seconds = rule.poll_every_s - (now - last) / NS
        if seconds <= 0:
            return None
        evidence = Evidence(steps=(self.history.steps + 1,), count=1, detail=f"{call.tool} is polled too often")
        firing = Firing(state=State.DEADLOCK, rule="poll", severity=Severity.WARN, evidence=evidence)
        return self._verdict(firing, OBSERVE, (Wait(seconds=seconds),), opened=False, standing=True)

    def _too_late(self, call: Call, called: str, now: int) -> Verdict | None:
        left = self._scarcity.seconds_left(now)
        took = self.history.durations.get(call.tool)
        if left is None or not took or median(took) <= left:
            return None
        explanation = f"Not run: {call.tool} takes {median(took):.3g} s, and {max(0.0, left):.3g} s are left."
        evidence = Evidence(steps=(self.history.steps + 1,), count=1, detail=explanation)
        firing = Firing(state=State.SCARCITY, rule="late", severity=Severity.STOP, evidence=evidence, tool=call.tool)
        block = BlockCall(signature=called, tool=call.tool, explanation=explanation)
        return self._keep(self._verdict(firing, 2, (block,), opened=False))

    def _unsafe(self, call: Call, called: str) -> Verdict | None:
        if (firing := self._deadlock.again(self.history, call.tool, called)) is not None:
            explanation = f"Not run: {firing.evidence.detail}. It is not to be done twice; go on from its result."
            block = BlockCall(signature=called, tool=call.tool, explanation=explanation)
            return self._keep(self._verdict(firing, 2, (block,), opened=False))
        if self.history.rule(call.tool).irreversible and (lacking := self._hubris.lacking(self.history)) is not None:
            question = f"May {call.tool} run? It cannot be undone, and {lacking.evidence.detail}."
            return self._keep(self._verdict(lacking, 4, (AskUser(question=question),), opened=False))
        return None

    def _missing(self, answer: Answer) -> Firing | None:
        at = self.history.steps
        if (subject := self._novelty.untold(answer.text)) is not None:
            detail = f"sources disagree about {subject}, and the answer does not give both sides"
            evidence = Evidence(steps=(at,), count=len(self._novelty.conflicts), detail=detail)
            return Firing(state=State.NOVELTY, rule="untold", severity=Severity.STOP, evidence=evidence)
        return self._hubris.finish(self.history, answer) or self._panic.finish(self.history, answer)

    def _rung(self, state: State) -> int:
        episode = self._ladder.open.get(state)
        return 2 if episode is None else episode.rung

    def _halted(self) -> Verdict:
        evidence = Evidence(steps=(self.history.steps,), count=1, detail=self.breaker.tripped or "")
        firing = Firing(state=self.state, rule="breaker", severity=Severity.STOP, evidence=evidence)
        return self._verdict(firing, STOP, (StopPartial(report=self.report()),), opened=False, standing=True)

    def _keep(self, verdict: Verdict) -> Verdict:
        self.verdicts = [*self.verdicts, verdict][-KEPT:]
        return verdict

    def _verdict(
        self, firing: Firing, rung: int, todo: tuple[Intervention, ...], *, opened: bool, standing: bool = False
    ) -> Verdict:
        return Verdict(
            state=firing.state,
            rule=firing.rule,
            severity=firing.severity,
            confidence=firing.confidence,
            evidence=firing.evidence,
            agent=self._agent,
            step=max(1, self.history.steps),
            tokens=self.history.tokens,
            rung=rung,
            opened=opened,
            interventions=todo,
            standing=standing,
        )
