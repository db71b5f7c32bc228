"""`/v1/conversations`: what is said is kept here, and requests go on with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from msgspec import UNSET, Meta, Struct, UnsetType

from app.api.caller import tenant_of
from app.api.desk import After, Asking, Included, Limit, ListOf, Order, body_of, included, json_of, listing, of_items
from app.api.services import Services
from app.dialects.openai_responses import desk as bodies
from app.responses.conversations import Conversations
from app.responses.stores import Conversation, ItemPage

_ITEMS = {200: ResponseSpec(ListOf, generate_examples=False, description="A page of items")}


class ConversationView(Struct, frozen=True):
    """A conversation. Times are in seconds since the epoch."""

    id: str
    created_at: int
    metadata: dict[str, str]
    object: Literal["conversation"] = "conversation"
    expires_at: Annotated[int | UnsetType, Meta(description="When it is forgotten; absent: never.")] = UNSET


class ConversationDeleted(Struct, frozen=True):
    """The answer to a deletion."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool = True


def _view(found: Conversation) -> ConversationView:
    expires_at = UNSET if found.expires_at is None else found.expires_at
    return ConversationView(found.id, found.created_at, found.metadata, expires_at=expires_at)


def _talks(services: Services) -> Conversations:
    assert services.desk is not None
    return services.desk.conversations


@get(
    "/",
    operation_id="listConversations",
    summary="List conversations (not in OpenAI's API)",
    responses={200: ResponseSpec(ListOf, generate_examples=False, description="A page of conversations")},
)
async def list_conversations(
    request: Asking, services: NamedDependency[Services], limit: Limit = 20, order: Order = "desc", after: After = None
) -> Response[bytes]:
    """The newest first."""
    page = await _talks(services).listed(tenant_of(request.scope), limit=limit, order=order, after=after)
    data = [msgspec.Raw(msgspec.json.encode(_view(each))) for each in page.data]
    return json_of(listing(data, [each.id for each in page.data], has_more=page.has_more))


@post("/", status_code=200, operation_id="createConversation", summary="Begin a conversation")
async def create_conversation(request: Asking, services: NamedDependency[Services]) -> ConversationView:
    """Begin a conversation, with items if there are any."""
    asked = bodies.decode_new_conversation(await body_of(request, services, optional=True))
    return _view(await _talks(services).create(tenant_of(request.scope), asked))


@get("/{conversation_id:str}", operation_id="getConversation", summary="Read a conversation")
async def get_conversation(
    request: Asking, services: NamedDependency[Services], conversation_id: FromPath[str]
) -> ConversationView:
    """The conversation without its items."""
    return _view(await _talks(services).get(tenant_of(request.scope), conversation_id))


@post(
    "/{conversation_id:str}",
    status_code=200,
    operation_id="updateConversation",
    summary="Replace a conversation's metadata",
)
async def update_conversation(
    request: Asking, services: NamedDependency[Services], conversation_id: FromPath[str]
) -> ConversationView:
    """Replace the metadata."""
    metadata = bodies.decode_changed_conversation(await body_of(request, services))
    return _view(await _talks(services).update(tenant_of(request.scope), conversation_id, metadata))


@delete("/{conversation_id:str}", status_code=200, operation_id="deleteConversation", summary="Forget a conversation")
async def delete_conversation(
    request: Asking, services: NamedDependency[Services], conversation_id: FromPath[str]
) -> ConversationDeleted:
    """Forget the conversation; the responses made in it stay, and the items they are made of."""
    await _talks(services).delete(tenant_of(request.scope), conversation_id)
    return ConversationDeleted(conversation_id)


@post(
    "/{conversation_id:str}/items",
    status_code=200,
    operation_id="createConversationItems",
    summary="Add items to a conversation",
    responses=_ITEMS,
)
async def create_items(
    request: Asking,
    services: NamedDependency[Services],
    conversation_id: FromPath[str],
    include: Included = None,
) -> Response[bytes]:
    """Add at most 20 items at the end; answered with these items as they are kept."""
    wanted = included(request, include)
    given = bodies.decode_new_items(await body_of(request, services))
    tenant = tenant_of(request.scope)
    items = await _talks(services).add(tenant, conversation_id, given)
    return json_of(await of_items(services, tenant, ItemPage(items, has_more=False), wanted))


@get(
    "/{conversation_id:str}/items",
    operation_id="listConversationItems",
    summary="List a conversation's items",
    responses=_ITEMS,
)
async def list_items(
    request: Asking,
    services: NamedDependency[Services],
    conversation_id: FromPath[str],
    limit: Limit = 20,
    order: Order = "desc",
    after: After = None,
    include: Included = None,
) -> Response[bytes]:
    """A page of the items."""
    wanted = included(request, include)
    tenant = tenant_of(request.scope)
    page = await _talks(services).items(tenant, conversation_id, limit=limit, order=order, after=after)
    return json_of(await of_items(services, tenant, page, wanted))


@get(
    "/{conversation_id:str}/items/{item_id:str}",
    operation_id="getConversationItem",
    summary="Read an item of a conversation",
    responses={200: ResponseSpec(dict[str, Any], generate_examples=False, description="The item")},
)
async def get_item(
    request: Asking,
    services: NamedDependency[Services],
    conversation_id: FromPath[str],
    item_id: FromPath[str],
    include: Included = None,
) -> Response[bytes]:
    """One item."""
    assert services.desk is not None
    wanted, tenant = included(request, include), tenant_of(request.scope)
    found = await _talks(services).item(tenant, conversation_id, item_id)
    (shown,) = await services.desk.including.items(tenant, (found,), wanted)
    return json_of(bytes(shown.raw))


@delete(
    "/{conversation_id:str}/items/{item_id:str}",
    status_code=200,
    operation_id="deleteConversationItem",
    summary="Take an item out of a conversation",
)
async def delete_item(
    request: Asking,
    services: NamedDependency[Services],
    conversation_id: FromPath[str],
    item_id: FromPath[str],
) -> ConversationView:
    """Take the item out; responses that were made with it keep it. Answered with the conversation."""
    return _view(await _talks(services).drop_item(tenant_of(request.scope), conversation_id, item_id))


def router() -> Router:
    """The handlers of conversations."""
    handlers = [
        list_conversations,
        create_conversation,
        get_conversation,
        update_conversation,
        delete_conversation,
        create_items,
        list_items,
        get_item,
        delete_item,
    ]
    return Router("/v1/conversations", route_handlers=handlers, tags=["Conversations"])
