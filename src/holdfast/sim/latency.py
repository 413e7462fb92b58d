"""
How long the model takes: for its first token, and for each further one.

    0.3                  always 0.3 seconds
    0.1..0.5             anything between the two, evenly
    p50=0.3 p95=1.2      lognormal, given by its median and its 95th percentile
"""

import math
import random
import re

Z95 = 1.6448536269514722  # the 95th percentile of the standard normal distribution

_NUMBER = r"(\d*\.?\d+(?:e[+-]?\d+)?)"
_SHAPES = {
    "constant": re.compile(_NUMBER),
    "uniform": re.compile(rf"{_NUMBER}\s*\.\.\s*{_NUMBER}"),
    "lognormal": re.compile(rf"p50={_NUMBER}[\s,]+p95={_NUMBER}"),
}


class Latency:
    """
    A time to wait, drawn anew each time. Make it with ``Latency.parse``.

    Attributes:
        shape: ``constant``, ``uniform`` or ``lognormal``.
        low_s: The constant, the least, or the median; seconds, >= 0.
        high_s: The constant, the most, or the 95th percentile; seconds, >= ``low_s``.
    """

    # No dataclass: msgspec would then read it from a mapping, and not from what ``parse`` reads.
    __slots__ = ("high_s", "low_s", "shape")

    def __init__(self, shape: str, low_s: float, high_s: float) -> None:
        self.shape = shape
        self.low_s = low_s
        self.high_s = high_s

    @classmethod
    def parse(cls, value: object) -> "Latency":
        """
        Read a number of seconds, ``a..b``, or ``p50=a p95=b``.

        Raises:
            ValueError: saying what was read and what it may be.
        """
        if isinstance(value, Latency):
            return value
        text = str(value).strip()
        for shape, pattern in _SHAPES.items():
            if found := pattern.fullmatch(text):
                numbers = [float(number) for number in found.groups()]
                least = 0.0 if shape != "lognormal" else math.ulp(0.0)
                if least <= numbers[0] <= numbers[-1] < math.inf:
                    return cls(shape, numbers[0], numbers[-1])
        raise ValueError(
            "a latency is seconds >= 0 (0.3), a range (0.1..0.5), or percentiles > 0 (p50=0.3 p95=1.2), "
            f"the larger one last; got {text!r}"
        )

    def draw(self, rng: random.Random) -> float:
        """Seconds to wait this time."""
        if self.shape == "uniform":
            return rng.uniform(self.low_s, self.high_s)
        if self.shape == "lognormal":
            return rng.lognormvariate(math.log(self.low_s), math.log(self.high_s / self.low_s) / Z95)
        return self.low_s

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Latency) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __repr__(self) -> str:
        return f"Latency.parse({str(self)!r})"

    def __str__(self) -> str:
        if self.shape == "uniform":
            return f"{self.low_s}..{self.high_s}"
        return f"p50={self.low_s} p95={self.high_s}" if self.shape == "lognormal" else str(self.low_s)


NONE = Latency("constant", 0.0, 0.0)
