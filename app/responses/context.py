"""What a request builds on: the response before it, or its conversation."""

from __future__ import annotations

from msgspec import Struct

from app.dialects.openai_responses.wire import CreateResponse
from app.responses.ports import Ports, StoredItem
from app.turn.errors import NotFound


class Context(Struct, frozen=True):
    """The items before a request's own, oldest first. Of a conversation, also the version that they are, and until
    when it is kept (seconds since the epoch)."""

    items: tuple[StoredItem, ...] = ()
    version: int | None = None
    until: int | None = None


async def built_on(ports: Ports, tenant: str, request: CreateResponse) -> Context:
    """The context of `request`. Raises `NotFound` for a response or conversation that is not there, `Unavailable`."""
    if request.conversation_id is not None:
        try:
            found = await ports.conversations.context(tenant, request.conversation_id)
        except NotFound as error:
            raise NotFound(error.message, code=error.code, param="conversation") from error
        return Context(found.items, found.version, found.expires_at)
    if request.previous_response_id is not None:
        return Context(tuple(await ports.history.context(tenant, request.previous_response_id)))
    return Context()
