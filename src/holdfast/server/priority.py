"""How urgent a request is: the ``Priority`` header (https://www.rfc-editor.org/rfc/rfc9218)."""

import re

from holdfast.resilience import Priority

_URGENCY = re.compile(r"(?:^|,)\s*u=([0-7])\s*(?:,|;|$)")
_LEAST_INTERACTIVE = 3
_LEAST_STEP = 5


def read_priority(header: str, usual: Priority) -> Priority:
    """
    The class that ``u=0`` to ``u=7`` in ``header`` asks for; ``usual`` where it says nothing that can be read.

    0 to 3 are somebody who waits, 4 and 5 a step of another agent, 6 and 7 whatever can wait until there is room.
    """
    found = _URGENCY.search(header)
    if found is None:
        return usual
    urgency = int(found[1])
    if urgency <= _LEAST_INTERACTIVE:
        return Priority.INTERACTIVE
    return Priority.AGENT_STEP if urgency <= _LEAST_STEP else Priority.BATCH
