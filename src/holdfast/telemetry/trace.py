"""W3C trace context: which trace a request belongs to (https://www.w3.org/TR/trace-context/)."""

import re
from typing import NamedTuple

from holdfast.clock import token_hex

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """
    Where a request stands in its trace.

    Attributes:
        trace_id: 32 hexadecimal digits, the same for everything that happens because of one cause.
        span_id: 16 hexadecimal digits: this request.
        sampled: Whether the caller records the trace.
    """

    trace_id: str
    span_id: str
    sampled: bool

    def traceparent(self) -> str:
        """The header that hands this context on."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def read_traceparent(header: str | None) -> TraceContext:
    """The context of a request with this ``traceparent`` header: a new trace where it is missing or malformed."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    if match is not None:
        version, trace_id, parent_id, flags, rest = match.groups()
        known = version != "ff" and not (version == "00" and rest) and trace_id.strip("0") and parent_id.strip("0")
        if known:
            return TraceContext(trace_id, token_hex(8), bool(int(flags, 16) & 1))
    return TraceContext(token_hex(16), token_hex(8), sampled=False)
