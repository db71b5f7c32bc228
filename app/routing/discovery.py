"""Workers that are found rather than named: sources say which there are, and the fleet is made to agree.

A source is asked again and again. One that cannot answer changes nothing: a fleet that is not sure of its workers keeps
them. A worker that is gone from a source is drained first, and forgotten when its turns are over or after a grace.
Workers that were named in the settings or added by hand are left alone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from app.http1.authority import bracketed
from app.routing.addresses import events_address, worker_url
from app.routing.registry import Worker
from app.turn.errors import GatewayError, InvalidRequest

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

    def worker(self, worker_id: str) -> Worker: ...

    def put(self, worker: Worker) -> Worker: ...

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
        self._known: dict[str, Found] = {}
        self._refused: dict[str, Found] = {}
        self._leaving: dict[str, float] = {}
        self._failure: str | None = None

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
            wanted = {worker_url(found.url): _checked(found) for found in await self._source()}
        except (SourceFailed, InvalidRequest) as error:
            # Said once, not with every look.
            if str(error) != self._failure:
                _log.warning("the workers stay as they are: %s", error)
            self._failure = str(error)
            return
        if self._failure is not None:
            _log.info("the workers can be told again, after: %s", self._failure)
            self._failure = None
        for worker_id in self._known.keys() - wanted.keys() - self._leaving.keys():
            self._go(worker_id)
        for worker_id in wanted.keys() & self._known.keys():
            self._stay(worker_id, wanted[worker_id])
        for worker_id, since in list(self._leaving.items()):
            if not self._roster.inflight(worker_id) or self._now() - since >= self._grace_secs:
                self._forget(worker_id)
        # Last, because those that do not answer take their time.
        await asyncio.gather(*(self._come(each, found) for each, found in wanted.items() if each not in self._known))

    async def _come(self, worker_id: str, found: Found) -> None:
        try:
            await self._roster.add(found.url, api_key=found.api_key, kv_events=found.kv_events)
        except GatewayError as error:
            if self._refused.get(worker_id) != found:
                _log.info("worker %s is not added: %s", worker_id, error)
            self._refused[worker_id] = found
            return
        self._refused.pop(worker_id, None)
        self._known[worker_id] = found
        _log.info("worker %s was found", worker_id)

    def _go(self, worker_id: str) -> None:
        _log.info("worker %s is gone", worker_id)
        self._leaving[worker_id] = self._now()
        try:
            self._roster.put(replace(self._roster.worker(worker_id), draining=True))
        except GatewayError:
            # Somebody removed it by hand.
            del self._known[worker_id], self._leaving[worker_id]

    def _stay(self, worker_id: str, found: Found) -> None:
        """It is still there, or there again, and what is said of it may be different."""
        left = self._leaving.pop(worker_id, None) is not None
        if not left and found == self._known[worker_id]:
            return
        self._known[worker_id] = found
        try:
            worker = replace(self._roster.worker(worker_id), api_key=found.api_key, kv_events=found.kv_events)
            self._roster.put(replace(worker, draining=False) if left else worker)
        except GatewayError:
            # Somebody removed it by hand. One that had left, and comes back, is found anew.
            if left:
                del self._known[worker_id]

    def _forget(self, worker_id: str) -> None:
        del self._leaving[worker_id], self._known[worker_id]
        try:
            self._roster.remove(worker_id)
        except GatewayError:
            _log.info("worker %s was removed already", worker_id)


def _checked(found: Found) -> Found:
    """What a source tells of a worker. Raises `InvalidRequest` where it is nothing that could be followed."""
    if found.kv_events is not None:
        events_address(found.kv_events)
    return found


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
            # What is wrong with YAML is told in several lines.
            raise SourceFailed(f"{self._path}: {' '.join(str(error).split())}") from error


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
        return [Found(f"{self._url.scheme}://{bracketed(host)}:{port}{self._url.path}") for host in hosts]
