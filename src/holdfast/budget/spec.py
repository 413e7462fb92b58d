"""What turns may spend, and what tokens cost."""

from typing import Any, Literal

from pydantic import BaseModel, Field

MOST_TOKENS = 10**15
MOST_USD = 1_000_000_000


def _tokens() -> Any:
    return Field(None, ge=1, le=MOST_TOKENS)


def _usd() -> Any:
    return Field(None, gt=0, le=MOST_USD)


class ModelPrice(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What one model costs, in US dollars for a million tokens."""

    input_usd: float = Field(0.0, ge=0, le=1_000_000)
    """Dollars for a million tokens of input."""

    output_usd: float = Field(0.0, ge=0, le=1_000_000)
    """Dollars for a million tokens of output, reasoning too."""

    cache_read_usd: float | None = Field(None, ge=0, le=1_000_000)
    """Dollars for a million tokens of input that are read from the provider's cache; None takes `input_usd`."""

    cache_write_usd: float | None = Field(None, ge=0, le=1_000_000)
    """Dollars for a million tokens of input that are written to the provider's cache; None takes `input_usd`."""


class BudgetSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """
    What may be spent: steps, tokens and money. Section ``budget``.

    A model call takes what it may need from every limit before it is sent, and gives back what it did not use. None is
    no limit. Days and months are those of UTC; limits other than a turn's are kept in the store, for all servers.
    """

    turn_steps: int | None = Field(50, ge=1, le=1_000_000)
    """Model calls that one turn may make; those that failed are not counted."""

    turn_tokens: int | None = _tokens()
    """Tokens that one turn may use, input and output."""

    turn_usd: float | None = _usd()
    """Dollars that one turn may cost."""

    session_tokens: int | None = _tokens()
    """Tokens that one session may use, from its first turn until it is deleted."""

    session_usd: float | None = _usd()
    """Dollars that one session may cost, from its first turn until it is deleted."""

    user_tokens_per_day: int | None = _tokens()
    """Tokens that one user may use a day."""

    user_tokens_per_month: int | None = _tokens()
    """Tokens that one user may use a month."""

    user_usd_per_day: float | None = _usd()
    """Dollars that one user may cost a day."""

    user_usd_per_month: float | None = _usd()
    """Dollars that one user may cost a month."""

    agent_tokens_per_day: int | None = _tokens()
    """Tokens that one agent may use a day."""

    agent_tokens_per_month: int | None = _tokens()
    """Tokens that one agent may use a month."""

    agent_usd_per_day: float | None = _usd()
    """Dollars that one agent may cost a day."""

    agent_usd_per_month: float | None = _usd()
    """Dollars that one agent may cost a month."""

    all_tokens_per_day: int | None = _tokens()
    """Tokens that everybody together may use a day."""

    all_tokens_per_month: int | None = _tokens()
    """Tokens that everybody together may use a month."""

    all_usd_per_day: float | None = _usd()
    """Dollars that everybody together may cost a day."""

    all_usd_per_month: float | None = _usd()
    """Dollars that everybody together may cost a month."""

    answer_tokens: int = Field(4_096, ge=1, le=1_000_000)
    """Tokens that are reserved for the answer of a call that sets no limit of its own."""

    wait_s: float = Field(10.0, ge=0, le=86_400)
    """Seconds that a call waits where only what calls under way have reserved leaves no room for it; 0 never waits."""

    unknown_model: Literal["tokens_only", "refuse"] = "tokens_only"
    """What becomes of a call of a model whose price is not known: `tokens_only` counts its tokens and no money,
    `refuse` does not make it. Where a limit in dollars applies, it is never made: give its price in `prices`."""

    prices: dict[str, ModelPrice] = {}
    """Prices in place of the built-in ones, by `provider:model`, or by the model's name alone."""
