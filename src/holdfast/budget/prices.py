"""
What tokens cost: a table of whole numbers, made from the prices that come with ``genai-prices``.

A model is looked up when it is first called, and again every hour, as prices change by date and by time of day; in
between a call costs a few multiplications.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from holdfast.budget.spec import ModelPrice
from holdfast.clock import NS, Clock
from holdfast.telemetry import logger

MILLION = 1_000_000
HOUR_NS = 3_600 * NS


class Rates(NamedTuple):
    """What a million tokens cost, in nano-dollars."""

    input: int
    output: int
    cache_read: int
    cache_write: int


FREE = Rates(0, 0, 0, 0)


class Price(NamedTuple):
    """
    What the tokens of one model cost.

    Attributes:
        rates: Where no tier applies.
        tiers: Others for calls with more input tokens than a number, the largest first.
    """

    rates: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()

    def cost(
        self, input_tokens: int, output_tokens: int, cache_read_tokens: int = 0, cache_write_tokens: int = 0
    ) -> int:
        """Nano-dollars for a call, rounded up. Tokens of a cache are among those of the input."""
        rates = self._rates(input_tokens)
        plain = max(0, input_tokens - cache_read_tokens - cache_write_tokens)
        return -(
            -(
                plain * rates.input
                + cache_read_tokens * rates.cache_read
                + cache_write_tokens * rates.cache_write
                + output_tokens * rates.output
            )
            // MILLION
        )

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars that a call with so many tokens costs at most, whatever a cache does."""
        rates = self._rates(input_tokens)
        dearest = max(rates.input, rates.cache_read, rates.cache_write)
        return -(-(input_tokens * dearest + output_tokens * rates.output) // MILLION)

    def _rates(self, input_tokens: int) -> Rates:
        for above, rates in self.tiers:
            if input_tokens > above:
                return rates
        return self.rates


class Prices:
    """
    The prices of models.

    Args:
        given: Those that the settings give, by ``provider:model`` or by the model's name.
        clock: Says what time it is, and so which prices are in force.
        free: Models that cost nothing unless the settings say otherwise, as ``provider:model``.
    """

    def __init__(self, given: Mapping[str, ModelPrice], clock: Clock, free: Collection[str] = ()) -> None:
        self._given = {name: _of_settings(price) for name, price in given.items()}
        self._free = frozenset(free)
        self._clock = clock
        self._known: dict[tuple[str, str], Price | None] = {}
        self._hour = -1
        self._told: set[tuple[str, str]] = set()

    def of(self, provider: str, model: str) -> Price | None:
        """What the model costs now, or None where nobody knows."""
        hour = self._clock.wall_ns() // HOUR_NS
        if hour != self._hour:
            self._hour = hour
            self._known.clear()
        key = (provider, model)
        if key not in self._known:
            self._known[key] = self._look_up(provider, model)
        return self._known[key]

    def _look_up(self, provider: str, model: str) -> Price | None:
        name = f"{provider}:{model}"
        given = self._given.get(name) or self._given.get(model)
        if given is not None:
            return given
        if name in self._free:
            return Price(FREE)
        price = _of_table(provider, model, self._clock.wall())
        if price is None and (provider, model) not in self._told:
            self._told.add((provider, model))
            logger.warning("model_without_price", provider=provider, model=model)
        return price


def _of_settings(price: ModelPrice) -> Price:
    def nanos(usd: float | None) -> int:
        return round((price.input_usd if usd is None else usd) * NS)

    rates = (price.input_usd, price.output_usd, price.cache_read_usd, price.cache_write_usd)
    return Price(Rates(*map(nanos, rates)))


def _of_table(provider: str, model: str, at: datetime) -> Price | None:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - its table is large, and may not be needed

    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    prices = found.get_prices(at)
    if prices.input_mtok is None and prices.output_mtok is None:
        return None  # It is not paid for by the token.
    named = (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok)
    starts = {tier.start for price in named for tier in getattr(price, "tiers", ())}

    def rates(tokens: int) -> Rates:
        paid, answered, read, written = (_rate(price, tokens) for price in named)
        known = paid or 0
        return Rates(known, answered or 0, known if read is None else read, known if written is None else written)

    return Price(rates(0), tuple((start, rates(start + 1)) for start in sorted(starts, reverse=True)))


def _rate(price: object, input_tokens: int) -> int | None:
    """Nano-dollars for a million tokens of one kind, in a call with so many tokens of input."""
    if price is None:
        return None
    usd = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if input_tokens > tier.start:
            usd = tier.price
    return round(Decimal(str(usd)) * NS)
