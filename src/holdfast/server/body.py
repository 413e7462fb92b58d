"""Reading a request's body: bounded in bytes and in time, and JSON or nothing."""

import asyncio
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from holdfast.errors import BodyTimeout, NotJson, NotSupportedMedia, TooLarge, Unprocessable
from holdfast.serving import ServerSpec

T = TypeVar("T")


async def read_json(request: Request, decoder: msgspec.json.Decoder[T], spec: ServerSpec) -> T:
    """
    The request's body as what ``decoder`` makes of it.

    The declared type must be JSON: that is what keeps a foreign web page from posting here without asking first.

    Raises:
        NotSupportedMedia: the body is declared as something else than JSON.
        TooLarge: it is larger than ``max_body_bytes``; what came after was not read.
        BodyTimeout: it did not arrive within ``body_timeout_s``.
        NotJson: it is not JSON, or its sender left before all of it was here.
        Unprocessable: it is JSON of the wrong shape; the detail says where.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise NotSupportedMedia(f"the body is declared as {media_type or 'nothing'}; send it as application/json")
    body = await _read(request, spec)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Unprocessable(str(error)) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise NotJson(f"the body is not valid JSON: {error}") from error


async def _read(request: Request, spec: ServerSpec) -> bytes:
    limit = spec.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken")
    body = bytearray()
    try:
        async with asyncio.timeout(spec.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"the body has more than {limit} bytes")
    except TimeoutError as error:
        raise BodyTimeout(f"the body did not arrive within {spec.body_timeout_s:g} s") from error
    except ClientDisconnect as error:
        raise NotJson("the connection was closed before the body had arrived") from error
    return bytes(body)
