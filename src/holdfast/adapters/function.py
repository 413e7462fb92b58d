"""
A plain async function: ``async def handler(turn) -> str``.

It reaches models and tools through the turn it is given, and so through the guard:

    async def handler(turn):
        hits = await turn.tool(search, query=turn.message)
        return await turn.model(f"Answer from these: {hits}")
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from holdfast.errors import AgentFailed
from holdfast.guard import Attempt, Estimate, Guard, ModelKey
from holdfast.journal import Codec, JsonCodec, canonical, declared_effect, digest_of, inside
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
        self._calls: Counter[str] = Counter()
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
        answer = await self._ask_model(self._turn, self.message if prompt is None else prompt, instructions)
        self._tell(answer)
        return answer

    def _tell(self, answer: object) -> None:
        """Tell the monitor that a model has answered."""
        if (watch := self.guard.watch) is not None and not inside.get():
            watch.said(answer if isinstance(answer, str) else "", self.guard.usage())

    async def call_model(
        self,
        provider: str,
        model: str,
        call: Callable[[Attempt], Awaitable[T]],
        *,
        request: object = None,
        answer_tokens: int | None = None,
    ) -> T:
        """
        Make one attempt at a call to any model by any client: ``call`` sends it, and says what it used.

        Where the turn is run again after its server died, the answer is given again and nothing is sent, if the answer
        is plain JSON, or of the type that ``call`` is annotated to return. Otherwise the model is asked again.

        Args:
            provider: Whose model it is.
            model: Its name.
            call: Sends the request.
            request: What is asked, in anything that JSON can hold, to tell calls apart that are made at the same time;
                None tells them apart by their order. Its length is what budgets take it for.
            answer_tokens: Most tokens that may be answered, for budgets; None takes ``budget.answer_tokens``.
        """
        codec = codec_of(call)

        async def send(attempt: Attempt) -> T:
            if attempt.before is not None:
                return codec.decode(attempt.before)  # type: ignore[no-any-return]  # it is what `call` returned before
            answer = await call(attempt)
            with suppress(Exception):  # What can be kept is another matter than what was answered.
                kept = codec.encode(answer)
                if codec.decode(kept) == answer:
                    attempt.answer = kept
            return answer

        told = canonical(request)
        asked = digest_of(provider.encode(), model.encode(), told)
        estimate = Estimate(tokens_in(len(told)), answer_tokens)
        answer = await self.guard.model(ModelKey(provider, model), estimate, send, asked)
        self._tell(answer)
        return answer

    async def tool(self, tool: Callable[..., Awaitable[T]], **args: Any) -> T:
        """
        Call ``tool`` with ``args``, through the guard and under its own name.

        Where the turn is run again after its server died, a call that ended before is not made: it returns what it
        returned, as JSON unless ``tool`` is annotated with a type that Pydantic can make of that. Declare with
        ``holdfast.effect`` what becomes of one that was under way.
        """
        name = getattr(tool, "__name__", "tool")
        call_id = f"{name}-{digest_of(canonical(args)).hex()[:8]}"
        place = f"{inside.get()}/{call_id}"
        self._calls[place] += 1
        if self._calls[place] > 1:
            call_id = f"{call_id}-{self._calls[place]}"
        return await self.guard.tool(
            name, args, call_id, lambda: tool(**args), declared=declared_effect(tool), codec=codec_of(tool)
        )

    def say(self, text: str) -> None:
        """Show the one who watches a little more of the answer, before the whole of it is returned."""
        self._turn.say(text)


class TypedCodec(JsonCodec):
    """Results of one type. One that is not of that type is kept, and given again, as plain JSON."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter

    def encode(self, result: Any) -> bytes:
        """See ``Codec.encode``."""
        with suppress(ValueError):
            return self._adapter.dump_json(result, warnings="error", by_alias=True)
        return super().encode(result)

    def decode(self, kept: bytes) -> Any:
        """See ``Codec.decode``."""
        with suppress(ValidationError):
            return self._adapter.validate_json(kept)
        return super().decode(kept)


_PLAIN = JsonCodec()


def codec_of(function: Callable[..., Awaitable[Any]]) -> Codec:
    """How what ``function`` returns is kept: as its annotation says, where it has one that Pydantic knows."""
    with suppress(Exception):  # Annotations may name what cannot be found, or cannot be hashed.
        return _codec_for(get_type_hints(function)["return"])
    return _PLAIN


@lru_cache(maxsize=256)
def _codec_for(returned: Any) -> Codec:
    try:
        adapter = TypeAdapter(returned, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    except PydanticUserError:  # It has a configuration of its own, or no schema.
        try:
            adapter = TypeAdapter(returned)
        except PydanticUserError:
            return _PLAIN
    return TypedCodec(adapter)


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
            StoppedPartial: the monitor has ended the turn, or it ends with a question.
        """
        watch = turn.guard.watch
        if watch is not None:
            watch.by_calls = True
        text = await self._handler(FunctionTurn(turn, self._ask_model))
        if not isinstance(text, str):
            raise AgentFailed(f"the handler {self._name} returned {type(text).__name__}; it must return a str")
        if watch is not None:
            watch.finish(text, again=False)
        return Reply(text, "plain", b"", tokens_in(len(turn.message) + len(text)))
