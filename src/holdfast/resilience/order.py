"""The one order of policies that makes sense, checked when they are joined."""

import warnings
from typing import Any

from holdfast.resilience.breaker import Breaker
from holdfast.resilience.bulkhead import Bulkhead
from holdfast.resilience.hedge import Hedge
from holdfast.resilience.rate import Rate
from holdfast.resilience.retry import Retry
from holdfast.resilience.timeout import Deadline, Timeout

Policy = Deadline | Retry | Hedge | Breaker | Rate | Bulkhead | Timeout
ORDER = (Deadline, Retry, Hedge, Breaker, Rate, Bulkhead, Timeout)


def check_order(name: str, policies: tuple[Policy, ...]) -> None:
    """
    Warn of another order, at the line that makes the pipeline.

    Raises:
        ValueError: an order, or a pair of policies, that cannot work.
    """
    places = [ORDER.index(type(policy)) for policy in policies]
    if len(set(places)) < len(places):
        raise ValueError(f"the pipeline {name} has two policies of one kind")
    if 0 in places[1:]:
        raise ValueError(f"the pipeline {name}: a Deadline comes first, as it holds for all that is inside")
    if ORDER.index(Timeout) in places[:-1]:
        raise ValueError(f"the pipeline {name}: a Timeout comes last, as it limits one attempt; Deadline limits all")
    hedge = ORDER.index(Hedge)
    if hedge in places:
        at = places.index(hedge)
        if max(places[: at + 1]) > hedge or min(places[at:]) < hedge:
            raise ValueError(f"the pipeline {name}: a Hedge comes after Retry and before what guards each attempt")
        if any(isinstance(policy, Rate) and policy.share is not None for policy in policies):
            raise ValueError(f"the pipeline {name}: a hedge takes what is there at once, and a share has to be asked")
    if places != sorted(places):
        better = " > ".join(ORDER[place].__name__ for place in sorted(places))
        warnings.warn(f"the pipeline {name} is better in the order {better}", stacklevel=3)


def kinds(policies: tuple[Policy, ...]) -> list[tuple[type, Any]]:
    """What a pipeline's policies are, and by what keys they keep their state: what no other setting changes."""
    return [(type(policy), getattr(policy, "key", None)) for policy in policies]


def same_key(policies: tuple[Policy, ...]) -> bool:
    """Whether a breaker and a bulkhead keep their state by the same key."""
    keys = [policy.key for policy in policies if isinstance(policy, Breaker | Bulkhead)]
    return len(keys) == 2 and keys[0] is keys[1]
