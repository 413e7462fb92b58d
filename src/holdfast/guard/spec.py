"""How long things may take, how many there may be, and what is left alone when it fails."""

from typing import Literal

from pydantic import BaseModel, Field


class ToolLimits(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One tool's own limits, in place of those for every tool; None leaves it at those."""

    effect: Literal["pure", "idempotent", "once"] | None = None
    """What becomes of a call that was under way when its server died: `pure` and `idempotent` ones are made again, the
    latter with the same key; a `once` one waits for somebody to say whether it happened. None takes what the tool's own
    code declares, or else `once`."""

    timeout_s: float | None = Field(None, gt=0, le=86_400)
    """Seconds one attempt at a call of this tool may take; None takes `tool_s`."""

    per_s: int | None = Field(None, ge=1, le=1_000_000)
    """Calls of this tool a second, for everybody together; as many may come at once. None takes `tool_per_s`."""

    breaker_failures: int | None = Field(None, ge=1, le=1_000_000)
    """Failures in a row that open this tool's circuit breaker; None takes the `breaker_failures` of all."""

    breaker_open_s: float | None = Field(None, gt=0, le=86_400)
    """Seconds this tool's circuit breaker stays open the first time; None takes the `breaker_open_s` of all."""


class GuardSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """
    Limits on turns and on the model and tool calls in them. Section ``resilience``.

    Time limits are bounded by what is left of the turn: nesting only shortens.
    """

    mode: Literal["enforce", "observe"] = "enforce"
    """`enforce` refuses what is over a limit; `observe` lets it through breakers, rate limits and bulkheads, and tells
    what it would have refused."""

    turn_s: float = Field(120.0, gt=0, le=86_400)
    """Seconds one turn may take, from its admission to its stored answer; every call in it inherits what is left."""

    model_s: float = Field(60.0, gt=0, le=86_400)
    """Seconds one attempt at a model call may take, to the end of its answer."""

    first_token_s: float = Field(30.0, gt=0, le=86_400)
    """Seconds a streamed attempt at a model call may take to its first token."""

    tool_s: float = Field(30.0, gt=0, le=86_400)
    """Seconds one attempt at a tool call may take."""

    attempts: int = Field(4, ge=1, le=20)
    """How often a model call is tried at most, the first time included; 1 never tries again."""

    retry_ratio: float = Field(0.1, ge=0, le=1)
    """Retries that each first attempt pays for, beside a few that are free, so that a provider in trouble is not buried
    under them."""

    breaker_failures: int = Field(5, ge=1, le=1_000_000)
    """Failures in a row that open the circuit breaker of a model or a tool."""

    breaker_failure_ratio: float = Field(0.5, gt=0, le=1)
    """Share of failed calls in the last minute that opens a circuit breaker, once there were ten calls."""

    breaker_open_s: float = Field(60.0, gt=0, le=86_400)
    """Seconds a circuit breaker stays open before one call may try; each further break in a row is twice as long, up to
    ten minutes."""

    breaker_successes: int = Field(2, ge=1, le=1_000_000)
    """Tries in a row that have to succeed for a circuit breaker to close."""

    credential_s: float = Field(600.0, gt=0, le=86_400)
    """Seconds a provider is not asked with a credential that it refused or that has no credit, unless it says how
    long."""

    all_per_s: int = Field(1_000, ge=1, le=1_000_000)
    """Turns a second, for everybody together."""

    all_burst: int = Field(2_000, ge=1, le=1_000_000)
    """Turns that may come at once, for everybody together."""

    user_per_s: int = Field(10, ge=1, le=1_000_000)
    """Turns a second, for one user."""

    user_burst: int = Field(20, ge=1, le=1_000_000)
    """Turns that may come at once, for one user."""

    turns: int = Field(1_000, ge=1, le=1_000_000)
    """Turns that run at a time; up to twice as many more wait, and the important ones go first."""

    model_per_minute: int | None = Field(None, ge=1, le=100_000_000)
    """Model calls a minute, for one credential; as many may come at once. None leaves it to the provider's refusals."""

    model_tokens_per_minute: int | None = Field(None, ge=1, le=10_000_000_000)
    """Tokens a minute, for one credential, estimated before a call and put right after it; as many may come at once.
    None leaves it to the provider's refusals."""

    model_concurrent: int = Field(256, ge=1, le=100_000)
    """Calls of one model at a time, at most; fewer after the provider said that it has too many, then more again with
    each that succeeds."""

    model_queue: int = Field(1_000, ge=0, le=1_000_000)
    """Calls of one model that may wait for a place, and as many for a rate limit; 0 lets none wait."""

    model_wait_s: float = Field(20.0, ge=0, le=86_400)
    """Seconds a model call may wait for a place, and as long for a rate limit; 0 never waits."""

    tools_per_s: int = Field(1_000, ge=1, le=1_000_000)
    """Tool calls a second, for everybody together; as many may come at once."""

    user_tools_per_s: int = Field(100, ge=1, le=1_000_000)
    """Tool calls a second, for one user; as many may come at once."""

    tool_per_s: int = Field(500, ge=1, le=1_000_000)
    """Calls of one tool a second, for everybody together; as many may come at once."""

    tool_concurrent: int = Field(100, ge=1, le=100_000)
    """Tool calls at a time, for one agent."""

    tool_queue: int = Field(1_000, ge=0, le=1_000_000)
    """Tool calls of one agent that may wait for a place, and as many for a rate limit; 0 lets none wait."""

    tool_wait_s: float = Field(30.0, ge=0, le=86_400)
    """Seconds a tool call may wait for a place, and as long for a rate limit; 0 never waits."""

    tools: dict[str, ToolLimits] = {}
    """Tools with limits of their own, by their names."""
