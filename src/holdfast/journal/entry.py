"""A call of a turn, as its crossing and its journal know it; and what there is where nothing is kept."""

from hashlib import blake2b
from typing import NamedTuple

from holdfast.clock import token_hex
from holdfast.errors import HoldfastError
from holdfast.events import Usage
from holdfast.journal.codec import Codec
from holdfast.journal.effects import Declared
from holdfast.store import UnitKind

NOTHING_USED = Usage()


def digest_of(*parts: bytes) -> bytes:
    """Names a request: another one has another digest."""
    digest = blake2b(digest_size=12)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


class Asked(NamedTuple):
    """
    A call that is about to be made, as the journal tells it from others.

    Attributes:
        kind: Of what.
        name: The model or the tool.
        key: Names the call within the turn; a second call with the same key gets one of its own.
        digest: Of the request.
        declared: What it does to the world.
        codec: How what it returns and raises is kept.
        args: The request as JSON, for whoever has to find out what happened; None for a model call.
    """

    kind: UnitKind
    name: str
    key: str
    digest: bytes
    declared: Declared
    codec: Codec
    args: bytes | None = None


class Entry:
    """
    One call that is not kept, of a turn that is not either: it is made whenever it is asked for.

    Attributes:
        key: The idempotency key: the same whenever this call is made.
        path: Names the call within the turn, for the calls that are made inside it.
        result: What it returned before, encoded; None where it is to be made.
        failure: What it raised before, encoded; None where it is to be made.
        usage: What it used before.
        name: The model or the tool that was asked before.
    """

    __slots__ = ("failure", "key", "name", "path", "result", "usage")

    def __init__(self, key: str, path: str, name: str) -> None:
        self.key = key
        self.path = path
        self.name = name
        self.result: bytes | None = None
        self.failure: bytes | None = None
        self.usage = NOTHING_USED

    async def begin(self) -> None:
        """
        Keep that it is about to be sent.

        Raises:
            HoldfastError: it must not be sent: the store did not keep it, somebody else owns the turn by now, or it is
                to be stopped.
        """

    async def done(self, result: bytes, usage: Usage = NOTHING_USED) -> None:
        """
        Keep what it returned, even if the task is cancelled meanwhile. Only then may the agent have it.

        Raises:
            StoreUnavailable, NotOwner: it is not kept.
        """

    async def failed(self, failure: bytes, usage: Usage = NOTHING_USED) -> None:
        """Keep what it raised, as ``done`` keeps what it returned."""

    def cut_short(self) -> None:
        """It was cancelled: nobody knows what became of it."""


class Unkept:
    """
    The journal of a turn that nobody keeps.

    Attributes:
        stopped: What ended the turn, whatever the agent makes of it: never anything.
    """

    stopped: HoldfastError | None = None

    async def open(self, asked: Asked) -> Entry:
        """A call that is to be made."""
        return Entry(token_hex(12), asked.key, asked.name)


UNKEPT = Unkept()
