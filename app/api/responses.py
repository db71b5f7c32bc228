"""`/v1/responses/{id}`: read, follow, cancel, delete, list what was given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from litestar import Request, Response, Router, delete, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct

from app.api.caller import tenant_of
from app.api.creating import answer
from app.api.desk import MOST, After, Included, Limit, ListOf, Order, included, json_of, of_items
from app.api.padding import is_wanted
from app.api.services import Services
from app.api.stream import Manner, follow
from app.dialects.openai_responses.wire import StreamOptions
from app.turn.errors import InvalidRequest


class Deleted(Struct, frozen=True):
    """The answer to a deletion."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


Streamed = Annotated[bool, QueryParameter(description="Send the response's events instead of the response.")]
Obfuscated = Annotated[bool | None, QueryParameter(description="Pad deltas, so that their length says less.")]
StartingAfter = Annotated[
    int | None,
    QueryParameter(ge=0, le=MOST, description="Number of the last event the client has; the ones after it are sent."),
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
    include_obfuscation: Obfuscated = None,
    include: Included = None,
) -> ASGIApp:
    """The response as JSON, or its events: those there were, byte for byte, and then those to come."""
    wanted = included(request, include)
    tenant = tenant_of(request.scope)
    if not stream:
        if starting_after is not None:
            raise InvalidRequest("'starting_after' is for a stream: give 'stream=true', too.", param="starting_after")
        body = await services.responses.get(tenant, response_id)
        if services.desk is not None:
            body = await services.desk.including.response(tenant, body, wanted)
        return _app(lambda _receive, send: answer(send, body))
    after = -1 if starting_after is None else starting_after
    run = await services.responses.follow(tenant, response_id, after)
    padded = is_wanted(StreamOptions(include_obfuscation=include_obfuscation), usual=services.padded)
    manner = Manner(services.keepalive_secs, after, padded)
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


@get(
    "/{response_id:str}/input_items",
    operation_id="listInputItems",
    summary="List what was given to a response",
    responses={200: ResponseSpec(ListOf, generate_examples=False, description="A page of items")},
)
async def list_input_items(
    request: Request[None, None, State],
    services: NamedDependency[Services],
    response_id: FromPath[str],
    limit: Limit = 20,
    order: Order = "desc",
    after: After = None,
    include: Included = None,
) -> Response[bytes]:
    """A page of the items the response was made from, its context included."""
    wanted = included(request, include)
    tenant = tenant_of(request.scope)
    page = await services.responses.input_items(tenant, response_id, limit=limit, order=order, after=after)
    return json_of(await of_items(services, tenant, page, wanted))


def router() -> Router:
    """The handlers of stored responses."""
    handlers = [get_response, delete_response, cancel_response, list_input_items]
    return Router("/v1/responses", route_handlers=handlers, tags=["Responses"])
