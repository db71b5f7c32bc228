"""The stdio transport: a child process that speaks one JSON-RPC message a line.

Its lines are bounded, which the SDK's own are not: one that is too long is thrown away while it is read, and only the
request it seems to answer is kept, so that this request fails and no other.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import anyio
from mcp import types as wire
from mcp.shared.message import SessionMessage
from msgspec import Struct

from app.mcp.confinement import USUAL, Confinement, Room, room
from app.mcp.failure import UNREADABLE

Streams: TypeAlias = tuple[Any, Any]

_CHUNK = 65_536
_GRACE_SECS = 1.0
_POLL_SECS = 0.01
# Where the JSON-RPC libraries in use put the id: right at the start, or at the very end.
_ID_AT_START = re.compile(rb'\{\s*"jsonrpc"\s*:\s*"2.0"\s*,\s*"id"\s*:\s*(\d+)')
_ID_AT_END = re.compile(rb'"id"\s*:\s*(\d+)\s*\}\s*\Z')


class TooLong(Struct, frozen=True):
    """A line of more bytes than are read. `request_id` is the request it answers, where that can be told."""

    request_id: int | None


class Pipes:
    """The process and its lines. `gone` is true once it has closed its output."""

    def __init__(self, process: Process, transport: asyncio.SubprocessTransport, max_line: int, room: Room) -> None:
        self._process = process
        self._transport = transport
        self._max_line = max_line
        self._room = room
        self.gone = False

    async def send(self, line: bytes) -> None:
        """Write a line. Raises `OSError` when the process does not read any more."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

    async def lines(self) -> AsyncIterator[bytes | TooLong]:
        """Its lines without their ends, until it closes its output."""
        assert self._process.stdout is not None
        line = bytearray()
        head: bytes | None = None
        while chunk := await self._process.stdout.read(_CHUNK):
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                line += end
                yield bytes(line) if head is None and len(line) <= self._max_line else _too_long(head, line)
                line, head = bytearray(), None
            line += rest
            if len(line) > self._max_line or head is not None:
                head = bytes(line[:256]) if head is None else head
                del line[:-256]
        self.gone = True

    async def stop(self) -> None:
        """End the process: close its input, then SIGTERM, then SIGKILL to its whole group, with a second between.

        What it started and left behind is killed in any case, and its directory removed.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL, None):
            if await self._ended() or number is None:
                break
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
        self._transport.close()
        await asyncio.to_thread(self._room.clear)

    async def _ended(self) -> bool:
        # Not `wait()`: it also waits for the pipes, which grandchildren may hold open.
        for _ in range(round(_GRACE_SECS / _POLL_SECS)):
            if self._transport.get_returncode() is not None:
                return True
            await asyncio.sleep(_POLL_SECS)
        return False


async def start(
    command: Sequence[str], env: Mapping[str, str], max_line: int, confinement: Confinement = USUAL
) -> Pipes:
    """Run exactly `command`, without a shell, in its own process group and held to `confinement`. Raises `OSError`.

    Its standard error is discarded: servers write arguments and results there.
    """
    if shutil.which(command[0], path=env.get("PATH")) is None:
        raise FileNotFoundError(command[0])
    loop = asyncio.get_running_loop()
    own = room(confinement, secrets.token_hex(16))
    try:
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(limit=_CHUNK, loop=loop),
            *confinement.command(command),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=own.environment(env),
            cwd=own.directory,
            start_new_session=True,
        )
    except BaseException:
        own.clear()
        raise
    return Pipes(Process(transport, protocol, loop), transport, max_line, own)


@asynccontextmanager
async def streams(pipes: Pipes) -> AsyncGenerator[Streams, None]:
    """The SDK's pair of streams over a child process."""
    arriving, to_read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_write, leaving = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with arriving:
            async for line in pipes.lines():
                if (message := _parsed(line)) is not None:
                    await arriving.send(message)

    async def write() -> None:
        # A process that no longer reads has hung up, even if it still runs.
        with suppress(OSError):
            async with leaving:
                async for message in leaving:
                    await pipes.send(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode())
        pipes.gone = True
        await arriving.aclose()

    async def until_closed(pump: Callable[[], Awaitable[None]]) -> None:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            await pump()

    async with arriving, to_read, to_write, leaving, anyio.create_task_group() as tasks:
        tasks.start_soon(until_closed, read)
        tasks.start_soon(until_closed, write)
        yield to_read, to_write
        tasks.cancel_scope.cancel()


def _parsed(line: bytes | TooLong) -> SessionMessage | None:
    """The message in `line`; None for what is not one, such as a stray print."""
    if isinstance(line, TooLong):
        if line.request_id is None:
            return None
        error = wire.ErrorData(code=UNREADABLE, message="the answer is longer than may be read")
        return SessionMessage(wire.JSONRPCError(jsonrpc="2.0", id=line.request_id, error=error))
    try:
        return SessionMessage(wire.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return None


def _too_long(head: bytes | None, line: bytearray) -> TooLong:
    match = _ID_AT_START.match(head if head is not None else line) or _ID_AT_END.search(line[-256:])
    return TooLong(int(match[1]) if match else None)
