"""Which model is called, one attempt at it, and who answered in its place."""

from typing import NamedTuple

from holdfast.clock import Clock


class ModelKey(NamedTuple):
    """
    Which model is called, and as whom: what limits and statistics are kept by.

    Attributes:
        provider: Whose model it is.
        model: Its name.
        credential: Names the credential it is called with, without telling it; empty where there is none to tell apart.
        elsewhere: Whether another model is asked if this one fails.
        standby: Whether this is the model that is asked when another has failed.
    """

    provider: str
    model: str
    credential: str = ""
    elsewhere: bool = False
    standby: bool = False

    @property
    def target(self) -> str:
        """The model and the credential in one word, as circuits are named."""
        return f"{self.provider}:{self.model}@{self.credential}" if self.credential else f"{self.provider}:{self.model}"


class Degraded(NamedTuple):
    """Who answered in place of the model that was meant to, and the class of failure that made it so."""

    via: str
    because: str


class Attempt:
    """
    One attempt at a model call, told by the adapter how it goes.

    Attributes:
        started_ns: When it was sent, on the guard's clock.
        first_token_ns: When the first token came, on the guard's clock; None until then and for unstreamed answers.
        input_tokens: As the provider counted them, as far as it said.
        output_tokens: The same for the answer.
        cache_read_tokens, cache_write_tokens: How many of the input it read from its cache, and wrote to it.
        reasoning_tokens: How many of the output were reasoning.
        cost_nanos: What it cost, in nano-dollars, once it has ended; 0 where nobody knows.
        before: What the call answered when the turn was run before, encoded: then nothing is sent, and this is the
            answer. None where it is to be sent.
        answer: What it answers, encoded for the journal by whoever sent it; None where it is not to be kept.
    """

    __slots__ = (
        "_clock",
        "answer",
        "before",
        "cache_read_tokens",
        "cache_write_tokens",
        "cost_nanos",
        "first_token_ns",
        "input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "started_ns",
    )

    def __init__(self, clock: Clock, before: bytes | None = None) -> None:
        self._clock = clock
        self.started_ns = clock.now()
        self.first_token_ns: int | None = None
        self.before = before
        self.answer: bytes | None = None
        self.cost_nanos = 0
        self.used(0, 0)

    def first_token(self) -> None:
        """Something of the answer has arrived. Calling it again changes nothing."""
        if self.first_token_ns is None:
            self.first_token_ns = self._clock.now()

    def used(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> None:
        """
        What the provider says the attempt used so far: the latest call wins.

        Args:
            input_tokens: All of them, those of its cache too.
            output_tokens: All of them, reasoning too.
            cache_read_tokens: How many of the input it read from its cache.
            cache_write_tokens: How many of the input it wrote to its cache.
            reasoning_tokens: How many of the output were reasoning.
        """
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cache_read_tokens = cache_read_tokens
        self.cache_write_tokens = cache_write_tokens
        self.reasoning_tokens = reasoning_tokens
