"""What a call is about, and so whose state it is judged by."""

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from holdfast.clock import NS
from holdfast.resilience.bucket import Quota

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Call(NamedTuple):
    """
    What a call is about. Policies keep their state by these; what is not said is empty, and shared by all who say none.

    Attributes:
        target: What is called: a provider's model, a host. For tools, the tool's name goes into ``tool``.
        credential: Names what the caller pays with, without telling it.
        tool: The tool, as registered. Never a name a model made up: every one takes memory.
        agent: Who calls.
        user: For whom.
        tenant: For which organisation.
        repeatable: Whether it has no effect, or the same one however often it is made.
        elsewhere: Whether somebody else can be asked instead, so that a target in trouble need not be waited for.
        costs: Units it takes of limits, by their names; 1 of those that are not named.
    """

    target: str = ""
    credential: str = ""
    tool: str = ""
    agent: str = ""
    user: str = ""
    tenant: str = ""
    repeatable: bool = False
    elsewhere: bool = False
    costs: Mapping[str, int] = _NOTHING


Key = Callable[[Call], Hashable]
"""Whose state a call is judged by. Refusals and notices tell its ``__name__``, as the key itself may be a person."""


class per:  # noqa: N801 - reads as a word: `per.minute(60)`, `key=per.user`
    """Quotas in words, whose ``burst`` is ``n`` where it is not given; and the keys there are."""

    @staticmethod
    def second(n: int, burst: int | None = None) -> Quota:
        """``n`` units in each second."""
        return Quota(n, NS, n if burst is None else burst)

    @staticmethod
    def minute(n: int, burst: int | None = None) -> Quota:
        """``n`` units in each minute."""
        return Quota(n, 60 * NS, n if burst is None else burst)

    @staticmethod
    def target(call: Call) -> Hashable:
        """Each target by itself."""
        return call.target

    @staticmethod
    def credential(call: Call) -> Hashable:
        """Each credential by itself, whatever it is used for."""
        return call.credential

    @staticmethod
    def tool(call: Call) -> Hashable:
        """Each tool by itself."""
        return call.tool

    @staticmethod
    def agent(call: Call) -> Hashable:
        """Each agent by itself."""
        return call.agent

    @staticmethod
    def user(call: Call) -> Hashable:
        """Each user by themselves."""
        return call.user

    @staticmethod
    def tenant(call: Call) -> Hashable:
        """Each organisation by itself."""
        return call.tenant


def key_class(key: Key | None) -> str:
    """What kind of key it is, in a word: ``user``; ``all`` for none."""
    return "all" if key is None else getattr(key, "__name__", "key")
