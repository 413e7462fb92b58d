"""
A plain async function: ``async def handler(turn) -> str``.

It reaches models and tools through the turn it is given, and so through the guard:

    async def handler(turn):
        hits = await turn.tool(search, query=turn.message)
        return await turn.model(f"Answer from these: {hits}")
"""

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from holdfast.errors import AgentFailed
from holdfast.guard import Attempt, Guard, ModelKey
from holdfast.store import Past, tokens_in
from holdfast.turn import Reply, Turn

T = TypeVar("T")

AskModel = Callable[[Turn, str, str | None], Awaitable[str]]
"""Asks the configured model within a turn: the turn, the prompt, instructions or None."""


class FunctionTurn:
    """
    What a handler is given.

    Attributes:
        message: What is asked.
        past: Earlier turns, oldest first, each with its ``message`` and ``reply``.
        principal: Who asks.
        session_id: The caller's name for the conversation.
        turn_id: Names this turn among all.
        trace_id: Names the trace it belongs to.
        guard: The guard itself, for calls that ``model`` and ``tool`` do not fit.
    """

    def __init__(self, turn: Turn, ask_model: AskModel) -> None:
        self._turn = turn
        self._ask_model = ask_model
        self._tool_calls = 0
        self.message = turn.message
        self.past: Sequence[Past] = turn.past
        self.principal = turn.principal
        self.session_id = turn.ids.session_id
        self.turn_id = turn.ids.turn_id
        self.trace_id = turn.ids.trace_id
        self.guard: Guard = turn.guard

    async def model(self, prompt: str | None = None, *, instructions: str | None = None) -> str:
        """
        Ask the configured model, with the conversation so far, and return its answer.

        Args:
            prompt: What to ask; None asks the turn's own message.
            instructions: What the model is told to be; None tells it nothing.

        Raises:
            ModelUnavailable, ModelRejected, ModelMalformed, TimedOut: what the model did instead of answering.
        """
        return await self._ask_model(self._turn, self.message if prompt is None else prompt, instructions)

    async def call_model(self, provider: str, model: str, call: Callable[[Attempt], Awaitable[T]]) -> T:
        """Make one attempt at a call to any model by any client: ``call`` sends it, and says what it used."""
        return await self.guard.model(ModelKey(provider, model), None, call)

    async def tool(self, tool: Callable[..., Awaitable[T]], **args: Any) -> T:
        """Call ``tool`` with ``args``, through the guard and under its own name."""
        self._tool_calls += 1
        call_id = f"call-{self._tool_calls}"
        return await self.guard.tool(getattr(tool, "__name__", "tool"), args, call_id, lambda: tool(**args))

    def say(self, text: str) -> None:
        """Show the one who watches a little more of the answer, before the whole of it is returned."""
        self._turn.say(text)


Handler = Callable[[FunctionTurn], Awaitable[str]]


class FunctionAgent:
    """Serves an async function."""

    def __init__(self, handler: Handler, name: str, ask_model: AskModel) -> None:
        self._handler = handler
        self._name = name
        self._ask_model = ask_model

    @property
    def name(self) -> str:
        """What callers choose it by."""
        return self._name

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    async def answer(self, turn: Turn) -> Reply:
        """
        Run the function.

        Raises:
            AgentFailed: it returned something else than a string.
        """
        text = await self._handler(FunctionTurn(turn, self._ask_model))
        if not isinstance(text, str):
            raise AgentFailed(f"the handler {self._name} returned {type(text).__name__}; it must return a str")
        return Reply(text, "plain", b"", tokens_in(len(turn.message) + len(text)))
