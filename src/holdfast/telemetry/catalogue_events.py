"""Events of the trace file: what happened in a turn, and what policies did to it."""

from holdfast.telemetry.terms import Attribute, TraceEvent

_AGENT = Attribute("agent", "text", "The agent that answers.")
_DURATION = Attribute("duration_s", "number", "Seconds.")
_STATUS = Attribute("status", "text", "`ok`, `error`, `timeout`, `denied`, `cancelled` or `rejected`.")
_ERROR = Attribute("error", "text", "The code of the error; missing where it went well.")
_PIPELINE = Attribute("pipeline", "text", "`ingress`, `model` or `tool`.")
_KEY_CLASS = Attribute("key_class", "text", "By what kind of key; never the key itself.")
_REASON = Attribute("reason", "text", "Why.")

TURN_STARTED = TraceEvent(name="turn.started", help="The turn begins.", fields=(_AGENT,))
MODEL_CALL = TraceEvent(
    name="model.call",
    help="An attempt at a model call ended.",
    fields=(
        _AGENT,
        Attribute("call", "whole number", "Counts the turn's attempts from 1."),
        Attribute("provider", "text", "Whose model it is."),
        Attribute("model", "text", "Its name."),
        _STATUS,
        _DURATION,
        Attribute("first_token_s", "number", "Seconds to the first token; missing where the answer was not streamed."),
        Attribute("input_tokens", "whole number", "As the provider counts them."),
        Attribute("output_tokens", "whole number", "As the provider counts them."),
        Attribute("cache_read_tokens", "whole number", "How many of the input were read from the provider's cache."),
        Attribute("cache_write_tokens", "whole number", "How many of the input were written to it."),
        Attribute("reasoning_tokens", "whole number", "How many of the output were reasoning."),
        Attribute("cost_nanos", "whole number", "What they cost, in nano-dollars; missing where no price is known."),
        _ERROR,
    ),
)
TOOL_CALL = TraceEvent(
    name="tool.call",
    help="A tool call ended.",
    fields=(
        _AGENT,
        Attribute("tool", "text", "Its name."),
        Attribute("call_id", "text", "Names the call within the turn."),
        _STATUS,
        _DURATION,
        Attribute("result", "text", "What it answered, cut to a readable length.", content=True),
        _ERROR,
    ),
)
FALLBACK_USED = TraceEvent(
    name="fallback.used",
    help="Another model answered than was meant to.",
    fields=(
        _AGENT,
        Attribute("via", "text", "That model."),
        Attribute("because", "text", "The class of failure that made it so."),
    ),
)
TURN_ENDED = TraceEvent(
    name="turn.ended",
    help="The turn is over and stored.",
    fields=(
        _AGENT,
        Attribute("outcome", "text", "How it ended."),
        _DURATION,
        Attribute("model_calls", "whole number", "Attempts at model calls that were sent."),
        Attribute("tool_calls", "whole number", "Tool calls that were started."),
        Attribute("input_tokens", "whole number", "Of all calls."),
        Attribute("output_tokens", "whole number", "Of all calls."),
        Attribute("cost_nanos", "whole number", "What all calls cost, in nano-dollars, as far as prices are known."),
        Attribute("reply", "text", "What was answered.", content=True),
        _ERROR,
    ),
)
TURN_SUSPENDED = TraceEvent(
    name="turn.suspended",
    help="The turn goes on later, or on another server.",
    fields=(
        _AGENT,
        Attribute("because", "text", "The code of the error that made it so."),
        Attribute("unit", "text", "The call that somebody has to say the outcome of, if that is what it waits for."),
    ),
)
BREAKER_MOVED = TraceEvent(
    name="breaker.moved",
    help="A circuit changed its state.",
    fields=(
        _PIPELINE,
        _KEY_CLASS,
        Attribute("circuit", "text", "Its name."),
        Attribute("was", "text", "The state before."),
        Attribute("state", "text", "The state now."),
        _REASON,
        Attribute("retry_after_s", "number", "Seconds until it lets a probe through."),
    ),
)
SHARE_MOVED = TraceEvent(
    name="share.moved",
    help="What processes share their limits by stopped answering, or is back.",
    fields=(
        _PIPELINE,
        _KEY_CLASS,
        Attribute("was", "text", "The state before."),
        Attribute("state", "text", "The state now."),
        _REASON,
    ),
)
RATE_GATED = TraceEvent(
    name="rate.gated",
    help="A provider named a time until which nothing is sent to it.",
    fields=(_PIPELINE, _KEY_CLASS, Attribute("retry_after_s", "number", "Seconds until then.")),
)
RETRY_GAVE_UP = TraceEvent(
    name="retry.gave_up",
    help="A call that failed is not made again.",
    fields=(_PIPELINE, _KEY_CLASS, Attribute("failure", "text", "The class of failure."), _REASON),
)
BUDGET_EMPTY = TraceEvent(
    name="budget.empty",
    help="It is not made again as too many were.",
    fields=(_PIPELINE, _KEY_CLASS, Attribute("failure", "text", "The class of failure.")),
)

MOVES = frozenset(event.name for event in (BREAKER_MOVED, SHARE_MOVED, RATE_GATED, RETRY_GAVE_UP, BUDGET_EMPTY))
"""What policies tell that somebody should see who is not looking; the rest is much when things go badly."""
