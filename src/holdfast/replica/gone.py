"""Stands for an agent that nobody serves any more, so that a turn of its can be ended that somebody stopped."""

from types import TracebackType
from typing import Self

from holdfast.errors import NotFound
from holdfast.turn import Reply, Turn


class Gone:
    """Answers nothing. ``name`` is that of the agent there was."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    async def answer(self, turn: Turn) -> Reply:
        """
        Refuse.

        Raises:
            NotFound: always.
        """
        raise NotFound(f"there is no agent {self.name} to answer turn {turn.ids.turn_id}")
