"""The TypeScript SDK's reference server, over streamable HTTP, behind a real gateway: nobody here wrote it.

It keeps sessions, answers in event streams, reports progress, and forgets its sessions when it restarts, which it says
in a way of its own. Needs node: run by `make test-clients`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from app.mcp.client import Progress
from app.mcp.executor import McpExecutor
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings
from app.responses.ports import McpServer
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK
from tests.support.clocks import put_forward
from tests.support.ports import free_port
from tests.support.processes import gateway, simulator

JS = Path(__file__).parents[2] / "js"
SERVER = JS / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(not SERVER.exists(), reason="server-everything is not installed: make test-clients does it"),
]


@contextmanager
def everything(port: int) -> Iterator[str]:
    """The server on a loopback port; its URL."""
    command = [str(NODE), "--require", str(JS / "loopback.cjs"), str(SERVER), "streamableHttp"]
    environment = {**os.environ, "PORT": str(port)}
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=silent, stderr=silent) as running:
        try:
            _wait_for(port, running)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            running.kill()


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert running.poll() is None, "the server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not come up")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server; its URL."""
    with everything(free_port()) as url:
        yield url


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """The openai SDK, in front of a gateway that knows `mcp-server-time` by its label."""
    directory = tmp_path_factory.mktemp("everything")
    config = directory / "shepherd.json.yaml"
    command = [str(Path(sys.executable).parent / "mcp-server-time"), "--local-timezone", "UTC"]
    config.write_text(json.dumps({"mcp": {"servers": [{"label": "time", "command": command}]}}))
    with (
        simulator() as worker,
        gateway(directory, "--worker-urls", worker, "--config", str(config)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def tool(url: str, **extra: Any) -> dict[str, Any]:
    return {"type": "mcp", "server_label": "everything", "server_url": url, "require_approval": "never", **extra}


TIME = {"type": "mcp", "server_label": "time", "require_approval": "never"}


def calls(response: Any) -> dict[str, Any]:
    """The MCP calls of a response, by tool."""
    return {item.name: item for item in response.output if item.type == "mcp_call"}


@pytest.mark.parametrize("stream", [False, True])
def test_one_response_uses_two_servers_nobody_here_wrote(client: openai.OpenAI, server: str, stream: bool) -> None:
    text = 'get-sum {"a": 2, "b": 40} and get_current_time {"timezone": "UTC"} and echo {"message": "baa"}'
    asked: Any = {"model": "simulated", "input": text, "tools": [tool(server), TIME]}
    if stream:
        with client.responses.stream(**asked) as events:
            response = events.get_final_response()
    else:
        response = client.responses.create(**asked)
    assert response.status == "completed"
    kinds = [item.type for item in response.output]
    assert sorted(kinds[:2]) == ["mcp_list_tools", "mcp_list_tools"]
    assert kinds[2:] == ["mcp_call", "mcp_call", "mcp_call", "message"]
    made = calls(response)
    assert made["get-sum"].server_label == "everything"
    assert "42" in made["get-sum"].output
    assert "baa" in made["echo"].output
    assert made["get_current_time"].server_label == "time"
    assert "UTC" in made["get_current_time"].output
    assert "42" in response.output_text


def test_what_is_no_text_is_told_as_text(client: openai.OpenAI, server: str) -> None:
    text = 'get-tiny-image {} get-structured-content {"location": "Chicago"} get-resource-links {"count": 2}'
    response = client.responses.create(model="simulated", input=text, tools=[tool(server)])
    made = calls(response)
    assert all(call.error is None for call in made.values())
    assert '"mime_type":"image/png"' in made["get-tiny-image"].output
    assert "temperature" in made["get-structured-content"].output
    assert made["get-resource-links"].output.count("resource_link") == 2


def test_wrong_arguments_are_the_calls_failure(client: openai.OpenAI, server: str) -> None:
    response = client.responses.create(model="simulated", input='get-sum {"a": "two"}', tools=[tool(server)])
    (call,) = calls(response).values()
    assert call.status == "failed"
    assert call.error is not None
    assert response.status == "completed"


async def test_progress_keeps_a_long_call_alive(server: str) -> None:
    executor = McpExecutor(McpSettings(allow_loopback=True, call_timeout_secs=60))
    reports = 0

    def takes_long(_: Progress) -> None:
        nonlocal reports
        reports += 1
        put_forward(25)

    named = McpServer(label="e", url=server, require_approval=NEVER_ASK)
    tools = await executor.tools(Owner("t"), [named], None)
    slow = CallTool("c1", "e", "trigger-long-running-operation", '{"duration": 2, "steps": 8}')
    silent = CallTool("c2", "e", "trigger-long-running-operation", '{"duration": 200, "steps": 1}')
    alive = await tools.answer(slow, takes_long)
    assert reports > 60 / 25
    assert "2 seconds" in alive.text
    dying = asyncio.create_task(tools.call(silent))
    await asyncio.wait([dying], timeout=1)
    put_forward(60)
    dead = await dying
    await executor.close()
    assert dead.error is not None
    assert dead.error.code == -32001


def test_a_server_that_restarted_is_asked_over_a_new_session(client: openai.OpenAI) -> None:
    port = free_port()
    with everything(port) as url:
        start = client.responses.create(model="simulated", input="Hello", tools=[tool(url)])
        asked: Any = {
            "model": "simulated",
            "input": 'get-sum {"a": 20, "b": 22}',
            "tools": [tool(url)],
            "previous_response_id": start.id,
        }
        before = client.responses.create(**asked)
    # The same place in the conversation, so the same session; the listing is in the context, so the call comes first.
    with everything(port):
        after = client.responses.create(**asked)
    for response in (before, after):
        assert [item.type for item in response.output] == ["mcp_call", "message"]
        assert calls(response)["get-sum"].error is None
        assert "42" in calls(response)["get-sum"].output


def test_a_server_that_is_gone_is_visible(client: openai.OpenAI) -> None:
    with everything(free_port()) as url:
        first = client.responses.create(model="simulated", input="Hello", tools=[tool(url)])
    second = client.responses.create(
        model="simulated", input='echo {"message": "x"}', tools=[tool(url)], previous_response_id=first.id
    )
    call = calls(second)["echo"]
    assert call.status == "failed"
    assert call.error is not None
    assert second.output[-1].type == "message"
