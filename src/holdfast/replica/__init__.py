"""The turns of this process, which may be one of several on the same store: begun, followed, and taken over."""

from holdfast.replica.answer import (
    Answer,
    Begun,
    Fault,
    TurnDetail,
    TurnView,
    UnitView,
    answer_of,
    detail_of,
    error_of,
    view_of,
)
from holdfast.replica.keeper import Keeper
from holdfast.replica.turns import Turns
from holdfast.replica.webhooks import Webhooks

__all__ = [
    "Answer",
    "Begun",
    "Fault",
    "Keeper",
    "TurnDetail",
    "TurnView",
    "Turns",
    "UnitView",
    "Webhooks",
    "answer_of",
    "detail_of",
    "error_of",
    "view_of",
]
