"""Servers for the suites that need real ones. Where a program is missing, one line says so."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conformance.servers import PostgresServer, RedisServer, find
else:
    from servers import PostgresServer, RedisServer, find  # pytest puts a test's folder on the path, mypy the project's


MISSING = "is not installed: what is shared through it is not tested"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    said = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    for reason, tests in said.items():
        if reason.endswith(MISSING):
            terminalreporter.write_line(f"{reason} ({tests} tests)")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    if find("redis-server") is None:
        pytest.skip(f"redis-server {MISSING}")
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.clean_up()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if find("initdb") is None or find("postgres") is None:
        pytest.skip(f"PostgreSQL {MISSING}")
    server = PostgresServer()
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.clean_up()
