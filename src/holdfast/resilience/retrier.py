"""Retries at work: the decision is ``retry.decide``'s; here are the budgets, the waits, and what is told."""

from asyncio import sleep
from collections.abc import Sequence

from holdfast.clock import NS
from holdfast.resilience.classify import Failure
from holdfast.resilience.deadline import remaining_s
from holdfast.resilience.guards import NOT_YET, Attempt, Surroundings
from holdfast.resilience.keys import Call, per
from holdfast.resilience.retry import NotAgain, Retry, RetryBudget, decide
from holdfast.resilience.table import KeyTable


def recall(error: BaseException, notes: Sequence[str]) -> None:
    """Put what was noted of earlier attempts before the note of the last one; a cancellation has none."""
    if notes and isinstance(error, Exception):
        error.__notes__[-1:-1] = [note for note in notes if note not in error.__notes__]


class Retrier:
    """The retries of one pipeline. No state is shared between calls but the budget of their target."""

    def __init__(self, policy: Retry, around: Surroundings) -> None:
        self._around = around
        self._policy = policy
        self._budgets = KeyTable[RetryBudget](
            lambda _key: RetryBudget(self._policy.budget, around.clock.now()), RetryBudget.quiescent, around.max_keys
        )

    def began(self, call: Call) -> None:
        """A call begins: its first attempt pays into the budget of its target."""
        if self._budgets.live:  # Until one was drawn on all are full, and a new one is as well.
            now = self._around.clock.now()
            self._budgets.get(per.target(call), now).deposit(now)

    async def again(self, attempt: Attempt, failure: Failure, error: BaseException) -> bool:
        """
        Whether to make the call again; True only after the wait for it. What was decided becomes a note on ``error``.

        A cancellation goes through.
        """
        policy, clock, call = self._policy, self._around.clock, attempt.call
        now = clock.now()
        decision = decide(
            policy,
            failure,
            attempt.number,
            repeatable=call.repeatable,
            elsewhere=call.elsewhere,
            left_s=remaining_s(clock),
            budget=self._budgets.get(per.target(call), now),
            now=now,
            chance=clock.random.random,
        )
        kind, lasted_s = failure.kind.value, (now - attempt.sent_ns) / NS if attempt.sent_ns != NOT_YET else 0.0
        told = f"attempt {attempt.number} of {policy.attempts}: {kind} after {lasted_s:.3g} s"
        if isinstance(decision, NotAgain):
            error.add_note(f"{told}, not again: {decision.why}")
            if decision.why == "budget":
                self._around.tell("budget.empty", "target", attempt.id, attempt.number, failure=kind)
            if attempt.number > 1 or decision.why != "not_retryable":
                self._around.tell(
                    "retry.gave_up", "target", attempt.id, attempt.number, failure=kind, reason=decision.why
                )
            return False
        error.add_note(f"{told}, again in {decision.wait_s:.3g} s")
        self._around.tell("retry.scheduled", "target", attempt.id, attempt.number, failure=kind, wait_s=decision.wait_s)
        await sleep(decision.wait_s)
        return True

    def reconfigure(self, policy: Retry) -> None:
        """Use other bounds from the next failure on. Budgets that exist keep their own size and level."""
        self._policy = policy
