"""Clients from npm against a real gateway: plain and streamed, with a tool. Needs node; run by `make test-clients`."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

JS = Path(__file__).parents[2] / "js"
# The newest clients want a newer node than many machines have; it comes with them.
OURS = JS / "node_modules" / "node" / "bin" / "node"
NODE = str(OURS) if OURS.exists() else shutil.which("node")

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
]


@pytest.mark.parametrize("client", ["openai", "ai-sdk-openai", "ai-sdk-open-responses"])
async def test_a_client_calls_its_tool_and_reads_the_answer(shepherd: str, client: str) -> None:
    assert NODE is not None
    running = await asyncio.create_subprocess_exec(
        NODE,
        str(JS / "ask.mjs"),
        client,
        f"{shepherd}/v1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        told, complaints = await running.communicate()
    assert running.returncode == 0, complaints.decode()
    answer = json.loads(told)
    assert {"field": "north"} in answer["calls"]
    assert "seventeen sheep" in answer["text"]
    assert "seventeen sheep" in answer["whole"]
