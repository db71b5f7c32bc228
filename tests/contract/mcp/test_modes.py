"""The same promises over every kind of server: modern and legacy, with JSON answers and with event streams.

A modern server of the SDK that answers in JSON neither reports progress nor notices that its caller has gone: there is
no stream to report on, and nobody watches the connection. Nothing a caller does could change that.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from app.mcp.client import Progress
from app.mcp.executor import McpExecutor
from app.mcp.failure import McpFailure
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings
from app.responses.ports import McpServer
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK
from tests.support.clocks import put_forward
from tests.support.mcp_servers import Notes, Running, demo, mcp_server

MODES = {
    "modern": {"legacy": False, "json_response": False},
    "modern-json": {"legacy": False, "json_response": True},
    "legacy-json": {"legacy": True, "json_response": True},
    "legacy-sse": {"legacy": True, "json_response": False},
}


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def server(mode: str, notes: Notes) -> AsyncIterator[Running]:
    async with mcp_server(demo(notes), **MODES[mode]) as running:
        yield running


@pytest.fixture
async def executor() -> AsyncIterator[McpExecutor]:
    made = McpExecutor(McpSettings(allow_loopback=True))
    yield made
    await made.close()


def call(tool: str, call_id: str = "c1", **arguments: object) -> CallTool:
    return CallTool(call_id, "demo", tool, json.dumps(arguments))


async def test_lists_tools_in_the_servers_order_with_schema_and_annotations(
    server: Running, executor: McpExecutor
) -> None:
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        listed = await tools.list_tools("demo")
    assert listed.error is None
    assert [tool.name for tool in listed.tools] == ["add", "slow", "fails", "big", "whoami"]
    add = listed.tools[0]
    assert (add.tool, add.server_label, add.description) == ("add", "demo", "Add two numbers.")
    assert json.loads(bytes(add.parameters))["required"] == ["a", "b"]
    assert add.annotations is not None
    assert json.loads(bytes(add.annotations)) == {"readOnlyHint": True}


async def test_calls_a_tool(server: Running, executor: McpExecutor) -> None:
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        result = await tools.call(call("add", a=2, b=40))
    assert (result.call_id, result.output, result.error) == ("c1", "42", None)


async def test_a_failing_tool_is_an_execution_error_with_its_text(server: Running, executor: McpExecutor) -> None:
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        result = await tools.call(call("fails", reason="no luck"))
    assert result.error is not None
    assert result.error.kind == "mcp_tool_execution_error"
    assert "no luck" in str(result.output)
    assert "no luck" in result.error.message


async def test_parallel_calls_run_side_by_side_over_one_session(
    server: Running, executor: McpExecutor, notes: Notes
) -> None:
    notes.together = 4  # none returns before all four are there
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        results = await asyncio.gather(*(tools.call(call("slow", f"c{n}", seconds=0, name=f"n{n}")) for n in range(4)))
    assert [result.output for result in results] == [f"n{n} done" for n in range(4)]
    assert notes.most_running == 4
    assert executor.sessions == 1


async def test_a_failing_call_leaves_its_siblings(server: Running, executor: McpExecutor) -> None:
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        slow, failed, unknown = await asyncio.gather(
            tools.call(call("slow", "c1", seconds=0.3)), tools.call(call("fails", "c2")), tools.call(call("nope", "c3"))
        )
    assert (slow.output, slow.error) == ("slow done", None)
    assert failed.error is not None
    assert unknown.error is not None


async def test_cancelling_a_call_reaches_the_server_and_keeps_the_session(
    server: Running, executor: McpExecutor, notes: Notes, mode: str
) -> None:
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        await tools.list_tools("demo")
        doomed = asyncio.create_task(tools.call(call("slow", "c1", seconds=30, name="doomed")))
        sibling = asyncio.create_task(tools.call(call("slow", "c2", seconds=0.5, name="sibling")))
        async with asyncio.timeout(30):
            await notes.until(lambda: len(notes.started) == 2)
            doomed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doomed
            await notes.until(lambda: mode == "modern-json" or "doomed" in notes.cancelled)
        assert (await sibling).output == "sibling done"
        assert (await tools.call(call("add", a=1, b=1))).output == "2"
    assert notes.cancelled == ([] if mode == "modern-json" else ["doomed"])
    assert server.count("initialize") <= 1
    assert executor.sessions == 1


async def test_a_long_result_is_cut_and_says_so(server: Running) -> None:
    executor = McpExecutor(McpSettings(allow_loopback=True, max_result_bytes=1000))
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        result = await tools.call(call("big", size=5000))
    await executor.close()
    assert str(result.output).startswith("x" * 1000 + "\n[cut: the tool returned 5000 bytes")
    assert len(str(result.output)) < 1100


async def test_a_result_beyond_the_byte_cap_is_an_error_and_harms_no_sibling(server: Running) -> None:
    executor = McpExecutor(McpSettings(allow_loopback=True, max_body_bytes=100_000))
    async with executor.open("t", [McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)], None) as tools:
        huge, slow = await asyncio.gather(
            tools.call(call("big", "c1", size=500_000)), tools.call(call("slow", "c2", seconds=0.3))
        )
    await executor.close()
    assert huge.error is not None
    assert "100000 bytes" in huge.error.message
    assert slow.output == "slow done"


async def test_progress_keeps_a_slow_call_alive(server: Running, notes: Notes, mode: str) -> None:
    executor = McpExecutor(McpSettings(allow_loopback=True, call_timeout_secs=60))

    def takes_long(_: Progress) -> None:
        put_forward(25)

    named = McpServer(label="demo", url=server.url, require_approval=NEVER_ASK)
    tools = await executor.tools(Owner("t"), [named], None)
    silent = asyncio.create_task(tools.call(call("slow", "c1", seconds=3000, name="silent")))
    await notes.until(lambda: "silent" in notes.started)
    slow = asyncio.create_task(tools.answer(call("slow", "c2", seconds=0.2, steps=4), takes_long))
    if mode in {"modern", "legacy-sse"}:
        assert (await slow).text == "slow done"
    else:
        await notes.until(lambda: "slow" in notes.started)
        put_forward(60)
        with suppress(McpFailure):
            await slow
    error = (await silent).error
    assert error is not None
    assert error.code == -32001
    await executor.close()
