"""Stores for servers that are killed. Where PostgreSQL is missing, one line says so."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conformance.servers import find
    from tests.kill.matrix import InPostgres
else:
    from matrix import InPostgres
    from servers import find


@pytest.fixture(scope="session")
def postgres() -> Iterator[InPostgres]:
    if find("initdb") is None or find("postgres") is None:
        pytest.skip("PostgreSQL is not installed: servers that share it are not killed")
    with InPostgres() as server:
        yield server
