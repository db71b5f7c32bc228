"""A child process that speaks lines: bounded, ended with all its children, and unharmed by what it prints."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.mcp import stdio
from app.mcp.confinement import USUAL, Confinement
from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings, OperatorServer
from app.responses.ports import McpServer
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK
from tests.support.waiting import eventually

SERVER = r"""
import json, os, sys
def say(value): print(json.dumps(value), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"jsonrpc": "2.0", "id": asked["id"]}
    if asked["method"] == "initialize":
        print("a stray print", flush=True)
        say({**answer, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
             "serverInfo": {"name": "lines", "version": "1"}}})
    elif asked["method"] == "tools/list":
        say({**answer, "result": {"tools": [{"name": "do", "inputSchema": {"type": "object"}}]}})
    elif asked["method"] == "tools/call":
        what = asked["params"]["arguments"]["what"]
        if what == "die":
            os._exit(3)
        text = "x" * 300_000 if what == "flood" else json.dumps(sorted(os.environ)) if what == "env" else what
        say({**answer, "result": {"content": [{"type": "text", "text": text}]}})
    else:
        say({**answer, "error": {"code": -32601, "message": "no such method"}})
"""


@asynccontextmanager
async def piped(code: str, max_line: int = 1000) -> AsyncIterator[stdio.Pipes]:
    pipes = await stdio.start([sys.executable, "-c", code], dict(os.environ), max_line)
    try:
        yield pipes
    finally:
        await pipes.stop()


async def read(pipes: stdio.Pipes) -> list[bytes | stdio.TooLong]:
    async with asyncio.timeout(60):
        return [line async for line in pipes.lines()]


async def test_lines_come_whole_however_they_are_written() -> None:
    code = "import sys\nfor c in 'one\\ntwo\\n\\nthree\\n': sys.stdout.write(c); sys.stdout.flush()\n"
    async with piped(code) as pipes:
        assert await read(pipes) == [b"one", b"two", b"", b"three"]
        assert pipes.gone


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        ('{"jsonrpc":"2.0","id":7,"result":"%s"}', 7),
        ('{"result":"%s","jsonrpc":"2.0","id":8}', 8),
        ('{"result":"%s"}', None),
    ],
)
async def test_a_line_that_is_too_long_is_dropped_and_its_request_known(line: str, request_id: int | None) -> None:
    code = f"print({line!r} % ('x' * 500_000)); print('next')"
    async with piped(code) as pipes:
        assert await read(pipes) == [stdio.TooLong(request_id), b"next"]


async def test_a_line_without_an_end_takes_no_memory() -> None:
    code = "import sys\nfor _ in range(400): sys.stdout.write('x' * 65536)\n"
    async with piped(code) as pipes:
        assert await read(pipes) == []


async def test_stopping_ends_a_process_that_will_not_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio, "_GRACE_SECS", 0.2)
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    pipes = await stdio.start([sys.executable, "-c", code], dict(os.environ), 1000)
    line = await anext(aiter(pipes.lines()))
    assert isinstance(line, bytes)
    began = time.monotonic()
    await pipes.stop()
    assert time.monotonic() - began < 30
    child = int(line)
    await eventually(lambda: not _runs(child))


async def _said(code: str, confinement: Confinement = USUAL, env: Mapping[str, str] | None = None) -> Any:
    """What a server that prints one line of JSON says."""
    pipes = await stdio.start([sys.executable, "-c", code], env or {}, 100_000, confinement)
    try:
        line = await anext(aiter(pipes.lines()))
    finally:
        await pipes.stop()
    assert isinstance(line, bytes)
    return json.loads(line)


@pytest.mark.parametrize("daemon", [False, True])
async def test_what_a_server_leaves_behind_when_it_goes_by_itself_is_ended(daemon: bool) -> None:
    """Also what has a session of its own, and no parent any more."""
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session={daemon})\n"
        "print(child.pid, flush=True)\n"
    )
    child = await _said(code)
    await eventually(lambda: not _runs(child))


async def test_a_server_sees_none_of_our_environment_and_files() -> None:
    os.environ["SHEPHERD_TEST_SECRET"] = "sentinel"
    here, there = os.pipe()
    os.set_inheritable(there, True)
    code = (
        "import json, os\n"
        "print(json.dumps([dict(os.environ), sorted(int(fd) for fd in os.listdir('/proc/self/fd'))]), flush=True)\n"
    )
    try:
        env, files = await _said(code, env={"GIVEN": "1"})
    finally:
        del os.environ["SHEPHERD_TEST_SECRET"]
        os.close(here)
        os.close(there)
    assert sorted(env.keys() - {"LC_CTYPE"}) == ["GIVEN", "MCP_SERVER_RUN", "TMPDIR"]
    # Three of its own, and the one it looks at the others with.
    assert files == [0, 1, 2, 3]


async def test_a_server_has_a_directory_of_its_own_that_is_removed() -> None:
    code = (
        "import json, os, tempfile\n"
        "open('left', 'w').close(); tempfile.mkstemp()\n"
        "print(json.dumps([os.getcwd(), tempfile.gettempdir(), os.stat('.').st_mode & 0o777]), flush=True)\n"
    )
    one, temporary, mode = await _said(code)
    other, _, _ = await _said(code)
    assert one == temporary
    assert one != other
    assert mode == 0o700
    assert not os.path.exists(one)  # noqa: ASYNC240, PTH110


async def test_a_directory_that_the_operator_names_stays(tmp_path: Path) -> None:
    code = "import json, os; print(json.dumps(os.getcwd()), flush=True)"
    assert await _said(code, Confinement(directory=str(tmp_path))) == os.path.realpath(tmp_path)  # noqa: ASYNC240
    assert os.path.exists(tmp_path)  # noqa: ASYNC240, PTH110


@pytest.mark.skipif(sys.platform != "linux", reason="what the kernel says is read from /proc")
async def test_limits_hold_for_what_a_server_starts_too() -> None:
    code = (
        "import json, resource as r, subprocess, sys\n"
        "ask = 'import json, resource as r; print(json.dumps([r.getrlimit(n)[1] for n in (r.RLIMIT_AS, r.RLIMIT_CPU,'"
        " 'r.RLIMIT_NOFILE, r.RLIMIT_NPROC, r.RLIMIT_FSIZE, r.RLIMIT_CORE)]))'\n"
        "print(subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True).stdout, flush=True)\n"
    )
    most = Confinement(memory_bytes=2**30, cpu_secs=9, open_files=64, processes=4000, file_bytes=2**20)
    assert await _said(code, most) == [2**30, 9, 64, 4000, 2**20, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="what the kernel says is read from /proc")
@pytest.mark.parametrize(("allowed", "told"), [(False, "1"), (True, "0")])
async def test_a_server_gains_no_privileges_by_what_it_starts(allowed: bool, told: str) -> None:
    code = (
        "import json\n"
        "said = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "print(json.dumps(said['NoNewPrivs'].strip()), flush=True)\n"
    )
    assert await _said(code, Confinement(new_privileges=allowed)) == told


@pytest.mark.skipif(sys.platform != "linux", reason="a thing of Linux")
async def test_a_server_does_not_outlive_a_gateway_that_is_killed() -> None:
    gateway = (
        "import asyncio, os, sys\n"
        "from app.mcp import stdio\n"
        "async def main():\n"
        "    code = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "    pipes = await stdio.start([sys.executable, '-c', code], {}, 1000)\n"
        "    print((await anext(aiter(pipes.lines()))).decode(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    started = await asyncio.create_subprocess_exec(sys.executable, "-c", gateway, stdout=asyncio.subprocess.PIPE)
    said, _ = await started.communicate()
    await eventually(lambda: not _runs(int(said)))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


# ── through the executor ──────────────────────────────────────────────────────


@asynccontextmanager
async def executor(**settings: object) -> AsyncIterator[McpExecutor]:
    lines = OperatorServer(label="lines", command=(sys.executable, "-c", SERVER))
    made = McpExecutor(McpSettings(servers=(lines,), **settings))
    try:
        yield made
    finally:
        await made.close()


def do(what: str, call_id: str = "c1") -> CallTool:
    return CallTool(call_id, "lines", "do", f'{{"what":"{what}"}}')


async def test_a_server_on_pipes_answers() -> None:
    async with (
        executor() as made,
        made.open("t", [McpServer(label="lines", require_approval=NEVER_ASK)], None) as tools,
    ):
        assert [tool.name for tool in (await tools.list_tools("lines")).tools] == ["do"]
        assert (await tools.call(do("hello"))).output == "hello"


async def test_it_inherits_no_secrets_from_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEPHERD_TEST_SECRET", "hush")
    async with (
        executor() as made,
        made.open("t", [McpServer(label="lines", require_approval=NEVER_ASK)], None) as tools,
    ):
        names = str((await tools.call(do("env"))).output)
    assert "PATH" in names
    assert "SHEPHERD_TEST_SECRET" not in names


async def test_a_flood_fails_its_call_and_no_other() -> None:
    async with (
        executor(max_body_bytes=100_000) as made,
        made.open("t", [McpServer(label="lines", require_approval=NEVER_ASK)], None) as tools,
    ):
        flood, calm = await asyncio.gather(tools.call(do("flood")), tools.call(do("calm", "c2")))
        assert flood.error is not None
        assert "longer than may be read" in flood.error.message
        assert calm.output == "calm"
        assert made.sessions == 1


async def test_a_process_that_dies_is_started_again_for_the_next_call() -> None:
    async with (
        executor() as made,
        made.open("t", [McpServer(label="lines", require_approval=NEVER_ASK)], None) as tools,
    ):
        died = await tools.call(do("die"))
        assert died.error is not None
        assert (await tools.call(do("again", "c2"))).output == "again"


async def test_a_command_that_is_not_there_is_an_error_of_the_listing() -> None:
    made = McpExecutor(McpSettings(servers=(OperatorServer(label="lines", command=("/no/such/program",)),)))
    async with made.open("t", [McpServer(label="lines", require_approval=NEVER_ASK)], None) as tools:
        listed = await tools.list_tools("lines")
    await made.close()
    assert listed.error is not None
    assert "could not be started" in listed.error.message
    assert "/no/such" not in listed.error.message


async def test_the_operators_wrapper_starts_every_command() -> None:
    wrapper = ("/usr/bin/env", "WRAPPED=yes")
    servers = [McpServer(label="lines", require_approval=NEVER_ASK)]
    async with executor(stdio_wrapper=wrapper) as made, made.open("t", servers, None) as tools:
        result = await tools.call(CallTool("c", "lines", "do", '{"what": "env"}'))
    assert "WRAPPED" in str(result.output)
