"""One HTTP exchange over bare ASGI: a body in, an answer or a stream out, errors in the API's form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias

import msgspec

from app.turn.errors import GatewayError, TooLarge

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_MAX_BODY = 256 * 1024 * 1024


class Exchange:
    """A request and the means to answer it."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send

    async def body(self) -> bytes:
        """The whole body. Raises `TooLarge`."""
        message = await self._receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body", False):
            message = await self._receive()
            body += message.get("body", b"")
            if len(body) > _MAX_BODY:
                raise TooLarge(f"The body is larger than {_MAX_BODY} bytes.")
        return body

    async def answer(self, body: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Answer with JSON."""
        await self.begin(status, [_JSON, (b"content-length", b"%d" % len(body)), *headers])
        await self.write(body, last=True)

    async def refuse(self, error: GatewayError) -> None:
        """Answer with an error."""
        extra = () if error.retry_after is None else ((b"retry-after", b"%d" % error.retry_after),)
        await self.answer(error_body(error), error.status, extra)

    async def begin(self, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Send the head of the answer; without headers it is an event stream."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers or _STREAM})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        """Send a part of the answer."""
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def gone(self) -> None:
        """Return when the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def while_there(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` until it is done or the client has gone."""
        doing, watching = asyncio.ensure_future(work), asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            if not doing.done():
                doing.cancel()
        if doing.done() and not doing.cancelled():
            doing.result()


def error_body(error: GatewayError) -> bytes:
    """An error as JSON."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    detail = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return msgspec.json.encode({"error": detail})
