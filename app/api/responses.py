"""`/v1/responses`: create (plain or streamed), read, delete, list what was given.

Creating is a bare ASGI handler: it is the hot path, and the framework's own streaming would end a run with its client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, asgi, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import ASGIRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct

from app.api import socket
from app.api.body import Disconnected, read_json
from app.api.caller import caller_of, tenant_of
from app.api.services import RunView, Services
from app.api.stream import Manner, follow
from app.dialects.openai_responses.decode import decode_create
from app.turn.errors import InvalidRequest, Unavailable

RETRY_AFTER_SECS = 5.0


class Deleted(Struct, frozen=True):
    """The answer to a deletion."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class ItemList(Struct, frozen=True):
    """A page of items."""

    data: tuple[msgspec.Raw, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


def create_handler(services: Services) -> ASGIRouteHandler:
    """`POST /v1/responses`."""

    @asgi("/v1/responses", copy_scope=False)
    async def create_response(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # pyright: ignore[reportUnnecessaryComparison] - Litestar sends those here, too
            await socket.serve(services, scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] != "POST":
            raise MethodNotAllowedException(headers={"allow": "POST"})
        if services.status().draining:
            message = "The server is shutting down. Please retry."
            raise Unavailable(message, code="server_shutting_down", retry_after=RETRY_AFTER_SECS)
        try:
            body = await read_json(scope, receive, services.max_body)
        except Disconnected:
            return
        request = decode_create(body)
        caller = caller_of(scope)
        run = await services.responses.create(caller.tenant, request, caller.principal, caller.usual)
        if request.stream:
            options = request.stream_options
            padded = options is not None and options.include_obfuscation is True
            await follow(run, receive, send, Manner(services.keepalive_secs, padded=padded))
        else:
            await answer(send, await _result(run, receive))

    return create_response


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


Streamed = Annotated[bool, QueryParameter(description="Send the response's events instead of the response.")]
Obfuscated = Annotated[bool, QueryParameter(description="Pad deltas, so that their length says less.")]
StartingAfter = Annotated[
    int | None, QueryParameter(ge=0, description="Number of the last event the client has; the ones after it are sent.")
]


@get(
    "/{response_id:str}",
    operation_id="getResponse",
    summary="Read a stored response, finished or in the making",
    responses={200: ResponseSpec(dict[str, Any], generate_examples=False, description="The response")},
)
async def get_response(
    request: Request[None, None, State],
    services: NamedDependency[Services],
    response_id: FromPath[str],
    stream: Streamed = False,
    starting_after: StartingAfter = None,
    include_obfuscation: Obfuscated = False,
) -> ASGIApp:
    """The response as JSON, or its events: those there were, byte for byte, and then those to come."""
    tenant = tenant_of(request.scope)
    if not stream:
        if starting_after is not None:
            raise InvalidRequest("'starting_after' is for a stream: give 'stream=true', too.", param="starting_after")
        body = await services.responses.get(tenant, response_id)
        return _app(lambda _receive, send: answer(send, body))
    run = await services.responses.follow(tenant, response_id)
    after = -1 if starting_after is None else starting_after
    manner = Manner(services.keepalive_secs, after, include_obfuscation)
    return _app(lambda receive, send: follow(run, receive, send, manner))


def _app(serve: Callable[[Receive, Send], Awaitable[None]]) -> ASGIApp:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await serve(receive, send)

    return app


@post(
    "/{response_id:str}/cancel",
    status_code=200,
    operation_id="cancelResponse",
    summary="End a response that is made in the background",
    responses={200: ResponseSpec(dict[str, Any], generate_examples=False, description="The response")},
)
async def cancel_response(
    request: Request[None, None, State], services: NamedDependency[Services], response_id: FromPath[str]
) -> Response[bytes]:
    """The response as JSON, cancelled unless it had ended before."""
    body = await services.responses.cancel(tenant_of(request.scope), response_id)
    return Response(body, media_type="application/json")


@delete("/{response_id:str}", status_code=200, operation_id="deleteResponse", summary="Forget a stored response")
async def delete_response(
    request: Request[None, None, State], services: NamedDependency[Services], response_id: FromPath[str]
) -> Deleted:
    """Forget a response; later ones that build on it still can."""
    await services.responses.delete(tenant_of(request.scope), response_id)
    return Deleted(response_id)


Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Most items to return.")]
Order = Annotated[Literal["asc", "desc"], QueryParameter(description="Oldest or newest first.")]
After = Annotated[str | None, QueryParameter(description="Id of the item before the first one to return.")]


@get(
    "/{response_id:str}/input_items",
    operation_id="listInputItems",
    summary="List what was given to a response",
    responses={200: ResponseSpec(ItemList, generate_examples=False, description="A page of items")},
)
async def list_input_items(
    request: Request[None, None, State],
    services: NamedDependency[Services],
    response_id: FromPath[str],
    limit: Limit = 20,
    order: Order = "desc",
    after: After = None,
) -> Response[bytes]:
    """A page of the items the response was made from, its context included."""
    tenant = tenant_of(request.scope)
    page = await services.responses.input_items(tenant, response_id, limit=limit, order=order, after=after)
    ids = [item.id for item in page.items]
    listing = ItemList(
        tuple(item.raw for item in page.items), ids[0] if ids else None, ids[-1] if ids else None, page.has_more
    )
    return Response(msgspec.json.encode(listing), media_type="application/json")


def router() -> Router:
    """The handlers of stored responses."""
    handlers = [get_response, delete_response, cancel_response, list_input_items]
    return Router("/v1/responses", route_handlers=handlers, tags=["Responses"])
