"""One HTTP exchange with a worker, as little of it as model traffic needs: the port both clients implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

# How an exchange breaks. `unreachable`, `connect_timeout`: the worker never saw the request. `disconnected`: the
# connection closed before a byte of the answer. `cut`: it closed in the middle. `nonsense`: what came is not HTTP, or
# breaks a limit. The timeouts: until the first byte of the body, between two reads, and for everything together.
Breakage: TypeAlias = Literal[
    "unreachable",
    "connect_timeout",
    "disconnected",
    "cut",
    "nonsense",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
]


class TransportError(Exception):
    """The exchange broke. The message names no hosts: it may reach a client."""

    def __init__(self, kind: Breakage, message: str) -> None:
        super().__init__(message)
        self.kind: Breakage = kind
        self.message = message


class Timeouts(Struct, frozen=True, kw_only=True):
    """In seconds. `total` is for the whole exchange, from connecting to the last byte."""

    connect: float
    first_byte: float
    idle: float
    total: float

    @property
    def connect_over(self) -> str:
        """What is said when there was no connection in time."""
        return f"The worker did not accept a connection in {self.connect:g} seconds."

    @property
    def total_over(self) -> str:
        """What is said when the whole exchange took too long."""
        return f"The worker took longer than {self.total:g} seconds."


class Call(Struct, frozen=True, kw_only=True):
    """A request. `url` is absolute; `headers` are beside `host` and `content-length`, names in lower case."""

    method: Literal["GET", "POST"]
    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    timeouts: Timeouts


class Answer(Protocol):
    """A response whose head has come. Whoever holds it ends with `release`, whatever happens before."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case; of a name that comes twice the last."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the body, as many as are there; empty at its end. Raises `TransportError`.

        Nothing more is read from the worker than is asked for, but for a small buffer.
        """
        ...

    async def hear(self, take: Callable[[bytes], bool]) -> None:
        """Give the bytes of the body to `take` as they come, until it returns False or was told of the end, which is
        no bytes. Raises `TransportError`, and what `take` raises."""
        ...

    def release(self, *, ending: bool = False) -> None:
        """No more is wanted. A body that is over leaves the connection for the next exchange; any other is aborted at
        the worker, unless it is `ending`: then it is given a moment to do so. Releasing again does nothing."""
        ...


class Transport(Protocol):
    """Makes exchanges. Cancelling `send` or releasing an answer early aborts the exchange at the worker."""

    async def send(self, call: Call) -> Answer:
        """Send the request and await the head of the response. Raises `TransportError`."""
        ...

    async def close(self) -> None:
        """Abort everything."""
        ...


async def read_all(answer: Answer, limit: int) -> bytes:
    """The rest of the body. Raises `TransportError`, also when it is larger than `limit` bytes."""
    pieces: list[bytes] = []
    size = 0
    while piece := await answer.read():
        size += len(piece)
        if size > limit:
            raise TransportError("nonsense", f"The worker's answer is larger than {limit} bytes.")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
