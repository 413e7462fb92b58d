"""What is checked besides the store."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from holdfast.lifecycle import Check, Finding, Target, disk_check, loop_check, model_check, tools_check


async def asked(check: Check) -> Finding:
    found = await check.ask()
    assert isinstance(found, Finding)
    return found


class Host:
    """A provider's host that takes connections and counts them."""

    def __init__(self) -> None:
        self.taken = 0
        self._serving: list[asyncio.Task[None] | None] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._serving.append(asyncio.current_task())
        assert await reader.read() == b""  # A connection, and no request.
        writer.close()
        await writer.wait_closed()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        for task in self._serving:
            if task is not None:
                await task


def targets(**states: str) -> list[Target]:
    def state_of(state: str) -> Callable[[], str]:
        return lambda: state

    return [Target(name, None, state_of(state)) for name, state in states.items()]


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ({"main": "closed"}, ("healthy", "main")),
        ({"main": "disabled", "other": "open"}, ("healthy", "main")),
        ({"main": "closed", "other": "open"}, ("healthy", "main")),
        ({"main": "open", "other": "closed"}, ("degraded", "the circuit of main is open, other is asked")),
        ({"main": "open", "a": "forced_open", "b": "closed"}, ("degraded", "the circuit of main is open, b is asked")),
        ({"main": "half_open"}, ("degraded", "the circuit of main is half_open, main is asked")),
        ({"main": "open", "other": "half_open"}, ("degraded", "the circuit of main is open, other is asked")),
        ({"main": "open"}, ("unhealthy", "no model is left: main")),
        ({"main": "forced_open", "other": "open"}, ("unhealthy", "no model is left: main, other")),
    ],
)
async def test_a_model_is_missed_only_where_no_other_is_left(states: dict[str, str], found: tuple[str, str]) -> None:
    check = model_check(targets(**states))
    assert tuple(await asked(check)) == found
    assert (check.on_failure, check.needed) == ("degraded", False)


@pytest.mark.sockets
async def test_a_provider_is_connected_to_until_it_was_reached_once() -> None:
    async with Host() as host:
        check = model_check([Target("main", host.url, lambda: "closed")])
        for _ in range(3):
            assert await asked(check) == Finding("healthy", "main")
    assert host.taken == 1
    assert await asked(check) == Finding("healthy", "main")
    with pytest.raises(OSError, match=r"refused|failed"):
        await model_check([Target("main", host.url, lambda: "closed")]).ask()


@pytest.mark.sockets
async def test_behind_a_proxy_it_is_the_proxy_that_is_to_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with Host() as proxy, Host() as host:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        found = await asked(model_check([Target("main", "http://provider.example/v1", lambda: "closed")]))
        assert found == Finding("healthy", "main")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await asked(model_check([Target("main", host.url, lambda: "closed")])) == Finding("healthy", "main")
    assert (proxy.taken, host.taken) == (1, 1)


@pytest.mark.sockets
async def test_a_disk_that_is_nearly_full_is_degraded(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check = disk_check([tmp_path / "not" / "yet", tmp_path], 1)
    assert (await asked(check)).state == "healthy"
    assert check.on_failure == "degraded"
    found = await asked(disk_check([tmp_path / "not" / "yet", tmp_path], 2 * free))
    assert found.state == "degraded"
    assert found.note.endswith(f"fewer than {2 * free:,}")
    assert str(tmp_path) in found.note


@pytest.mark.sockets
async def test_a_disk_that_does_not_answer_holds_up_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    loop, back = asyncio.get_running_loop(), asyncio.Event()
    usage = shutil.disk_usage

    def hangs(path: Path) -> object:
        looks.append(str(path))
        asyncio.run_coroutine_threadsafe(back.wait(), loop).result()
        return usage(path)

    monkeypatch.setattr(shutil, "disk_usage", hangs)
    check = disk_check([tmp_path], 1)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await check.ask()
    assert len(looks) == 1
    back.set()
    assert (await asked(check)).state == "healthy"


async def test_tools_that_are_required_are_looked_for_by_name() -> None:
    present = {"calculate", "read_file"}
    check = tools_check(("read_file", "search", "book"), lambda: present)
    assert await asked(check) == Finding("unhealthy", "missing: book, search")
    assert check.needed
    present |= {"search", "book"}
    assert await asked(check) == Finding("healthy", "3 required, all there")


@pytest.mark.parametrize(("late_s", "state"), [(0.999, "healthy"), (1.0, "degraded"), (7, "degraded")])
async def test_a_loop_that_was_held_up_is_degraded(late_s: float, state: str) -> None:
    check = loop_check(lambda: late_s, 1.0)
    assert await asked(check) == Finding(
        "healthy" if state == "healthy" else "degraded", f"late by {late_s:.3g} s at most"
    )
    assert check.on_failure == "degraded"
