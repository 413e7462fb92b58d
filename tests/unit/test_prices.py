"""What tokens cost, in whole nano-dollars."""

from datetime import UTC, datetime

import pytest
from genai_prices import Usage, calc_price

from holdfast.budget import ModelPrice, Price, Prices, Rates
from holdfast.clock import NS, Clock
from holdfast.testing import loop_clock


async def test_a_price_is_what_the_table_it_was_made_from_says() -> None:
    clock = loop_clock()
    prices = Prices({}, clock)
    models = [("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o-mini"), ("google-gla", "gemini-2.5-pro")]
    calls = [(1, 1, 0, 0), (1_000, 20, 400, 0), (200_000, 7, 0, 0), (200_001, 7, 1_000, 0), (300_000, 1, 0, 0)]
    for provider, model in models:
        price = prices.of(provider, model)
        assert price is not None
        for input_tokens, output_tokens, read, written in calls:
            usage = Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cache_read_tokens=read,
                cache_write_tokens=written,
            )
            known = calc_price(usage, model, provider_id=provider, genai_request_timestamp=clock.wall())
            cost = price.cost(input_tokens, output_tokens, read, written)
            assert abs(cost - known.total_price * NS) < 1, (model, input_tokens)
            assert price.most(input_tokens, output_tokens) >= cost


async def test_what_a_cache_is_written_costs_more_and_is_reckoned_with() -> None:
    price = Prices({}, loop_clock()).of("anthropic", "claude-sonnet-4-5")
    assert price is not None
    assert price.cost(1_000, 0) == 3_000_000
    assert price.cost(1_000, 0, 0, 1_000) == price.most(1_000, 0) == 3_750_000
    assert price.cost(1_000, 0, 1_000) == 300_000


def test_a_cost_is_rounded_up_and_never_below_zero() -> None:
    price = Price(Rates(input=500_000, output=0, cache_read=0, cache_write=0))
    assert [price.cost(n, 0) for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert price.cost(1, 0, 5, 5) == 0


@pytest.mark.parametrize("name", ["sim:small", "small"])
async def test_a_price_of_the_settings_is_by_name_with_or_without_its_provider(name: str) -> None:
    prices = Prices({name: ModelPrice(input_usd=1, output_usd=2, cache_read_usd=0.25)}, loop_clock())
    price = prices.of("sim", "small")
    assert price == Price(Rates(NS, 2 * NS, NS // 4, NS))
    assert (prices.of("other", "small") is None) == (name == "sim:small")


async def test_a_price_of_the_settings_is_taken_before_a_built_in_one_even_where_it_is_nothing() -> None:
    prices = Prices({"claude-sonnet-4-5": ModelPrice()}, loop_clock())
    assert prices.of("anthropic", "claude-sonnet-4-5") == Price(Rates(0, 0, 0, 0))


async def test_nobody_knows_the_price_of_an_unknown_model_but_some_are_free() -> None:
    prices = Prices({}, loop_clock(), free=["function:demo"])
    assert prices.of("function", "demo") == Price(Rates(0, 0, 0, 0))
    assert prices.of("function", "other") is None
    assert prices.of("openai", "llama3") is None


def test_prices_change_with_the_day() -> None:
    """As that of o3 did in June 2025."""
    wall = [datetime(2025, 6, 9, 23, 59, tzinfo=UTC)]
    prices = Prices({}, Clock(wall_ns=lambda: round(wall[0].timestamp()) * NS))
    assert prices.of("openai", "o3") == Price(Rates(10 * NS, 40 * NS, NS // 2, 10 * NS))
    wall[0] = datetime(2025, 6, 10, tzinfo=UTC)
    assert prices.of("openai", "o3") == Price(Rates(2 * NS, 8 * NS, NS // 2, 2 * NS))
