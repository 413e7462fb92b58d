"""Notes: small facts about agents and sessions that outlast a turn, such as how long an agent's successes were."""

from typing import Literal, NamedTuple

NoteKind = Literal["success", "latch"]

KEPT_NOTES = 500
"""Notes of one kind about one thing that are kept: the newest."""


class Note(NamedTuple):
    """
    One fact.

    Attributes:
        kind: ``success``: how a run of an agent went; ``latch``: why the runs of a conversation are stopped.
        about: The agent, or the conversation's id.
        id: Names it among those about the same; one that is known is replaced.
        at_ns: When it was made, in wall-clock nanoseconds.
        data: JSON.
    """

    kind: NoteKind
    about: str
    id: str
    at_ns: int
    data: bytes
