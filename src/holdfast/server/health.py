"""
Health, and the metrics page.

Liveness says that the event loop answers, and nothing else. Startup and readiness ask for the store, without which no
turn can be kept; readiness turns red as soon as the process begins to stop. No check ever calls a model.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from holdfast._version import __version__
from holdfast.lifecycle import Report
from holdfast.runtime import Holdfast
from holdfast.server.auth import Gate

State = Literal["healthy", "degraded", "unhealthy"]


class Status(BaseModel):
    """One word for a probe."""

    status: State
    phase: str = Field(description="Where the process is in its life.")


class ComponentView(BaseModel):
    """One component."""

    name: str
    state: State
    note: str
    latency_s: float


class Detailed(BaseModel):
    """Everything that is checked."""

    status: State
    phase: str
    version: str
    model: Annotated[str, Field(description="The configured model. It is not called to find out how it is.")]
    agents: list[str]
    turns_in_progress: int
    components: list[ComponentView]


def health_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The four health routes with their two aliases, and ``/metrics``."""
    router = APIRouter(tags=["health"])

    def status(response: Response, state: State) -> Status:
        response.status_code = 503 if state == "unhealthy" else 200
        response.headers["cache-control"] = "no-store"
        return Status(status=state, phase=hold.drain.phase.value)

    @router.get("/health", operation_id="health", summary="Has it started?")
    async def startup(response: Response) -> Status:
        return status(response, (await hold.health.report()).state)

    @router.get("/health/live", operation_id="health_live", summary="Does the event loop answer?")
    @router.get("/healthz", operation_id="healthz", summary="Alias of /health/live")
    async def live(response: Response) -> Status:
        return status(response, "healthy")

    @router.get("/health/ready", operation_id="health_ready", summary="Should new turns be sent here?")
    @router.get("/readyz", operation_id="readyz", summary="Alias of /health/ready")
    async def ready(response: Response) -> Status:
        state = (await hold.health.report()).state if hold.drain.ready else "unhealthy"
        return status(response, state)

    @router.get("/health/detailed", operation_id="health_detailed", summary="How is each component?")
    async def detailed(request: Request, response: Response) -> Detailed:
        await gate.identify(request)
        report: Report = await hold.health.report()
        state = report.state if hold.drain.ready else "unhealthy"
        status(response, state)
        return Detailed(
            status=state,
            phase=hold.drain.phase.value,
            version=__version__,
            model=hold.model,
            agents=list(hold.agents),
            turns_in_progress=hold.drain.in_progress,
            components=[
                ComponentView(name=c.name, state=c.state, note=c.note, latency_s=c.latency_s) for c in report.components
            ],
        )

    @router.get("/metrics", operation_id="metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        await gate.identify(request)
        return _metrics_page(hold)

    return router


def metrics_app(hold: Holdfast) -> ASGIApp:
    """What the metrics port serves: ``/metrics`` and nothing else, to whoever reaches the port."""

    async def metrics(_request: Request) -> Response:
        return _metrics_page(hold)

    return Starlette(routes=[Route("/metrics", metrics)])


def _metrics_page(hold: Holdfast) -> Response:
    page, content_type = hold.metrics.page()
    return Response(page, media_type=content_type)
