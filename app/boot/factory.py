"""The gateway as an ASGI app for somebody else's server: its life is the server's lifespan."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send

from app.api.gateway import create_app
from app.boot.listening import StartError
from app.boot.rooms import Rooms, opened
from app.boot.serve import warn
from app.settings.tree import Settings


class LifespanApp:
    """Opens the rooms when the server starts and drains them when it stops.

    A server closes its doors before it tells the app to stop, so that here draining is not seen by probes; `shepherd
    serve` does better.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Requests go to the gateway; `lifespan` opens and closes it."""
        if scope["type"] == "lifespan":  # pyright: ignore[reportUnnecessaryComparison] - servers do send it
            await self._live(receive, send)
        elif self._app is None:
            raise RuntimeError("the gateway needs its server's lifespan events; they are switched off")
        else:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Any) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                warn(self._settings)
                rooms: Rooms = await stack.enter_async_context(opened(self._settings))
            except StartError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            self._app = create_app(rooms.services)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await rooms.drain(self._settings.responses.drain_secs)
        await send({"type": "lifespan.shutdown.complete"})
