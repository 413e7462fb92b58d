"""The behaviour monitor: what is counted, logged and written of it."""

from holdfast.telemetry.terms import Attribute, Label, LogEvent, Metric, TraceEvent

STATES = ("scarcity", "deadlock", "thrash", "panic", "novelty", "stall", "hubris", "drift")
PROTOCOLS = (
    "nudge",
    "block_call",
    "hide_tool",
    "force_other",
    "replan",
    "switch_model",
    "trusted_only",
    "refuse_finish",
    "ask_user",
    "finish_only",
    "force_final",
    "stop_partial",
)
_STATE = Label("state", len(STATES), STATES)

CRITICAL_STATES = Metric(
    name="agent_critical_states_total",
    kind="counter",
    help="Critical states that runs of agents got into.",
    labels=(_STATE,),
)
PROTOCOL_OVERRIDES = Metric(
    name="agent_protocol_overrides_total",
    kind="counter",
    help="What the monitor did to runs of agents.",
    labels=(Label("protocol", len(PROTOCOLS), PROTOCOLS),),
)
MONITOR_TRIPS = Metric(
    name="agent_monitor_trips_total",
    kind="counter",
    help="Runs that the agent breaker stopped: interventions did not help.",
    labels=(_STATE,),
)
STATE_TURNS = Metric(
    name="agent_state_turns",
    kind="gauge",
    help="Turns that are in a critical state now.",
    labels=(_STATE,),
)

_STATE_FIELD = Attribute("state", "text", "The critical state.")
_RULE = Attribute("rule", "text", "Which of its rules fired.")
_PROTOCOL = Attribute("protocol", "text", "What was done, in a word.")
_STEP = Attribute("step", "whole number", "After which step of the run.")
_TOOL = Attribute("tool", "text", "The tool it is about, if it is about one.")
_WAS = Attribute("was", "text", "The state before; `none` where there was none.")
_DETECTED = (
    _STATE_FIELD,
    _RULE,
    Attribute("severity", "text", "`warn` or `stop`."),
    Attribute("confidence", "number", "That the state holds, between 0 and 1."),
    Attribute("rung", "whole number", "How far the ladder had got; 0 only observes."),
    Attribute("opened", "true or false", "Whether it was new, and not one more sign."),
    Attribute("acts", "true or false", "Whether the monitor acted; not in shadow."),
    _STEP,
    Attribute("count", "whole number", "How often, or how many."),
    Attribute("detail", "text", "What it rests on, in words."),
    Attribute("tokens", "whole number", "Tokens that the run had used."),
)

STATE_TRANSITION = LogEvent(
    name="state_transition",
    level="info",
    help="The most urgent critical state of a run is another one.",
    fields=(_WAS, _STATE_FIELD),
)
CRITICAL_STATE = LogEvent(
    name="critical_state",
    level="warning",
    help="A run got into a critical state, or shows one more sign of it.",
    fields=_DETECTED,
)
PROTOCOL_ACTIVATION = LogEvent(
    name="protocol_activation",
    level="warning",
    help="The monitor changed a run.",
    fields=(_PROTOCOL, _STATE_FIELD, _RULE, _STEP, _TOOL),
)
BREAKER_TRIP = LogEvent(
    name="circuit_breaker_trip",
    level="critical",
    help="The agent breaker stopped a run: interventions did not help. No breaker of a model or a tool is meant.",
    fields=(_STATE_FIELD, _RULE, _STEP),
)
SESSION_RESET = LogEvent(
    name="session_reset",
    level="warning",
    help="Somebody let the turns of a stopped session run again.",
    fields=(Attribute("principal", "text", "Who."),),
)

_AGENT = Attribute("agent", "text", "The agent that answers.")

MONITOR_DETECTED = TraceEvent(
    name="monitor.detected", help="A run showed a critical state.", fields=(_AGENT, *_DETECTED)
)
MONITOR_ACTED = TraceEvent(
    name="monitor.acted",
    help="The monitor changed a run.",
    fields=(
        _AGENT,
        _STATE_FIELD,
        _RULE,
        _PROTOCOL,
        _STEP,
        _TOOL,
        Attribute("text", "text", "What the agent was told.", content=True),
    ),
)
MONITOR_STATE = TraceEvent(
    name="monitor.state",
    help="The run's most urgent critical state is another one.",
    fields=(_AGENT, _WAS, _STATE_FIELD),
)
MONITOR_ENDED = TraceEvent(
    name="monitor.ended",
    help="A run did not end as usual.",
    fields=(
        _AGENT,
        Attribute("outcome", "text", "How it ended, as the monitor has it."),
        Attribute("check", "text", "What the answer lacks, if it was taken all the same."),
        Attribute("latched", "true or false", "Whether later turns of the session are stopped too."),
    ),
)
