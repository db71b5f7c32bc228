"""Reading a request's body: bounded, whatever its headers claim, and only when it says it is JSON."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import ClientException
from litestar.types import Receive, Scope

from app.dialects.openai_responses.faults import UNREADABLE, read, unparsable
from app.turn.errors import GatewayError, InvalidRequest, TooLarge

_T = TypeVar("_T")

# What administrators send is settings.
ADMIN_BYTES = 1_048_576

# A client that only reads once it has sent everything would never see a 413 that cuts it off.
_LINGER_BYTES = 16_777_216
_LINGER_SECS = 5.0


class Unreadable(GatewayError):
    """415. Also what keeps a web page from posting here: only JSON makes its browser ask for permission first."""

    status = 415
    code = "unsupported_media_type"


class Disconnected(Exception):
    """The client left before its request was complete."""


async def read_as(request: Request[None, None, State], decoder: msgspec.json.Decoder[_T]) -> _T:
    """What an administrator sends: at most `ADMIN_BYTES`, decoded.

    Raises `Unreadable`, `TooLarge`, and `InvalidRequest` whose `param` is the path of the wrong field.
    """
    body = await whole(request, ADMIN_BYTES)
    try:
        body.decode()
    except UNREADABLE as error:
        raise InvalidRequest(unparsable(error), code="invalid_json") from None
    return read(decoder, body)


async def whole(request: Request[None, None, State], limit: int) -> bytes:
    """The body of a request that the framework handles. Raises as `read_json` does."""
    try:
        return await read_json(request.scope, request.receive, limit)
    except Disconnected:
        raise ClientException("The client left.", status_code=499) from None


async def read_json(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body, at most `limit` bytes.

    Raises `Unreadable`, `TooLarge`, `InvalidRequest` when there is none, `Disconnected`.
    """
    headers = {name: value for name, value in scope["headers"] if name in _WANTED}
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        raise Unreadable(f"Expected content-type application/json, got {kind.decode('latin-1') or 'none'}.")
    announced = headers.get(b"content-length")
    if announced is not None and int(announced) > limit:
        await _refuse(receive, limit, sent=b"expect" not in headers)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        chunk = message["body"]
        size += len(chunk)
        if size > limit:
            await _refuse(receive, limit, sent=message["more_body"])
        chunks.append(chunk)
        if not message["more_body"]:
            break
    if not size:
        raise InvalidRequest("The request has no body; expected JSON.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


_WANTED = frozenset((b"content-type", b"content-length", b"expect"))


async def _refuse(receive: Receive, limit: int, *, sent: bool) -> None:
    """Discard what the client is still sending, within reason, and raise `TooLarge`."""
    left = _LINGER_BYTES if sent else 0
    try:
        async with asyncio.timeout(_LINGER_SECS):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    break
                left -= len(message["body"])
    except TimeoutError:
        pass
    raise TooLarge(f"The request body is larger than {limit} bytes.")
