"""Lines of the log."""

from holdfast.telemetry.terms import Attribute, LogEvent

_ERROR = Attribute("error", "text", "The code or the kind of the error.")
_DURATION = Attribute("duration_s", "number", "Seconds.")
_STATUS = Attribute("status", "text", "How it ended, where that was not well.")
_PIPELINE = Attribute("pipeline", "text", "`ingress`, `model` or `tool`.")
_KEY_CLASS = Attribute("key_class", "text", "By what kind of key; never the key itself.")
_REASON = Attribute("reason", "text", "Why.")
_RETRY_AFTER = Attribute("retry_after_s", "number", "Seconds after which to try again.")
_FAILURE = Attribute("failure", "text", "The class of failure.")
_WAITED = Attribute("waited_s", "number", "Seconds it waited.")
_OBSERVED = Attribute("observed", "true or false", "Whether it was let through all the same, in the mode `observe`.")
_LASTED = Attribute("lasted_s", "number", "Seconds that attempt took.")
_BULKHEAD = Attribute("bulkhead", "text", "Its name.")
_CIRCUIT = Attribute("circuit", "text", "Its name.")
_WAS = Attribute("was", "text", "What it was before.")
_STATE = Attribute("state", "text", "The state now.")
_TURN = Attribute("turn_id", "text", "The turn it is about.")
_PRINCIPAL = Attribute("principal", "text", "Who ordered it.")
_TRIES = Attribute("tries", "whole number", "How often it was tried.")

AGENT_START = LogEvent(name="agent_start", level="info", help="A turn begins.")
TURN_SUSPENDED = LogEvent(
    name="turn_suspended",
    level="warning",
    help="A turn was given up before it ended: it goes on later, or elsewhere.",
    fields=(
        Attribute("because", "text", "An error code."),
        Attribute("unit", "text", "The call nobody knows the end of, where that is why."),
    ),
)
TURN_RESUMED = LogEvent(
    name="turn_resumed",
    level="warning",
    help="This process goes on with a turn where another one left it.",
    fields=(
        _TURN,
        Attribute("agent", "text", "Who answers."),
        Attribute("generation", "whole number", "Counts the processes that ran it."),
    ),
)
UNIT_RESOLVED = LogEvent(
    name="unit_resolved",
    level="warning",
    help="An operator said what became of a call that nobody knew the end of.",
    fields=(
        _PRINCIPAL,
        _TURN,
        Attribute("unit", "text", "The call."),
        Attribute("happened", "true or false", "Whether it took effect."),
    ),
)
MODEL_WITHOUT_PRICE = LogEvent(
    name="model_without_price",
    level="warning",
    help="A model was called, or was to be, whose price nobody knows. Told once.",
    fields=(Attribute("provider", "text", "Whose model it is."), Attribute("model", "text", "Its name.")),
)
RESERVATION_WRITTEN_OFF = LogEvent(
    name="reservation_written_off",
    level="warning",
    help="A process died while it made a model call: all that the call had reserved counts as spent.",
    fields=(
        Attribute("turn_id", "text", "Whose call it was."),
        Attribute("tokens", "whole number", "How many were reserved."),
        Attribute("cost_nanos", "whole number", "How much money was reserved, in nano-dollars."),
    ),
)
WEBHOOK_FAILED = LogEvent(
    name="webhook_failed",
    level="warning",
    help="Whoever asked to be told of a turn's end did not take it. It is told again.",
    fields=(
        _TURN,
        _ERROR,
        _TRIES,
        Attribute("again_in_s", "number", "Seconds until then."),
    ),
)
WEBHOOK_GIVEN_UP = LogEvent(
    name="webhook_given_up",
    level="error",
    help="They are told no more: it was tried too often, they asked for that, or their host may no longer be told.",
    fields=(_TURN, _ERROR, _TRIES),
)
AGENT_COMPLETE = LogEvent(
    name="agent_complete",
    level="info",
    help="A turn ended; a warning unless it succeeded.",
    fields=(
        Attribute("outcome", "text", "How it ended."),
        _DURATION,
        Attribute("model_calls", "whole number", "Attempts at model calls that were sent."),
        Attribute("tool_calls", "whole number", "Tool calls that were started."),
        Attribute("input_tokens", "whole number", "Of all calls."),
        Attribute("output_tokens", "whole number", "Of all calls."),
        Attribute("cost_nanos", "whole number", "What all calls cost, in nano-dollars, as far as prices are known."),
        _ERROR,
    ),
)
MODEL_CALL = LogEvent(
    name="model_call",
    level="debug",
    help="An attempt at a model call ended; a warning unless that was well.",
    fields=(
        Attribute("call", "whole number", "Counts the turn's attempts from 1."),
        Attribute("provider", "text", "Whose model it is."),
        Attribute("model", "text", "Its name."),
        _STATUS,
        _DURATION,
        Attribute("output_tokens", "whole number", "As the provider counts them."),
        _ERROR,
    ),
)
TOOL_CALL = LogEvent(
    name="tool_call",
    level="debug",
    help="A tool call ended; a warning unless that was well.",
    fields=(
        Attribute("tool", "text", "Its name."),
        Attribute("call_id", "text", "Names the call within the turn."),
        _STATUS,
        _DURATION,
        _ERROR,
    ),
)
TURN_FAILED = LogEvent(
    name="turn_failed",
    level="warning",
    help="Where in the code a turn, or a request, failed.",
    fields=(
        _ERROR,
        Attribute("cause", "text", "The kind of the error behind it."),
        Attribute("where", "text", "Its last lines of code, innermost first."),
    ),
)
TURN_FAILED_TRACEBACK = LogEvent(
    name="turn_failed_traceback",
    level="debug",
    help="The whole of it.",
    fields=(Attribute("traceback", "text", "Texts included, which may quote messages.", content=True),),
)

HTTP_REQUEST = LogEvent(
    name="http_request",
    level="info",
    help="A request was answered; of probes and scrapes that went well, only at `debug`.",
    fields=(
        Attribute("method", "text", "As asked."),
        Attribute("route", "text", "The template of the route; `_other` where there is none."),
        Attribute("status", "whole number", "The answer's; 0 where there was none."),
        _DURATION,
    ),
)
HTTP_REFUSED = LogEvent(
    name="http_refused",
    level="info",
    help="What came in was not read as a request, or not to its end.",
    fields=(Attribute("status", "whole number", "The answer's."),),
)
BREAKER_ORDERED = LogEvent(
    name="breaker_ordered",
    level="warning",
    help="An operator overruled a circuit.",
    fields=(_PRINCIPAL, _CIRCUIT, Attribute("order", "text", "`reset`, `force_open` or `disable`.")),
)
LOG_LEVEL_ORDERED = LogEvent(
    name="log_level_ordered",
    level="warning",
    help="An operator changed the level of the log.",
    fields=(_PRINCIPAL, _WAS, Attribute("log_level", "text", "What it is now.")),
)
STOPPING = LogEvent(
    name="stopping",
    level="info",
    help="The process was told to stop.",
    fields=(Attribute("turns_in_progress", "whole number", "Turns that still run."),),
)
STOP_PHASE = LogEvent(
    name="stop_phase",
    level="info",
    help="A phase of the stop has ended.",
    fields=(
        Attribute("phase", "text", "`lame_duck`, `draining`, `cancelling` or `closing`."),
        Attribute("lasted_s", "number", "Seconds it took."),
        Attribute("turns_in_progress", "whole number", "Turns that still ran at its end."),
    ),
)
STOP_HOOK_FAILED = LogEvent(
    name="stop_hook_failed",
    level="error",
    help="Something that was to be closed raised, or did not end in its time. The rest is closed all the same.",
    fields=(
        Attribute("hook", "text", "Its name."),
        _ERROR,
        Attribute("why", "text", "What it said."),
    ),
)
STOP_OVERDUE = LogEvent(
    name="stop_overdue",
    level="error",
    help="It did not stop in time, and is ended all the same.",
    fields=(Attribute("after_s", "number", "Seconds since it was told to."),),
)
STOPPED = LogEvent(name="stopped", level="info", help="Everything is closed.")
LOOP_BLOCKED = LogEvent(
    name="loop_blocked",
    level="warning",
    help="The event loop is held up: nothing else in the process is served. Once for each time.",
    fields=(
        Attribute("blocked_s", "number", "Seconds for which it has been, when this is written."),
        Attribute("where", "text", "The code that it is in, innermost first."),
    ),
)
STORE_AWAY = LogEvent(
    name="store_away", level="debug", help="The store did not answer when this process told it that it lives."
)
SPANS_LOST = LogEvent(
    name="spans_lost",
    level="warning",
    help="The collector did not take a batch of spans. Not told again until it has taken one.",
    fields=(Attribute("why", "text", "What the exporter says."),),
)
SPANS_TAKEN_AGAIN = LogEvent(name="spans_taken_again", level="info", help="The collector takes spans again.")
TRACE_EVENTS_LOST = LogEvent(
    name="trace_events_lost",
    level="warning",
    help="Trace events could not be written. Not told again until some were.",
    fields=(Attribute("path", "text", "The file."), _ERROR),
)

BREAKER_MOVED = LogEvent(
    name="breaker_moved",
    level="warning",
    help="A circuit changed its state.",
    fields=(_PIPELINE, _KEY_CLASS, _CIRCUIT, _WAS, _STATE, _REASON, _RETRY_AFTER),
)
SHARE_MOVED = LogEvent(
    name="share_moved",
    level="warning",
    help="What processes share their limits by stopped answering, or is back.",
    fields=(_PIPELINE, _KEY_CLASS, _WAS, _STATE, _REASON),
)
RATE_GATED = LogEvent(
    name="rate_gated",
    level="warning",
    help="A provider named a time until which nothing is sent to it.",
    fields=(_PIPELINE, _KEY_CLASS, _RETRY_AFTER),
)
RETRY_GAVE_UP = LogEvent(
    name="retry_gave_up",
    level="warning",
    help="A call that failed is not made again.",
    fields=(_PIPELINE, _KEY_CLASS, _FAILURE, _REASON),
)
BUDGET_EMPTY = LogEvent(
    name="budget_empty",
    level="warning",
    help="It is not made again as too many were.",
    fields=(_PIPELINE, _KEY_CLASS, _FAILURE),
)
RETRY_SCHEDULED = LogEvent(
    name="retry_scheduled",
    level="debug",
    help="A call that failed will be made again.",
    fields=(_PIPELINE, _KEY_CLASS, _FAILURE, Attribute("wait_s", "number", "Seconds until then.")),
)
BREAKER_REFUSED = LogEvent(
    name="breaker_refused",
    level="debug",
    help="A circuit did not let an attempt through.",
    fields=(_PIPELINE, _KEY_CLASS, _CIRCUIT, _REASON, _RETRY_AFTER, _OBSERVED),
)
RATE_REFUSED = LogEvent(
    name="rate_refused",
    level="debug",
    help="A rate limit refused an attempt, or a turn.",
    fields=(_PIPELINE, _KEY_CLASS, Attribute("limit", "text", "Its name."), _REASON, _RETRY_AFTER, _OBSERVED),
)
RATE_WAITED = LogEvent(
    name="rate_waited",
    level="debug",
    help="An attempt waited for a rate limit.",
    fields=(_PIPELINE, _KEY_CLASS, _WAITED),
)
BULKHEAD_REFUSED = LogEvent(
    name="bulkhead_refused",
    level="debug",
    help="A bulkhead refused an attempt.",
    fields=(_PIPELINE, _KEY_CLASS, _BULKHEAD, _REASON, _OBSERVED),
)
BULKHEAD_QUEUED = LogEvent(
    name="bulkhead_queued",
    level="debug",
    help="An attempt waited for a place.",
    fields=(_PIPELINE, _KEY_CLASS, _BULKHEAD, _WAITED),
)
ADAPTIVE_MOVED = LogEvent(
    name="adaptive_moved",
    level="debug",
    help="An adaptive limit changed.",
    fields=(_PIPELINE, _KEY_CLASS, _BULKHEAD, _WAS, Attribute("limit", "whole number", "What it is now."), _REASON),
)
HEDGE_STARTED = LogEvent(
    name="hedge_started",
    level="debug",
    help="A call was made once more, as the first attempt took long.",
    fields=(_PIPELINE, _KEY_CLASS, Attribute("after_s", "number", "Seconds it had taken.")),
)
HEDGE_WON = LogEvent(
    name="hedge_won", level="debug", help="The answer is a hedge's.", fields=(_PIPELINE, _KEY_CLASS, _LASTED)
)
HEDGE_WASTED = LogEvent(
    name="hedge_wasted",
    level="debug",
    help="An attempt whose answer nobody takes has ended.",
    fields=(_PIPELINE, _KEY_CLASS, _LASTED, Attribute("may_be_billed", "true or false", "Whether it was sent.")),
)
HEDGE_STUCK = LogEvent(
    name="hedge_stuck",
    level="debug",
    help="It has not, a while after it was cancelled.",
    fields=(_PIPELINE, _KEY_CLASS, _LASTED),
)
FALLBACK_USED = LogEvent(
    name="fallback_used",
    level="debug",
    help="Another target answered than was meant to.",
    fields=(
        _PIPELINE,
        _KEY_CLASS,
        Attribute("via", "text", "Which."),
        Attribute("because", "text", "The class of failure that made it so."),
    ),
)
TIMEOUT_FIRED = LogEvent(
    name="timeout_fired",
    level="debug",
    help="A limit of an attempt fired.",
    fields=(_PIPELINE, _KEY_CLASS, Attribute("phase", "text", "`connect`, `first`, `idle` or `total`.")),
)
DEADLINE_EXCEEDED = LogEvent(
    name="deadline_exceeded", level="debug", help="A pipeline's own deadline passed.", fields=(_PIPELINE, _KEY_CLASS)
)
SHED = LogEvent(
    name="shed",
    level="debug",
    help="A turn was sent away, as too many run and wait.",
    fields=(_PIPELINE, _KEY_CLASS, Attribute("priority", "text", "Its class."), _REASON, _RETRY_AFTER),
)
