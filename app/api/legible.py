"""No name and no value here has a NUL in it, and PostgreSQL cannot even be asked for one."""

from __future__ import annotations

from urllib.parse import parse_qsl

from litestar.types import ASGIApp, Receive, Scope, Send

from app.api.errors import refuse
from app.dialects.openai_responses.faults import wrong
from app.turn.errors import InvalidRequest


class Legible:
    """An ASGI app around another that refuses URLs with a NUL in them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer 400."""
        if scope["type"] == "http" and (error := _illegible(scope["path"], scope["query_string"])) is not None:
            await refuse(scope, send, error)
            return
        await self._app(scope, receive, send)  # pyright: ignore[reportArgumentType]


def _illegible(path: str, query: bytes) -> InvalidRequest | None:
    if "\0" in path:
        return InvalidRequest("The URL has a NUL in it, and nothing here is named like that.", code="invalid_value")
    if b"%00" in query or b"\0" in query:
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if "\0" in value:
                return wrong(name, "it has a NUL in it.")
    return None
