"""
When two calls, or two results, are the same: their text without what differs by chance.

Case, blanks and quotes are dropped, and times, identifiers, hashes, durations and process numbers are masked. At most
2 kB are looked at, so that a step costs well under a millisecond: of a longer text its beginning and its end.
"""

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

CAP: Final = 2_000
HEAD: Final = 1_500
LONG: Final = 400
ITEMS: Final = 64
MANY: Final = 1_000
DEPTH: Final = 6

_MASKED: Final = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[t ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:z\b|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b"), "<time>"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "<hash>"),
    (re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{12,}\b"), "<hash>"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:ns|us|µs|ms|s|secs?|seconds?|min|minutes?)\b"), "<duration>"),
    (re.compile(r"\bpid\W{0,2}\d+"), "<pid>"),
)
_QUOTES: Final = str.maketrans("", "", "\"'`")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")

_STATUS: Final = re.compile(r"\b(?:return ?code|exit ?(?:code|status))\W*0\b")
_LABEL: Final = re.compile(r"</?[a-z_]+>|\b[a-z_]+(?=\s?[:=])")
_NO_OUTPUT: Final = re.compile(r"\b(?:no output|without (?:any )?output|not produce any output)\b")
_WORD: Final = re.compile(r"[a-z0-9]+")
_ACKNOWLEDGING: Final = frozenset(
    (
        "ok",
        "okay",
        "done",
        "success",
        "successful",
        "successfully",
        "true",
        "none",
        "null",
        "completed",
        "complete",
        "0",
    )
)

_RAISED: Final = re.compile(r"\b[A-Za-z_]+(?:Error|Exception)\b")
_QUOTED: Final = re.compile(r"'[^']{0,200}'|\"[^\"]{0,200}\"|`[^`]{0,200}`")
_LETTERS: Final = re.compile(r"[a-z]+")
_PROVIDER: Final = re.compile(
    r"rate.?limit(?:ed|_error| exceeded| reached)|too many requests|overloaded_error|service (?:temporarily )?"
    r"unavailable|bad gateway|gateway time-?out|insufficient_quota",
    re.IGNORECASE,
)


def cut(text: str) -> str:
    """At most 2 kB of a text: all of it, or its beginning and its end."""
    return text if len(text) <= CAP else f"{text[:HEAD]} … {text[-(CAP - HEAD) :]}"


def normal(text: str) -> str:
    """The text, at most 2 kB of it, without what differs by chance."""
    text = cut(text).lower()
    for pattern, mask in _MASKED:
        text = pattern.sub(mask, text)
    return " ".join(text.translate(_QUOTES).split())


def written(args: object) -> str:
    """Arguments as text: the same for the same, in whichever order they were named; long values are cut."""
    if isinstance(args, str):
        return _short(args)
    return json.dumps(_bounded(args, DEPTH, [ITEMS]), sort_keys=True, default=str, ensure_ascii=False)


def digest(text: str) -> str:
    """Sixteen hexadecimal digits that stand for a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def without_numbers(text: str) -> str:
    """The text with every number masked."""
    return _NUMBER.sub("#", text)


def informative(result: str) -> bool:
    """Whether a normalised result says anything beyond that the call was made."""
    rest = _LABEL.sub(" ", _STATUS.sub(" ", result))
    if _NO_OUTPUT.search(rest):
        return False
    return any(word not in _ACKNOWLEDGING for word in _WORD.findall(rest))


def error_class(result: str) -> str:
    """What kind of error a text tells of: the last exception it names, or else its first four words."""
    text = cut(result)
    if raised := _RAISED.findall(text):
        return str(raised[-1]).lower()
    return " ".join(_LETTERS.findall(_QUOTED.sub(" ", text).lower())[:4])


def providers_fault(result: str) -> bool:
    """Whether the text of an error says that a provider refused or was away."""
    return _PROVIDER.search(result, 0, 300) is not None


def _short(text: str, longest: int = CAP) -> str:
    # Two long texts that differ in the middle alone are mostly told apart by how long they are.
    if len(text) <= longest:
        return text
    return f"{text[: longest * 3 // 4]} … {text[-longest // 4 :]} [{len(text)}]"


def _bounded(value: object, depth: int, room: list[int]) -> object:
    """The value with long texts cut, and with no more parts than there is room for."""
    room[0] -= 1
    if isinstance(value, str):
        return _short(value, LONG)
    if isinstance(value, int | float | bool | None):
        return value
    if depth == 0 or room[0] <= 0 or isinstance(value, bytes):
        return type(value).__name__
    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda item: str(item[0]))[: room[0]] if len(value) < MANY else []
        named = {str(name): _bounded(item, depth - 1, room) for name, item in items if room[0] > 0}
        return named if len(named) == len(value) else {**named, "…": len(value)}
    if isinstance(value, Sequence):
        listed = [_bounded(item, depth - 1, room) for item in value[: room[0]] if room[0] > 0]
        return listed if len(listed) == len(value) else [*listed, "…", len(value)]
    return type(value).__name__
