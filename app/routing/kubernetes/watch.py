"""Keeps up with a kind of object: a list says what there is, a watch says what changes from there on.

A watch ends now and then and goes on from the last version that was seen, which bookmarks move along where nothing
changes. When the API has forgotten that version (410 Gone) everything is listed anew. While the API is away the last
thing it said holds: workers do not stop because the cluster's brain does.

Source: "Efficient detection of changes" in the Kubernetes API concepts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from random import Random

import aiohttp
import msgspec
from msgspec import Struct

from app.http1.authority import bracketed
from app.routing.discovery import Found, SourceFailed
from app.routing.kubernetes.access import Access
from app.routing.kubernetes.objects import Event, Object, ObjectList, Resource, Status, decode, path

_log = logging.getLogger(__name__)

# An object may be as large as etcd lets it, 1.5 MiB, and is one line of a watch.
_LINE_BYTES = 2 * 1024 * 1024
_PAGE = 500
_GONE = 410
# Beyond the time the API was asked to end a watch after, a silent connection is dead.
_GRACE_SECS = 15


class Query(Struct, frozen=True):
    """Which objects are workers, and where those listen. `namespace` None is all; `selector` is a label selector.

    `port` None is a slice's own port: the one called `port_name`, or its only one.
    """

    resource: Resource
    selector: str
    namespace: str | None
    port: int | None
    kv_events_port: int | None = None
    port_name: str | None = None

    def workers(self, each: Object) -> dict[tuple[str, int], Found]:
        """The workers that an object tells of, by what they are: a pod of two address families has two addresses."""
        port = each.port(self.port_name) if self.port is None else self.port
        if port is None:
            if each.addresses():
                _log.warning("slice %s does not say which of its ports is the workers'", "/".join(each.key))
            return {}
        return {(uid or address, port): self.found(address, port) for address, uid in each.addresses().items()}

    def found(self, address: str, port: int) -> Found:
        """The worker at `address`: an IP address, or a host name where a slice's `addressType` is FQDN."""
        host = bracketed(address)
        events = None if self.kv_events_port is None else f"tcp://{host}:{self.kv_events_port}"
        return Found(f"http://{host}:{port}", kv_events=events)


class Gone(Exception):
    """The version to go on from is forgotten."""


class Refused(Exception):
    """The API answered, but not with what it was asked for."""


class KubernetesSource:
    """A `WorkerSource` that is right at all times, as long as `run` runs. `changed` is set when its answer did.

    Failures are tried again after `backoff_secs` (first, longest), doubling, less up to a half by chance. The API is
    asked to end a watch after `watch_secs`; a first answer is waited for `patience_secs` long.
    """

    def __init__(
        self,
        access: Access,
        query: Query,
        random: Random,
        *,
        backoff_secs: tuple[float, float] = (0.1, 30.0),
        watch_secs: int = 120,
        patience_secs: float = 5.0,
    ) -> None:
        self._access = access
        self._query = query
        self._random = random
        self._backoff_secs = backoff_secs
        self._watch_secs = watch_secs
        self._patience_secs = patience_secs
        self._objects: dict[tuple[str, str], Object] = {}
        self._version = ""
        self._pause_secs = 0.0
        self._listed = asyncio.Event()
        self.changed = asyncio.Event()

    async def __call__(self) -> Sequence[Found]:
        """See `WorkerSource`."""
        try:
            async with asyncio.timeout(self._patience_secs):
                await self._listed.wait()
        except TimeoutError:
            raise SourceFailed(f"{self._access.server} has not said which workers there are") from None
        found: dict[tuple[str, int], Found] = {}
        # Of IPv4 and IPv6 the first.
        for each in sorted(self._objects.values(), key=lambda each: (each.address_type, each.key)):
            found = self._query.workers(each) | found
        return sorted(found.values(), key=lambda worker: worker.url)

    async def run(self) -> None:
        """Keep up until cancelled."""
        async with aiohttp.ClientSession(read_bufsize=_LINE_BYTES, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                try:
                    if not self._version:
                        await self._list(session)
                    await self._watch(session)
                except Gone:
                    _log.info("the cluster forgot version %s, listing anew", self._version)
                    # Not at once, should it keep saying so.
                    self._version = ""
                    await self._pause()
                except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError, Refused) as error:
                    _log.warning("cannot ask the cluster for workers: %s", error or type(error).__name__)
                    await self._pause()

    async def _pause(self) -> None:
        first, longest = self._backoff_secs
        self._pause_secs = min(longest, self._pause_secs * 2 or first)
        await asyncio.sleep(self._pause_secs * (1 - self._random.random() / 2))

    async def _list(self, session: aiohttp.ClientSession) -> None:
        objects: dict[tuple[str, str], Object] = {}
        page = ""
        while True:
            more = {"limit": str(_PAGE)} | ({"continue": page} if page else {})
            async with await self._get(session, more, aiohttp.ClientTimeout(total=30)) as response:
                answer: ObjectList = decode(await response.read(), ObjectList)
            objects |= {each.key: each for each in answer.items}
            page = answer.metadata.continue_
            if not page:
                break
        self._objects = objects
        self._version = answer.metadata.resource_version
        self._listed.set()
        self.changed.set()

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """Follow one watch to its end. Raises `Gone`."""
        more = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(self._watch_secs),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=self._watch_secs + _GRACE_SECS)
        lines = 0
        async with await self._get(session, more, timeout) as response:
            while line := await response.content.readline():
                self._take(decode(line, Event))
                self._pause_secs = 0.0
                lines += 1
        if not lines:
            # One that ends without a word would be asked for without end.
            await asyncio.sleep(self._backoff_secs[0])

    def _take(self, event: Event) -> None:
        if event.type == "ERROR":
            status: Status = decode(event.object, Status)
            if status.code == _GONE:
                raise Gone
            raise Refused(f"the watch failed: {status.code} {status.message}")
        changed: Object = decode(event.object, Object)
        self._version = changed.metadata.resource_version
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            self._objects.pop(changed.key, None)
        else:
            self._objects[changed.key] = changed
        self.changed.set()

    async def _get(
        self, session: aiohttp.ClientSession, more: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        query = self._query
        response = await session.get(
            self._access.server + path(query.resource, query.namespace),
            params={"labelSelector": query.selector, **more},
            headers=await asyncio.to_thread(self._access.headers),
            timeout=timeout,
            ssl=self._access.tls or True,
        )
        if response.status == 200:
            return response
        response.close()
        if response.status == _GONE:
            raise Gone
        raise Refused(f"{response.status} {response.reason}")
