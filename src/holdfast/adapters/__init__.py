"""Adapters: each maps one framework's hooks to the guard's two crossings, and so makes your agent ours to serve."""

from holdfast.adapters.adapt import adapt, load_agent
from holdfast.adapters.function import FunctionAgent, FunctionTurn
from holdfast.adapters.pydantic_ai import HoldfastCapability, PydanticAgent

__all__ = ["FunctionAgent", "FunctionTurn", "HoldfastCapability", "PydanticAgent", "adapt", "load_agent"]
