"""Budgets at the model crossing: what is booked of an attempt, however it ends, and what a refused one does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_ai import Agent as PydanticAI
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel

from holdfast.adapters.pydantic_ai.agent import PydanticAgent
from holdfast.budget import Budgets, BudgetSpec, Estimate
from holdfast.errors import (
    AttemptTimedOut,
    BudgetExhausted,
    ModelRejected,
    PriceUnknown,
    RateLimited,
    StreamBroken,
)
from holdfast.events import Event, ModelFinished, ModelStarted, Usage
from holdfast.guard import Attempt, Guard, GuardSpec, ModelKey, Policies, Who, ambient
from holdfast.store import MemoryStore
from holdfast.testing import loop_clock

if TYPE_CHECKING:
    from tests.crashes import Server, World
else:  # pytest puts the folder of the first conftest on the path, and mypy the project's
    from crashes import Server, World

KEY = ModelKey("sim", "small")
PRICES = {"small": {"input_usd": 1.0, "output_usd": 2.0, "cache_read_usd": 0.5, "cache_write_usd": 4.0}}
SPEC = GuardSpec(turn_s=100, model_s=20, first_token_s=5, attempts=3)
ESTIMATE = Estimate(100, 50)


class Watched:
    """A guard with a budget, and what it told."""

    def __init__(self, spec: GuardSpec = SPEC, **limits: Any) -> None:
        clock = loop_clock()
        self.store = MemoryStore(clock)
        budget = BudgetSpec.model_validate({"prices": PRICES, "answer_tokens": 50, "wait_s": 0, **limits})
        self.budgets = Budgets(budget, clock, self.store, "a")
        self.events: list[Event] = []
        self.policies = Policies(spec, clock, budgets=self.budgets)
        self.guard = Guard(self.policies, self.events.append, Who("anna", "agent", "c0ffee-1"))

    @property
    def last(self) -> ModelFinished:
        return next(event for event in reversed(self.events) if isinstance(event, ModelFinished))

    async def booked(self) -> tuple[int, int]:
        """Tokens that were spent of the day, and that are held."""
        await self.budgets.write()
        (standing,) = self.store._accounts.values()
        return standing.tokens, standing.held_tokens


async def answers(attempt: Attempt) -> str:
    attempt.used(70, 30, cache_read_tokens=40, cache_write_tokens=10)
    return "hello"


async def test_what_a_call_cost_is_told_and_summed() -> None:
    watched = Watched()
    for _ in range(2):
        assert await watched.guard.model(KEY, ESTIMATE, answers) == "hello"
    cost = 20 * 1_000 + 40 * 500 + 10 * 4_000 + 30 * 2_000
    assert watched.last.cost_nanos == cost
    assert watched.guard.usage() == Usage(model_calls=2, input_tokens=140, output_tokens=60, cost_nanos=2 * cost)


async def test_of_an_unknown_price_nothing_is_told() -> None:
    watched = Watched()
    await watched.guard.model(ModelKey("sim", "large"), ESTIMATE, answers)
    assert watched.last.cost_nanos is None
    assert watched.guard.usage().cost_nanos == 0


async def says_nothing(_: Attempt) -> str:
    return "hello"


async def rejects(_: Attempt) -> str:
    raise ModelRejected


async def hangs(_: Attempt) -> str:
    await asyncio.sleep(1_000)
    raise AssertionError


async def times_out(_: Attempt) -> str:
    raise AttemptTimedOut


async def breaks(attempt: Attempt) -> str:
    attempt.first_token()
    raise StreamBroken


async def breaks_and_tells(attempt: Attempt) -> str:
    attempt.used(60, 3)
    return await breaks(attempt)


@pytest.mark.parametrize(
    ("call", "error", "tokens"),
    [
        (answers, None, 100),
        (says_nothing, None, 150),
        (rejects, ModelRejected, 0),
        (times_out, AttemptTimedOut, 150),
        (breaks, StreamBroken, 150),
        (breaks_and_tells, StreamBroken, 63),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
async def test_what_is_booked_of_an_attempt_is_what_it_used_or_else_all_it_may_have(
    call: Callable[[Attempt], Awaitable[str]], error: type[Exception] | None, tokens: int, *, streams: bool
) -> None:
    watched = Watched(SPEC.model_copy(update={"attempts": 1}), user_tokens_per_day=1_000)

    async def make() -> None:
        if not streams:
            await watched.guard.model(KEY, ESTIMATE, call)
            return
        async with watched.guard.model.stream(KEY, ESTIMATE) as attempt:
            await call(attempt)

    if error is None:
        await make()
    else:
        with pytest.raises(error):
            await make()
    assert await watched.booked() == (tokens, 0)
    assert watched.guard.budget.steps == (error is None)


async def test_a_call_that_is_cancelled_may_have_used_everything() -> None:
    watched = Watched(user_tokens_per_day=1_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await watched.guard.model(KEY, ESTIMATE, hangs)
    assert await watched.booked() == (150, 0)


async def test_an_attempt_that_another_policy_refused_used_nothing() -> None:
    spec = SPEC.model_copy(update={"model_per_minute": 1, "model_wait_s": 0.0, "attempts": 1})
    watched = Watched(spec, user_tokens_per_day=1_000)
    await watched.guard.model(KEY, ESTIMATE, answers)
    with pytest.raises(RateLimited):
        await watched.guard.model(KEY, ESTIMATE, answers)
    assert await watched.booked() == (100, 0)


async def test_what_is_refused_is_not_sent_nor_tried_again_nor_held_against_the_model() -> None:
    watched = Watched(user_tokens_per_day=149)
    sent: list[Attempt] = []

    async def send(attempt: Attempt) -> str:
        sent.append(attempt)
        return await answers(attempt)

    for _ in range(10):
        with pytest.raises(BudgetExhausted):
            await watched.guard.model(KEY, ESTIMATE, send)
    assert sent == []
    assert watched.guard.model.calls == 0
    assert not watched.guard.model.may_ask_another()
    started, finished = watched.events[:2]
    assert isinstance(started, ModelStarted)
    assert isinstance(finished, ModelFinished)
    assert (finished.status, finished.error, finished.cost_nanos) == ("rejected", "budget_exhausted", None)
    assert len(watched.events) == 20
    await watched.guard.model(KEY, Estimate(10, 10), send)


async def test_after_another_failure_a_budget_that_is_used_up_asks_no_further_model() -> None:
    watched = Watched(turn_tokens=200, turn_steps=None)
    with pytest.raises(ModelRejected):
        await watched.guard.model(KEY, Estimate(10, 10), rejects)
    with pytest.raises(BudgetExhausted):
        await watched.guard.model(ModelKey("sim", "other"), Estimate(500, 10), answers)
    assert not watched.guard.model.may_ask_another()


async def test_a_call_that_was_answered_when_the_turn_was_run_before_costs_once() -> None:
    watched, world = Watched(turn_steps=1), World()

    async def send(attempt: Attempt) -> str:
        attempt.answer = b"hello"
        return "hello" if attempt.before else await answers(attempt)

    server = Server(world, policies=watched.policies)
    await server.turn.guard.model(KEY, ESTIMATE, send, b"r")
    used, budget = server.turn.guard.usage(), server.turn.guard.budget
    again = Server(world, policies=watched.policies)
    await again.turn.guard.model(KEY, ESTIMATE, send, b"r")
    assert again.turn.guard.usage() == used
    assert used.cost_nanos > 0
    after = again.turn.guard.budget
    assert (
        (after.steps, after.tokens, after.nanos)
        == (budget.steps, budget.tokens, budget.nanos)
        == (
            1,
            100,
            used.cost_nanos,
        )
    )
    with pytest.raises(BudgetExhausted):
        await again.turn.guard.model(KEY, ESTIMATE, send, b"another")


async def test_an_unknown_price_is_told_as_denied() -> None:
    watched = Watched(turn_usd=1)
    with pytest.raises(PriceUnknown):
        await watched.guard.model(ModelKey("sim", "large"), ESTIMATE, answers)
    assert (watched.last.status, watched.last.error) == ("denied", "price_unknown")


async def test_estimates_are_wanted_only_where_something_is_limited() -> None:
    assert not Watched().guard.model.counts_tokens
    for limit in ("turn_tokens", "turn_usd", "all_usd_per_month"):
        assert Watched(SPEC, **{limit: 1}).guard.model.counts_tokens
    assert Watched(SPEC.model_copy(update={"model_tokens_per_minute": 1})).guard.model.counts_tokens


def model_of(name: str, asked: list[str]) -> FunctionModel:
    async def answer(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        asked.append(name)
        return ModelResponse(parts=[TextPart("fine")])

    return FunctionModel(answer, model_name=name)


@pytest.mark.parametrize("fallback", ["own", "framework"])
async def test_an_agent_that_is_refused_asks_no_other_model(fallback: str) -> None:
    """Neither a fallback of ours, nor one of a ``FallbackModel``."""
    watched = Watched(turn_tokens=10)
    asked: list[str] = []
    one, other = model_of("one", asked), model_of("other", asked)
    if fallback == "own":
        agent = PydanticAgent(PydanticAI(one), "agent", [other])
    else:
        agent = PydanticAgent(PydanticAI(FallbackModel(one, other)), "agent")
    turn: Any = _turn(watched.guard)
    with pytest.raises(BudgetExhausted, match="the turn may use 10 tokens"):
        await agent.run(turn, "hello")
    assert asked == []
    assert ambient.get() is None
    assert sum(isinstance(event, ModelStarted) for event in watched.events) == 1


async def test_an_agents_estimate_is_its_messages_and_the_most_it_may_answer() -> None:
    watched = Watched(turn_tokens=1_000)
    asked: list[str] = []
    agent = PydanticAgent(PydanticAI(model_of("one", asked), model_settings={"max_tokens": 900}), "agent")
    turn: Any = _turn(watched.guard)
    await agent.run(turn, "x" * 4 * 99)
    with pytest.raises(BudgetExhausted, match="1001 tokens"):
        await PydanticAgent(PydanticAI(model_of("one", []), model_settings={"max_tokens": 900}), "agent").run(
            _turn(Watched(turn_tokens=1_000).guard), "x" * 4 * 101
        )
    assert asked == ["one"]


class _Turn:
    """As much of a turn as an agent asks for."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.past: tuple[Any, ...] = ()
        self.streams = False


def _turn(guard: Guard) -> Any:
    return _Turn(guard)
