"""
What happened in a turn, in order and numbered: for whoever watches it, and for the store.

Numbers grow. They begin with 1; whenever another owner goes on with the turn they begin at the next million, so that
a number never means two events. What the last owner told and could not keep is void: ``turn.started`` says after which.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from holdfast.events import Event
from holdfast.store import Said

PER_OWNER = 1_000_000
"""How far apart the first numbers of two owners are: more events than a turn can have."""

_encode = msgspec.json.Encoder().encode


class Numbered(NamedTuple):
    """An event with its number, name and data, which is JSON."""

    number: int
    name: str
    data: bytes


class Story:
    """
    The events of one turn, as one owner tells them.

    Args:
        generation: For the how-manieth time the turn is owned, from 1.
        after: The number of the last event that the owners before kept.

    Attributes:
        after: As given.
        over: Whether there will be no more events.
    """

    def __init__(self, generation: int = 1, after: int = 0) -> None:
        self.after = after
        self._first = (generation - 1) * PER_OWNER + 1
        self._events: list[Event] = []
        self._kept = 0
        self._watchers: set[asyncio.Event] = set()
        self.over = False

    def take(self, event: Event) -> None:
        """Number an event, and show it to those who watch."""
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        """There will be no more events."""
        self.over = True
        self._wake()

    def since(self, number: int) -> list[tuple[int, Event]]:
        """The events so far with a higher number, each with its own."""
        at = max(0, number - self._first + 1)
        return [(self._first + place, event) for place, event in enumerate(self._events[at:], at)]

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """For the length of the block: an event that is set whenever there is more, or it is over."""
        more = asyncio.Event()
        self._watchers.add(more)
        try:
            yield more
        finally:
            self._watchers.discard(more)

    def unkept(self, last_words: Event | None = None) -> Said | None:
        """
        The events that were not handed to the store yet, and ``last_words``, which nobody has been shown so far.

        Call ``lost`` where the store did not keep them.
        """
        at, fresh = self._kept, self._events[self._kept :]
        self._kept = len(self._events)
        if last_words is not None:
            fresh.append(last_words)
        if not fresh:
            return None
        told = [(self._first + place, event.name, event) for place, event in enumerate(fresh, at)]
        return Said(told[-1][0], encode(told))

    def lost(self, said: Said | None) -> None:
        """The store did not keep ``said``: it is to be handed over again."""
        if said is not None:
            first = msgspec.json.decode(said.events)[0][0]
            self._kept = min(self._kept, first - self._first)

    def _wake(self) -> None:
        for more in self._watchers:
            more.set()


def read_said(chunks: Iterable[Said], after: int) -> list[Numbered]:
    """The events with higher numbers than ``after``, each once and in order."""
    found: dict[int, Numbered] = {}
    for chunk in chunks:
        for number, name, data in _decode(chunk.events):
            if number > after:
                found.setdefault(number, Numbered(number, name, bytes(data)))
    return [found[number] for number in sorted(found)]


def unbroken(batch: list[Numbered], after: int) -> list[Numbered]:
    """
    The events up to the first one that is missing, of a turn that may have more.

    Calls that are made beside each other are kept in any order: what is missing is about to come. Not so what an owner
    did not keep whom another one has followed.
    """
    begun = max((place for place, told in enumerate(batch) if told.number % PER_OWNER == 1), default=-1)
    last = after if begun < 0 else batch[begun].number
    for place, told in enumerate(batch[begun + 1 :], begun + 1):
        if told.number != last + 1:
            return batch[:place]
        last = told.number
    return batch


_decode = msgspec.json.Decoder(list[tuple[int, str, msgspec.Raw]]).decode


def encode(value: Any) -> bytes:
    """``value`` as JSON, with a question mark for each half of a surrogate pair, which a model may well say."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, enc_hook=msgspec.json.decode)  # the hook is for JSON inside, already encoded
        return json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace")
