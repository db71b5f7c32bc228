"""What every test shares: one async backend."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncio is what the server runs on."""
    return "asyncio"
