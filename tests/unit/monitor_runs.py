"""Runs for the monitor, written shortly."""

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.monitor import BlockCall, Budget, Call, Monitor, MonitorSpec, Norms, Step, Success, ToolRule, Verdict


def call(tool: str = "search", args: Any = "same", result: str = "nothing found", error: str | None = None) -> Call:
    return Call(tool=tool, args=args, result=result, error=error)


def failing(args: Any = "same", result: str = "KeyError: 'a'", tool: str = "search") -> Call:
    return call(tool, args, result, error="")


def fresh(number: int) -> Call:
    """A call that brings something new."""
    return call("read", f"file {'abcdefghijklmnopqrstuvwxyz'[number % 26] * (1 + number // 26)}", f"text {number}")


def step(*calls: Call, **more: Any) -> Step:
    return Step(calls=calls, **more)


def monitor(mode: str = "shadow", tools: dict[str, ToolRule] | None = None, **spec: Any) -> Monitor:
    return Monitor(MonitorSpec(mode=mode, tools=tools or {}, **spec))


def acting(budget: Budget | None = None, *, human: bool = False, goal: str = "", **spec: Any) -> Monitor:
    return Monitor(MonitorSpec(mode="act", **spec), budget=budget, human=human, goal=goal)


def told(watched: Monitor, steps: Sequence[Step | Call]) -> list[list[Verdict]]:
    """What it answers to each step."""
    return [list(watched.after_step(each if isinstance(each, Step) else step(each))) for each in steps]


def found(watched: Monitor, steps: Sequence[Step | Call]) -> list[str]:
    """Every detection, as ``deadlock.rep STOP 3``: state, rule, severity and step."""
    return [
        f"{verdict.state.value}.{verdict.rule} {verdict.severity.name} {verdict.step}"
        for verdicts in told(watched, steps)
        for verdict in verdicts
    ]


def drive(watched: Monitor, agent: Callable[[int], Call], steps: int) -> list[Verdict]:
    """Run an agent with the monitor around its calls, as an adapter does; every verdict that is no standing order."""
    verdicts: list[Verdict] = []
    for number in range(steps):
        made = agent(number)
        veto = watched.before_call(made)
        if veto is not None:
            if not veto.standing:
                verdicts.append(veto)
            blocks = [each for each in veto.interventions if isinstance(each, BlockCall)]
            if blocks:
                made = Call(tool=made.tool, args=made.args, result=blocks[0].explanation, blocked=True)
        verdicts += watched.after_step(step(made))
        if watched.breaker.tripped is not None:
            break
    return verdicts


def kinds(verdict: Verdict) -> list[str]:
    return [each.kind for each in verdict.interventions]


def norms(lengths: Sequence[int], **more: Any) -> Norms:
    return Norms(Success(length, **more) for length in lengths)
