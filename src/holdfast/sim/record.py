"""What arrived at the simulator and what became of it: the last requests, and how many are in flight."""

import asyncio
from collections import deque
from typing import Any

import msgspec

from holdfast.clock import NS, Clock, iso
from holdfast.sim.dialogue import FormatName, Request, fingerprint

_SECRET = ("authorization", "proxy-authorization", "x-api-key", "api-key", "cookie")
_DULL = ("host", "accept", "accept-encoding", "connection", "content-length")


class Record(msgspec.Struct, kw_only=True):
    """
    One request to a model route, and what became of it.

    Attributes:
        number: Counts from 1 and never starts again.
        at: When it had arrived in full, in UTC.
        format: Which API was asked.
        model: The model asked for; empty where the request could not be read.
        headers: What was sent, without what every client sends; credentials are replaced by their fingerprints.
        request: The neutral request, or None where it could not be read.
        answered_by: The rule that answered, ``demo`` for the demo model, or empty where nothing had to be decided.
        fault: The fault's name, or None.
        fault_by: Where the fault came from, where that is not ``answered_by``: ``faults[0]``, or a rule's name.
        status: HTTP status sent, or None where no byte was.
        deltas: Deltas sent, in a stream.
        finished_at: When the simulator was done with it, in UTC, or None while it is in flight.
        duration_s: Seconds from arrival to ``finished_at``, or None.
        client_left: Whether the client left before the end.
        error: What a Python script raised, or why the request was refused; empty otherwise.
    """

    number: int
    at: str
    format: FormatName
    model: str = ""
    headers: dict[str, str] = {}
    request: Request | None = None
    answered_by: str = ""
    fault: str | None = None
    fault_by: str = ""
    status: int | None = None
    deltas: int = 0
    finished_at: str | None = None
    duration_s: float | None = None
    client_left: bool = False
    error: str = ""

    def as_data(self) -> dict[str, Any]:
        """The record as JSON data. The neutral request is in it, the body as sent and the headers twice are not."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        for again in ("body", "headers"):
            if data["request"] is not None:
                del data["request"][again]
        return data


class Trail:
    """
    The last requests, oldest first, and the counters.

    Attributes:
        records: At most ``keep`` of them.
        total: Requests to model routes since the start.
        in_flight: Requests that are being answered now.
        max_in_flight: The most at the same time, since the start or since the last ``clear``.
    """

    def __init__(self, clock: Clock, keep: int) -> None:
        self.records: deque[Record] = deque(maxlen=keep)
        self.total = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self._clock = clock
        self._began_ns: dict[int, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, format_name: FormatName, headers: dict[str, str]) -> Record:
        """Note a request that has arrived."""
        self.total += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self._idle.clear()
        record = Record(number=self.total, at=iso(self._clock.wall_ns()), format=format_name, headers=headers)
        self._began_ns[record.number] = self._clock.now()
        self.records.append(record)
        return record

    def finish(self, record: Record) -> None:
        """Note that the simulator is done with it."""
        self.in_flight -= 1
        record.finished_at = iso(self._clock.wall_ns())
        record.duration_s = (self._clock.now() - self._began_ns.pop(record.number)) / NS
        if not self.in_flight:
            self._idle.set()

    def clear(self) -> int:
        """Forget the records, those in flight too; ``max_in_flight`` starts again. Says how many were forgotten."""
        count = len(self.records)
        self.records.clear()
        self.max_in_flight = self.in_flight
        return count

    async def wait_idle(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()


def shown_headers(headers: dict[str, str]) -> dict[str, str]:
    """Headers without what every client sends, and with fingerprints in place of credentials."""
    shown = {name: value for name, value in headers.items() if name not in _DULL}
    for name in _SECRET:
        if name in shown:
            scheme, secret = _scheme_and_secret(name, shown[name])
            shown[name] = f"{scheme} {fingerprint(secret)}".strip()
    return shown


def credential_of(headers: dict[str, str]) -> str:
    """Fingerprint of the API key in ``x-api-key``, ``api-key`` or ``authorization``; empty where there is none."""
    for name in ("x-api-key", "api-key", "authorization"):
        if value := headers.get(name, ""):
            return fingerprint(_scheme_and_secret(name, value)[1])
    return ""


def _scheme_and_secret(name: str, value: str) -> tuple[str, str]:
    scheme, space, secret = value.partition(" ")
    return (scheme, secret) if space and name.endswith("authorization") else ("", value)
