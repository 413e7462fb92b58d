"""What is killed where: the shapes of turns, the effects of their tools, and the boundaries."""

from collections.abc import Iterator
from typing import NamedTuple

EFFECTS = ("pure", "idempotent", "once", "undeclared", "reconcile", "unknown")
ASKED_ABOUT = ("once", "undeclared", "unknown")
"""Effects that somebody has to be asked about."""

UNDER_WAY = ("middle begun after", "middle inside before", "middle inside after", "middle done before")
"""Where the call under test is under way, and nobody knows what became of it."""

PLACES = (
    "accept before",
    "accept after",
    "model2 begun before",
    "model2 begun after",
    "model2 inside",
    "model2 done before",
    "model2 done after",
    "middle begun before",
    *UNDER_WAY,
    "middle done after",
    "end before",
    "end after",
)
WRONG = ("middle begun after", "middle inside wrong", "middle failed before", "middle failed after")
"""Where a tool asks to be called again."""


class Scenario(NamedTuple):
    """A shape of turn: which agent, and whether somebody watches it."""

    name: str
    agent: str
    streams: bool = False


FUNCTION = Scenario("function", "function")
PYDANTIC = Scenario("Pydantic AI", "chain")
SHAPES = (
    Scenario("function, parallel tools", "function_parallel"),
    Scenario("function, streamed", "function", streams=True),
    Scenario("Pydantic AI, parallel tools", "parallel"),
    Scenario("Pydantic AI, streamed", "chain", streams=True),
    Scenario("Pydantic AI, structured output", "structured"),
)
RETRY = Scenario("Pydantic AI, tool retry", "retry")


class Case(NamedTuple):
    """One turn that is killed, at each of ``kill`` in turn; ``beside``, another call of it is under way."""

    scenario: Scenario
    effect: str
    kill: tuple[str, ...]
    beside: str = ""


def again(effect: str) -> tuple[str, ...]:
    """Places that the next one to run the turn passes too."""
    return UNDER_WAY if effect in ("pure", "idempotent") else UNDER_WAY[:2]


def every_case() -> Iterator[Case]:
    """All of the matrix."""
    for scenario in (FUNCTION, PYDANTIC):
        for effect in EFFECTS:
            for place in PLACES:
                yield Case(scenario, effect, (place,))
            for place in UNDER_WAY:  # And the one who goes on with it dies too.
                yield Case(scenario, effect, (place, "end before"))
            for place in again(effect):
                yield Case(scenario, effect, (place, place, place))
    for scenario in SHAPES:
        for effect in ("idempotent", "once", "reconcile"):
            for place in PLACES:
                beside = "last inside before" if "parallel" in scenario.agent and place.startswith("middle") else ""
                yield Case(scenario, effect, (place,), beside)
    for place in (*WRONG, *PLACES):
        yield Case(RETRY, "picky", (place,))


def few_cases() -> Iterator[Case]:
    """Some of it, for every day."""
    for effect in EFFECTS:
        yield Case(FUNCTION, effect, ("middle inside after",))
        yield Case(PYDANTIC, effect, ("middle inside before",))
    yield Case(FUNCTION, "once", ("accept after",))
    yield Case(FUNCTION, "idempotent", ("middle inside after", "middle inside after"))
    yield Case(PYDANTIC, "once", ("middle done after",))
    yield Case(PYDANTIC, "once", ("end after",))
    for scenario in SHAPES:
        yield Case(scenario, "once", ("middle done before",))
    yield Case(RETRY, "picky", ("middle failed before",))
