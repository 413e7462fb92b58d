"""Which limits apply to whom, as the settings have them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from holdfast.budget.periods import Every, Today
from holdfast.budget.spec import BudgetSpec
from holdfast.clock import NS
from holdfast.store import Account, Cap, Scope, Standing

SCOPES: tuple[Scope, ...] = ("session", "user", "agent", "all")


class Limit(NamedTuple):
    """
    One limit that many turns share.

    Attributes:
        scope: Whose it is.
        every: How often it is begun anew: every day, every month, or never.
        tokens, nanos: How much, in tokens and nano-dollars; None is no limit.
    """

    scope: Scope
    every: Every
    tokens: int | None
    nanos: int | None

    def cap(self, name: str, now: Today) -> Cap:
        """The same for one of them: this session, this user, this agent; everybody has no name."""
        return Cap(Account(self.scope, name, now.named(self.every)), self.tokens, self.nanos)


class Budget(NamedTuple):
    """
    How one limit stands, in tokens or in US dollars.

    Attributes:
        scope: Whose it is: of a ``session``, a ``user``, an ``agent``, or ``all``.
        name: Which one's; empty for everybody.
        unit: ``tokens`` or ``usd``.
        every: ``day`` or ``month``; empty for as long as there is the session.
        limit: How much may be spent.
        spent: How much was.
        reserved: How much is held besides by calls under way.
        left: How much may be held yet; never below 0.
        resets_ns: When it is begun anew, in wall-clock nanoseconds; None for never.
    """

    scope: Scope
    name: str
    unit: str
    every: Every
    limit: float
    spent: float
    reserved: float
    left: float
    resets_ns: int | None


def nanos_of(usd: float | None) -> int | None:
    """Dollars in nano-dollars, rounded up: what is above zero stays so."""
    return None if usd is None else max(1, round(usd * NS))


def limits_of(spec: BudgetSpec) -> tuple[Limit, ...]:
    """Every limit that turns share."""
    values: Mapping[str, int | float | None] = spec.model_dump(exclude={"prices"})

    def limit(scope: Scope, every: Every) -> Limit:
        suffix = f"_per_{every}" if every else ""
        tokens, usd = values[f"{scope}_tokens{suffix}"], values[f"{scope}_usd{suffix}"]
        return Limit(scope, every, None if tokens is None else int(tokens), nanos_of(usd))

    every_one = [limit("session", ""), *(limit(scope, every) for scope in SCOPES[1:] for every in _PERIODS)]
    return tuple(one for one in every_one if one.tokens is not None or one.nanos is not None)


_PERIODS: tuple[Every, ...] = ("day", "month")


def budgets_of(limit: Limit, standing: Standing, now: Today) -> Iterator[Budget]:
    """How ``limit`` stands on one account: once in each unit it is given in."""
    held, spent = standing.held_tokens, standing.tokens
    if limit.tokens is not None:
        left: float = max(0, limit.tokens - spent - held)
        yield _budget(limit, standing, "tokens", (limit.tokens, spent, held, left), now)
    held, spent = standing.held_nanos, standing.nanos
    if limit.nanos is not None:
        left = max(0, limit.nanos - spent - held)
        yield _budget(limit, standing, "usd", (limit.nanos / NS, spent / NS, held / NS, left / NS), now)


def _budget(
    limit: Limit, standing: Standing, unit: str, amounts: tuple[float, float, float, float], now: Today
) -> Budget:
    return Budget(limit.scope, standing.account.name, unit, limit.every, *amounts, now.ends_ns(limit.every))
