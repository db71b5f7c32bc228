"""What authorization servers answer is not to be trusted to be JSON."""

from __future__ import annotations

import httpx2
import pytest

from app.mcp.failure import McpFailure
from app.mcp.tokens import fetch

UNREADABLE = (b"", b"nul", b"[]", b'{"a":' * 20_000, b'{"\xc3\x28":1}', b'{"a":"\xff"}')


@pytest.mark.parametrize("body", UNREADABLE)
@pytest.mark.parametrize("status", [200, 400])
async def test_what_cannot_be_read_is_a_failure_of_theirs(status: int, body: bytes) -> None:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(status, content=body))
    with pytest.raises(McpFailure) as failed:
        await fetch(transport, "https://issuer.example/token")
    assert "The authorization server answered with" in failed.value.error.message
