"""
What can be read from words alone: how sure a text sounds, and plain statements of what is what.

Both are weak signs. Words of doubt do not predict failure by themselves, so that no rule goes by them alone.
"""

import re
from typing import Final

from holdfast.monitor.steps import Claim

HEDGES: Final = (
    "maybe",
    "possibly",
    "perhaps",
    "might",
    "could",
    "probably",
    "likely",
    "uncertain",
    "not sure",
    "i think",
    "i believe",
    "seems like",
    "appears to",
)
CERTAIN: Final = (
    "definitely",
    "certainly",
    "absolutely",
    "clearly",
    "obviously",
    "without doubt",
    "for sure",
    "guaranteed",
)
USUAL: Final = 0.7
LOOKED_AT: Final = 4_000
STATED: Final = 600

_HEDGES: Final = re.compile(rf"\b(?:{'|'.join(HEDGES)})\b")
_CERTAIN: Final = re.compile(rf"\b(?:{'|'.join(CERTAIN)})\b")
_STATEMENT: Final = re.compile(
    r"(?:^|[.;\n])\s*(?:the\s+)?(?P<subject>[a-z][\w %/()-]{5,60}?)\s+(?P<verb>is|was|are|were)\s+(?P<negated>not\s+)?"
    r"(?P<value>[$€£]?-?\d[\d,]*(?:\.\d+)?%?(?:\s(?:thousand|million|billion))?|true|false|yes|no)\b",
    re.IGNORECASE,
)


def confidence(text: str) -> float | None:
    """How sure a text sounds, in [0, 1]: 0.7 where it neither hedges nor insists. None for no text."""
    if not text.strip():
        return None
    text = text[:LOOKED_AT].lower()
    hedges, certain = len(set(_HEDGES.findall(text))), len(set(_CERTAIN.findall(text)))
    # In hundredths: 0.7 - 0.15 - 0.15 is not 0.4 in floating point.
    return max(0, min(100, 70 - min(60, 15 * hedges) + min(30, 10 * certain))) / 100


def claims(text: str, source: str) -> tuple[Claim, ...]:
    """Plain statements of a short text: a subject of several words, `is`, and a number or a yes or no."""
    if len(text) > STATED:
        return ()
    return tuple(
        Claim(
            subject=" ".join(found["subject"].lower().split()),
            value=("not " if found["negated"] else "") + found["value"].lower(),
            source=source,
        )
        for found in _STATEMENT.finditer(text)
        if " " in found["subject"].strip()
    )
