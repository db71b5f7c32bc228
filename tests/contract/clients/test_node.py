"""Clients from npm against a real gateway: tools, approvals, broken streams. Needs node; run by `make test-clients`."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.e2e.crashing import await_port
from tests.support.ports import free_port
from tests.support.processes import ROOT, gateway, process, simulator

JS = Path(__file__).parents[2] / "js"
# The newest clients want a newer node than many machines have; it comes with them.
OURS = JS / "node_modules" / "node" / "bin" / "node"
NODE = str(OURS) if OURS.exists() else shutil.which("node")
ASKING = ["openai", "openai-streamed", "ai-sdk-openai", "ai-sdk-openai-streamed"]

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
]


class Till(Struct, frozen=True):
    """An MCP server that charges, and where it writes down each charge."""

    url: str
    ledger: Path

    def charges(self) -> list[int]:
        """The numbers that were charged, in order."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [json.loads(line)["number"] for line in lines]


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    ledger, port = tmp_path / "ledger", free_port()
    command = [sys.executable, "-m", "tests.support.effects_server", "--port", str(port), "--ledger", str(ledger)]
    with process(command, cwd=ROOT) as running:
        await_port(port, running)
        yield Till(f"http://127.0.0.1:{port}/mcp", ledger)


async def told(script: str, *words: str) -> Any:
    """What a script of `tests/js` prints."""
    assert NODE is not None
    running = await asyncio.create_subprocess_exec(
        NODE, str(JS / script), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(180):
            said, complaints = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
    assert running.returncode == 0, complaints.decode()
    return json.loads(said)


@pytest.mark.parametrize("client", ["openai", "ai-sdk-openai", "ai-sdk-open-responses"])
async def test_a_client_calls_its_tool_and_reads_the_answer(shepherd: str, client: str) -> None:
    answer = await told("ask.mjs", client, f"{shepherd}/v1")
    assert {"field": "north"} in answer["calls"]
    assert "seventeen sheep" in answer["text"]
    assert "seventeen sheep" in answer["whole"]


@pytest.mark.parametrize("client", ASKING)
async def test_what_is_approved_is_called_once(shepherd: str, till: Till, client: str) -> None:
    answer = await told("approve.mjs", client, f"{shepherd}/v1", till.url, "yes")
    assert till.charges() == [7]
    [(name, arguments)] = answer["asked"]
    assert name.endswith("charge")
    assert (json.loads(arguments) if isinstance(arguments, str) else arguments) == {"number": 7}
    [(called, output, of_this_request)] = answer["calls"]
    assert (called, output, of_this_request) == (name, "charged 7", True)
    assert "charged 7" in answer["text"]


@pytest.mark.parametrize("client", ASKING)
async def test_what_is_denied_is_not_called(shepherd: str, till: Till, client: str) -> None:
    answer = await told("approve.mjs", client, f"{shepherd}/v1", till.url, "no")
    assert till.charges() == []
    assert len(answer["asked"]) == 1
    assert answer["calls"] == []
    assert answer["text"]
    assert "charged" not in answer["text"]


@pytest.mark.parametrize("decision", ["yes", "no"])
@pytest.mark.parametrize("client", ["openai", "openai-streamed"])
async def test_a_decision_is_used_up(shepherd: str, till: Till, client: str, decision: str) -> None:
    answer = await told("approve.mjs", client, f"{shepherd}/v1", till.url, decision)
    assert answer["again"] == {
        "status": 400,
        "code": "approval_already_used",
        "param": "input[0].approval_request_id",
    }
    assert till.charges() == ([7] if decision == "yes" else [])


@pytest.mark.parametrize("way", ["retrieve", "stream"])
async def test_a_stream_that_breaks_is_resumed(tmp_path: Path, way: str) -> None:
    with (
        simulator("--models", "simulated", "--token-ms", "20") as worker,
        gateway(tmp_path, "--worker-urls", worker) as url,
    ):
        answer = await told("resume.mjs", f"{url}/v1", way)
    seen, whole = answer["seen"], answer["whole"]
    assert answer["pieces"] > 5
    assert answer["rest"] == []
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert [numbered(event) for event in seen] == [numbered(event) for event in whole]
    said = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
    assert answer["status"] == "completed"
    assert len(said.split()) == 60
    assert said == answer["text"]


def numbered(event: dict[str, Any]) -> tuple[int, str, str | None]:
    """What tells an event from all others of its response."""
    return event["sequence_number"], event["type"], event.get("delta")
