"""History in a dict: the twin of `store`, held to the same contract. It forgets when the process ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from app.history.errors import check_item_ids, id_taken, not_found
from app.history.memory_conversations import MemoryConversationStore
from app.history.paging import page_of_items
from app.responses.ports import ItemPage, StoredItem, StoredResponse


class _Kept(Struct, frozen=True):
    given: tuple[StoredItem, ...]
    response: StoredResponse


class MemoryHistoryStore:
    """`HistoryStore` that keeps everything in this process; its items are shared, its contexts are whole tuples."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}
        self.conversations = MemoryConversationStore()
        self._deleted: set[tuple[str, str]] = set()

    async def context(self, tenant: str, response_id: str) -> Sequence[StoredItem]:
        """All items up to and including the response's output, oldest first. Raises `NotFound`."""
        return self._context(tenant, response_id)

    async def save(self, tenant: str, response: StoredResponse) -> None:
        """Keep a response. Raises `Conflict`, `NotFound`, `InvalidRequest(param="input")`."""
        check_item_ids(item.id for item in (*response.input, *response.output))
        before = self._before(tenant, response)
        if (tenant, response.id) in self._kept:
            raise id_taken(response.id)
        self._kept[tenant, response.id] = _Kept((*before, *response.input), response)
        if response.conversation_id is not None and response.joins:
            own = (*response.input, *response.output)
            self.conversations.put(tenant, response.conversation_id, (*before, *own))

    async def get(self, tenant: str, response_id: str) -> StoredResponse:
        """Raises `NotFound`."""
        return self._find(tenant, response_id).response

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget the response. Raises `NotFound`."""
        self._find(tenant, response_id)
        del self._kept[tenant, response_id]
        self._deleted.add((tenant, response_id))

    def was_deleted(self, tenant: str, response_id: str) -> bool:
        """Whether it was stored once and is not any more."""
        return (tenant, response_id) in self._deleted

    async def find_items(self, tenant: str, item_ids: Sequence[str]) -> Mapping[str, StoredItem]:
        """Those of the items that are there, by their ids."""
        mine = (kept.response for (owner, _), kept in self._kept.items() if owner == tenant)
        every = {item.id: item for response in mine for item in (*response.input, *response.output)}
        return {item_id: every[item_id] for item_id in item_ids if item_id in every}

    async def input_items(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage:
        """A page of what was given to the response. Raises `NotFound`, `InvalidRequest(param="after")`."""
        return page_of_items(self._find(tenant, response_id).given, limit=limit, order=order, after=after)

    def _before(self, tenant: str, response: StoredResponse) -> tuple[StoredItem, ...]:
        if response.conversation_id is not None:
            version = response.conversation_version if response.joins else None
            return self.conversations.open(tenant, response.conversation_id, version).items
        return () if response.previous_id is None else self._context(tenant, response.previous_id)

    def _context(self, tenant: str, response_id: str) -> tuple[StoredItem, ...]:
        kept = self._find(tenant, response_id)
        return (*kept.given, *kept.response.output)

    def _find(self, tenant: str, response_id: str) -> _Kept:
        kept = self._kept.get((tenant, response_id))
        if kept is None:
            raise not_found(response_id)
        return kept
