"""``/v1/log-level``: how much this process writes to its log, and changing that while it runs."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from holdfast.server.auth import Gate
from holdfast.telemetry import Level, log_level, logger, set_log_level


class LogLevel(BaseModel):
    """What is written to the log."""

    log_level: str = Field(description="Least severity: debug, info, warning or error.")


def log_level_router(gate: Gate) -> APIRouter:
    """The routes: anybody with a credential may look, and operators may give orders."""
    router = APIRouter(prefix="/v1/log-level", tags=["service"])

    @router.get("", operation_id="log_level", summary="What is written to the log")
    async def show(request: Request) -> LogLevel:
        await gate.identify(request)
        return LogLevel(log_level=log_level())

    @router.post(
        "/{level}", operation_id="set_log_level", summary="Change what is written to the log, until the process ends"
    )
    async def change(request: Request, level: Level) -> LogLevel:
        caller = await gate.identify_operator(request)
        was = log_level()
        set_log_level(level)
        logger.warning("log_level_ordered", principal=caller.principal, was=was, log_level=level)
        return LogLevel(log_level=log_level())

    return router
