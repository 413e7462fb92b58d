"""
The names of what spans say, pinned in one place.

The ``gen_ai`` names are those of OpenTelemetry's conventions for generative AI, as of
open-telemetry/semantic-conventions-genai with the schema 1.42.0-dev. They are in development and change, and the Python
packages' constants for them are on their way out: a change of the conventions is a change of this file.
"""

from holdfast.telemetry.terms import Attribute

OPERATION = Attribute("gen_ai.operation.name", "text", "`invoke_agent`, `chat` or `execute_tool`.")
AGENT_NAME = Attribute("gen_ai.agent.name", "text", "The agent that answers.")
CONVERSATION = Attribute("gen_ai.conversation.id", "text", "The session.")
PROVIDER = Attribute("gen_ai.provider.name", "text", "Whose model it is.")
REQUEST_MODEL = Attribute("gen_ai.request.model", "text", "The model that was asked.")
INPUT_TOKENS = Attribute("gen_ai.usage.input_tokens", "whole number", "As the provider counts them, cached ones too.")
OUTPUT_TOKENS = Attribute("gen_ai.usage.output_tokens", "whole number", "The same for the answer, reasoning too.")
CACHE_READ = Attribute(
    "gen_ai.usage.cache_read.input_tokens", "whole number", "How many of the input were read from a cache, if any."
)
CACHE_WRITE = Attribute(
    "gen_ai.usage.cache_write.input_tokens", "whole number", "How many of the input were written to a cache, if any."
)
REASONING = Attribute(
    "gen_ai.usage.reasoning.output_tokens", "whole number", "How many of the output were reasoning, if any."
)
COST = Attribute("agent.cost_usd", "number", "US dollars that the tokens cost; missing where no price is known.")
FIRST_CHUNK = Attribute(
    "gen_ai.response.time_to_first_chunk", "number", "Seconds to the first token; only of streamed answers."
)
TOOL_NAME = Attribute("gen_ai.tool.name", "text", "The tool.")
TOOL_TYPE = Attribute("gen_ai.tool.type", "text", "Always `function`.")
TOOL_CALL = Attribute("gen_ai.tool.call.id", "text", "Names the call within the turn.")

INPUT_MESSAGES = Attribute("gen_ai.input.messages", "text", "What was asked, as JSON.", content=True)
OUTPUT_MESSAGES = Attribute("gen_ai.output.messages", "text", "What was answered, as JSON.", content=True)
TOOL_ARGUMENTS = Attribute("gen_ai.tool.call.arguments", "text", "What the tool was given, as JSON.", content=True)
TOOL_RESULT = Attribute(
    "gen_ai.tool.call.result", "text", "What the tool answered, cut to a readable length.", content=True
)

ERROR_TYPE = Attribute("error.type", "text", "The code of the error, or the status, where it did not go well.")
METHOD = Attribute("http.request.method", "text", "The request's method; `_OTHER` for unusual ones.")
ROUTE = Attribute("http.route", "text", "The template of the route; nothing where there is none.")
STATUS_CODE = Attribute("http.response.status_code", "whole number", "The answer's status.")
PATH = Attribute("url.path", "text", "What was asked for.")
SCHEME = Attribute("url.scheme", "text", "`http` or `https`.")

TURN = Attribute("agent.turn.id", "text", "Names the turn among all.")
OUTCOME = Attribute("agent.turn.outcome", "text", "How the turn ended.")
MODEL_CALLS = Attribute("agent.turn.model_calls", "whole number", "Attempts at model calls that were sent.")
TOOL_CALLS = Attribute("agent.turn.tool_calls", "whole number", "Tool calls that were started.")
FALLBACK_VIA = Attribute("agent.fallback.via", "text", "The model that answered in place of the one that was meant to.")
FALLBACK_BECAUSE = Attribute("agent.fallback.because", "text", "The class of failure that made it so.")
ATTEMPT = Attribute("agent.attempt", "whole number", "Counts the turn's attempts at model calls from 1.")
STATUS = Attribute("agent.status", "text", "`ok`, `error`, `timeout`, `denied`, `cancelled` or `rejected`.")
SAMPLING_REASON = Attribute(
    "sampling.reason", "text", "Why a trace is kept that was not drawn by lot: `error` or `slow`."
)
