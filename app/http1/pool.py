"""Idle connections by origin, the most recently used first: the others grow old together and are closed.

A connection is kept for less long than servers keep theirs (uvicorn, and so vLLM and SGLang, five seconds), since one
that the server closes just as a request is written costs a second try.
"""

from __future__ import annotations

from collections import deque
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from app.http1.connection import Connection


class Origin(Struct, frozen=True):
    """Where a plain-HTTP worker listens. `authority` is what its `host` header says."""

    host: str
    port: int
    authority: str


def split(url: str) -> tuple[Origin, str]:
    """An http URL as its origin and the request target. Raises `ValueError` when it is not one."""
    parts: SplitResult = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"not an http URL: {url!r}")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    if not (target + parts.netloc).isascii() or any(character <= " " for character in target + parts.netloc):
        raise ValueError(f"not an ASCII URL: {url!r}")
    port = parts.port or 80
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Origin(parts.hostname, port, name if port == 80 else f"{name}:{port}"), target


class Pool:
    """The idle connections. `keep_secs` is how long one may be idle, `keep_most` how many an origin may have."""

    def __init__(self, keep_secs: float, keep_most: int) -> None:
        self._keep_secs = keep_secs
        self._keep_most = keep_most
        self._idle: dict[Origin, deque[Connection]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._idle.values()))

    def take(self, origin: Origin, now: float) -> Connection | None:
        """An idle connection that is fresh enough, if there is one."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        self._age(idle, now)
        return idle.pop() if idle else None

    def put(self, origin: Origin, connection: Connection, now: float) -> None:
        """Keep a free connection, or close it when there are enough."""
        idle = self._idle.setdefault(origin, deque())
        self._age(idle, now)
        if len(idle) < self._keep_most:
            idle.append(connection)
        else:
            connection.abort()

    def forget(self, origin: Origin, connection: Connection) -> None:
        """The connection closed; it need not be here."""
        idle = self._idle.get(origin)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[origin]

    def _age(self, idle: deque[Connection], now: float) -> None:
        while idle and (idle[0].closed or now - idle[0].freed_at > self._keep_secs):
            idle.popleft().abort()
