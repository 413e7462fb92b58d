"""How long stopping may take, and what counts as well."""

from pydantic import BaseModel, Field


class ShutdownSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Stopping on SIGTERM and SIGINT. Section ``shutdown``."""

    deadline_s: float = Field(30.0, gt=0, le=3_600)
    """Seconds from the first signal to the end of the process. Running turns have seven tenths of it to finish, and
    another to hand over what is left of them; the next is for cancelling, and the last for closing."""

    lame_duck_s: float = Field(0.0, ge=0, le=600)
    """Seconds to go on taking turns after readiness turned red, so that load balancers notice; part of the deadline."""


class HealthSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is checked, and how often. Section ``health``."""

    every_s: float = Field(5.0, gt=0, le=3_600)
    """Seconds from one check of a component to the next. Probes are told the latest result, and set off no check."""

    timeout_s: float = Field(2.0, gt=0, le=600)
    """Seconds that one check may take; longer is a failure."""

    free_bytes: int = Field(268_435_456, ge=0, le=1_125_899_906_842_624)
    """Free space in bytes, where the SQLite store and the trace events are written, below which `disk` is degraded."""

    required_tools: tuple[str, ...] = ()
    """Tools of the assistant without which the process does not count as started."""

    live_lag_s: float = Field(5.0, gt=0, le=600)
    """Seconds that the event loop may be late before liveness turns red."""

    loop_blocked_s: float = Field(1.0, ge=0.5, le=600)
    """Seconds without a turn of the event loop from which on the log is told where in the code it is held up."""
