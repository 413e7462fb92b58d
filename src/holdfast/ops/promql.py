"""
PromQL, as far as our rules and panels use it: read into a tree, and aimed at a job and a namespace.

The tree is for the linter, which has to know what is rated, what is summed and which labels are left. Prometheus' own
``promtool`` has the last word on syntax.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

AGGREGATES = frozenset({"sum", "min", "max", "avg", "count", "group", "topk", "bottomk", "quantile", "stddev"})
COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
SETS = frozenset({"and", "or", "unless"})
_BY_STRENGTH = (frozenset({"or"}), frozenset({"and", "unless"}), COMPARISONS, frozenset("+-"), frozenset("*/%"))
_WORDS = SETS | {"by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}

_NONE: tuple[str, ...] = ()

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<window>\[[^\]]*\])
      | (?P<duration>\d+(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)
      | (?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)
      | (?P<word>[A-Za-z_:][\w:]*)
      | (?P<sign>==|!=|>=|<=|=~|!~|[-+*/%^=<>(){},])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Text:
    """A text, as an argument of a function."""

    value: str


@dataclass(frozen=True, slots=True)
class Matcher:
    """``label op "value"``, with ``op`` one of ``=``, ``!=``, ``=~``, ``!~``."""

    label: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """
    The series of one name.

    Attributes:
        window: What stands in brackets behind it, such as ``5m``; None where nothing does.
        start, end: Where the name stands in the text.
        braced: Whether matchers are given, which then begin right behind the name.
    """

    name: str
    matchers: tuple[Matcher, ...]
    window: str | None
    start: int
    end: int
    braced: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments."""

    name: str
    args: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregation. ``keeps`` tells whether ``labels`` are those that are left, or those that go."""

    op: str
    keeps: bool
    labels: tuple[str, ...]
    args: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Binary:
    """
    Two sides and what joins them.

    Attributes:
        on: The labels both sides are matched on; None matches on all.
        group: ``group_left`` or ``group_right``, where one side has more series than the other.
        brings: Labels that the other side lends.
    """

    op: str
    left: "Node"
    right: "Node"
    on: tuple[str, ...] | None
    group: str | None
    brings: tuple[str, ...]


Node = Number | Text | Selector | Call | Aggregate | Binary


def parse(text: str) -> Node:
    """
    The tree of an expression.

    Raises:
        ValueError: it is not PromQL, or uses a part of it that none of our expressions needs.
    """
    reader = _Reader(text)
    tree = reader.binary(0)
    reader.end()
    return tree


def walk(node: Node) -> Iterator[Node]:
    """A tree's nodes, each before those below it."""
    yield node
    match node:
        case Call(args=args) | Aggregate(args=args):
            below = args
        case Binary(left=left, right=right):
            below = (left, right)
        case _:
            return
    for child in below:
        yield from walk(child)


def selectors(text: str) -> list[Selector]:
    """Every selector of an expression, in the order of the text."""
    found = [node for node in walk(parse(text)) if isinstance(node, Selector)]
    return sorted(found, key=lambda selector: selector.start)


def aimed(text: str, namespace: Callable[[str], str], matchers: Callable[[str], str]) -> str:
    """
    An expression with its selectors rewritten, and nothing else.

    Args:
        text: The expression.
        namespace: What a name becomes.
        matchers: What is put in front of the matchers of a name, such as ``job="holdfast"``; empty puts nothing.
    """
    for selector in reversed(selectors(text)):
        more, rest = matchers(selector.name), text[selector.end :]
        if more and selector.braced:
            rest = "{" + more + ("" if not selector.matchers else ", ") + rest[1:]
        elif more:
            rest = "{" + more + "}" + rest
        text = text[: selector.start] + namespace(selector.name) + rest
    return text


class _Reader:
    """Reads one expression, token by token."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"cannot read {text[at : at + 20]!r}")
            if found.lastgroup != "space":
                self._tokens.append((str(found.lastgroup), found[0], at))
            at = found.end()
        self._tokens.append(("end", "", at))
        self._at = 0

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _text(self) -> str:
        return self._tokens[self._at][1]

    def _take(self, wanted: str | None = None) -> str:
        text = self._text
        if wanted is not None and text != wanted:
            raise ValueError(f"expected {wanted!r}, got {text!r}")
        self._at += 1
        return text

    def _takes(self, wanted: str) -> bool:
        if self._text != wanted:
            return False
        self._at += 1
        return True

    def end(self) -> None:
        if self._kind != "end":
            raise ValueError(f"expected the end, got {self._text!r}")

    def binary(self, strength: int) -> Node:
        if strength == len(_BY_STRENGTH):
            return self._unary()
        left = self.binary(strength + 1)
        while self._text in _BY_STRENGTH[strength]:
            op = self._take()
            self._takes("bool")
            on = self._labels() if self._takes("on") else None
            group: str | None = None
            brings = _NONE
            if self._text in {"group_left", "group_right"}:
                group = self._take()
                brings = self._labels() if self._text == "(" else _NONE
            left = Binary(op, left, self.binary(strength + 1), on, group, brings)
        return left

    def _unary(self) -> Node:
        if self._takes("-"):
            return Binary("*", Number(-1), self._unary(), None, None, ())
        if self._takes("("):
            inside = self.binary(0)
            self._take(")")
            return inside
        if self._kind == "number":
            return Number(float(self._take()))
        if self._kind == "string":
            return Text(self._string())
        if self._kind != "word" or self._text in _WORDS:
            raise ValueError(f"expected an expression, got {self._text!r}")
        return self._named()

    def _named(self) -> Node:
        start = self._tokens[self._at][2]
        name = self._take()
        if name in AGGREGATES:
            return self._aggregate(name)
        if self._text == "(":
            return Call(name, self._args())
        end, braced = start + len(name), self._text == "{"
        matchers = self._matchers() if braced else ()
        window = self._take()[1:-1] if self._kind == "window" else None
        if self._takes("offset"):
            self._take()
        return Selector(name, matchers, window, start, end, braced)

    def _aggregate(self, op: str) -> Node:
        keeps, labels, args = True, _NONE, None
        if self._text == "(":
            args = self._args()
        if self._text in {"by", "without"}:
            keeps, labels = self._take() == "by", self._labels()
        return Aggregate(op, keeps, labels, self._args() if args is None else args)

    def _args(self) -> tuple[Node, ...]:
        self._take("(")
        args: list[Node] = []
        while not self._takes(")"):
            args.append(self.binary(0))
            if self._text != ")":
                self._take(",")
        return tuple(args)

    def _labels(self) -> tuple[str, ...]:
        self._take("(")
        labels: list[str] = []
        while not self._takes(")"):
            labels.append(self._take())
            if self._text != ")":
                self._take(",")
        return tuple(labels)

    def _matchers(self) -> tuple[Matcher, ...]:
        self._take("{")
        matchers: list[Matcher] = []
        while not self._takes("}"):
            matchers.append(Matcher(self._take(), self._take(), self._string()))
            if self._text != "}":
                self._take(",")
        return tuple(matchers)

    def _string(self) -> str:
        if self._kind != "string":
            raise ValueError(f"expected a text in quotes, got {self._text!r}")
        return re.sub(r"\\(.)", r"\1", self._take()[1:-1])
