"""
Health, and the metrics page.

Probes are told what is known, and set off no check. Liveness says that the event loop is on time, and nothing else.
Startup and readiness are green once everything is open, unless something is unhealthy without which no turn can be
served; readiness turns red as soon as the process begins to stop, and while nobody else may even wait. No check ever
calls a model: how one is, its circuit tells.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from holdfast._version import __version__
from holdfast.clock import iso
from holdfast.lifecycle import Component, Phase, State, worst
from holdfast.resilience import Priority
from holdfast.runtime import Holdfast
from holdfast.server.auth import OPERATE, Gate
from holdfast.server.breakers import BreakerView, breaker_views


class Status(BaseModel):
    """One word for a probe."""

    status: State
    phase: str = Field(description="Where the process is in its life.")


class ComponentView(BaseModel):
    """One component."""

    name: str
    state: State = Field(description="By its last three results.")
    note: str | None = Field(description="What the latest one said, for operators; null for everybody else.")
    latency_s: float = Field(description="Seconds the latest one took.")
    age_s: float | None = Field(description="Seconds since then; null where there was none yet, or nothing is asked.")
    since: str | None = Field(description="Since when it has been in this state; null where nothing is asked.")


class BreakersView(BaseModel):
    """The circuit breakers."""

    count: int = Field(description="Circuits there are.")
    not_closed: list[BreakerView]


class LimitView(BaseModel):
    """One rate limit."""

    pipeline: str
    name: str = Field(description="What it counts.")
    key_class: str = Field(description="What kind of key it is by; all where everybody shares it.")
    num: int = Field(description="Units in each `den_s` seconds.")
    den_s: float
    burst: int = Field(description="Units saved up at most.")
    keys: int = Field(description="How many keys it is kept for.")
    exhausted: int = Field(description="For how many of them nothing is left now.")
    queued: int = Field(description="Calls that wait for it.")


class BulkheadView(BaseModel):
    """One bulkhead."""

    name: str
    in_use: int
    queued: int
    limit: int
    max_queue: int
    refused: int
    waited: int


class SheddingView(BaseModel):
    """Turns that run and wait, and those that were refused so that others could."""

    in_use: int
    queued: int
    limit: int
    overloaded: bool
    refused: dict[str, int] = Field(description="Since the start, by priority.")
    waited: int


class Detailed(BaseModel):
    """Everything that is checked, and how the policies stand."""

    status: State
    phase: str
    version: str
    model: Annotated[str, Field(description="The configured model. It is not called to find out how it is.")]
    agents: list[str]
    turns_in_progress: int
    components: list[ComponentView] = Field(
        description="What is checked, and what a circuit breaker found to fail, which is degraded."
    )
    breakers: BreakersView
    limits: list[LimitView]
    bulkheads: list[BulkheadView]
    shedding: SheddingView


def health_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The four health routes with their two aliases, and ``/metrics``."""
    router = APIRouter(tags=["health"])

    def status(response: Response, state: State) -> Status:
        response.status_code = 503 if state == "unhealthy" else 200
        response.headers["cache-control"] = "no-store"
        return Status(status=state, phase=hold.drain.phase.value)

    def serving(*reasons_not_to: bool) -> State:
        """What a probe is told: a component that nothing else needs may be worse than what is served."""
        report = hold.health.report()
        if any(reasons_not_to) or not report.serves:
            return "unhealthy"
        return "healthy" if report.state == "healthy" else "degraded"

    @router.get("/health", operation_id="health", summary="Has it started?")
    async def startup(response: Response) -> Status:
        return status(response, serving(hold.drain.phase is Phase.STARTING))

    @router.get("/health/live", operation_id="health_live", summary="Does the event loop answer?")
    @router.get("/healthz", operation_id="healthz", summary="Alias of /health/live")
    async def live(response: Response) -> Status:
        return status(response, "unhealthy" if hold.heartbeat.late_s > hold.settings.health.live_lag_s else "healthy")

    @router.get("/health/ready", operation_id="health_ready", summary="Should new turns be sent here?")
    @router.get("/readyz", operation_id="readyz", summary="Alias of /health/ready")
    async def ready(response: Response) -> Status:
        return status(response, serving(not hold.drain.ready, hold.policies.shedder.saturated))

    @router.get("/health/detailed", operation_id="health_detailed", summary="How is each component?")
    async def detailed(request: Request, response: Response) -> Detailed:
        caller = await gate.identify(request)
        breakers = list(breaker_views(hold))
        failing = [_failing(breaker) for breaker in breakers if breaker.state in _FAILING]
        components = [*map(_view, hold.health.report().components), *failing]
        ready = hold.drain.ready and not hold.policies.shedder.saturated
        state = worst({component.state for component in components}) if ready else "unhealthy"
        status(response, state)
        if not (caller.open or OPERATE in caller.scopes):
            components = [component.model_copy(update={"note": None}) for component in components]
        return Detailed(
            status=state,
            phase=hold.drain.phase.value,
            version=__version__,
            model=hold.model,
            agents=list(hold.agents),
            turns_in_progress=hold.drain.in_progress,
            components=components,
            breakers=BreakersView(count=len(breakers), not_closed=[b for b in breakers if b.state != "closed"]),
            limits=list(_limits(hold)),
            bulkheads=list(_bulkheads(hold)),
            shedding=_shedding(hold),
        )

    @router.get("/metrics", operation_id="metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        await gate.identify(request)
        return await _metrics_page(hold, request)

    return router


_FAILING = frozenset({"open", "half_open", "forced_open"})
"""Until a probe was ok, nothing says that the target has recovered."""


def _failing(breaker: BreakerView) -> ComponentView:
    """What a circuit that is not closed makes of its target."""
    left = f", {breaker.retry_after_s:.3g} s left" if breaker.retry_after_s else ""
    note = f"circuit {breaker.state}{left}"
    return ComponentView(name=breaker.name, state="degraded", note=note, latency_s=0, age_s=None, since=None)


def _view(component: Component) -> ComponentView:
    return ComponentView(
        name=component.name,
        state=component.state,
        note=component.note,
        latency_s=component.latency_s,
        age_s=component.age_s,
        since=iso(component.since_ns),
    )


def _limits(hold: Holdfast) -> Iterator[LimitView]:
    now = hold.clock.now()
    for pipeline in hold.policies.pipelines:
        if pipeline.rate is not None:
            for view in pipeline.rate.views(now):
                yield LimitView(pipeline=pipeline.name, **view._asdict())


def _bulkheads(hold: Holdfast) -> Iterator[BulkheadView]:
    for pipeline in hold.policies.pipelines:
        if pipeline.bulkhead is not None:
            for view in pipeline.bulkhead.views():
                yield BulkheadView(name=view.name, **view.stats._asdict())


def _shedding(hold: Holdfast) -> SheddingView:
    stats = hold.policies.shedder.stats
    refused = {priority.name.lower(): stats.refused[priority] for priority in Priority}
    return SheddingView(**{**stats._asdict(), "refused": refused})


def metrics_app(hold: Holdfast, opening: Callable[[], bool]) -> ASGIApp:
    """What the metrics port serves: ``/metrics`` and nothing else, to whoever reaches the port, unless ``opening``."""

    async def metrics(request: Request) -> Response:
        if opening():
            return PlainTextResponse("the process is starting\n", 503, {"retry-after": "1"})
        return await _metrics_page(hold, request)

    return Starlette(routes=[Route("/metrics", metrics)])


async def _metrics_page(hold: Holdfast, request: Request) -> Response:
    components = hold.health.report().components
    hold.metrics.checked((component.name, component.state, component.age_s) for component in components)
    hold.metrics.policies.read()
    page, content_type = await asyncio.to_thread(hold.metrics.render, request.headers.get("accept", ""))
    return Response(page, media_type=content_type)
