"""Targets are asked in order until one answers, and the answer says which it was."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from holdfast.clock import Clock
from holdfast.errors import AttemptTimedOut, CircuitOpen, DeadlineExceeded, Denied, RateLimited
from holdfast.resilience import (
    TREATMENTS,
    Answered,
    Breaker,
    Call,
    Deadline,
    Failure,
    FailureClass,
    Fallback,
    Notice,
    Pipeline,
    within,
)
from holdfast.testing import loop_clock

Rung = Callable[..., Awaitable[str]]


class Fails(Exception):
    """A failure of this class."""

    def __init__(self, kind: FailureClass, retry_after_s: float | None = None) -> None:
        super().__init__(kind.value)
        self.failure_class = kind
        self.retry_after_s = retry_after_s


class Ladder:
    """Rungs by name, which answer or raise; and which of them were asked."""

    def __init__(self, **ends: Exception | str) -> None:
        self.asked: list[str] = []
        self.told: list[Notice] = []
        self.rungs = [(name, self._rung(name, end)) for name, end in ends.items()]

    def _rung(self, name: str, end: Exception | str) -> Rung:
        async def ask() -> str:
            self.asked.append(name)
            if isinstance(end, Exception):
                raise end
            return end

        return ask

    def router(self, **settings: Any) -> "Fallback[[], str]":
        return Fallback(*self.rungs, clock=Clock(), sink=self.told.append, **settings)


down = Fails(FailureClass.OVERLOADED)


async def test_the_first_rungs_answer_is_not_degraded_and_nothing_is_told() -> None:
    ladder = Ladder(claude="yes", gpt="no")
    assert await ladder.router()() == Answered("yes", degraded=False, via="claude", because=None)
    assert ladder.asked == ["claude"]
    assert ladder.told == []


async def test_another_rungs_answer_says_whose_it_is_and_what_the_one_before_had() -> None:
    ladder = Ladder(claude=down, gpt=Fails(FailureClass.SERVER), cached="as yesterday", never="?")
    assert await ladder.router(name="answers")() == ("as yesterday", True, "cached", "server")
    assert ladder.asked == ["claude", "gpt", "cached"]
    (notice,) = ladder.told
    assert (notice.name, notice.pipeline) == ("fallback.used", "answers")
    assert notice.facts == {"via": "cached", "because": "server"}


async def test_every_rung_takes_the_arguments_of_the_call() -> None:
    async def broken(question: str, *, words: int) -> str:
        raise ConnectionError(question, words)

    async def works(question: str, *, words: int) -> str:
        return f"{question} {words}"

    answered = await Fallback(("claude", broken), ("gpt", works))("why?", words=3)
    assert answered.value == "why? 3"


@pytest.mark.parametrize("kind", list(FailureClass))
async def test_only_a_failure_that_another_target_may_not_have_goes_on(kind: FailureClass) -> None:
    ladder = Ladder(claude=(failed := Fails(kind)), gpt="yes")
    if TREATMENTS[kind].fallback:
        assert (await ladder.router()()).because == kind.value
        return
    with pytest.raises(Fails) as raised:
        await ladder.router()()
    assert raised.value is failed
    assert raised.value.__notes__ == [f"claude: {kind.value}, Fails"]
    assert ladder.asked == ["claude"]


async def test_what_a_provider_will_not_say_no_other_is_asked_to_unless_told_so() -> None:
    with pytest.raises(Fails):
        await Ladder(claude=Fails(FailureClass.FILTERED), gpt="yes").router()()
    answered = await Ladder(claude=Fails(FailureClass.FILTERED), gpt="yes").router(when={FailureClass.FILTERED})()
    assert answered.because == "filtered"
    with pytest.raises(Fails):
        await Ladder(claude=down, gpt="yes").router(when={FailureClass.FILTERED})()


@pytest.mark.parametrize("refusal", [CircuitOpen(retry_after_s=3), RateLimited(), Denied()])
async def test_a_refusal_of_our_own_goes_on(refusal: Exception) -> None:
    assert (await Ladder(claude=refusal, gpt="yes").router()()).because == "refused"


async def test_who_classifies_differently_goes_on_differently() -> None:
    def judge(error: BaseException, now_s: float) -> Failure:
        assert isinstance(error, LookupError)
        assert now_s > 1_000_000_000
        return Failure(FailureClass.CONTEXT, None, retryable=False, harmless=True)

    ladder = Ladder(claude=LookupError(), gpt="yes")
    assert (await ladder.router(classify=judge)()).because == "context"


# Where all fail

asked_to_wait = Fails(FailureClass.RATE_LIMITED, retry_after_s=30)
broken = Fails(FailureClass.SERVER)
wrong = Fails(FailureClass.CONTEXT)
unpaid = Fails(FailureClass.QUOTA, retry_after_s=1)
refused = CircuitOpen(retry_after_s=5)
never = Denied()
bug = KeyError("nothing kept")


@pytest.mark.parametrize(
    ("failures", "raised"),
    [
        ([down, broken], down),
        ([wrong, broken], broken),
        ([broken, asked_to_wait], asked_to_wait),
        ([asked_to_wait, refused], refused),
        ([unpaid, asked_to_wait, broken], asked_to_wait),
        ([wrong, unpaid], unpaid),
        ([never, broken], broken),
        ([never, wrong], never),
        ([refused, bug], refused),
        ([bug], bug),
    ],
)
async def test_the_error_is_the_one_to_come_back_after_soonest(failures: list[Exception], raised: Exception) -> None:
    ladder = Ladder(**{f"rung {n}": failure for n, failure in enumerate(failures)})
    raised.__notes__ = []
    with pytest.raises(type(raised)) as told:
        await ladder.router()()
    assert told.value is raised
    assert ladder.asked == [f"rung {n}" for n in range(len(failures))]
    assert [note.partition(":")[0] for note in raised.__notes__] == ladder.asked
    assert ladder.told == []


async def test_the_error_has_a_note_for_each_rung() -> None:
    with pytest.raises(CircuitOpen) as raised:
        await Ladder(claude=CircuitOpen(retry_after_s=3), gpt=ConnectionResetError(), cached=KeyError()).router()()
    assert raised.value.__notes__ == [
        "claude: refused, CircuitOpen",
        "gpt: network, ConnectionResetError",
        "cached: unknown, KeyError",
    ]


# Time


async def takes(seconds: float, error: Exception | None = None) -> str:
    await asyncio.sleep(seconds)
    if error is not None:
        raise error
    return "answer"


async def test_no_rung_is_asked_once_the_deadline_has_passed() -> None:
    clock, asked = loop_clock(), []

    async def slow() -> str:
        return await takes(1.005, ConnectionError("slow"))

    async def next_one() -> str:
        asked.append("next")
        return ""

    with pytest.raises(ConnectionError, match="slow") as raised:
        async with within(clock, 1.001, DeadlineExceeded):
            await Fallback(("claude", slow), ("gpt", next_one), ("cached", next_one), clock=clock)()
    assert asked == []
    assert raised.value.__notes__ == ["claude: network, ConnectionError"]


async def test_where_no_time_is_left_nobody_is_asked() -> None:
    clock, ladder = loop_clock(), Ladder(claude="yes")

    async def late() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
        await Fallback(*ladder.rungs, clock=clock)()

    with pytest.raises(DeadlineExceeded, match="no time left to ask claude"):
        async with within(clock, 0.5, AttemptTimedOut):
            await late()
    assert ladder.asked == []


async def test_a_deadline_that_passes_in_a_rung_is_nobodys_failure_but_the_callers() -> None:
    clock, ladder = loop_clock(), Ladder(gpt="yes")

    async def slow() -> str:
        return await takes(10)

    with pytest.raises(DeadlineExceeded):
        async with within(clock, 1, DeadlineExceeded):
            await Fallback(("claude", slow), *ladder.rungs, clock=clock)()
    assert asyncio.get_running_loop().time() == 1
    assert ladder.asked == []


async def test_a_deadline_of_the_rungs_own_leaves_time_for_the_next() -> None:
    clock, ladder = loop_clock(), Ladder(gpt="yes")
    claude = Pipeline("claude", Deadline(1), clock=clock).wrap(lambda: takes(10))
    answered = await Fallback(("claude", claude), *ladder.rungs, clock=clock)()
    assert answered == ("yes", True, "gpt", "timeout")
    assert asyncio.get_running_loop().time() == 1


async def test_a_cancellation_is_not_a_failure_even_where_one_falls_back_on_those() -> None:
    ladder = Ladder(gpt="yes")

    async def stopped() -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Fallback(("claude", stopped), *ladder.rungs, when=set(FailureClass))()
    assert ladder.asked == []


# Together with pipelines


async def test_a_target_whose_circuit_is_open_is_passed_over() -> None:
    clock = loop_clock()
    claude = Pipeline("claude", Breaker(consecutive=2), clock=clock)
    asked = Ladder(claude=ConnectionError(), gpt="yes")
    (_, ask), gpt = asked.rungs
    router = Fallback(("claude", claude.on(Call(target="claude", elsewhere=True)).wrap(ask)), gpt, clock=clock)
    assert [(await router()).because for _ in range(4)] == ["network", "network", "refused", "refused"]
    assert asked.asked == ["claude", "gpt", "claude", "gpt", "gpt", "gpt"]


@pytest.mark.parametrize("names", [[], ["claude", "claude"]])
def test_a_ladder_has_rungs_and_each_a_name_of_its_own(names: list[str]) -> None:
    rungs: list[tuple[str, Rung]] = [(name, takes) for name in names]
    with pytest.raises(ValueError, match="a name of its own"):
        Fallback(*rungs)
