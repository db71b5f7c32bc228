"""The small MCP server `bench.mcp` calls, as a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.ports import free_port

SERVER = (
    "import sys\n"
    "from mcp.server.mcpserver import MCPServer\n"
    "server = MCPServer('tiny', log_level='ERROR')\n"
    "@server.tool(structured_output=False)\n"
    "async def echo(text: str) -> str:\n"
    "    return text\n"
    "server.run('streamable-http', host='127.0.0.1', port=int(sys.argv[1]), json_response=True)\n"
)


@contextmanager
def tiny() -> Iterator[str]:
    """A server with one tool; its URL."""
    port, silent = free_port(), subprocess.DEVNULL
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port)], stdout=silent, stderr=silent) as running:
        try:
            while running.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            running.terminate()
