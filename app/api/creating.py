"""`POST /v1/responses`: make a response, plain, streamed, or over a socket; and its neighbour on the same path.

Creating is a bare ASGI handler: it is the hot path, and the framework's own streaming would end a run with its client.
"""

from __future__ import annotations

import asyncio

from litestar import asgi
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from app.api import socket
from app.api.body import Disconnected, read_json
from app.api.caller import caller_of
from app.api.listing import list_responses
from app.api.padding import is_wanted
from app.api.services import RunView, Services
from app.api.stream import Manner, follow
from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.repeats import Repeatable
from app.turn.errors import Unavailable

RETRY_AFTER_SECS = 5.0


def create_handler(services: Services) -> ASGIRouteHandler:
    """`POST /v1/responses`."""

    @asgi("/v1/responses", copy_scope=False)
    async def create_response(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # pyright: ignore[reportUnnecessaryComparison] - Litestar sends those here, too
            await socket.serve(services, scope, receive, send)
            return
        if services.desk is not None and scope["type"] == "http" and scope["method"] == "GET":
            await answer(send, await list_responses(services.desk.index, scope))
            return
        if scope["type"] != "http" or scope["method"] != "POST":
            raise MethodNotAllowedException(headers={"allow": "GET, POST"})
        if services.status().draining:
            message = "The server is shutting down. Please retry."
            raise Unavailable(message, code="server_shutting_down", retry_after=RETRY_AFTER_SECS)
        try:
            body = await read_json(scope, receive, services.max_body)
        except Disconnected:
            return
        request = decode_create(body)
        run = await _begun(services, scope, request, body)
        if request.stream:
            padded = is_wanted(request.stream_options, usual=services.padded)
            await follow(run, receive, send, Manner(services.keepalive_secs, padded=padded))
        else:
            await answer(send, await _result(run, receive))

    return create_response


async def _begun(services: Services, scope: Scope, request: CreateResponse, body: bytes) -> RunView:
    """The response, begun now, or before by the same request."""
    caller = caller_of(scope)
    key = next((value for name, value in scope["headers"] if name == b"idempotency-key"), None)
    if key is None or services.desk is None:
        return await services.responses.create(caller.tenant, request, caller.principal, caller.usual)
    asked = Repeatable(
        tenant=caller.tenant,
        principal=caller.principal,
        circumstances=caller.usual,
        key=key.decode("latin-1"),
        body=body,
    )
    return await services.desk.repeats.create(asked, request)


async def _result(run: RunView, receive: Receive) -> bytes:
    """The finished response; a client that leaves meanwhile is noticed."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        run.detach()

    watching = asyncio.create_task(watch())
    try:
        return await run.result()
    except asyncio.CancelledError:
        run.detach()
        raise
    finally:
        watching.cancel()


async def answer(send: Send, body: bytes) -> None:
    """Send a JSON body."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
