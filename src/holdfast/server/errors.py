"""One error shape: RFC 9457 problem details (https://www.rfc-editor.org/rfc/rfc9457)."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from holdfast.errors import (
    BodyTimeout,
    HoldfastError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Refused,
    Unauthenticated,
)

PROBLEM_JSON = "application/problem+json"
_NONE: Mapping[str, str] = MappingProxyType({})


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """
    What every error answer says; the last four where a policy refused.

    Attributes:
        turn_id: The turn it is about, where one was accepted.
        retry_after: Seconds after which to try again, exactly; the header has them in whole seconds, rounded up.
        guard: What refused: ``rate``, ``breaker``, ``bulkhead``, ``shed`` or ``budget``.
        key_class: Whose share is used up: ``user``, ``tool``, ``target``, ``agent``, ``session``, ``turn``, or ``all``.
        reason: Why, in a word.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    trace_id: str
    turn_id: str | msgspec.UnsetType = msgspec.UNSET
    retry_after: float | msgspec.UnsetType = msgspec.UNSET
    guard: str | msgspec.UnsetType = msgspec.UNSET
    key_class: str | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET


def problem(error: HoldfastError, trace_id: str, turn_id: str | None = None) -> Problem:
    """``error`` as its caller may see it; of a turn, where one was accepted."""
    return Problem(
        type=f"urn:holdfast:error:{error.code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        code=error.code,
        detail=error.detail if error.detail_is_public else error.public,
        trace_id=trace_id,
        turn_id=msgspec.UNSET if turn_id is None else turn_id,
        retry_after=msgspec.UNSET if error.retry_after_s is None else round(error.retry_after_s, 3),
        guard=(isinstance(error, Refused) and error.guard) or msgspec.UNSET,
        key_class=(isinstance(error, Refused) and error.key_class) or msgspec.UNSET,
        reason=(isinstance(error, Refused) and error.reason) or msgspec.UNSET,
    )


def problem_response(
    error: HoldfastError, trace_id: str, turn_id: str | None = None, headers: Mapping[str, str] = _NONE
) -> Response:
    """The answer to a request that ended in ``error``; ``turn_id`` and ``headers`` are those of the turn it was for."""
    headers = {**headers}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="holdfast"'
    if isinstance(error, BodyTimeout):
        headers["connection"] = "close"  # What is left of the body is not worth waiting for.
    body = msgspec.json.encode(problem(error, trace_id, turn_id))
    return Response(body, error.status, headers, media_type=PROBLEM_JSON)


def from_http_exception(error: HTTPException) -> HoldfastError:
    """The framework's own errors as ours: a route that does not exist, a method it does not take."""
    match error.status_code:
        case 404:
            return NotFound("there is no such route")
        case 405:
            return MethodNotAllowed()
        case _:
            return Invalid(str(error.detail))


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Exception handler for the framework's own errors."""
    if not isinstance(error, HTTPException):
        raise error
    response = problem_response(from_http_exception(error), request.state.trace.trace_id)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["allow"] = _methods_of(request)  # The framework names those of one of the path's routes.
    return response


def _methods_of(request: Request) -> str:
    methods = {method.upper() for method in request.app.openapi()["paths"][template_of(request.scope)]}
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def template_of(scope: Scope) -> str:
    """The template of the route that was asked for; the path itself where it has none."""
    return str(getattr(scope.get("route"), "path_format", scope["path"]))


async def handle_unexpected(request: Request, _error: Exception) -> Response:
    """Exception handler for everything else. The framework raises it again afterwards, for the log."""
    return problem_response(HoldfastError("unexpected error"), request.state.trace.trace_id)


async def handle_holdfast_error(request: Request, error: Exception) -> Response:
    """Exception handler for our errors."""
    if not isinstance(error, HoldfastError):
        raise error
    return problem_response(error, request.state.trace.trace_id)
