"""The use-cases of conversations: what a client keeps here to say more about later. Tenant first, always."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Raw

from app.dialects.openai_responses.desk import NewConversation, conversation_items
from app.dialects.openai_responses.items import references, resolve
from app.dialects.openai_responses.sealed import Sealed, unpack
from app.responses.stores import Conversation, ConversationStore, ItemPage, Order, Page, StoredItem, TokenSealer
from app.turn.errors import NotFound
from app.turn.ids import IdSource, is_well_formed


class Finder(Protocol):
    """What finds items by their ids."""

    async def find_items(self, tenant: str, item_ids: Sequence[str]) -> Mapping[str, StoredItem]:
        """Those of the items that are there. Raises `Unavailable`."""
        ...


class Conversations:
    """Conversations over their store. `now` is in seconds since the epoch.

    What names a conversation raises `NotFound(code="conversation_not_found")`; what changes one is refused with code
    `conversation_locked` while a response is made in it.
    """

    def __init__(
        self, store: ConversationStore, finder: Finder, sealer: TokenSealer, ids: IdSource, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._finder = finder
        self._sealer = sealer
        self._ids = ids
        self._now = now

    async def create(self, tenant: str, asked: NewConversation) -> Conversation:
        """Begin a conversation. Raises `InvalidRequest`, `NotFound` for an item that is referred to."""
        items = await self._read(tenant, asked.items or (), ())
        now, after = int(self._now()), asked.expires_after
        made = Conversation(
            id=self._ids.new("conv"),
            created_at=now,
            metadata=asked.metadata or dict[str, str](),
            expires_at=None if after is None else now + after.seconds,
        )
        await self._store.create(tenant, made, items)
        return made

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        """The conversation without its items."""
        return await self._store.get(tenant, _named(conversation_id))

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[Conversation]:
        """Conversations by age. Raises `InvalidRequest(param="after")`."""
        return await self._store.listed(tenant, limit=limit, order=order, after=after)

    async def update(self, tenant: str, conversation_id: str, metadata: dict[str, str]) -> Conversation:
        """Replace the metadata."""
        return await self._store.update(tenant, _named(conversation_id), metadata)

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """Forget the conversation; its responses stay."""
        await self._store.delete(tenant, _named(conversation_id))

    async def add(self, tenant: str, conversation_id: str, given: Sequence[Raw]) -> tuple[StoredItem, ...]:
        """Add items at the end; as they are kept. Raises `InvalidRequest`, `NotFound` for one that is referred to."""
        await self._store.get(tenant, _named(conversation_id))
        items = await self._read(tenant, given, ())
        await self._store.append(tenant, conversation_id, items)
        return items

    async def items(
        self, tenant: str, conversation_id: str, *, limit: int, order: Order, after: str | None
    ) -> ItemPage:
        """A page of the items. Raises `InvalidRequest(param="after")`."""
        return await self._store.items(tenant, _named(conversation_id), limit=limit, order=order, after=after)

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> StoredItem:
        """One item. Raises `NotFound`."""
        return await self._store.item(tenant, _named(conversation_id), item_id)

    async def drop_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        """Take an item out. Raises `NotFound`."""
        return await self._store.drop_item(tenant, _named(conversation_id), item_id)

    async def _read(self, tenant: str, given: Sequence[Raw], context: Sequence[str]) -> tuple[StoredItem, ...]:
        def unseal(token: str) -> Sealed | None:
            return unpack(self._sealer.open(tenant, token))

        await self._sealer.ready(tenant)
        items = conversation_items(given, self._ids, unseal)
        wanted = references(items)
        found: Mapping[str, StoredItem] = await self._finder.find_items(tenant, wanted) if wanted else {}
        return resolve(items, found, context)


def _named(conversation_id: str) -> str:
    # An id that cannot exist is not worth a query.
    if not (conversation_id.startswith("conv_") and is_well_formed(conversation_id)):
        raise NotFound(f"Conversation with id '{conversation_id}' not found.", code="conversation_not_found")
    return conversation_id
