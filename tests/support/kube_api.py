"""The list and watch of a Kubernetes API server, over HTTP or HTTPS, of objects whose shapes are recorded.

Versions count up with each change. `compact` forgets those before now, so that a watch from them is 410 Gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from aiohttp import web

DATA = Path(__file__).parent.parent / "data" / "kubernetes"


def recorded(name: str, **status: object) -> dict[str, Any]:
    """An object as an API server sent it; the status's fields may be said anew."""
    made = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    made.setdefault("status", {}).update(status)
    return made


def pod(name: str, address: str, *, ready: bool = True, app: str = "vllm") -> dict[str, Any]:
    """A pod like the recorded one."""
    made = recorded("pod", podIP=address)
    made["metadata"] |= {"name": name, "labels": {"app": app}}
    made["status"]["conditions"][1]["status"] = "True" if ready else "False"
    return made


class KubeApi:
    """The twin. `token` is asked for where it is not None; `lists` and `watches` count what was asked,
    `asked` are the versions that watches began at."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.page = 500
        self.lists = self.watches = self.refused = 0
        self.asked: list[int] = []
        self.url = ""
        self._version = 100
        self._oldest = 0
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._log: list[tuple[int, str, dict[str, Any]]] = []
        self._news = asyncio.Condition()
        self._cuts = 0
        self._polite = False

    async def put(self, made: dict[str, Any]) -> None:
        """Make an object, or make it different."""
        key = (made["metadata"]["namespace"], made["metadata"]["name"])
        await self._happen("MODIFIED" if key in self._objects else "ADDED", made)
        self._objects[key] = self._log[-1][2]

    async def delete(self, name: str, namespace: str = "models") -> None:
        """Delete an object."""
        await self._happen("DELETED", self._objects.pop((namespace, name)))

    async def bookmark(self) -> None:
        """Tell watchers how far they are."""
        await self._happen("BOOKMARK", {"kind": "Pod", "apiVersion": "v1", "metadata": {}})

    def compact(self) -> None:
        """Forget every version before the next."""
        self._version += 1
        self._oldest = self._version
        self._log.clear()

    async def cut(self, *, polite: bool = False) -> None:
        """End all watches: in the middle, or as when their time is over."""
        self._polite = polite
        async with self._news:
            self._cuts += 1
            self._news.notify_all()

    async def _happen(self, kind: str, made: dict[str, Any]) -> None:
        async with self._news:
            self._version += 1
            made = copy.deepcopy(made)
            made["metadata"]["resourceVersion"] = str(self._version)
            self._log.append((self._version, kind, made))
            self._news.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            self.refused += 1
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        return await (self._watch(request) if request.query.get("watch") else self._list(request))

    def _wanted(self, request: web.Request, made: dict[str, Any]) -> bool:
        labels, wanted = made["metadata"].get("labels", {}), request.query["labelSelector"].split(",")
        here = request.match_info.get("namespace") in (None, made["metadata"]["namespace"])
        return here and all(labels.get(key) == value for key, value in (each.split("=") for each in wanted))

    async def _list(self, request: web.Request) -> web.Response:
        self.lists += 1
        start = int(request.query.get("continue", "0"))
        found = [made for made in self._objects.values() if self._wanted(request, made)]
        end = start + min(self.page, int(request.query["limit"]))
        more = {"continue": str(end)} if end < len(found) else {}
        metadata = {"resourceVersion": str(self._version), **more}
        return web.json_response({"kind": "List", "metadata": metadata, "items": found[start:end]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        seen, cuts = int(request.query["resourceVersion"]), self._cuts
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self.asked.append(seen)
        while True:
            if seen < self._oldest:
                gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
                await response.write(json.dumps(gone).encode() + b"\n")
                return response
            for version, kind, made in [each for each in self._log if each[0] > seen]:
                seen = version
                if kind == "BOOKMARK" or self._wanted(request, made):
                    await response.write(json.dumps({"type": kind, "object": made}).encode() + b"\n")
            if self._cuts != cuts:
                break
            async with self._news:
                if self._version == seen or not any(each[0] > seen for each in self._log):
                    await self._news.wait()
        if not self._polite:
            assert request.transport is not None
            request.transport.abort()
        return response

    @contextlib.asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncGenerator[KubeApi]:
        """Listen on a free port of the loopback until the end."""
        app = web.Application()
        for group, kind in (("/api/v1", "pods"), ("/apis/discovery.k8s.io/v1", "endpointslices")):
            app.router.add_get(f"{group}/{kind}", self._answer)
            app.router.add_get(f"{group}/namespaces/{{namespace}}/{kind}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()
