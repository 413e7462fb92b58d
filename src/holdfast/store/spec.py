"""Where state is kept."""

from pydantic import BaseModel, Field


class StoreSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Sessions, turns and API keys. Section ``store``."""

    url: str = Field("sqlite:data/holdfast.db", pattern=r"^(sqlite:.+|memory:)$")
    """`sqlite:PATH` keeps state in that file, whose folder is made if missing; `memory:` forgets at exit."""
