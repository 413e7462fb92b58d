"""How what a call returned or raised is kept, and given to the agent again."""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

import msgspec

from holdfast.errors import HoldfastError, UnitFailed, every_error


class Codec(Protocol):
    """Results and failures as bytes, and back. What is decoded equals what was encoded, as far as can be."""

    def encode(self, result: Any) -> bytes:
        """A result."""

    def decode(self, kept: bytes) -> Any:
        """The result again."""

    def encode_failure(self, error: Exception) -> bytes:
        """What a call raised."""

    def decode_failure(self, kept: bytes) -> Exception:
        """The exception again, or a ``UnitFailed`` where it cannot be made."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    An exception.

    Attributes:
        name: An error code of ours, or the module and the name of a class.
        text: What it says.
        retry_after_s: As told by an error of ours.
    """

    name: str
    text: str = ""
    retry_after_s: float | None = None


_failure = msgspec.json.Decoder(Failure)
_OURS = {error.code: error for error in every_error()}


class JsonCodec:
    """
    Results as JSON, which is what they are when given again: a tuple is a list then.

    What JSON cannot hold is kept as its ``str``. Exceptions are made again with their text, where that is enough.
    """

    def encode(self, result: Any) -> bytes:
        """See ``Codec.encode``."""
        return encode_json(result)

    def decode(self, kept: bytes) -> Any:
        """See ``Codec.decode``."""
        return msgspec.json.decode(kept)

    def encode_failure(self, error: Exception) -> bytes:
        """See ``Codec.encode_failure``."""
        if isinstance(error, HoldfastError):
            return encode_json(Failure(error.code, error.detail, error.retry_after_s))
        text = ""
        with suppress(Exception):  # An exception's text may raise when it is asked for.
            text = str(error.args[0]) if len(error.args) == 1 else str(error)
        return encode_json(Failure(f"{type(error).__module__}:{type(error).__qualname__}", text))

    def decode_failure(self, kept: bytes) -> Exception:
        """See ``Codec.decode_failure``."""
        failure = _failure.decode(kept)
        ours = _OURS.get(failure.name)
        if ours is not None:
            return ours(failure.text, retry_after_s=failure.retry_after_s)
        module, _, name = failure.name.partition(":")
        with suppress(Exception):  # It may be gone, or take more than a text.
            found: Any = sys.modules[module]
            for part in name.split("."):
                found = getattr(found, part)
            if issubclass(found, Exception):
                return cast("Exception", found(failure.text))
        return UnitFailed(f"{name}: {failure.text}")


JSON = JsonCodec()

_encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=str).encode


def encode_json(value: object) -> bytes:
    """``value`` as JSON; what JSON cannot hold is told by its own ``str``, or else by its type."""
    with suppress(Exception):  # What a tool is given or returns may raise anything when it is looked at.
        return _encode(value)
    with suppress(Exception):
        return _encode(unicode(str(value)))
    return _encode(f"<{type(value).__name__}>")


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_encode_sorted: Callable[[Any], bytes] = msgspec.json.Encoder(
    order="deterministic", enc_hook=lambda value: _ADDRESS.sub("", str(value))
).encode


def canonical(value: object) -> bytes:
    """``value`` as JSON that is the same in every process: sets are in order, and no address in memory is told."""
    with suppress(Exception):
        return _encode_sorted(value)
    return _ADDRESS.sub("", encode_json(value).decode()).encode()


def unicode(text: str) -> str:
    """``text`` as UTF-8 can hold it: half a surrogate pair becomes a question mark."""
    return text.encode(errors="replace").decode()
