"""Everything here runs on both event loops: uvloop, the gateway's, and asyncio's, which differ in what they forgive."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}
