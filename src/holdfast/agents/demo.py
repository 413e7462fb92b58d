"""
The offline demo model: rules instead of a model, so that without an API key a real agent still calls real tools.

::

    last user line ─▶ requests() ─▶ Call, Call, …   all the tools it asks for, at once
                                        │
    tool results   ─▶ told()     ─▶    Say          one answer, in their order; at most one round of tools

``decide`` is pure: the same lines give the same decision, and nothing is evaluated here, only found and passed on.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LOOK = 4_000
"""Characters of a line that the rules look at; the rest is passed over."""

MAX_CALLS = 8
SHOWN_CHARS = 600
SHOWN_ENTRIES = 20


@dataclass(frozen=True, slots=True)
class Line:
    """
    One line of the conversation.

    Attributes:
        text: What was said. A tool's result is JSON; a tool that failed says ``error: …`` or ``{"error": "…"}``.
        tool: The tool's name, for the role ``tool``.
    """

    role: Literal["user", "assistant", "tool"]
    text: str
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """Answer with this text: the turn is done."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """Run this tool, then ask again."""

    tool: str
    args: dict[str, Any]


def decide(lines: Sequence[Line], tools: Collection[str]) -> Say | list[Call]:
    """
    What to do next: run these tools, or say this.

    Args:
        lines: The conversation so far, oldest first.
        tools: Names of the tools there are.
    """
    last = max((n for n, line in enumerate(lines) if line.role == "user"), default=-1)
    text = lines[last].text[:LOOK] if last >= 0 else ""
    wanted = requests(text)
    results = [line for line in lines[last + 1 :] if line.role == "tool"]
    calls = [call for call in wanted if call.tool in tools]
    if calls and not results:
        return calls

    parts = [told(line) for line in results]
    parts += [f"I cannot do that here: there is no tool `{name}`." for name in _names(wanted) if name not in tools]
    parts += remembered(text, [line.text[:LOOK] for line in lines[: max(last, 0)] if line.role == "user"])
    if not parts:
        return Say(_fallback(tools))
    if not any(line.role == "assistant" and line.text for line in lines[: max(last, 0)]):
        parts.insert(0, "(I am the offline demo model: rules, not AI.)")
    return Say("\n".join(parts))


def requests(text: str) -> list[Call]:
    """Every tool call the text asks for, in the order it asks, without repeats."""
    found: list[tuple[int, Call]] = []
    for rule in (_transforms, _listings, _reads, _times, _sums):
        for (start, end), call in list(rule(text)):
            if all(call != other for _, other in found):
                found.append((start, call))
            # A later rule must not find arithmetic in what an earlier one has understood as a name or a text.
            text = text[:start] + "\n" * (end - start) + text[end:]
    return [call for _, call in sorted(found, key=lambda at: at[0])][:MAX_CALLS]


Found = Iterator[tuple[tuple[int, int], Call]]

# Every repetition below is bounded or possessive: no text makes a rule slow.
_QUOTED = (
    r"""(?:"(?P<double>[^"\n]{1,300})"|“(?P<curly>[^”\n]{1,300})”|`(?P<tick>[^`\n]{1,300})`"""
    r"""|(?<!\w)'(?P<single>(?:[^'\n]|'(?=\w)){1,300})')"""
)
_OPERATIONS = {
    "uppercase": r"upper[ -]?case",
    "lowercase": r"lower[ -]?case",
    "trim_start": r"trim(?: the)? start",
    "trim_end": r"trim(?: the)? end",
    "trim": r"trim",
    "reverse": r"reversed?",
    "length": r"length|how long is|how many characters",
}
_OPERATION = "|".join(f"(?P<{name}>{words})" for name, words in _OPERATIONS.items())
_TRANSFORM = re.compile(rf"\b(?:{_OPERATION})\b[^\"'“`\n]{{0,40}}{_QUOTED}", re.IGNORECASE)
_TRANSFORM_AFTER = re.compile(rf"{_QUOTED}[^\"'“`\n]{{0,20}}\b(?:{_OPERATION})\b", re.IGNORECASE)
_TRANSFORM_BARE = re.compile(
    rf"\A\s*+(?:please )?(?:{_OPERATION})(?: of)?(?: the (?:word|text|string))?:?[ ](?P<single>[^\"'“`\n]{{1,200}})",
    re.IGNORECASE,
)


def _transforms(text: str) -> Found:
    matches = list(_TRANSFORM.finditer(text)) or list(_TRANSFORM_AFTER.finditer(text))
    for match in matches or list(_TRANSFORM_BARE.finditer(text)):
        groups = {name: value for name, value in match.groupdict().items() if value is not None}
        operation = next(name for name in _OPERATIONS if name in groups)
        quoted = next(value for name, value in groups.items() if name not in _OPERATIONS)
        yield match.span(), Call("string_transform", {"text": quoted, "operation": operation})


_LIST = re.compile(
    r"\b(?:which|what) (?:\w{1,20} )?(?:files|folders|directories)\b"
    r"|\b(?:list|show|open)(?: me)?(?: all)?(?: the| my)? (?:files|folders?|director(?:y|ies)|contents)\b"
    r"|\bwhat(?:'s| is| are)(?: there)? in "
    r"(?=(?:this|the|my) (?:[\w./-]{1,100} )?(?:folder|directory)|(?:folder|directory) )"
    r"|\A\s*+ls\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?:[\"'`](?P<quoted>[^\"'`\n]{1,300})[\"'`]|(?P<bare>[\w.~/-]++))")
_NOT_A_PATH = frozenset({
    "a", "all", "are", "at", "contents", "current", "directories", "directory", "do", "exist", "file", "files",
    "folder", "folders", "have", "here", "i", "in", "inside", "is", "l", "la", "ls", "me", "my", "now", "of",
    "please", "that", "the", "there", "this", "to", "under", "we", "working", "you",
})  # fmt: skip


def _listings(text: str) -> Found:
    for match in _LIST.finditer(text):
        clause = re.split(r"[,;?!\n]|\band\b", text[match.end() : match.end() + 300], maxsplit=1)[0]
        path, end = ".", match.end()
        for name in _WORD.finditer(clause):
            word = name["quoted"] or name["bare"].rstrip(".") or "."
            if name["quoted"] or word.strip("-").lower() not in _NOT_A_PATH:
                path, end = word, match.end() + name.end()
                break
        yield (match.start(), end), Call("list_directory", {"path": path})


_READ = re.compile(r"\b(?:read|open|cat|show|print|display|what does|what(?:'s| is) in)\b", re.IGNORECASE)
_READ_FILE = re.compile(
    r"\b(?:read|open|cat|show|print|display)(?: me)?(?: the)? file (?P<bare>[\w.~/-]++)", re.IGNORECASE
)
_NO_SUFFIX = frozenset({"makefile", "dockerfile", "license", "readme", "changelog", "notice"})


def _reads(text: str) -> Found:
    verb = _READ.search(text)
    if not verb:
        return
    for match in _READ_FILE.finditer(text):
        yield match.span(), Call("read_file", {"path": match["bare"].rstrip(".")})
    for match in _WORD.finditer(text, verb.end()):
        name = match["quoted"] or match["bare"].rstrip(".-")
        stem, _, suffix = name.rpartition(".")
        has_suffix = bool(stem) and suffix[:1].isalpha()
        has_folder = "/" in name.rstrip("/") and any(map(str.isalpha, name)) and not _ZONE.fullmatch(name)
        if has_suffix or has_folder or name.lower() in _NO_SUFFIX:
            yield match.span(), Call("read_file", {"path": name})


_TIME = re.compile(
    r"\bwhat(?:'s| is| was)? (?:the )?(?:current |local |exact )?(?:time|date)\b(?! complexity)|\bwhat day\b"
    r"|\btime (?:is it|in|at)\b|\b(?:current|local) (?:time|date)\b|\btoday'?s date\b|\bdate (?:is it|today)\b",
    re.IGNORECASE,
)
_ZONE = re.compile(
    r"\b(?:Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Europe|Indian|Pacific|Etc)/[\w/+-]{1,40}|\bUTC\b",
    re.IGNORECASE,
)
_CITY_ZONES = (
    "Africa/Cairo", "Africa/Johannesburg", "Africa/Lagos", "Africa/Nairobi", "America/Chicago", "America/Los_Angeles",
    "America/Mexico_City", "America/New_York", "America/Sao_Paulo", "America/Toronto", "Asia/Bangkok", "Asia/Dubai",
    "Asia/Hong_Kong", "Asia/Kolkata", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore", "Asia/Tokyo",
    "Australia/Sydney", "Europe/Amsterdam", "Europe/Berlin", "Europe/Istanbul", "Europe/Lisbon", "Europe/London",
    "Europe/Madrid", "Europe/Moscow", "Europe/Paris", "Europe/Rome", "Europe/Zurich",
)  # fmt: skip
_CITIES = {zone.rpartition("/")[2].replace("_", " ").lower(): zone for zone in _CITY_ZONES}
_CITY = re.compile(rf"\b(?:{'|'.join(_CITIES)})\b", re.IGNORECASE)
_PLACE = re.compile(r"\b(?:in|at) (?P<place>[A-Z]\w{1,40}(?:[ _][A-Z]\w{1,40})?)")


def _times(text: str) -> Found:
    asked = _TIME.search(text)
    if not asked:
        return
    zones = [match[0] for match in _ZONE.finditer(text)]
    zones += [_CITIES[match[0].lower()] for match in _CITY.finditer(_ZONE.sub("", text))]
    # A place the rules do not know is passed on as it is: the tool says that it does not know it.
    place = _PLACE.search(text, asked.start())
    for zone in zones or [place["place"] if place else "UTC"]:
        yield asked.span(), Call("current_time", {"timezone": zone})


_NUMBER = r"(?<![\w.])(?:[1-9]\d{0,2}(?:,\d{3})++(?!,?\d)|0(?!\d)|[1-9]\d*+)(?:\.\d++)?(?:e[+-]?\d++)?(?!\w)"
_FUNCTIONS = "sqrt|sin|cos|tan|asin|acos|atan|exp|log2|log10|log|ln|min|max|abs|round|floor|ceil|factorial"
_OPERATORS = {
    "times": "*", "multiplied by": "*", "x": "*", "plus": "+", "minus": "-", "divided by": "/", "over": "/",
    "to the power of": "**", "modulo": "%", "mod": "%", "% of": "/100*", "percent of": "/100*",
}  # fmt: skip
_TOKEN = re.compile(
    rf"(?P<date>\d{{4}}-\d\d-\d\d\b)|(?P<root>(?:square root of|sqrt) (?P<rooted>{_NUMBER}))"
    rf"|(?P<function>(?:{_FUNCTIONS})(?=\())"
    rf"|(?P<operand>{_NUMBER}|(?:pi|tau|e)\b)|(?P<power>squared|cubed)\b"
    rf"|(?P<operator>(?:{'|'.join(_OPERATORS)})\b|\*\*|//|[-+*/%^])|(?P<mark>[(),])|(?P<other>\w[\w./-]*+|\S)",
    re.IGNORECASE,
)
_SIGNS = str.maketrans("×·÷−", "**/-")  # noqa: RUF001 - the signs that people write
_TIMES_SIGN = re.compile(r"(?<=\d)x(?=\d)", re.IGNORECASE)


def _sums(text: str) -> Found:
    tokens = list(_TOKEN.finditer(_TIMES_SIGN.sub("*", text.translate(_SIGNS))))
    at = 0
    while at < len(tokens):
        complete, stopped = _extent(tokens, at)
        expression = tokens[at:complete]
        kinds = {token.lastgroup for token in expression}
        # A lone number, signed or not, is no request.
        if kinds & {"root", "function", "power"} or any(token["operator"] for token in expression[1:]):
            written = "".join(map(_written, expression))
            call = Call("calculate", {"expression": written if "(" in written else written.replace(",", "")})
            yield (expression[0].start(), expression[-1].end()), call
        at = max(stopped, at + 1)


def _extent(tokens: Sequence[re.Match[str]], at: int) -> tuple[int, int]:
    """Where the longest complete expression from ``at`` ends, and the first token that cannot belong to it."""
    depth, operand_next, complete = 0, True, at
    for n, token in enumerate(tokens[at:], at):
        kind, mark = token.lastgroup, token[0]
        if operand_next and kind in {"root", "operand"}:
            operand_next = False
        elif operand_next and (mark == "(" or mark in {"+", "-"} or kind == "function"):
            depth += mark == "("
        elif not operand_next and (kind == "operator" or (mark == "," and depth)):
            operand_next = True
        elif not operand_next and mark == ")" and depth:
            depth -= 1
        elif operand_next or kind != "power":
            return complete, n
        if not operand_next and not depth:
            complete = n + 1
    return complete, len(tokens)


def _written(token: re.Match[str]) -> str:
    """The token as the tool ``calculate`` reads it."""
    word = token[0].lower()
    if token["rooted"]:
        return f"sqrt({token['rooted'].replace(',', '')})"
    return {"squared": "**2", "cubed": "**3", **_OPERATORS}.get(word, word)


def told(line: Line) -> str:
    """What a tool's result says, in one plain sentence or a few lines."""
    try:
        result = json.loads(line.text)
    except (ValueError, RecursionError):
        result = line.text
    match result:
        case {"error": error} if error:
            return f"`{line.tool}` failed: {_short(str(error))}"
        case str() if result.lower().startswith("error:"):
            return f"`{line.tool}` failed: {_short(result[6:].strip())}"
        case {"expression": str(expression), "result": int() | float() as number}:
            return f"{expression} = {_number(number)}"
        case {"path": str(path), "entries": list(entries)}:
            return _entries(path, [entry for entry in entries if isinstance(entry, dict)], result.get("left_out"))
        case {"path": str(path), "text": str(text), "size": int(size)}:
            return f"{path} ({size} bytes):\n{_short(text)}" if text else f"{path} is empty."
        case {"timezone": str(zone), "rfc3339": str(moment)}:
            return f"It is {moment} in {zone}{_weekday(result)}."
        case {"operation": str(operation), "result": str() | int() as made}:
            return f"{operation}: {_short(str(made))}"
    return f"`{line.tool}` said: {_short(line.text)}"


def _entries(path: str, entries: Sequence[dict[str, Any]], left_out: object) -> str:
    where = "This folder" if path == "." else f"The folder {path}"
    if not entries:
        return f"{where} is empty."
    names = [f"{entry.get('name')}{'/' if entry.get('type') == 'directory' else ''}" for entry in entries]
    more = len(names[SHOWN_ENTRIES:]) + (left_out if isinstance(left_out, int) else 0)
    return f"{where} has: {', '.join(names[:SHOWN_ENTRIES])}{f' and {more} more' if more else ''}."


def _weekday(result: dict[str, Any]) -> str:
    return f", a {result['weekday']}" if "weekday" in result else ""


def _number(number: float) -> str:
    whole = isinstance(number, float) and number.is_integer() and abs(number) < 1e15
    return _short(str(int(number) if whole else number))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}… ({len(text) - SHOWN_CHARS} characters more)"


_FACT = re.compile(
    r"\bmy (?P<thing>[\w' -]{1,40}?) (?:is|are) (?P<value>[^.,;!?\n]{1,80}?)"
    r"(?= and (?:I|my|what|which|you)\b|[.,;!?\n]|\Z)",
    re.IGNORECASE,
)
_FACT_ASKED = re.compile(
    r"\b(?:what(?:'s| is| are| was)|do you (?:know|remember)) my (?P<thing>[\w' -]{1,40}?)"
    r"(?= and\b| again\b|[^\w' -]|\Z)",
    re.IGNORECASE,
)
_WHO_AM_I = re.compile(r"\bwho am i\b", re.IGNORECASE)
_SAID_ASKED = re.compile(
    r"\bwhat (?:did|have|was it) I (?:just )?(?:ask|say|said|tell|told|write|wrote)", re.IGNORECASE
)


def remembered(text: str, before: Sequence[str]) -> list[str]:
    """What the text tells about the user, or asks about what the user said ``before``, as sentences."""
    if _SAID_ASKED.search(text):
        if not before:
            return ["You have not said anything before this."]
        return ["Before this you said:", *(f"- {_short(said)}" for said in before[-5:])]
    asked = [match["thing"].strip() for match in _FACT_ASKED.finditer(text)] + ["name"] * bool(_WHO_AM_I.search(text))
    facts = {fact["thing"].lower(): fact["value"].strip() for said in [*before, text] for fact in _FACT.finditer(said)}
    if asked:
        return [
            f"Your {thing} is {facts[thing.lower()]}."
            if thing.lower() in facts
            else f"You have not told me your {thing} in this session."
            for thing in asked
        ]
    return [f"I will remember that your {fact['thing']} is {fact['value'].strip()}." for fact in _FACT.finditer(text)]


_CAN = {
    "calculate": "calculate (“what is 17*23?”)",
    "list_directory": "list files (“which files are here?”)",
    "read_file": "read a file (“read README.md”)",
    "current_time": "tell the time (“what time is it in Rome?”)",
    "string_transform": "change a text (“reverse 'hello'”)",
}


def _fallback(tools: Collection[str]) -> str:
    able = [words for name, words in _CAN.items() if name in tools]
    return (
        "I am an offline rule-based demo model and have no rule for that. "
        f"I can {', '.join([*able, 'recall what you said in this session'])}. "
        "For a real model, set ANTHROPIC_API_KEY or OPENAI_API_KEY, "
        "or llm.base_url and llm.model for a server of your own."
    )


def _names(calls: Sequence[Call]) -> list[str]:
    return list(dict.fromkeys(call.tool for call in calls))
