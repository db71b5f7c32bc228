"""Further ports: what clients keep here beside responses. Tenant first, always.

A failed read or write raises `Unavailable`; nothing is half written. What belongs to another tenant is not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from app.turn.items import StoredItem

Order: TypeAlias = Literal["asc", "desc"]
_T = TypeVar("_T")


class Page(Struct, Generic[_T], frozen=True):
    """A page, in the order asked for."""

    data: tuple[_T, ...]
    has_more: bool


class ItemPage(Struct, frozen=True):
    """A page of items, in the order asked for."""

    items: tuple[StoredItem, ...]
    has_more: bool


# ── conversations ─────────────────────────────────────────────────────────────


class Conversation(Struct, frozen=True, kw_only=True):
    """A conversation without its items. It is forgotten at `expires_at`; none: never. Times are in seconds since the
    epoch."""

    id: str
    created_at: int
    metadata: dict[str, str]
    expires_at: int | None = None


class OpenConversation(Struct, frozen=True):
    """A conversation as somebody goes on with it: its items, oldest first, and the version they are. `expires_at` is
    when it is forgotten."""

    items: tuple[StoredItem, ...]
    version: int
    expires_at: int | None = None


class ConversationStore(Protocol):
    """Conversations. All methods but `create` and `listed` raise `NotFound(code="conversation_not_found")`.

    While a response is made in a conversation, what would change its items, or delete it, raises
    `InvalidRequest(code="conversation_locked")`. A response that is saved with a conversation's id is added to it by
    `HistoryStore.save`.
    """

    async def create(self, tenant: str, conversation: Conversation, items: Sequence[StoredItem]) -> None:
        """Begin a conversation with these items."""
        ...

    async def get(self, tenant: str, conversation_id: str) -> Conversation: ...

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[Conversation]:
        """Conversations by age. Raises `InvalidRequest(param="after")`."""
        ...

    async def update(self, tenant: str, conversation_id: str, metadata: dict[str, str]) -> Conversation:
        """Replace the metadata."""
        ...

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """Forget the conversation; the responses made in it stay, and what they build on."""
        ...

    async def context(self, tenant: str, conversation_id: str) -> OpenConversation:
        """All items."""
        ...

    async def append(self, tenant: str, conversation_id: str, items: Sequence[StoredItem]) -> None:
        """Add items at the end."""
        ...

    async def items(
        self, tenant: str, conversation_id: str, *, limit: int, order: Order, after: str | None
    ) -> ItemPage:
        """A page of the items. Raises `InvalidRequest(param="after")`."""
        ...

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> StoredItem:
        """One item. Raises `NotFound` for it, too."""
        ...

    async def drop_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        """Take the item out; responses that were made with it keep it. Raises `NotFound` for it, too."""
        ...


# ── responses as a list ───────────────────────────────────────────────────────


class Filter(Struct, frozen=True, kw_only=True):
    """Which responses are asked for: those that agree with everything that is set."""

    model: str | None = None
    status: str | None = None
    conversation: str | None = None


class Listed(Struct, frozen=True):
    """A response in a list: `snapshot` is its JSON without `output`."""

    id: str
    snapshot: msgspec.Raw
    output: tuple[StoredItem, ...]


class ResponseIndex(Protocol):
    """The stored responses as a list."""

    async def listed(self, tenant: str, only: Filter, *, limit: int, order: Order, after: str | None) -> Page[Listed]:
        """Responses by age. Raises `InvalidRequest(param="after")`."""
        ...


# ── prompts ───────────────────────────────────────────────────────────────────


class PromptVersion(Struct, frozen=True, kw_only=True):
    """A version of a prompt. `body` is its JSON; times are in seconds since the epoch."""

    id: str
    version: int
    latest: int
    created_at: int
    version_created_at: int
    body: msgspec.Raw


class PromptStore(Protocol):
    """Prompts. All methods but `create` and `listed` raise `NotFound(code="prompt_not_found")`."""

    async def create(self, tenant: str, prompt_id: str, body: bytes, now: int) -> PromptVersion:
        """Store version 1 of a new prompt."""
        ...

    async def get(self, tenant: str, prompt_id: str, version: int | None = None) -> PromptVersion:
        """A version, the newest when it is not said which. Raises `NotFound(code="prompt_version_not_found")`, too."""
        ...

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[PromptVersion]:
        """The newest versions of all prompts, by the prompts' age. Raises `InvalidRequest(param="after")`."""
        ...

    async def add_version(self, tenant: str, prompt_id: str, body: bytes, now: int) -> PromptVersion:
        """Store the next version."""
        ...

    async def delete(self, tenant: str, prompt_id: str) -> None:
        """Forget the prompt with all its versions."""
        ...


# ── requests that may be repeated ─────────────────────────────────────────────


class HeldKey(Struct, frozen=True, kw_only=True):
    """A key, the digest of the request it came with, and the response it stands for.

    Until the response has `begun` the key is only held, in case whoever holds it is gone.
    """

    key: str
    digest: bytes
    response_id: str
    begun: bool
    created_at: int


class RequestKeys(Protocol):
    """The keys of requests that may be repeated."""

    async def hold(self, tenant: str, wanted: HeldKey, *, expires_at: int, stale_before: int) -> HeldKey:
        """Hold the key, unless it is held: what holds it now, which is `wanted` when nothing did.

        A key that has expired by `wanted.created_at`, or was held before `stale_before` and never begun, is free.
        """
        ...

    async def begun(self, tenant: str, key: str, response_id: str) -> None:
        """The response has begun: the key stands for it from now on."""
        ...

    async def release(self, tenant: str, key: str, response_id: str) -> None:
        """The response never began: the key is free."""
        ...

    async def sweep(self, now: int) -> None:
        """Forget keys that have expired."""
        ...


# ── what clients carry ────────────────────────────────────────────────────────


class TokenSealer(Protocol):
    """Turns content into tokens that clients carry, and back. The same content makes the same token."""

    async def ready(self, tenant: str) -> None:
        """Have at hand what the others need. Raises `Unavailable`."""
        ...

    def seal(self, tenant: str, plain: bytes) -> str:
        """A token that only this tenant's requests can bring back."""
        ...

    def open(self, tenant: str, token: str) -> bytes | None:
        """What was sealed; None for a token of another tenant, another server, or nobody at all."""
        ...
