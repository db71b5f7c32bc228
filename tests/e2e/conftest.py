"""What tests of whole processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.history.postgres_server import Server, running


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, or a skip that says why."""
    try:
        with running() as server:
            yield server
    except LookupError as reason:
        pytest.skip(str(reason))
