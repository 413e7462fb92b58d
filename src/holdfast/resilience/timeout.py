"""How long a call may take: altogether, and each attempt in its phases."""

from dataclasses import dataclass


def _check(policy: str, **seconds: float | None) -> None:
    for name, value in seconds.items():
        if value is not None and not value > 0:
            raise ValueError(f"{policy}.{name} must be > 0, got {value}")


@dataclass(frozen=True, slots=True)
class Deadline:
    """
    One point in time that everything inside inherits: attempts, waits between them, and whatever they call.

    Attributes:
        seconds: From the beginning of the call, > 0. A deadline around it that is earlier stays in force.
    """

    seconds: float

    def __post_init__(self) -> None:
        _check("deadline", seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """
    Limits on one attempt, each in seconds, > 0, and None for none. What is left of a deadline bounds them all.

    Attributes:
        connect: Until a stream is open.
        first: From then until the first of it arrives.
        idle: Between any two parts of it. Time the reader takes for itself does not count.
        total: The whole attempt; for a stream, all the time it was waited for.
    """

    connect: float | None = None
    first: float | None = None
    idle: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        _check("timeout", connect=self.connect, first=self.first, idle=self.idle, total=self.total)
