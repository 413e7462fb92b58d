"""``/v1/breakers``: what the circuit breakers think of models, tools and credentials, and overruling them."""

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from holdfast.errors import NotFound
from holdfast.resilience.circuit import Circuit
from holdfast.runtime import Holdfast
from holdfast.server.auth import Gate
from holdfast.telemetry import logger

Name = Annotated[str, Path(description="The circuit's name, as the list has it, URL-encoded.")]


class BreakerView(BaseModel):
    """A circuit."""

    name: str
    pipeline: str
    key_class: str = Field(description="What kind of key it is by: target, credential, tool.")
    state: Literal["closed", "open", "half_open", "forced_open", "disabled"] = Field(
        description="What a call would find now."
    )
    retry_after_s: float | None = Field(
        description="Seconds until the break is over; null where it is closed, or holds until it is reset."
    )
    calls: int = Field(description="Outcomes in its window.")
    failed: int
    slow: int
    inflight: int = Field(description="Calls that it let through and that have not ended.")


class BreakerList(BaseModel):
    """Every circuit there is. One that was never used, or that has nothing to remember, may be missing."""

    breakers: list[BreakerView]


def breakers_router(hold: Holdfast, gate: Gate) -> APIRouter:
    """The routes: anybody with a credential may look, and operators may give orders."""
    router = APIRouter(prefix="/v1/breakers", tags=["breakers"])

    @router.get("", operation_id="list_breakers", summary="List circuit breakers")
    async def list_breakers(request: Request) -> BreakerList:
        await gate.identify(request)
        return BreakerList(breakers=list(breaker_views(hold)))

    async def obey(request: Request, name: str, order: Callable[[Circuit, int], None]) -> BreakerView:
        caller = await gate.identify_operator(request)
        circuits = {circuit.name: circuit for circuit in _circuits(hold)}
        if name not in circuits:
            known = ", ".join(sorted(circuits)) or "none yet"
            raise NotFound(f"there is no circuit {name}; there is {known}")
        order(circuits[name], hold.clock.now())
        logger.warning("breaker_ordered", principal=caller.principal, circuit=name, order=order.__name__)
        return next(view for view in breaker_views(hold) if view.name == name)

    @router.post("/{name:path}/reset", operation_id="reset_breaker", summary="Close a circuit and forget its past")
    async def reset(request: Request, name: Name) -> BreakerView:
        return await obey(request, name, Circuit.reset)

    @router.post(
        "/{name:path}/force-open", operation_id="force_open_breaker", summary="Let nobody through until it is reset"
    )
    async def force_open(request: Request, name: Name) -> BreakerView:
        return await obey(request, name, Circuit.force_open)

    @router.post("/{name:path}/disable", operation_id="disable_breaker", summary="Let everybody through until reset")
    async def disable(request: Request, name: Name) -> BreakerView:
        return await obey(request, name, Circuit.disable)

    return router


def breaker_views(hold: Holdfast) -> Iterator[BreakerView]:
    """Every circuit there is, as it is now."""
    now = hold.clock.now()
    for pipeline in hold.pipelines:
        if pipeline.breaker is not None:
            for view in pipeline.breaker.views(now):
                yield BreakerView(pipeline=pipeline.name, **{**view._asdict(), "state": view.state.value})


def _circuits(hold: Holdfast) -> Iterator[Circuit]:
    for pipeline in hold.pipelines:
        if pipeline.breaker is not None:
            yield from (circuit for circuit, _ in pipeline.breaker.circuits())
