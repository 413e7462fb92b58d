"""
Units of a limit as time, in numbers that a server's script adds up exactly.

A server tells the time in microseconds, and a script in Lua has integers of 53 bits. So the time that units come in is
whole microseconds and a rest, counted in such parts of one that nothing is rounded away: at 3 units in a second, a unit
takes 333,333 microseconds and 1 of 3 parts. Only the moment of asking is rounded, down to a microsecond.
"""

import math

from holdfast.coord.base import Need

US_NS = 1_000

_LONGEST_US = 2**50
"""35 years. Units that come in more are taken to come in this, so that no sum leaves the 53 bits."""


def micros(ns: int) -> int:
    """Whole microseconds, rounded up."""
    return min(-(-ns // US_NS), _LONGEST_US)


def amounts(need: Need) -> tuple[int, ...]:
    """
    Seven numbers that a script needs: how many parts a microsecond has and, each as microseconds and parts, the time
    that the cost, the burst, and the burst without one unit come in.
    """
    common = math.gcd(need.num * US_NS, need.den_ns)
    parts, unit = need.num * US_NS // common, need.den_ns // common
    room, gap = need.burst * unit, (need.burst - 1) * unit
    return parts, *_split(need.cost * unit, parts), *_split(room, parts), *_split(gap, parts)


def _split(time: int, parts: int) -> tuple[int, int]:
    longest = _LONGEST_US * parts
    return divmod(max(-longest, min(time, longest)), parts)
