"""A worker behind TLS, reached by a process of its own: the certificates a process trusts are fixed when it starts."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.certificates import certificate
from tests.support.raw_http import STREAM_HEAD, answering, chunked, raw_server, sse

ASK = """
import asyncio, sys
from app.backends.settings import BackendSettings
from app.backends.workers import Workers
from app.turn.ids import CountedIds
from app.turn.items import Message, Text
from app.turn.request import TurnRequest

async def main():
    workers = Workers(BackendSettings(), CountedIds())
    request = TurnRequest(model="m", items=(Message("user", (Text("Hello"),)),))
    for _ in range(2):
        async for event in workers.connect(sys.argv[1], api_key="k").stream(request):
            print(event)
    await workers.close()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_is_checked(tmp_path: Path, trusted: bool) -> None:
    public, context = certificate(tmp_path)
    said = sse({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}, "[DONE]")
    async with raw_server(answering(STREAM_HEAD, chunked(said)), context) as server:
        env = {**os.environ, **({"SSL_CERT_FILE": str(public)} if trusted else {})}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK, server.url, env=env, stdout=asyncio.subprocess.PIPE, stderr=None
        )
        output, _ = await process.communicate()
        lines = output.decode().splitlines()
        if trusted:
            assert [line.partition("(")[0] for line in lines] == ["TextDelta", "ItemDone", "TurnDone"] * 2
            assert b"authorization: bearer k" in server.requests[0].lower()
        else:
            assert all("upstream_unreachable" in line and "TLS" in line for line in lines)
            assert server.requests == []
        assert len(lines) == (6 if trusted else 2)
