"""The way to all workers: one client of each kind, shared by every backend and probe."""

from __future__ import annotations

from collections.abc import Callable

from app.backends.chat import ChatBackend, Site, base_of, timeouts_of
from app.backends.plain import PlainTransport
from app.backends.probe import HttpProbe
from app.backends.secure import SecureTransport
from app.backends.settings import BackendSettings
from app.http1.transport import Answer, Call
from app.turn.ids import IdSource
from app.turn.request import TurnRequest


class Workers:
    """Connects and probes. Made on the running event loop; `close` aborts whatever still goes on."""

    def __init__(self, settings: BackendSettings, ids: IdSource) -> None:
        self._settings = settings
        self._ids = ids
        self._plain = PlainTransport(keep_secs=settings.keepalive_secs)
        self._secure = SecureTransport(settings.https_proxy)

    def connect(self, url: str, *, model: str | None = None, api_key: str | None = None) -> ChatBackend:
        """The `Connect` port."""
        site = Site(url=base_of(url), api_key=api_key, model=model)
        return ChatBackend(site, self, self._settings, lambda: self._ids.new("call"))

    def probe(self, key_of: Callable[[str], str | None]) -> HttpProbe:
        """A probe; `key_of` is asked for the key of a worker's URL."""
        return HttpProbe(self, timeouts_of(self._settings), key_of)

    async def tokenize(self, url: str, request: TurnRequest, *, api_key: str | None) -> bytes:
        """The tokens of a turn's prompt, as the worker at `url` finds them: a list in JSON. Raises `GatewayError`."""
        return await ChatBackend(Site(url=base_of(url), api_key=api_key), self, self._settings, str).tokenize(request)

    async def send(self, call: Call) -> Answer:
        """The `Transport` port: the client that fits the URL."""
        return await (self._secure if call.url.startswith("https:") else self._plain).send(call)

    async def close(self) -> None:
        """Abort everything."""
        await self._plain.close()
        await self._secure.close()
