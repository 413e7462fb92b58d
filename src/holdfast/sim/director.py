"""
What answers a request: an injected fault, a rule of the script, a Python function, or the demo model.

::

    faults ─▶ rules (or the Python function) ─▶ demo model
      │         │
      └─────────┴── a fault that needs an answer is kept, and laid over whatever answers further down
"""

import inspect
import random
from dataclasses import dataclass

from holdfast.agents import demo
from holdfast.sim.dialogue import Call, Request
from holdfast.sim.latency import NONE, Latency
from holdfast.sim.loading import Brain
from holdfast.sim.rules import Reply, Rule, Script, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    What to answer, and who said so.

    Attributes:
        fault_by: The rule that lent the reply its fault, or empty.
        rng: The chance to draw latencies from.
        error: What a Python script raised; the reply is empty then.
    """

    reply: Reply
    answered_by: str
    fault_by: str
    first_token: Latency
    per_token: Latency
    rng: random.Random
    error: str = ""


@dataclass(slots=True)
class _InForce:
    script: Script | Brain
    name: str
    rules: list[Tally]
    seen: int = 0


class Director:
    """
    Decides each answer. Chance depends on the seed and on how many requests the script has seen, nothing else.

    What is in force, a script or the injected faults, is replaced in one assignment and never changed, so that any
    thread may do it.
    """

    def __init__(
        self, script: Script | Brain, name: str, seed: int, first_token: Latency | None, per_token: Latency | None
    ) -> None:
        self._seed = seed
        self._first_token = first_token
        self._per_token = per_token
        self._faults: list[Tally] = []
        self._fault_count = 0
        self.use(script, name)

    def use(self, script: Script | Brain, name: str = "") -> None:
        """Replace the script. Its counts and its chance begin anew; injected faults stay."""
        rules = script.rules if isinstance(script, Script) else ()
        self._force = _InForce(script, name, [Tally(rule, f"rules[{n}]") for n, rule in enumerate(rules)])

    @property
    def script(self) -> Script | Brain:
        """The script in force."""
        return self._force.script

    @property
    def name(self) -> str:
        """What records call it, where it is a Python function."""
        return self._force.name

    def add_fault(self, rule: Rule) -> str:
        """Inject a fault: a rule tried before the script's. Says what records will call it."""
        tally = Tally(rule, f"faults[{self._fault_count}]")
        self._fault_count += 1
        self._faults = [*self._faults, tally]
        return tally.name

    def clear_faults(self) -> int:
        """Take all injected faults out, and say how many there were."""
        count = len(self._faults)
        self._faults = []
        return count

    def faults(self) -> list[Tally]:
        """The injected faults with their counts, in the order in which they are tried."""
        return list(self._faults)

    async def decide(self, request: Request) -> Decision:
        """What to answer this request. A Python script that raises gives an answer with ``error`` set."""
        force = self._force
        force.seen += 1
        rng = random.Random(f"{self._seed}:{force.seen}")  # noqa: S311 - chance that repeats is the point
        lent: Rule | None = None
        reply: Reply | None = None
        lent_by, answered_by, error = "", "", ""
        for tally in [*self._faults, *force.rules]:
            if (lent is not None and tally.rule.lends_fault) or not tally.applies(request, rng):
                continue
            if tally.rule.lends_fault:
                lent, lent_by = tally.rule, tally.name
                continue
            reply, answered_by = tally.rule, tally.name
            break
        try:
            if reply is None and not isinstance(force.script, Script):
                answered_by = force.name
                reply = await _asked(force.script, request, rng)
            if reply is None:
                answered_by = "demo"
                reply = demo_reply(request)
        except Exception as wrong:  # noqa: BLE001 - a script is somebody's code, and may raise anything
            reply, error = Reply(), f"{answered_by}: {type(wrong).__name__}: {wrong}"
        script = force.script if isinstance(force.script, Script) else Script()
        fault, lender = reply.fault, lent or Reply()
        if lent is not None and (fault is None or fault.needs_answer):
            fault = lent.fault
        else:
            lent_by = ""
        return Decision(
            reply=Reply(say=reply.say, call=reply.call, usage=reply.usage, finish=reply.finish, fault=fault),
            answered_by=answered_by,
            fault_by=lent_by,
            first_token=lender.first_token or reply.first_token or self._first_token or script.first_token or NONE,
            per_token=lender.per_token or reply.per_token or self._per_token or script.per_token or NONE,
            rng=rng,
            error=error,
        )


async def _asked(brain: Brain, request: Request, rng: random.Random) -> Reply | None:
    found = brain(request, rng)
    reply = await found if inspect.isawaitable(found) else found
    if reply is not None and not isinstance(reply, Reply):
        raise TypeError(f"it must return a Reply or None, not {type(reply).__name__}")
    return reply


def demo_reply(request: Request) -> Reply:
    """What the rule-based demo model answers."""
    lines = [
        demo.Line(message.role, f"error: {message.text}" if message.failed else message.text, message.tool)
        for message in request.messages
        if message.role != "system"
    ]
    decided = demo.decide(lines, request.tools)
    if isinstance(decided, demo.Say):
        return Reply(say=decided.text)
    return Reply(call=tuple(Call(tool=call.tool, args=call.args) for call in decided))
