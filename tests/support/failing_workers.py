"""Workers as real processes that can be killed, frozen and started again, and the wire to them that can be broken."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp

from app.dialects.openai_responses.check import check_sse
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, gateway, process

# A probe a second, and two bad ones are enough: tests do not wait for a minute. Nobody asks engines for their load.
# One that is only slow is not taken for frozen.
EAGER = (
    "--health-check-interval-secs", "1", "--health-check-timeout-secs", "20",
    "--health-failure-threshold", "2", "--health-success-threshold", "1", "--worker-warmup-secs", "0",
    "--load-monitor-interval", "0",
)  # fmt: skip
# For tests in which one is.
WATCHFUL = (*EAGER, "--health-check-timeout-secs", "2")
# Machines that run tests are busy.
PATIENCE_SECS = 120


class Worker:
    """A simulated worker that can be killed, frozen and started again on the same port."""

    def __init__(self, *flags: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._flags = flags
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        self._stack = ExitStack()
        words = [SHEPHERD, "simulate", "--port", str(self.port), *self._flags]
        self.process = self._stack.enter_context(process(words, ready=f"{self.url}/health"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        self._stack.close()


async def ask(
    session: aiohttp.ClientSession, url: str, text: str, *, tokens: int = 16, begun: list[str] | None = None
) -> bytes:
    """A streamed response; all of it. Its text is added to those that have `begun`, as soon as it was told a token."""
    body = {"model": "simulated", "input": text, "stream": True, "store": False,
            "max_output_tokens": tokens, "ignore_eos": True}  # fmt: skip
    async with session.post(f"{url}/v1/responses", json=body) as answer:
        assert answer.status == 200, await answer.text()
        if begun is None:
            return await answer.read()
        told = b""
        while TOKEN not in told and not answer.content.at_eof():
            told += await answer.content.readany()
        if TOKEN in told:
            begun.append(text)
        return told + await answer.read()


async def ask_all(
    url: str,
    texts: Sequence[str],
    meanwhile: Coroutine[Any, Any, None],
    *,
    tokens: int = 16,
    begun: list[str] | None = None,
) -> list[bytes]:
    """All at once; `meanwhile` is awaited while they run. `begun` is what it may look at."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        asking = asyncio.gather(*(ask(session, url, text, tokens=tokens, begun=begun) for text in texts))
        await meanwhile
        return await asking


TOKEN = b"event: response.output_text.delta"


def fate(stream: bytes) -> str:
    """How a legal stream ended, and whether it had said anything: completed, failed, or failed early."""
    assert check_sse(stream) == []
    if b"event: response.failed" not in stream:
        return "completed"
    return "failed" if TOKEN in stream else "failed early"


# What a wire does: carries everything; resets a connection at once, when a request came over it, or after so many
# bytes of an answer.
Mode = Literal["sound", "refuses", "resets requests", "resets answers"]
_ANSWER_BYTES = 2_000


class Wire:
    """A port before another one, whose connections can be broken."""

    def __init__(self, target: int) -> None:
        self.url = ""
        self.port = 0
        self.mode: Mode = "sound"
        self.resets = 0
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset all connections there are."""
        for writer in tuple(self._open):
            _reset(writer)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        if self.mode == "refuses":
            self._broken(writer)
            return
        try:
            there, out = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._broken(writer)
            return
        self._open |= {writer, out}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, out, writer, asks=True))
                group.create_task(self._pass(there, writer, writer, asks=False))
        except* OSError:
            pass
        finally:
            self._open -= {writer, out}
            for each in (writer, out):
                each.close()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter, *, asks: bool
    ) -> None:
        passed = 0
        while data := await source.read(65536):
            breaks = self.mode == "resets requests" if asks else self.mode == "resets answers"
            is_turn = b"/v1/chat/completions" in data if asks else True
            passed += len(data)
            if breaks and is_turn and (asks or passed > _ANSWER_BYTES):
                self._broken(client)
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            with contextlib.suppress(OSError):
                sink.write_eof()

    def _broken(self, writer: asyncio.StreamWriter) -> None:
        self.resets += 1
        _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def gateway_beside(directory: Path, *flags: str) -> AsyncGenerator[str]:
    """A gateway that is started and stopped in a thread, so that the wires of this event loop go on meanwhile."""
    running = gateway(directory, *flags)
    url = await asyncio.to_thread(running.__enter__)
    try:
        yield url
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


@asynccontextmanager
async def wire(target: int) -> AsyncGenerator[Wire]:
    """A wire to the port `target`, until the end."""
    made = Wire(target)
    server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    made.url = f"http://127.0.0.1:{made.port}"
    try:
        yield made
    finally:
        server.close()
        made.cut()
