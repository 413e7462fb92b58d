"""``/v1/slo``: how the objectives are kept, by what this process has counted since it began."""

import re
from collections.abc import Mapping

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from holdfast.clock import iso
from holdfast.ops.slo import SLOS, Slo
from holdfast.runtime import Holdfast
from holdfast.server.auth import Gate


class SloView(BaseModel):
    """One objective."""

    name: str
    promise: str
    objective: float = Field(description="Share of events that is to be good.")
    events: int
    bad_events: int
    error_ratio: float = Field(description="Share of events that were bad; 0 where there were none.")
    budget_remaining: float = Field(
        description="1 while no event was bad, 0 when as many were as may be, below that when more were."
    )
    kept: bool = Field(description="Whether no more events were bad than may be.")


class SloReport(BaseModel):
    """The objectives, as this process alone sees them. What all processes did over time, Prometheus knows."""

    since: str = Field(description="When this process began to count, in UTC.")
    slos: list[SloView]


def slo_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The route: anybody with a credential may look."""
    router = APIRouter(tags=["service"])
    since = iso(hold.clock.wall_ns())

    @router.get("/v1/slo", operation_id="slo", summary="How the service level objectives are kept")
    async def slo(request: Request) -> SloReport:
        await gate.identify(request)
        return SloReport(since=since, slos=[_view(hold, slo) for slo in SLOS])

    return router


def _view(hold: Holdfast, slo: Slo) -> SloView:
    def count(name: str, where: Mapping[str, str]) -> float:
        return _count(hold, name, where)

    bad, events = slo.indicator.counts(count)
    ratio = bad / events if events else 0.0
    left = round(1 - ratio / (1 - slo.objective), 9) + 0.0  # never -0, nor below it for what a tenth is in binary
    return SloView(
        name=slo.name,
        promise=slo.promise,
        objective=slo.objective,
        events=round(events),
        bad_events=round(bad),
        error_ratio=round(ratio, 9),
        budget_remaining=left,
        kept=left >= 0,
    )


def _count(hold: Holdfast, name: str, where: Mapping[str, str]) -> float:
    """The sum of a name's samples whose labels match these patterns as a whole."""
    namespace = hold.settings.telemetry.metrics_namespace
    full = f"{namespace}_{name}" if namespace else name
    return sum(
        sample.value
        for family in hold.metrics.registry.restricted_registry([full]).collect()
        for sample in family.samples
        if sample.name == full and all(re.fullmatch(pattern, sample.labels[label]) for label, pattern in where.items())
    )
