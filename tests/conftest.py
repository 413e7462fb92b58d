"""
How tests run: an ``async def`` test runs on the virtual loop, or on a real one where it is marked ``sockets``.

No test may reach a real provider: the keys are taken out of the environment, so nothing could be sent with them.
"""

import asyncio
import inspect
import os
from typing import Any

import pytest
import structlog

from holdfast.testing import VirtualLoop

REAL_TIME_LIMIT_S = 60


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sockets: runs on a real event loop, as it waits for sockets or threads")
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith(("HOLDFAST_", "ANTHROPIC_", "OPENAI_")):
            del os.environ[name]


@pytest.fixture(autouse=True)
def _no_logging_but_its_own(request: pytest.FixtureRequest) -> None:
    """A unit test finds logging as a program does that has not configured it, whatever ran before."""
    if "unit" in request.path.parts:
        structlog.reset_defaults()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    wanted: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    real = pyfuncitem.get_closest_marker("sockets") is not None

    async def bounded() -> None:
        if not real:
            await test(**wanted)
            return
        async with asyncio.timeout(REAL_TIME_LIMIT_S):
            await test(**wanted)

    with asyncio.Runner(loop_factory=asyncio.new_event_loop if real else VirtualLoop) as runner:
        runner.run(bounded())
    return True
