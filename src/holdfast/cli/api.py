"""Asking a running server: what the commands share that steer one over its API."""

import http.client
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec
import typer

from holdfast.errors import HoldfastError, Misconfigured
from holdfast.server.errors import Problem

T = TypeVar("T")

HERE = "http://127.0.0.1:8080"
ANSWER_S = 10.0
_NONE: Mapping[str, str] = MappingProxyType({})

Url = Annotated[str, typer.Option("--url", help="Where the server is.")]
ApiKey = Annotated[
    str, typer.Option("--key", metavar="env:NAME|KEY", help="API key; orders need one with the scope operate.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def ask(decode: Callable[[bytes], T], method: str, url: str, key: str, path: str, body: object = None) -> T:
    """
    What the server answers, as ``decode`` makes it.

    Raises:
        Misconfigured: the address, the key or what was asked is wrong; nothing was changed.
        HoldfastError: the server failed.
    """
    with asked(method, url, key, path, body) as answer:
        return decode(answer.read())


@contextmanager
def asked(
    method: str,
    url: str,
    key: str,
    path: str,
    body: object = None,
    *,
    headers: Mapping[str, str] = _NONE,
    wait_s: float = ANSWER_S,
) -> Iterator[http.client.HTTPResponse]:
    """The server's answer, to be read in the block. Errors are those of ``ask``."""
    headers = {**headers}
    if secret := _secret(key):
        headers["authorization"] = f"Bearer {secret}"
    if body is not None:
        headers["content-type"] = "application/json"
    connection, prefix = _connection(url, wait_s)
    try:
        sent = None if body is None else msgspec.json.encode(body)
        connection.request(method, f"{prefix}{path}", sent, headers)
        answer = connection.getresponse()
        if answer.status == HTTPStatus.OK:
            yield answer
            return
        said = f"{url}: {msgspec.json.decode(answer.read(), type=Problem).detail}"
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Misconfigured(f"cannot reach {url}: {why}; give the server's address with --url") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise Misconfigured(f"{url} does not answer as this version of Holdfast does; correct --url") from error
    finally:
        connection.close()
    raise HoldfastError(said) if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR else Misconfigured(said)


def _connection(url: str, wait_s: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection, and what paths there begin with."""
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        where = urlsplit(url)
        if where.scheme in kinds and where.hostname:
            return kinds[where.scheme](where.hostname, where.port, timeout=wait_s), where.path.rstrip("/")
    except ValueError:
        pass
    raise Misconfigured(f"--url must be such as {HERE}, got {url}")


def _secret(key: str) -> str:
    secret, name = key, key.removeprefix("env:")
    if name != key:
        secret = os.environ.get(name, "")
        if not secret:
            raise Misconfigured(f"--key is {key}, but the variable {name} is not set")
    if not (secret.isascii() and secret.isprintable()):
        raise Misconfigured("--key must be printable ASCII text, as holdfast keys create prints it")
    return secret
