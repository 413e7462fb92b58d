"""
A script: rules tried in order, each saying when it answers and what.

::

    request ─▶ rule 1 ─no─▶ rule 2 ─no─▶ … ─no─▶ the demo model
                 │ yes
                 ▼
    after the first `after` matches, at most `times` times, and with the chance `share`: its reply

A rule that only has a fault which needs an answer (``stall``, say) lends the fault to whichever rule answers next.
"""

import fnmatch
import random
import re
from typing import Annotated, Any

import msgspec

from holdfast.sim.dialogue import Call, Finish, FormatName, Request, Usage, fingerprint
from holdfast.sim.faults import AnyFault, Count
from holdfast.sim.latency import Latency


class When(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    Which requests a rule is for. All that is given must hold; None matches anything.

    Attributes:
        text_contains: Part of the last user message, in any case.
        text_matches: Regular expression found somewhere in the last user message.
        model: The model's name; ``*`` and ``?`` are wildcards.
        tool: The last message is this tool's result; ``*`` and ``?`` are wildcards.
        format: ``anthropic``, ``openai-chat`` or ``openai-responses``.
        header: Header names, each with a value it must contain; an empty value asks only that it is there.
        credential: The API key, or its fingerprint as ``GET /sim/requests`` shows it; an empty text is: none was sent.
    """

    text_contains: str | None = None
    text_matches: str | None = None
    model: str | None = None
    tool: str | None = None
    format: FormatName | None = None
    header: dict[str, str] = {}
    credential: str | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.text_matches or "")
        except re.error as wrong:
            raise ValueError(f"text_matches is no regular expression: {wrong}") from wrong

    def matches(self, request: Request) -> bool:
        """Whether all conditions hold for this request."""
        text, headers = request.user_text, request.headers
        return (
            (self.text_contains is None or self.text_contains.casefold() in text.casefold())
            and (self.text_matches is None or re.search(self.text_matches, text) is not None)
            and (self.model is None or fnmatch.fnmatchcase(request.model, self.model))
            and (self.tool is None or (bool(request.last_tool) and fnmatch.fnmatchcase(request.last_tool, self.tool)))
            and (self.format is None or self.format == request.format)
            and all(name.lower() in headers and value in headers[name.lower()] for name, value in self.header.items())
            and (self.credential is None or request.credential in {self.credential, fingerprint(self.credential)})
        )


class Reply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    What the model answers.

    Attributes:
        say: Text.
        call: Tool calls, in order; with ``say``, the text comes first.
        usage: Token counts in place of the counted ones.
        finish: Why the answer ends; None means ``stop``, or the provider's word for tool calls where there are some.
        fault: What goes wrong, or None.
        first_token: Latency of the first token; None leaves the simulator's.
        per_token: Latency of each further token; None leaves the simulator's.
    """

    say: str = ""
    call: tuple[Call, ...] = ()
    usage: Usage | None = None
    finish: Finish | None = None
    fault: AnyFault | None = None
    first_token: Latency | None = None
    per_token: Latency | None = None


class Rule(Reply, frozen=True, kw_only=True):
    """
    A reply, and when it is given.

    Attributes:
        name: What the record calls it; empty means its place, ``rules[0]``.
        when: Which requests it is for.
        times: How often it answers at most, or None for always.
        after: How many matching requests it lets pass first.
        share: Chance that it answers, in (0, 1].
    """

    name: str = ""
    when: When = When()
    times: Count | None = None
    after: Count = 0
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        if not (self.say or self.call or self.fault or self.finish or self.usage):
            raise ValueError("a rule needs say, call, finish, usage or fault")

    @property
    def lends_fault(self) -> bool:
        """Whether this is a fault for the answer of another rule."""
        own_answer = self.say or self.call or self.finish or self.usage
        return self.fault is not None and self.fault.needs_answer and not own_answer


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    Rules, and the latency of the answers.

    Attributes:
        rules: Tried in order; what no rule answers, the demo model does.
        first_token: Latency of the first token where neither the rule nor the simulator's own setting gives one.
        per_token: The same for each further token.
    """

    rules: tuple[Rule, ...] = ()
    first_token: Latency | None = None
    per_token: Latency | None = None

    def as_data(self) -> dict[str, Any]:
        """The script as JSON data, without what is left at its default."""
        data: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self, enc_hook=str))
        return data


class Tally:
    """One rule and how often it came up. Counts; decides whether it is the rule's turn."""

    __slots__ = ("matched", "name", "rule", "used")

    def __init__(self, rule: Rule, name: str) -> None:
        self.rule = rule
        self.name = rule.name or name
        self.matched = 0
        self.used = 0

    def applies(self, request: Request, rng: random.Random) -> bool:
        """Whether the rule takes part in this answer; counts the request where it matches."""
        if not self.rule.when.matches(request):
            return False
        self.matched += 1
        if self.matched <= self.rule.after or (self.rule.times is not None and self.used >= self.rule.times):
            return False
        if self.rule.share < 1 and rng.random() >= self.rule.share:
            return False
        self.used += 1
        return True
