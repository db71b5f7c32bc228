"""Ports: what the heart needs from the rooms around it. They belong to the one who needs them.

Every method that touches stored or shared state takes the tenant first. Adapters raise `GatewayError`s only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from app.turn.events import CallTool, ToolsListed, TurnEvent
from app.turn.ids import IdSource
from app.turn.items import StoredItem, Terms, ToolKind, ToolListing, ToolResult
from app.turn.request import McpServer, TurnRequest

# ── models ────────────────────────────────────────────────────────────────────


class ModelBackend(Protocol):
    """One engine or provider that can run a model turn."""

    def stream(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """Run the turn. Yields at least the last event, `TurnDone` or `TurnFailed`; it does not raise for what the
        world does wrong. Closing the iterator early aborts the turn at the engine."""
        ...


class RouteKey(Struct, frozen=True, kw_only=True):
    """What a placement may depend on."""

    tenant: str
    model: str
    conversation: str | None = None
    affinity: str | None = None
    target: str | None = None


class ModelInfo(Struct, frozen=True):
    """A model some worker serves. `created` is in seconds since the epoch."""

    id: str
    created: int
    owned_by: str


class Fleet(Protocol):
    """The workers."""

    def lease(self, key: RouteKey, request: TurnRequest) -> AbstractAsyncContextManager[ModelBackend]:
        """Hold a worker for one turn. Raises `NotFound(code="model_not_found")` or `NoWorker`."""
        ...

    def models(self, tenant: str) -> Sequence[ModelInfo]:
        """The models that can be asked for now, by id."""
        ...

    def ensure_model(self, tenant: str, model: str) -> None:
        """Raise `NotFound(code="model_not_found", param="model")` when nobody serves `model`, `NoWorker` when no
        worker is known at all."""
        ...


# ── tools ─────────────────────────────────────────────────────────────────────


class ToolSession(Protocol):
    """The MCP servers of one run. Names the server knows (`tool`), not those the model sees."""

    async def list_tools(self, server_label: str) -> ToolsListed:
        """The server's allowed tools, in its order, or the reason there are none. Does not raise for the server."""
        ...

    def recall(self, listing: ToolListing) -> ToolListing:
        """A listing that the context already holds, as it may be used now: without what is forbidden, and with
        `approval` and `terms` set. What it says of a tool is not believed where the server's own word is known."""
        ...

    async def call(self, call: CallTool) -> ToolResult:
        """Execute the call. Does not raise for the server. Cancelling the awaiting task cancels the call there."""
        ...


class ToolExecutor(Protocol):
    """Where sessions with MCP servers come from."""

    def open(
        self, tenant: str, servers: Sequence[McpServer], conversation: str | None, principal: str = ""
    ) -> AbstractAsyncContextManager[ToolSession]:
        """The tools of one run of `principal`. Raises `InvalidRequest` for a label without a server."""
        ...

    def plays(self, role: ToolKind) -> bool:
        """Whether the operator has a server that plays this hosted tool."""
        ...


class Approval(Struct, frozen=True, kw_only=True):
    """One call that waits for a person's word, exactly as it would be made.

    `principal` asked for the response `response_id`. `tool` is the server's own name. Times are in seconds since the
    epoch. `approved` is the word once given.
    """

    id: str
    principal: str
    response_id: str
    server_label: str
    tool: str
    arguments: str
    terms: Terms
    created_at: float
    expires_at: float
    approved: bool | None = None


class Approvals(Protocol):
    """The calls that wait. Each is answered once, whatever restarts in between."""

    async def open(self, tenant: str, approvals: Sequence[Approval]) -> None:
        """Remember calls that wait. All of them or none; raises `Unavailable`."""
        ...

    async def consume(self, tenant: str, approval_id: str, principal: str, *, approve: bool) -> Approval:
        """Use the approval up: nobody gets it a second time. `approved` of what is returned is what holds: `approve`,
        unless somebody whose word counts more has refused.

        Raises `NotFound` (also for another principal's), and `Conflict` with code `approval_already_used`,
        `approval_expired`, or `approval_pending` while another person has to agree first; that does not use it up.
        """
        ...


# ── history ───────────────────────────────────────────────────────────────────


class StoredResponse(Struct, frozen=True, kw_only=True):
    """A finished response. `snapshot` is its JSON without `output`, which is kept as items."""

    id: str
    previous_id: str | None
    conversation_id: str | None = None
    created_at: int
    status: str
    model: str
    snapshot: msgspec.Raw
    input: tuple[StoredItem, ...]
    output: tuple[StoredItem, ...]


class ItemPage(Struct, frozen=True):
    """A page of items, in the order asked for."""

    items: tuple[StoredItem, ...]
    has_more: bool


class HistoryStore(Protocol):
    """What is remembered. A failed read or write raises `Unavailable`; nothing is half written."""

    async def find_items(self, tenant: str, item_ids: Sequence[str]) -> Mapping[str, StoredItem]:
        """Those of the items that are there, by their ids; of several with one id the newest."""
        ...

    async def context(self, tenant: str, response_id: str) -> Sequence[StoredItem]:
        """All items up to and including the response's output, oldest first.

        Raises `NotFound` when the response, or anything it builds on, is not there.
        """
        ...

    async def save(self, tenant: str, response: StoredResponse) -> None:
        """Store a finished response with its items in one transaction. Raises `Conflict` when the id is taken."""
        ...

    async def get(self, tenant: str, response_id: str) -> StoredResponse:
        """Raises `NotFound`."""
        ...

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget the response; what later responses build on stays loadable for them. Raises `NotFound`."""
        ...

    async def input_items(
        self,
        tenant: str,
        response_id: str,
        *,
        limit: int,
        order: Literal["asc", "desc"],
        after: str | None,
    ) -> ItemPage:
        """The items that were given to the response: its whole context and its own input, without its output.

        Raises `NotFound` for the response, `InvalidRequest(param="after")` when `after` is not one of the items.
        """
        ...


# ── secrets ───────────────────────────────────────────────────────────────────


class TokenSealer(Protocol):
    """Turns content into tokens that clients carry, and back. What it needs is at hand: it does not wait."""

    def seal(self, tenant: str, plain: bytes) -> str:
        """A token that only this tenant's requests can bring back."""
        ...

    def open(self, tenant: str, token: str) -> bytes | None:
        """What was sealed; None for a token of another tenant, another server, or nobody at all."""
        ...


# ── the world ─────────────────────────────────────────────────────────────────


class Clock(Protocol):
    """The time. Tests turn it by hand."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class Ports(Struct, frozen=True, kw_only=True):
    """Everything the heart needs from outside, built once in `boot`."""

    fleet: Fleet
    tools: ToolExecutor
    approvals: Approvals
    history: HistoryStore
    sealer: TokenSealer
    clock: Clock
    ids: IdSource
