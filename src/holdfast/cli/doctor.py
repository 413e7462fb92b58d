"""``holdfast doctor``: what would keep the server from working, and what to do about it."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape

from holdfast.cli.run import ConfigPath, run, settings
from holdfast.config import Loaded, Settings
from holdfast.errors import HoldfastError, Misconfigured
from holdfast.runtime import Holdfast
from holdfast.server.listen import check_tls, listen, only_here
from holdfast.store import open_store

CONNECT_S = 3.0


class Finding(NamedTuple):
    """One check: what was looked at, what was found, and what to do about it where something is wrong."""

    name: str
    found: str
    fix: str = ""


def doctor(config: ConfigPath = None) -> None:
    """Check settings, store, ports and model, and say how to fix what is wrong. Never calls a paid model."""
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    wrong = 0
    for finding in _look(lambda: settings(config, os.environ)):
        mark = "[red]✗[/red]" if finding.fix else "[green]✓[/green]"
        console.print(f"{mark} {finding.name:<9} {escape(finding.found)}")
        if finding.fix:
            wrong += 1
            console.print(f"  {'fix:':<9} {escape(finding.fix)}")
    console.print("all is well" if not wrong else f"{wrong} to fix")
    if wrong:
        raise typer.Exit(1)


def _look(read: Callable[[], Loaded]) -> Iterator[Finding]:
    yield Finding("python", sys.version.split()[0])
    try:
        loaded = read()
    except Misconfigured as error:
        yield Finding("settings", "they are not right", error.detail)
        return
    spec = loaded.settings
    yield Finding("settings", str(loaded.file or "defaults"))
    keys: int | None = None
    try:
        keys = run(_count_keys(spec))
        yield Finding("store", spec.store.shown)
    except HoldfastError as error:
        yield Finding("store", "it cannot be used", error.detail)
    yield _port("port", spec.server.host, spec.server.port, "server.", keys)
    if spec.telemetry.metrics_port:
        yield _port("metrics", spec.telemetry.metrics_host, spec.telemetry.metrics_port, "telemetry.metrics_", keys)
    if spec.server.tls_cert is not None:
        yield _tls(spec)
    yield _model(spec)
    yield _root(spec)


async def _count_keys(spec: Settings) -> int:
    store = open_store(spec.store)
    await store.open()
    try:
        return len(await store.keys())
    finally:
        await store.close()


def _port(name: str, host: str, port: int, key: str, api_keys: int | None) -> Finding:
    """What ``serve`` would find. ``api_keys`` is None where they cannot be counted, which is a finding of its own."""
    try:
        with listen(host, port, key) as probe:
            if api_keys == 0 and not only_here(probe):
                found = f"{host} can be reached from other machines, and there are no API keys"
                return Finding(name, found, f"create one (holdfast keys create), or set {key}host to 127.0.0.1")
    except Misconfigured as error:
        found, _, fix = error.detail.partition("; ")
        return Finding(name, found, fix)
    return Finding(name, f"{host}:{port} is free" if port else f"any free one on {host}")


def _tls(spec: Settings) -> Finding:
    try:
        check_tls(spec.server)
    except Misconfigured as error:
        return Finding("tls", "the certificate cannot be used", error.detail)
    return Finding("tls", str(spec.server.tls_cert))


def _model(spec: Settings) -> Finding:
    try:
        model = Holdfast(spec).model
    except Misconfigured as error:
        what = "model" if error.detail.startswith("llm.") else "agents"
        return Finding(what, "not to be had", error.detail)
    if spec.llm.base_url is None:
        return Finding("model", f"{model} (not called)")
    try:
        where = urlsplit(spec.llm.base_url)
        port = where.port or (443 if where.scheme == "https" else 80)
        socket.create_connection((where.hostname or "", port), CONNECT_S).close()
    except (OSError, ValueError) as error:
        said = (getattr(error, "strerror", None) or str(error)).lower()
        return Finding("model", f"{spec.llm.base_url}: {said}", "start the model server there, or correct llm.base_url")
    return Finding("model", f"{model} at {spec.llm.base_url} (reachable, not called)")


def _root(spec: Settings) -> Finding:
    root = spec.tools.root.absolute()
    if not root.is_dir():
        return Finding("files", f"{root} is no folder", "make it, or set tools.root to the folder file tools may read")
    return Finding("files", f"tools see {root}")
