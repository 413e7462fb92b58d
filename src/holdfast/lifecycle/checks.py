"""
What is checked besides the store: the models, the disk, the tools, and the event loop.

No check calls a model. Whether one is reached at all is tried once, by a connection to its provider's host; after that
the circuits tell how it is, from the calls there were.
"""

import asyncio
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from holdfast.lifecycle.health import Check, Finding

_REFUSES = frozenset({"open", "forced_open"})
_PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    """
    A model that calls may go to.

    Attributes:
        name: Its name.
        url: Its provider's address; None where nothing is called.
        state: How its circuit stands now: ``closed``, ``open``, ``half_open``, ``forced_open`` or ``disabled``.
    """

    name: str
    url: str | None
    state: Callable[[], str]


def model_check(targets: Sequence[Target]) -> Check:
    """
    Whether any of ``targets`` is left: the model that is meant to answer, and then its fallbacks in order.

    Unhealthy where the circuits of all are open, degraded where the first one's is not closed, or where its provider's
    host was never reached.
    """
    main = targets[0]
    reached = main.url is None

    async def ask() -> Finding:
        nonlocal reached
        states = [target.state() for target in targets]
        if all(state in _REFUSES for state in states):
            return Finding("unhealthy", f"no model is left: {', '.join(target.name for target in targets)}")
        if states[0] not in ("closed", "disabled"):
            left = next((each.name for each, state in zip(targets, states, strict=True) if state not in _REFUSES), "")
            return Finding("degraded", f"the circuit of {main.name} is {states[0]}, {left} is asked")
        if not reached and main.url is not None:
            await _connect(main.url)
            reached = True
        return Finding("healthy", main.name)

    return Check("model", ask, on_failure="degraded")


async def _connect(url: str) -> None:
    """
    Open a connection to the host of ``url``, or to the proxy that stands before it, and close it again.

    Raises:
        OSError: nobody answers there.
    """
    where = urlsplit(url)
    proxy = getproxies().get(where.scheme)
    if proxy is not None and not proxy_bypass(where.hostname or ""):
        where = urlsplit(proxy)
    _, writer = await asyncio.open_connection(where.hostname, where.port or _PORTS.get(where.scheme, 443))
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def disk_check(folders: Iterable[Path], free_bytes: int) -> Check:
    """Whether at least ``free_bytes`` are free in each of ``folders``, or where they will be made."""
    known = tuple(dict.fromkeys(folders))
    asking: asyncio.Future[list[int]] | None = None

    def look() -> list[int]:
        return [shutil.disk_usage(_nearest(folder)).free for folder in known]

    async def ask() -> Finding:
        nonlocal asking
        if asking is None or asking.done():  # A dead network drive holds up one thread, and not one more each time.
            asking = asyncio.get_running_loop().run_in_executor(None, look)
        free, folder = min(zip(await asyncio.shield(asking), known, strict=True))
        note = f"{free:,} bytes are free in {folder}"
        if free < free_bytes:
            return Finding("degraded", f"{note}, fewer than {free_bytes:,}")
        return Finding("healthy", note)

    return Check("disk", ask, on_failure="degraded")


def _nearest(folder: Path) -> Path:
    """``folder``, or the first one above it that there is."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())


def tools_check(required: Collection[str], present: Callable[[], Collection[str]]) -> Check:
    """Whether all ``required`` tools are there."""

    async def ask() -> Finding:
        missing = sorted(set(required) - set(present()))
        if missing:
            return Finding("unhealthy", f"missing: {', '.join(missing)}")
        return Finding("healthy", f"{len(required)} required, all there")

    return Check("tools", ask, needed=True)


def loop_check(worst_s: Callable[[], float], blocked_s: float) -> Check:
    """Whether the event loop was never later than ``blocked_s`` since the last time; ``worst_s`` tells and forgets."""

    async def ask() -> Finding:
        late_s = worst_s()
        note = f"late by {late_s:.3g} s at most"
        return Finding("degraded" if late_s >= blocked_s else "healthy", note)

    return Check("event_loop", ask, on_failure="degraded")
