"""
The budget of one turn: its own limits, kept here, and those it shares, kept by ``Budgets``.

::

    reserve ─▶ the call ─▶ settle        left: how near the end is, so that a turn can end in time and by itself
"""

from typing import NamedTuple

from holdfast.budget.budgets import Budgets, Member
from holdfast.budget.limits import Limit, nanos_of
from holdfast.budget.prices import Price
from holdfast.budget.refusals import Wanted, turn_exhausted
from holdfast.clock import NS, token_hex
from holdfast.errors import PriceUnknown
from holdfast.events import Usage
from holdfast.resilience import remaining_s
from holdfast.store import Settled

NOTHING = Wanted(0, 0)


class Estimate(NamedTuple):
    """
    What a model call may use, as far as is known before it is sent.

    Attributes:
        input_tokens: Of the request.
        output_tokens: Most that may be answered; None where the call sets no limit.
    """

    input_tokens: int
    output_tokens: int | None = None


class Left(NamedTuple):
    """
    Shares that are left of what a turn may use: 1 at first, 0 when the call after the next may be refused.

    Of a limit that turns share, it is a share of what was left for this turn when it began. What is not limited stays
    at 1.

    Attributes:
        steps: Of its model calls.
        tokens: Of its tokens.
        money: Of its dollars.
        seconds: Of its time.
    """

    steps: float
    tokens: float
    money: float
    seconds: float

    @property
    def least(self) -> float:
        """The smallest of them."""
        return min(self)


class Booking(NamedTuple):
    """
    What one attempt at a model call has reserved.

    Attributes:
        id: Names the hold on limits that turns share; empty where there are none.
        wanted: How much.
        price: What the model costs; None where nobody knows.
    """

    id: str
    wanted: Wanted
    price: Price | None


class TurnBudget:
    """
    What one turn may spend.

    Args:
        budgets: Those of the process.
        member: Whose limits the turn is under.
        turn_s: Seconds the turn may take.

    Attributes:
        steps: Model calls that were answered, or are under way.
        tokens: What was used, input and output.
        nanos: What that cost, in nano-dollars.
    """

    __slots__ = (
        "_budgets",
        "_held",
        "_member",
        "_nanos_limit",
        "_next",
        "_room",
        "_shared",
        "_turn_s",
        "nanos",
        "steps",
        "tokens",
    )

    def __init__(self, budgets: Budgets, member: Member, turn_s: float) -> None:
        self._budgets = budgets
        self._member = member
        self._turn_s = turn_s
        self._shared: list[Limit] = budgets.applying(member) if budgets.limits and member.turn_id else []
        self._nanos_limit = nanos_of(budgets.spec.turn_usd)
        self._held = NOTHING
        self._next = NOTHING
        self._room: tuple[float, float] = (float("inf"), float("inf"))
        self.steps = 0
        self.tokens = 0
        self.nanos = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a limit on tokens or money, so that an estimate is worth making."""
        spec = self._budgets.spec
        return spec.turn_tokens is not None or spec.turn_usd is not None or bool(self._shared)

    @property
    def _counts_money(self) -> bool:
        return self._nanos_limit is not None or any(limit.nanos is not None for limit in self._shared)

    async def reserve(self, provider: str, model: str, estimate: Estimate | None) -> Booking:
        """
        Take what a call may use from every limit, or from none.

        Raises:
            BudgetExhausted: one has no room for it. Nothing was taken.
            PriceUnknown: nobody knows what the model costs, and that matters. Nothing was taken.
            StoreUnavailable: the store was asked, and did not answer. Nothing was taken.
        """
        price = self._budgets.prices.of(provider, model)
        if price is None and (self._counts_money or self._budgets.spec.unknown_model == "refuse"):
            raise PriceUnknown(
                f"nobody knows what {provider}:{model} costs, and money is limited or unknown prices are refused; "
                f'give its price in budget.prices."{provider}:{model}"'
            )
        wanted = self._wanted(estimate, price) if self.counts_tokens else NOTHING
        self._check(wanted)
        booking = Booking(token_hex(8) if self._shared else "", wanted, price)
        self._take(1, wanted)
        if self._shared:
            try:
                standing = await self._budgets.reserve(booking.id, self._member, wanted)
            except BaseException:
                self._take(-1, Wanted(-wanted.tokens, -wanted.nanos))
                raise
            mine = {"tokens": self.tokens + self._held.tokens, "usd": (self.nanos + self._held.nanos) / NS}
            rooms = {
                unit: min((one.left + own for one in standing if one.unit == unit), default=float("inf"))
                for unit, own in mine.items()
            }
            self._room = rooms["tokens"], rooms["usd"] * NS
        self._next = wanted
        return booking

    def settle(self, booking: Booking, used: Usage | None, *, answered: bool) -> None:
        """
        Give back what a call did not use.

        Args:
            booking: What it reserved.
            used: What it used; None where nobody knows, which counts as all that it reserved.
            answered: Whether it counts as a step.
        """
        wanted = booking.wanted
        spent = wanted if used is None else Wanted(used.input_tokens + used.output_tokens, used.cost_nanos)
        self._take(0 if answered else -1, Wanted(-wanted.tokens, -wanted.nanos))
        self.tokens += spent.tokens
        self.nanos += spent.nanos
        if booking.id:
            self._budgets.settle(Settled(booking.id, *spent))

    def replayed(self, used: Usage) -> None:
        """A call that was made when the turn was run before, and paid for then."""
        self.steps += used.model_calls
        self.tokens += used.input_tokens + used.output_tokens
        self.nanos += used.cost_nanos

    def left(self) -> Left:
        """How much of everything is left."""
        spec = self._budgets.spec
        seconds = remaining_s(self._budgets.clock)
        tokens = min(self._room[0], _limit(spec.turn_tokens))
        nanos = min(self._room[1], _limit(self._nanos_limit))
        return Left(
            steps=_share(_limit(spec.turn_steps), self.steps, 1),
            tokens=_share(tokens, self.tokens + self._held.tokens, 2 * self._next.tokens),
            money=_share(nanos, self.nanos + self._held.nanos, 2 * self._next.nanos),
            seconds=1.0 if seconds is None else min(1.0, max(0.0, seconds / self._turn_s)),
        )

    def _wanted(self, estimate: Estimate | None, price: Price | None) -> Wanted:
        input_tokens, output_tokens = estimate or Estimate(0)
        if output_tokens is None:
            output_tokens = self._budgets.spec.answer_tokens
        nanos = 0 if price is None else price.most(input_tokens, output_tokens)
        return Wanted(input_tokens + output_tokens, nanos)

    def _check(self, wanted: Wanted) -> None:
        """Whether the turn's own limits have room for a call."""
        spec = self._budgets.spec
        if spec.turn_steps is not None and self.steps >= spec.turn_steps:
            raise turn_exhausted("steps", spec.turn_steps, self.steps, 1)
        tokens = self.tokens + self._held.tokens
        if spec.turn_tokens is not None and tokens + wanted.tokens > spec.turn_tokens:
            raise turn_exhausted("tokens", spec.turn_tokens, tokens, wanted.tokens)
        nanos = self.nanos + self._held.nanos
        if self._nanos_limit is not None and nanos + wanted.nanos > self._nanos_limit:
            raise turn_exhausted("usd", self._nanos_limit / NS, nanos / NS, wanted.nanos / NS)

    def _take(self, steps: int, wanted: Wanted) -> None:
        self.steps += steps
        self._held = Wanted(self._held.tokens + wanted.tokens, self._held.nanos + wanted.nanos)


def _limit(value: float | None) -> float:
    return float("inf") if value is None else value


def _share(limit: float, used: float, kept: float) -> float:
    """The share of ``limit`` that is left, with ``kept`` set aside for the calls that are to come at least."""
    if limit == float("inf"):
        return 1.0
    room = limit - kept
    return 0.0 if room <= 0 else min(1.0, max(0.0, (room - used) / room))
