"""The demo MCP server as a process of its own."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.ports import free_port
from tests.support.processes import process


@contextmanager
def demo_mcp_server() -> Iterator[str]:
    """Start the server and wait until it listens; yields its URL."""
    port = free_port()
    with process([sys.executable, "-m", "app.simulator.demo_mcp", "--port", str(port)]) as running:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert running.poll() is None, "the demo MCP server ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise AssertionError("the demo MCP server did not come up")
        yield f"http://127.0.0.1:{port}/mcp"
