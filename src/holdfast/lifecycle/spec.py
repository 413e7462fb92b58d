"""How long stopping may take."""

from pydantic import BaseModel, Field


class ShutdownSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Stopping on SIGTERM and SIGINT. Section ``shutdown``."""

    deadline_s: float = Field(30.0, gt=0, le=3_600)
    """Seconds from the first signal to the end of the process; running turns may use all but the last tenth."""

    lame_duck_s: float = Field(0.0, ge=0, le=600)
    """Seconds to go on taking turns after readiness turned red, so that load balancers notice; part of the deadline."""
