"""
Pydantic AI: any ``Agent``, as it is.

One capability, outermost, takes the agent's model and tool calls through the guard:

    agent.run ─▶ Crossings ─┬─▶ get_wrapper_model ─▶ GuardedModel ─▶ guard.model ─▶ provider
                            └─▶ wrap_tool_execute ─▶ guard.tool ─▶ tool

A ``FallbackModel`` is not wrapped as a whole: each model inside it is, so that the guard sees every attempt.
"""

from holdfast.adapters.pydantic_ai.agent import PydanticAgent
from holdfast.adapters.pydantic_ai.capability import HoldfastCapability
from holdfast.adapters.pydantic_ai.history import decode
from holdfast.adapters.pydantic_ai.model import GuardedModel
from holdfast.adapters.pydantic_ai.translate import translate

__all__ = ["GuardedModel", "HoldfastCapability", "PydanticAgent", "decode", "translate"]
