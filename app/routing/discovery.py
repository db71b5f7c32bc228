"""Workers that are found rather than named: sources say which there are, and the fleet is made to agree.

A source is asked again and again. One that cannot answer changes nothing: a fleet that is not sure of its workers keeps
them. A worker that is gone from a source is drained first, and forgotten when its turns are over or after a grace.
Workers that were named in the settings or added by hand are left alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from app.routing.registry import Worker
from app.turn.errors import GatewayError

_log = logging.getLogger(__name__)


class Found(Struct, frozen=True, forbid_unknown_fields=True):
    """A worker as a source tells of it: its base URL, and what else may be known."""

    url: str
    api_key: str | None = None
    kv_events: str | None = None

    def __repr__(self) -> str:
        return f"Found(url={self.url!r})"


class SourceFailed(Exception):
    """The source does not say which workers there are."""


# Raises `SourceFailed`.
WorkerSource: TypeAlias = Callable[[], Awaitable[Sequence[Found]]]


class Roster(Protocol):
    """The fleet as discovery changes it."""

    async def add(self, url: str, *, api_key: str | None = None, kv_events: str | None = None) -> Worker: ...

    def drain(self, worker_id: str) -> Worker: ...

    def update(self, worker_id: str, *, draining: bool | None = None, api_key: str | None = None) -> Worker: ...

    def remove(self, worker_id: str) -> Worker: ...

    def inflight(self, worker_id: str) -> int: ...


class Discovery:
    """Makes `roster` agree with `source` every `interval_secs`, and whenever `changed` is set, which is cleared.

    `now` is a clock in seconds.
    """

    def __init__(
        self,
        source: WorkerSource,
        roster: Roster,
        now: Callable[[], float],
        *,
        interval_secs: float,
        grace_secs: float,
        changed: asyncio.Event | None = None,
    ) -> None:
        self._source = source
        self._roster = roster
        self._now = now
        self._interval_secs = interval_secs
        self._grace_secs = grace_secs
        self._changed = changed or asyncio.Event()
        self._known: set[str] = set()
        self._leaving: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._changed.clear()
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_secs):
                    await self._changed.wait()

    async def look(self) -> None:
        """Ask the source once, and do what follows."""
        try:
            wanted = {found.url.rstrip("/"): found for found in await self._source()}
        except SourceFailed as error:
            _log.warning("the workers stay as they are: %s", error)
            return
        await asyncio.gather(*(self._come(worker_id, wanted[worker_id]) for worker_id in wanted.keys() - self._known))
        for worker_id in wanted.keys() & self._leaving.keys():
            self._stay(worker_id)
        for worker_id in self._known - wanted.keys() - self._leaving.keys():
            self._go(worker_id)
        for worker_id, since in list(self._leaving.items()):
            if not self._roster.inflight(worker_id) or self._now() - since >= self._grace_secs:
                self._forget(worker_id)

    async def _come(self, worker_id: str, found: Found) -> None:
        try:
            await self._roster.add(found.url, api_key=found.api_key, kv_events=found.kv_events)
        except GatewayError as error:
            _log.info("worker %s is not added: %s", worker_id, error)
            return
        self._known.add(worker_id)
        _log.info("worker %s was found", worker_id)

    def _go(self, worker_id: str) -> None:
        _log.info("worker %s is gone", worker_id)
        self._leaving[worker_id] = self._now()
        try:
            self._roster.drain(worker_id)
        except GatewayError:
            # Somebody removed it by hand.
            self._known.discard(worker_id)
            del self._leaving[worker_id]

    def _stay(self, worker_id: str) -> None:
        del self._leaving[worker_id]
        self._roster.update(worker_id, draining=False)

    def _forget(self, worker_id: str) -> None:
        del self._leaving[worker_id]
        self._known.discard(worker_id)
        try:
            self._roster.remove(worker_id)
        except GatewayError:
            _log.info("worker %s was removed already", worker_id)


# ── sources ───────────────────────────────────────────────────────────────────


class FileSource:
    """A YAML or JSON file: a list of URLs, or of objects with `url`, `api_key`, `kv_events`. It is read when asked."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self) -> Sequence[Found]:
        """See `WorkerSource`."""
        try:
            content = await asyncio.to_thread(self._path.read_bytes)
            rows = msgspec.yaml.decode(content, type=list[str | dict[str, str | None]])
            return [msgspec.convert({"url": row} if isinstance(row, str) else row, Found) for row in rows]
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise SourceFailed(f"{self._path}: {error}") from error


class DnsSource:
    """All addresses of a name, such as that of a headless service: `http://workers.models.svc:8000`."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    async def __call__(self) -> Sequence[Found]:
        """See `WorkerSource`."""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._url.hostname, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise SourceFailed(f"{self._url.hostname}: {error}") from error
        hosts = sorted({str(address[4][0]) for address in found})
        return [Found(f"{self._url.scheme}://{_bracketed(host)}:{port}{self._url.path}") for host in hosts]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
