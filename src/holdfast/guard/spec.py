"""How long things may take."""

from pydantic import BaseModel, Field


class GuardSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """
    Time limits on a turn and on the calls in it. Section ``resilience``.

    Every limit is also bounded by what is left of the turn: nesting only shortens.
    """

    turn_s: float = Field(120.0, gt=0, le=86_400)
    """Seconds one turn may take, from its admission to its stored answer; every call in it inherits what is left."""

    model_s: float = Field(60.0, gt=0, le=86_400)
    """Seconds one attempt at a model call may take, to the end of its answer."""

    first_token_s: float = Field(30.0, gt=0, le=86_400)
    """Seconds a streamed attempt at a model call may take to its first token."""

    tool_s: float = Field(30.0, gt=0, le=86_400)
    """Seconds one attempt at a tool call may take."""
