"""Conversations in a dict: the twin of `conversations`, held to the same contract. Responses come in by `memory`."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from app.history.errors import check_item_ids, conversation_locked, no_conversation, no_item
from app.history.paging import page_of_items, slice_of
from app.responses.stores import Conversation, ItemPage, OpenConversation, Order, Page, StoredItem


class _Kept(Struct, frozen=True):
    conversation: Conversation
    items: tuple[StoredItem, ...]
    version: int = 0


class MemoryConversationStore:
    """`ConversationStore` that keeps everything in this process. It knows no runs, so nothing is ever locked."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}

    # ── for `memory` ──────────────────────────────────────────────────────────

    def open(self, tenant: str, conversation_id: str, version: int | None = None) -> OpenConversation:
        """The conversation, if it is that version."""
        found = self._find(tenant, conversation_id)
        if version is not None and version != found.version:
            raise conversation_locked()
        return OpenConversation(found.items, found.version, found.conversation.expires_at)

    def put(self, tenant: str, conversation_id: str, items: tuple[StoredItem, ...]) -> None:
        """These are the conversation's items now."""
        found = self._find(tenant, conversation_id)
        self._kept[tenant, conversation_id] = structs.replace(found, items=items, version=found.version + 1)

    # ── `ConversationStore` ───────────────────────────────────────────────────

    async def create(self, tenant: str, conversation: Conversation, items: Sequence[StoredItem]) -> None:
        """See `ConversationStore`."""
        check_item_ids(item.id for item in items)
        self._kept[tenant, conversation.id] = _Kept(conversation, tuple(items))

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        """See `ConversationStore`."""
        return self._find(tenant, conversation_id).conversation

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[Conversation]:
        """See `ConversationStore`."""
        mine = [kept.conversation for (owner, _), kept in self._kept.items() if owner == tenant]
        found, more = slice_of(mine, limit=limit, order=order, after=after)
        return Page(tuple(found), more)

    async def update(self, tenant: str, conversation_id: str, metadata: dict[str, str]) -> Conversation:
        """See `ConversationStore`."""
        found = self._find(tenant, conversation_id)
        changed = structs.replace(found.conversation, metadata=metadata)
        self._kept[tenant, conversation_id] = structs.replace(found, conversation=changed)
        return changed

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """See `ConversationStore`."""
        self._find(tenant, conversation_id)
        del self._kept[tenant, conversation_id]

    async def context(self, tenant: str, conversation_id: str) -> OpenConversation:
        """See `ConversationStore`."""
        return self.open(tenant, conversation_id)

    async def append(self, tenant: str, conversation_id: str, items: Sequence[StoredItem]) -> None:
        """See `ConversationStore`."""
        check_item_ids(item.id for item in items)
        self.put(tenant, conversation_id, (*self._find(tenant, conversation_id).items, *items))

    async def items(
        self, tenant: str, conversation_id: str, *, limit: int, order: Order, after: str | None
    ) -> ItemPage:
        """See `ConversationStore`."""
        return page_of_items(self._find(tenant, conversation_id).items, limit=limit, order=order, after=after)

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> StoredItem:
        """See `ConversationStore`."""
        found = [item for item in self._find(tenant, conversation_id).items if item.id == item_id]
        if not found:
            raise no_item(item_id)
        return found[-1]

    async def drop_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        """See `ConversationStore`."""
        await self.item(tenant, conversation_id, item_id)
        found = self._find(tenant, conversation_id)
        self.put(tenant, conversation_id, tuple(item for item in found.items if item.id != item_id))
        return found.conversation

    def _find(self, tenant: str, conversation_id: str) -> _Kept:
        kept = self._kept.get((tenant, conversation_id))
        if kept is None:
            raise no_conversation(conversation_id)
        return kept
