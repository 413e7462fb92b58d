"""The turns of this process, which may be one of several on the same store: begun, followed, and taken over."""

from holdfast.replica.answer import (
    Answer,
    Begun,
    Fault,
    TurnDetail,
    TurnView,
    UnitView,
    UsageView,
    answer_of,
    detail_of,
    error_of,
    usage_view,
    view_of,
)
from holdfast.replica.keeper import Keeper
from holdfast.replica.monitored import SessionActions, actions_of
from holdfast.replica.turns import Turns
from holdfast.replica.webhooks import Webhooks

__all__ = [
    "Answer",
    "Begun",
    "Fault",
    "Keeper",
    "SessionActions",
    "TurnDetail",
    "TurnView",
    "Turns",
    "UnitView",
    "UsageView",
    "Webhooks",
    "actions_of",
    "answer_of",
    "detail_of",
    "error_of",
    "usage_view",
    "view_of",
]
