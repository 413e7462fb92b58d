"""Spans: one for a request, a turn, an attempt at a model call, and a tool call."""

from holdfast.telemetry import attributes as a
from holdfast.telemetry.terms import Span

HTTP_REQUEST = Span(
    name="{method} {route}",
    kind="server",
    help="A request, from its first byte to its answer's last. Probes and scrapes have none.",
    attributes=(a.METHOD, a.ROUTE, a.PATH, a.SCHEME, a.STATUS_CODE, a.ERROR_TYPE, a.SAMPLING_REASON),
)
TURN = Span(
    name="invoke_agent {agent}",
    kind="internal",
    help="A turn, from its admission to its stored answer.",
    attributes=(
        a.OPERATION,
        a.AGENT_NAME,
        a.CONVERSATION,
        a.TURN,
        a.OUTCOME,
        a.MODEL_CALLS,
        a.TOOL_CALLS,
        a.INPUT_TOKENS,
        a.OUTPUT_TOKENS,
        a.COST,
        a.FALLBACK_VIA,
        a.FALLBACK_BECAUSE,
        a.INPUT_MESSAGES,
        a.OUTPUT_MESSAGES,
        a.ERROR_TYPE,
        a.SAMPLING_REASON,
    ),
)
MODEL_CALL = Span(
    name="chat {model}",
    kind="client",
    help="One attempt at a model call, from when it was sent; of one that was refused, the time until that was said.",
    attributes=(
        a.OPERATION,
        a.PROVIDER,
        a.REQUEST_MODEL,
        a.AGENT_NAME,
        a.ATTEMPT,
        a.STATUS,
        a.INPUT_TOKENS,
        a.OUTPUT_TOKENS,
        a.CACHE_READ,
        a.CACHE_WRITE,
        a.REASONING,
        a.COST,
        a.FIRST_CHUNK,
        a.INPUT_MESSAGES,
        a.OUTPUT_MESSAGES,
        a.ERROR_TYPE,
        a.SAMPLING_REASON,
    ),
)
TOOL_CALL = Span(
    name="execute_tool {tool}",
    kind="internal",
    help="One attempt at a tool call, a wait for its place included.",
    attributes=(
        a.OPERATION,
        a.TOOL_NAME,
        a.TOOL_TYPE,
        a.TOOL_CALL,
        a.AGENT_NAME,
        a.STATUS,
        a.TOOL_ARGUMENTS,
        a.TOOL_RESULT,
        a.ERROR_TYPE,
        a.SAMPLING_REASON,
    ),
)
